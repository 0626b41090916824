"""Training loss against iterations: Fig. 3 of the paper."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from analysis.results import TrainingCurvesResult
from figures.style import CYCLE, PAGE, new_figure, style
from figures.table import TextTable


def plot_training_curves(result: TrainingCurvesResult) -> Figure:
    """Left the training loss of each run (moving average, log scale), right its test accuracy after each epoch."""
    with style():
        figure = new_figure(PAGE, 2.4)
        losses, accuracies = figure.subplots(1, 2)
        for run, name in enumerate(result.names):
            colour, line, marker = CYCLE[run % len(CYCLE)]
            points, epochs = result.curve_run == run, result.epoch_run == run
            losses.plot(
                result.iteration[points], result.loss[points], line, color=colour, label=str(name), linewidth=0.9
            )
            accuracies.plot(
                result.epoch_iteration[epochs], 100 * result.test_accuracy[epochs], line, marker=marker, color=colour
            )
        losses.set_yscale("log")
        losses.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        losses.yaxis.set_major_formatter("{x:.2g}")
        losses.yaxis.set_minor_formatter(NullFormatter())
        losses.set_ylabel(f"training loss (nats), mean of {result.window}")
        accuracies.set_ylabel("test accuracy (%)")
        for axes in (losses, accuracies):
            axes.set_xlabel("iterations")
            axes.set_xlim(0, 1.02 * int(np.max(result.iteration)))
        figure.legend(loc="outside upper center", ncols=3)
    return figure


def tabulate_training_curves(result: TrainingCurvesResult) -> TextTable:
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
