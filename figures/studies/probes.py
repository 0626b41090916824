"""What the figures and tables of the probes share."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from analysis.results import ProbeAccuracy, ProbeResult
from figures.chart import Chart, Curve, Key, Panel, Rule
from figures.style import COLUMN, GREY, LINES, Look, literal, look
from figures.text_table import percent

OWN = "the network itself"


def chart_probes(result: ProbeResult, above: Panel, below: Panel) -> Chart:
    """Two panels, as wide as a column of a paper; of several networks wider, with a legend of their own, a colour for
    each and a line for each probe."""
    many = len(result.networks) > 1
    more = 0.15 * len(result.further)  # for the legend
    size: dict[str, Any] = {"width": 1.5 * COLUMN if many else COLUMN, "height": (3.8 if many else 3.4) + more}
    return Chart(panels=[above, below], stacked=True, keys=_keys(result) if many else (), **size)


def accuracies(result: ProbeResult, x: ndarray, **options: Any) -> Panel:
    """Accuracy of the SVM (solid), of 1-NN (dashed) and of the further probes against x in percent, with their 95%
    intervals, and that of the network itself (dotted). Each network or, of a single one, each probe has a colour."""
    many = len(result.networks) > 1
    curves, rules = [], list(options.pop("rules", ()))
    for number, rows in rows_by_network(result):
        of = f"{literal(result.networks[number])}, " if many else ""
        for place, probe in enumerate(_known(result)):
            low, high = 100 * probe.interval[rows].T
            y = 100 * probe.accuracy[rows]
            drawn = look(number if many else place, line=LINES[place % len(LINES)])
            curves.append(Curve(name=f"{of}{probe.name}", x=x[rows], y=y, low=low, high=high, look=drawn))
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


def _known(result: ProbeResult) -> list[ProbeAccuracy]:
    """The probes whose accuracy is known."""
    return [probe for probe in result.accuracies if not np.isnan(probe.accuracy).all()]


def _keys(result: ProbeResult) -> list[Key]:
    lines = {probe.name: LINES[place % len(LINES)] for place, probe in enumerate(_known(result))}
    if not np.isnan(result.network_accuracy).all():
        lines[OWN] = ":"
    return [
        *(Key(name=literal(name), look=look(number, line="none")) for number, name in enumerate(result.networks)),
        *(Key(name=name, look=Look(GREY, line, "")) for name, line in lines.items()),
    ]


def rows_by_network(result: ProbeResult) -> Iterator[tuple[int, ndarray]]:
    """The number of each network, and its rows."""
    return ((number, np.flatnonzero(result.network == number)) for number in range(len(result.networks)))


def accuracy_headings(result: ProbeResult) -> list[str]:
    """What `accuracy_cells` are of."""
    costs = ["C (SVM)", "C (logistic)"] if result.has_logistic else ["C"]
    return [*(f"{probe.name} (95% interval)" for probe in result.accuracies), *costs]


def accuracy_cells(result: ProbeResult, row: int) -> list[str]:
    """The accuracy of each probe with its interval, and the SVM's C, and that of the logistic regression."""
    costs = [result.svm_cost[row], *([result.logistic_cost[row]] if result.has_logistic else [])]
    return [
        *(
            UNKNOWN if np.isnan(probe.accuracy[row]) else percent(probe.accuracy[row], probe.interval[row])
            for probe in result.accuracies
        ),
        *(UNKNOWN if np.isnan(cost) else f"{cost:.2g}" for cost in costs),
    ]


UNKNOWN = "unknown"


def network_notes(result: ProbeResult, row_names: Sequence[str]) -> list[str]:
    """The networks' own accuracies, how few images probes were fitted to, and the rows whose C was chosen at an end of
    its grid, or not at all."""
    notes = []
    for number, name in enumerate(result.networks):
        own, restricted = result.network_accuracy[number], result.restricted_accuracy[number]
        if not np.isnan(own):
            among = percent(restricted, result.restricted_interval[number])
            among = "" if own == restricted else f"; among the classes studied alone {among}"
            notes.append(f"{name} itself: {percent(own, result.network_interval[number])}{among}")
        else:
            notes.append(f"{name} itself: unknown, as no outputs of it are known to be these classes")
    if result.shots:
        images = "1 training image" if result.shots == 1 else f"{result.shots} training images"
        notes.append(
            f"probes fitted to {images} of each class: means of {result.draws} draws, with intervals for the draw and "
            "the test images, and medians of C"
        )
    if np.isnan(result.svm_accuracy).any():
        notes.append("unknown: a class has one training image, which leaves none to choose C by; give one by --C")
    for probe, at_edge in (("", result.at_edge), (" of the logistic regression", result.logistic_at_edge)):
        if at_edge.any():
            grid = result.cost_grid
            where = ", ".join(row_names[row] for row in np.flatnonzero(at_edge).tolist())
            notes.append(
                f"C{probe} was chosen at the edge of its grid ({grid[0]:g} to {grid[-1]:g}) at {where}: "
                "a wider grid may do better there"
            )
    return notes
