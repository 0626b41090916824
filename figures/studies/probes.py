"""What the figures and tables of the probes share."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from analysis.results import ProbeResult
from figures.chart import Chart, Curve, Key, Panel, Rule
from figures.style import COLUMN, GREY, Look, literal, look
from figures.text_table import percent

OWN = "the network itself"


def chart_probes(result: ProbeResult, above: Panel, below: Panel) -> Chart:
    """Two panels, as wide as a column of a paper; of several networks wider, with a legend of their own, a colour for
    each and a line for each probe."""
    many = len(result.networks) > 1
    size: dict[str, Any] = {"width": 1.5 * COLUMN if many else COLUMN, "height": 3.8 if many else 3.4}
    return Chart(panels=[above, below], stacked=True, keys=_keys(result) if many else (), **size)


def accuracies(result: ProbeResult, x: ndarray, **options: Any) -> Panel:
    """Accuracy of the SVM (solid) and of 1-NN (dashed) against x in percent, with their 95% intervals, and that of the
    network itself (dotted). Each network or, of a single one, each probe has a colour."""
    many = len(result.networks) > 1
    curves, rules = [], list(options.pop("rules", ()))
    for number, rows in rows_by_network(result):
        of = f"{literal(result.networks[number])}, " if many else ""
        for probe, name, line in (("svm", "linear SVM", "-"), ("nn", "1-NN", "--")):
            low, high = 100 * getattr(result, f"{probe}_interval")[rows].T
            y = 100 * getattr(result, f"{probe}_accuracy")[rows]
            drawn = look(number if many else int(probe == "nn"), line=line)
            curves.append(Curve(name=f"{of}{name}", x=x[rows], y=y, low=low, high=high, look=drawn))
        if not np.isnan(result.network_accuracy[number]):
            colour = look(number).colour if many else GREY
            own = 100 * float(result.network_accuracy[number])
            rules.insert(0, Rule(y=own, name=f"{of}{OWN}", look=Look(colour, ":", "")))
    return Panel(y_label="test accuracy (%)", curves=curves, rules=rules, height=2.2, **options)


def by_network(result: ProbeResult, x: ndarray, y: ndarray, **options: Any) -> Panel:
    """A curve for each network."""
    curves = [
        Curve(name=literal(result.networks[number]), x=x[rows], y=y[rows], look=look(number, line="-"))
        for number, rows in rows_by_network(result)
    ]
    return Panel(curves=curves, **options)


def _keys(result: ProbeResult) -> list[Key]:
    lines = {"linear SVM": "-", "1-NN": "--"}
    if not np.isnan(result.network_accuracy).all():
        lines[OWN] = ":"
    return [
        *(Key(name=literal(name), look=look(number, line="none")) for number, name in enumerate(result.networks)),
        *(Key(name=name, look=Look(GREY, line, "")) for name, line in lines.items()),
    ]


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


def network_notes(result: ProbeResult, row_names: Sequence[str]) -> list[str]:
    """The networks' own accuracies, and the rows whose C was chosen at an end of its grid."""
    notes = []
    for number, name in enumerate(result.networks):
        own, restricted = result.network_accuracy[number], result.restricted_accuracy[number]
        if not np.isnan(own):
            among = percent(restricted, result.restricted_interval[number])
            among = "" if own == restricted else f"; among the classes studied alone {among}"
            notes.append(f"{name} itself: {percent(own, result.network_interval[number])}{among}")
        else:
            notes.append(f"{name} itself: unknown, as no outputs of it are known to be these classes")
    if result.at_edge.any():
        grid = result.cost_grid
        where = ", ".join(row_names[row] for row in np.flatnonzero(result.at_edge).tolist())
        notes.append(
            f"C was chosen at the edge of its grid ({grid[0]:g} to {grid[-1]:g}) at {where}: "
            "a wider grid may do better there"
        )
    return notes
