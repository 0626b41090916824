"""Accuracy against depth: Fig. 6 of the paper."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.results import DepthProbeResult
from figures.style import BLUE, COLUMN, GREY, ORANGE, new_figure, style


def plot_depth_probe(result: DepthProbeResult) -> Figure:
    """Linear SVM and 1-NN accuracy at each block j, with 95% intervals, and the network's own accuracy as a line.

    Grey lines separate the stages; above each stands the number of channels, the dimension that the probes see.
    """
    with style():
        figure = new_figure(COLUMN, 2.4)
        axes = figure.add_subplot()
        probes = [
            ("linear SVM", result.svm_accuracy, result.svm_interval, BLUE, "o-"),
            ("1-nearest neighbour", result.nn_accuracy, result.nn_interval, ORANGE, "s--"),
        ]
        for label, accuracy, interval, colour, line in probes:
            axes.plot(result.depths, 100 * accuracy, line, color=colour, label=label)
            axes.fill_between(result.depths, *(100 * interval.T), color=colour, alpha=0.15, linewidth=0)
        if not np.isnan(result.network_accuracy):
            axes.axhline(100 * float(result.network_accuracy), color=GREY, linestyle=":", label="the network itself")
        for start in np.flatnonzero(np.diff(result.channels, prepend=0)):
            if start > 0:
                edge = (result.depths[start - 1] + result.depths[start]) / 2
                axes.axvline(edge, color=GREY, linewidth=0.5, alpha=0.6, zorder=0)
            axes.annotate(
                f"{result.channels[start]} channels" if start == 0 else f"{result.channels[start]}",
                (result.depths[start], 1.01),
                xycoords=("data", "axes fraction"),
                color=GREY,
                fontsize=6,
            )
        axes.set_xlabel("depth $j$ (block)")
        axes.set_ylabel("test accuracy (%)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="lower right")
    return figure
