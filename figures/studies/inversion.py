"""Originals beside their reconstructions, and what the inverse magnifies, at each depth (section 4.2)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure

from analysis.results import InversionResult
from figures.chart import GUIDE, Chart, Curve, Panel, Rule, draw_panels
from figures.report.blocks import Block, Download, Gallery, Pair, image_uri
from figures.study_figure import StudyFigure
from figures.style import PAGE, look, new_figure, show_image, strip, style
from figures.text_table import TextTable


def drawing(result: InversionResult) -> Figure:
    """The images that came back worst, their reconstructions, and their differences, magnified to be seen at all; below
    them the chart."""
    panels = chart(result)
    with style():
        pictures = 3 * (PAGE - 1) / len(result.originals) + 0.5
        figure = new_figure(PAGE, pictures + panels.height)
        heights = (pictures, panels.height)
        above, below = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
        _draw_pictures(above, result)
        draw_panels(below, panels)
    return figure


def chart(result: InversionResult) -> Chart:
    """The error from each depth in each arithmetic, and how much the inverse magnifies changes of the features."""
    return Chart(panels=[_errors(result), _amplification(result)], height=2.4)


def _draw_pictures(figure: SubFigure, result: InversionResult) -> None:
    difference = np.abs(result.originals - result.reconstructions).max(axis=1)
    largest = float(np.nanmax(difference))
    shown = len(result.originals)
    rows = ("original", "reconstruction", f"difference\n(white: {_power_of_ten(largest)})", "relative error")
    grid = figure.subplots(4, shown, squeeze=False, height_ratios=(1, 1, 1, 0.2))
    for column in range(shown):
        show_image(grid[0, column], result.originals[column])
        show_image(grid[1, column], result.reconstructions[column])
        grid[2, column].imshow(difference[column], cmap="gray", vmin=0, vmax=largest or 1.0)
        error = _power_of_ten(float(result.shown_errors[column]))
        grid[3, column].text(0.5, 0.5, error, ha="center", va="center", fontsize=6)
    for row, label in enumerate(rows):
        grid[row, 0].set_ylabel(label, rotation=0, ha="right", va="center")
    grid[0, 0].set_title(" ")  # room above; a title as wide as these would push columns apart
    for column, title in ((0, "the worst test images"), (int(result.num_image_shown), "the worst of uniform noise")):
        grid[0, column].text(0, 1.08, title, transform=grid[0, column].transAxes).set_in_layout(False)
    for axes in grid[2:].flat:
        strip(axes)


_AXIS: dict[str, Any] = {"x_label": "depth $j$ inverted from (block)", "whole_x": True, "log_y": True}


def _errors(result: InversionResult) -> Panel:
    curves = []
    for row, name in enumerate(result.arithmetics.tolist()):
        errors = result.mean_depth_errors[row]
        if errors.any():
            errors = np.where(np.isfinite(errors), errors, np.nan)
            curves.append(Curve(name=name, x=result.depths, y=errors, look=look(row)))
        else:  # which a logarithm cannot show
            nothing = look(row, line="none", marker="")
            curves.append(Curve(name=f"{name}: 0 at every depth", x=np.empty(0), y=np.empty(0), look=nothing))
    return Panel(y_label="mean relative error", curves=curves, **_AXIS)


def _amplification(result: InversionResult) -> Panel:
    kinds = {
        "the most magnified direction": result.amplifications["largest"],
        "random directions": result.amplifications["random"],
    }
    curves = [
        Curve(
            name=name,
            x=result.depths,
            y=np.median(values, axis=1),
            low=values.min(axis=1),
            high=values.max(axis=1),
            look=look(number),
        )
        for number, (name, values) in enumerate(kinds.items())
        if values.size
    ]
    label = "relative change of the image over\nrelative change of its features"
    return Panel(y_label=label, curves=curves, rules=[Rule(y=1.0, look=GUIDE)], **_AXIS)


def _power_of_ten(value: float) -> str:
    if np.isnan(value):
        return "undefined"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"${mantissa}\\times10^{{{int(exponent)}}}$"


def table(result: InversionResult) -> TextTable:
    """A row for the test images, and one for the noise; then what is found at the last of the depths."""
    summary = result.summary()
    keys = ("mean", "median", "q99", "max")
    rows = [
        (name, f"{errors['count']}", *(_scientific(errors[key]) if errors["count"] else "-" for key in keys))
        for name, errors in (("test images", summary["images"]), ("uniform noise", summary["noise"]))
    ]
    deepest = summary["by_depth"][-1]
    sample = np.count_nonzero(~np.isnan(result.depth_errors[0, 0]))
    errors = ", ".join(f"{name} {_scientific(error)}" for name, error in deepest["mean_error"].items())
    notes = [f"in {summary['arithmetic']}, from block {summary['depth']}"]
    if sample > 0:
        notes.append(f"mean over {sample} test images, from block {deepest['depth']}: {errors}")
    if deepest["amplification_random"] is not None:
        notes.append(
            f"a change of the features comes back {deepest['amplification_random']:.3g} times as large, relatively, in "
            f"a random direction, and up to {deepest['amplification_largest']:.3g} times in the most magnified one "
            f"(medians of {result.amplifications['largest'].shape[1]} images)"
        )
    if undefined := summary["images"]["undefined"]:
        notes.append(f"of {undefined} more test images, which are zero throughout, a relative error is not defined")
    return TextTable(("relative error", "images", *keys[:2], "99%", "max"), rows, notes)


def _scientific(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2e}"


def page_blocks(result: InversionResult, downloads: Sequence[Download]) -> list[Block]:
    """The images that came back worst, beside their reconstructions."""
    num_images = int(result.num_image_shown)
    pairs = [
        Pair(
            title=f"test image {index}" if row < num_images else f"noise {index}",
            error="undefined" if np.isnan(result.shown_errors[row]) else f"{result.shown_errors[row]:.1e}",
            original=image_uri(result.originals[row]),
            reconstruction=image_uri(result.reconstructions[row]),
        )
        for row, index in enumerate(result.shown.tolist())
    ]
    caption = "The test images and the images of noise that came back worst, and what came back."
    return [Gallery(caption=caption, pairs=pairs)]


FIGURE = StudyFigure(
    table=table,
    chart=chart,
    drawing=drawing,
    caption="Mean error from each depth in each arithmetic, and how many times larger, relatively, a small change of "
    "the features comes back.",
    page_blocks=page_blocks,
)
