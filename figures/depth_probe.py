"""Accuracy and contraction against depth: Fig. 6 of the paper."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.results import DepthProbeResult
from figures.probes import (
    ACCURACY_HEADINGS,
    accuracy_cells,
    add_legend,
    draw_accuracies,
    network_notes,
    rows_by_network,
)
from figures.style import COLUMN, CYCLE, GREY, new_figure, style
from figures.table import TextTable


def plot_depth_probe(result: DepthProbeResult, *, relative: bool | None = None) -> Figure:
    """Linear SVM and 1-NN accuracy at each block, with 95% intervals, the networks' own accuracy as dotted lines, and
    below them how far apart images of one class are, beside those of different classes.

    Of a single network, grey lines separate the stages; above each stands the dimension that the probes see.

    Args:
        result: the accuracies.
        relative: draw against depth over the number of blocks; by default where networks differ in that number.
    """
    many = len(result.networks) > 1
    if relative is None:
        last = [result.depth[rows].max() / result.relative_depth[rows].max() for _, rows in rows_by_network(result)]
        relative = not np.allclose(last, last[0])
    x = result.relative_depth if relative else result.depth
    with style():
        figure = new_figure(1.5 * COLUMN if many else COLUMN, 3.8 if many else 3.4)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
        draw_accuracies(above, result, x)
        for number, rows in rows_by_network(result):
            colour, _, marker = CYCLE[number % len(CYCLE)]
            below.plot(x[rows], result.distance_ratio[rows], color=colour, marker=marker)
        if not many:
            _mark_stages(above, below, x, result.dims)
        below.set_xlabel("depth (block over number of blocks)" if relative else "depth $j$ (block)")
        below.set_ylabel("within / between\nclass distance")
        if not relative:
            below.xaxis.set_major_locator(MaxNLocator(integer=True))
        add_legend(figure, above, result)
    return figure


def _mark_stages(above, below, x: np.ndarray, dims: np.ndarray) -> None:
    for start in np.flatnonzero(np.diff(dims, prepend=0)):
        if start > 0:
            for axes in (above, below):
                axes.axvline((x[start - 1] + x[start]) / 2, color=GREY, linewidth=0.5, alpha=0.6, zorder=0)
        above.annotate(
            f"{dims[start]} channels" if start == 0 else f"{dims[start]}",
            (x[start], 1.01),
            xycoords=("data", "axes fraction"),
            color=GREY,
            fontsize=6,
        )


def tabulate_depth_probe(result: DepthProbeResult) -> TextTable:
    """A row a block."""
    many = len(result.networks) > 1
    named = any(layer != f"block-{depth}" for layer, depth in zip(result.layer, result.depth))
    rows, places = [], []
    for row, (number, layer, depth) in enumerate(zip(result.network, result.layer, result.depth)):
        network = [str(result.networks[number])] * many  # of one network its name says nothing
        place = [*network, *[str(layer)] * named]
        rows.append(
            (
                *place,
                f"{depth}",
                f"{result.dims[row]}",
                *accuracy_cells(result, row),
                f"{result.distance_ratio[row]:.3f}",
            )
        )
        places.append(" ".join([*network, str(layer)]))
    headings = (*["network"] * many, *["layer"] * named, "depth", "channels", *ACCURACY_HEADINGS, "within/between")
    return TextTable(headings, rows, network_notes(result, places))
