"""The headline numbers of a study against training steps."""

from typing import Any

import numpy as np

from analysis.results import OverTrainingResult
from figures.chart import GUIDE, Chart, Curve, Key, Panel, Rule
from figures.studies.geometry import HEADINGS as OF_GEOMETRY
from figures.study_figure import StudyFigure
from figures.style import Look, literal, look, some_of
from figures.text_table import TextTable

MOST_LAYERS = 4
"""Number of layers of a single network that are drawn: the first, the last and others between."""

PERCENT = ("svm_accuracy", "nn_accuracy", "nc4", "energy_150")
"""Measures that are shares, drawn in percent."""

LOGARITHMIC = ("nc1", "largest", "smallest", "condition")
"""Measures whose axis is logarithmic."""


def chart(result: OverTrainingResult) -> Chart:
    """A panel for each measure, against training steps, with bands for the intervals: a colour for each of up to
    `MOST_LAYERS` layers of a single network, or for each of several networks at its last layer."""
    shown = _shown(result)
    panels = [_panel(result, code, shown) for code in result.MEASURES]
    return Chart(
        panels=[panel for panel in panels if panel.curves] or panels[:1],
        keys=[Key(name=name, look=drawn) for _, _, name, drawn in shown],
        height=1.9 * -(-len(result.MEASURES) // 2),
    )


def _shown(result: OverTrainingResult) -> list[tuple[int, str, str, Look]]:
    """Networks and layers that are drawn, with their names and looks."""
    if len(result.networks) > 1:
        return [
            (number, result.layers(number)[-1], literal(name), look(number))
            for number, name in enumerate(result.networks)
        ]
    layers = result.layers(0)
    return [
        (0, layers[place], literal(layers[place]), drawn)
        for place, drawn in some_of(len(layers), MOST_LAYERS, marker="o")
    ]


def _panel(result: OverTrainingResult, code: str, shown: list[tuple[int, str, str, Look]]) -> Panel:
    scale = 100.0 if code in PERCENT else 1.0
    curves = []
    for number, layer, name, drawn in shown:
        rows = result.over_steps(number, layer, code)
        value, low, high = (scale * each[rows] for each in (result.value, result.low, result.high))
        if np.isnan(value).all():
            continue
        if code in LOGARITHMIC:
            low = np.maximum(low, value / 10)  # which a logarithmic axis can show
        curves.append(Curve(name=name, x=result.step[rows], y=value, low=low, high=high, look=drawn))
    axis: dict[str, Any] = {"log_y": True} if code in LOGARITHMIC else {"low_y": None if code == "alpha" else 0.0}
    return Panel(
        x_label="training step",
        y_label=_short(result.MEASURES[code]) + (" (%)" if code in PERCENT else ""),
        curves=curves,
        rules=[Rule(y=1.0, look=GUIDE)] if code == "alpha" else [],
        whole_x=True,
        **axis,
    )


def _short(name: str) -> str:
    """A measure's name in two lines where it is long, for an axis."""
    if len(name) <= 24:
        return name
    middle = min((at for at, letter in enumerate(name) if letter == " "), key=lambda at: abs(at - len(name) // 2))
    return f"{name[:middle]}\n{name[middle + 1 :]}"


def table(result: OverTrainingResult) -> TextTable:
    """A row for each step of each network: its measures at the last layer."""
    many = len(result.networks) > 1
    content = result.summary()
    known = [code for code in result.MEASURES if not np.isnan(result.value[result.measure == code]).all()]
    rows = [
        (*[network["name"]] * many, f"{found['step']:,}", *(_cell(found, code) for code in known))
        for network in content["networks"]
        for found in network["steps"]
    ]
    headings = (*["network"] * many, "step", *(HEADINGS.get(code, code) for code in known))
    layers = ", ".join(dict.fromkeys(network["layer"] for network in content["networks"]))
    return TextTable(headings, rows, [f"at {layers}; in brackets {result.INTERVALS}"])


HEADINGS = {
    **OF_GEOMETRY,
    "svm_accuracy": "linear SVM",
    "nn_accuracy": "1-NN",
    "distance_ratio": "within/between",
    "energy_150": "E(n/150)",
}


def _cell(found: dict[str, Any], code: str) -> str:
    value, low, high = (found.get(f"{code}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "unknown"
    shown = "{:.1%}".format if code in PERCENT else "{:.3g}".format
    return shown(value) if low is None or high is None else f"{shown(value)} ({shown(low)} to {shown(high)})"


FIGURE = StudyFigure(
    table=table,
    chart=chart,
    caption="Measures against training steps, of one network at up to four layers, of several at the last. Bands are "
    "95% intervals over the images or, of singular values, the 10% and 90% quantiles over them.",
)
