"""Originals beside their reconstructions from the features (section 4.2)."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.results import InversionResult
from figures.style import PAGE, new_figure, style
from figures.table import TextTable


def plot_inversion(result: InversionResult) -> Figure:
    """Each image pictured, its reconstruction, and their difference, magnified to be seen at all."""
    difference = np.abs(result.originals - result.reconstructions).max(axis=1)
    largest = float(difference.max())
    shown = len(result.originals)
    rows = ("original", "reconstruction", f"difference\n(white: {_power_of_ten(largest)})", "relative error")
    with style():
        cell = (PAGE - 1) / shown
        figure = new_figure(PAGE, 3 * cell + 0.5)
        grid = figure.subplots(4, shown, squeeze=False, height_ratios=(1, 1, 1, 0.2))
        for column in range(shown):
            _show(grid[0, column], result.originals[column])
            _show(grid[1, column], result.reconstructions[column])
            grid[2, column].imshow(difference[column], cmap="gray", vmin=0, vmax=largest or 1.0)
            error = _power_of_ten(float(result.shown_errors[column]))
            grid[3, column].text(0.5, 0.5, error, ha="center", va="center", fontsize=6)
        for row, label in enumerate(rows):
            grid[row, 0].set_ylabel(label, rotation=0, ha="right", va="center")
        grid[0, 0].set_title("test images", loc="left")
        grid[0, int(result.num_image_shown)].set_title("uniform noise", loc="left")
        for axes in grid.flat:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
    return figure


def _show(axes: Axes, pixels: np.ndarray) -> None:
    image = np.clip(pixels.transpose(1, 2, 0), 0, 1)
    axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)


def _power_of_ten(value: float) -> str:
    if np.isnan(value):
        return "undefined"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"${mantissa}\\times10^{{{int(exponent)}}}$"


def tabulate_inversion(result: InversionResult) -> TextTable:
    """A row for the test images, and one for the noise."""
    summary = result.summary()
    rows = [
        (name, f"{errors['count']}", *(f"{errors[key]:.2e}" for key in ("mean", "median", "max")))
        for name, errors in (("test images", summary["images"]), ("uniform noise", summary["noise"]))
    ]
    return TextTable(("relative error", "images", "mean", "median", "max"), rows)
