"""Training loss against iterations: Fig. 3 of the paper."""

from typing import Any

from analysis.results import TrainingCurvesResult
from figures.chart import Chart, Curve, Key, Panel
from figures.study_figure import StudyFigure
from figures.style import literal, look
from figures.text_table import TextTable


def chart(result: TrainingCurvesResult) -> Chart:
    """Left the training loss of each run (moving average, log scale), right its test accuracy after each epoch."""
    axis: dict[str, Any] = {"x_label": "iterations", "whole_x": True}
    losses, tested = [], []
    for run, name in enumerate(map(literal, result.names)):
        points, epochs = result.curve_run == run, result.epoch_run == run
        x, y = result.epoch_iteration[epochs], 100 * result.test_accuracy[epochs]
        losses.append(Curve(name=name, x=result.iteration[points], y=result.loss[points], look=look(run, marker="")))
        tested.append(Curve(name=name, x=x, y=y, look=look(run)))
    return Chart(
        panels=[
            Panel(y_label=f"training loss (nats), mean of {result.window}", curves=losses, log_y=True, **axis),
            Panel(y_label="test accuracy (%)", curves=tested, **axis),
        ],
        keys=[Key(name=name, look=look(run)) for run, name in enumerate(map(literal, result.names))],
        height=2.4,
    )


def table(result: TrainingCurvesResult) -> TextTable:
    """A row a run: its loss at each quarter, and its last test accuracy."""
    rows = [
        (
            run["name"],
            f"{run['iterations']:,}",
            *(f"{loss:.4f}" for loss in run["loss_at_quarters"]),
            "" if run["test_accuracy"] is None else f"{run['test_accuracy']:.2%}",
        )
        for run in result.summary()["runs"]
    ]
    headings = ("training loss of", "iterations", "at 25%", "at 50%", "at 75%", "at the end", "test accuracy")
    return TextTable(headings, rows)


FIGURE = StudyFigure(
    table=table,
    chart=chart,
    caption="Training loss, a moving average, and test accuracy after each epoch (Fig. 3).",
)
