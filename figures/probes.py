"""What the figures and tables of the probes share."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy import ndarray

from analysis.results import ProbeResult
from figures.style import CYCLE, GREY, shade
from figures.table import percent


def draw_accuracies(axes: Axes, result: ProbeResult, x: ndarray) -> None:
    """Accuracy of the SVM (solid) and of 1-NN (dashed) against x in percent, with their 95% intervals, and that of the
    network itself (dotted). Colours tell networks apart or, where there is but one, the probes."""
    many = len(result.networks) > 1
    for number, rows in rows_by_network(result):
        for probe, label, line in (("svm", "linear SVM", "-"), ("nn", "1-NN", "--")):
            look = number if many else (0 if probe == "svm" else 1)
            colour, _, marker = CYCLE[look % len(CYCLE)]
            accuracy, interval = getattr(result, f"{probe}_accuracy")[rows], getattr(result, f"{probe}_interval")[rows]
            axes.plot(x[rows], 100 * accuracy, line, color=colour, marker=marker, label=label)
            shade(axes, x[rows], 100 * interval[:, 0], 100 * interval[:, 1], colour)
        if not np.isnan(result.network_accuracy[number]):
            colour = CYCLE[number % len(CYCLE)][0] if many else GREY
            own = 100 * float(result.network_accuracy[number])
            axes.axhline(own, color=colour, linestyle=":", label="the network itself")
    axes.set_ylabel("test accuracy (%)")


def add_legend(figure: Figure, axes: Axes, result: ProbeResult) -> None:
    """Within the axes; of several networks above them, a colour for each and a line for each probe."""
    if len(result.networks) == 1:
        axes.legend(loc="lower right")
        return
    handles = [
        Line2D([], [], color=colour, marker=marker, label=str(name))
        for name, (colour, _, marker) in zip(result.networks, itertools.cycle(CYCLE))
    ]
    lines: dict[str, Any] = {"linear SVM": "-", "1-NN": "--"}
    if not np.isnan(result.network_accuracy).all():
        lines["the network itself"] = ":"
    handles += [Line2D([], [], color=GREY, linestyle=line, label=label) for label, line in lines.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)


def rows_by_network(result: ProbeResult) -> Iterator[tuple[int, ndarray]]:
    """The number of each network, and its rows."""
    return ((number, np.flatnonzero(result.network == number)) for number in range(len(result.networks)))


def accuracy_cells(result: ProbeResult, row: int) -> tuple[str, str, str]:
    """SVM and 1-NN accuracy with their intervals, and the SVM's C."""
    return (
        percent(result.svm_accuracy[row], result.svm_interval[row]),
        percent(result.nn_accuracy[row], result.nn_interval[row]),
        f"{result.svm_cost[row]:.2g}",
    )


ACCURACY_HEADINGS = ("linear SVM (95% interval)", "1-NN (95% interval)", "C")


def network_notes(result: ProbeResult, places: Sequence[str]) -> list[str]:
    """The networks' own accuracies, and where C was chosen at an end of its grid; `places` are what rows are called."""
    notes = []
    for number, name in enumerate(result.networks):
        own, restricted = result.network_accuracy[number], result.restricted_accuracy[number]
        if not np.isnan(own):
            among = percent(restricted, result.restricted_interval[number])
            among = "" if own == restricted else f"; among the classes studied alone {among}"
            notes.append(f"{name} itself: {percent(own, result.network_interval[number])}{among}")
    if result.at_edge.any():
        grid = result.cost_grid
        where = ", ".join(places[row] for row in np.flatnonzero(result.at_edge).tolist())
        notes.append(
            f"C was chosen at the edge of its grid ({grid[0]:g} to {grid[-1]:g}) at {where}: "
            "a wider grid may do better there"
        )
    return notes
