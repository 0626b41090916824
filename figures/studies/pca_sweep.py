"""Accuracy against the number of principal components: Fig. 7 of the paper."""

from typing import Any

from analysis.results import PCASweepResult, probe_name
from figures.chart import Chart, Rule
from figures.studies.probes import (
    accuracies,
    accuracy_cells,
    accuracy_headings,
    by_network,
    chart_probes,
    network_notes,
    rows_by_network,
)
from figures.study_figure import StudyFigure
from figures.style import look
from figures.text_table import TextTable, percent


def chart(result: PCASweepResult) -> Chart:
    """Accuracy of the probes on the first d principal components, with 95% intervals, and below them the share of the
    variance that these hold. A thin line marks the SVM's knee: from there on it is within one point."""
    knees = []
    for number in range(len(result.networks)):
        knee = result.knee(number, "svm")
        if knee is None:
            continue
        name = f"knee, $d = {knee}$" if len(result.networks) == 1 else ""
        knees.append(Rule(x=float(knee), look=look(number, line="-", marker=""), name=name))
    axis: dict[str, Any] = {"x_label": "principal components $d$", "log_x": True, "whole_x": True}
    held: dict[str, Any] = {"y_label": "variance\nheld (%)", "low_y": 0.0, "high_y": 103.0}
    return chart_probes(
        result,
        accuracies(result, result.dims, rules=knees, **axis),
        by_network(result, result.dims, 100 * result.explained, **held, **axis),
    )


def table(result: PCASweepResult) -> TextTable:
    """A row for each d of each network, and where accuracy begins to fall."""
    many = len(result.networks) > 1
    rows, names, notes = [], [], []
    for number, of_network in rows_by_network(result):
        name = str(result.networks[number])
        for row in of_network.tolist():
            explained = percent(float(result.explained[row]))
            rows.append((*[name] * many, f"{result.dims[row]}", explained, *accuracy_cells(result, row)))
            names.append(" ".join([*[name] * many, f"d = {result.dims[row]}"]))
        knees = {probe: result.knee(number, probe) for probe in ("svm", "nn")}
        ends = [f"{knee} on ({probe_name(probe)})" for probe, knee in knees.items() if knee is not None]
        notes.append(
            f"{name}, {result.layer[of_network[0]]}: within one point of all {result.dims[of_network[-1]]} components "
            f"from {', '.join(ends)}"
        )
    headings = (*["network"] * many, "components", "variance", *accuracy_headings(result))
    return TextTable(headings, rows, [*notes, *network_notes(result, names)])


FIGURE = StudyFigure(
    table=table,
    chart=chart,
    caption="Test accuracy of linear probes and nearest neighbours on the first d principal components, and the share "
    "of the variance that these hold (Fig. 7).",
)
