"""The directions around images that a network magnifies most and least, and the images moved along them."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy import ndarray

from analysis.results import SpectrumResult
from analysis.results.directions import ENDS, Directions
from figures.report.blocks import PHOTOGRAPH
from figures.style import PAGE, literal, new_figure, show_image, strip, style

MOST_SHOWN = 4
"""Directions shown of each end."""

MOST_IMAGES = 2
"""Images shown of each network."""

BRIGHTEST = 0.995
"""Share of a direction's numbers that are drawn true, where those beyond are as bright as the largest of them."""

CAPTION = (
    "The directions v of the input that the features magnify most and least, with their singular values (grey is no "
    "change), and the image x moved along them both ways, each time until the features have changed by the same "
    "distance; below, the root-mean-square change of pixel values that this takes."
)


def has_directions(result: SpectrumResult) -> bool:
    """Whether singular vectors were asked for."""
    return result.vector_values.size > 0


def draw_directions(result: SpectrumResult) -> Figure:
    """For a few images of each network, at the last of its layers with directions: a column for each direction, with
    the direction itself, and below it the image moved along it, both ways."""
    rows = _rows(result)
    shown = [(row, directions) for row in rows if (directions := result.directions(row))]
    columns = max(_num_columns(directions) for _, directions in shown)
    cell = (PAGE - 0.2) / (columns + 1.6)
    with style():
        figure = new_figure(PAGE, len(shown) * (3 * (cell + 0.13) + 0.4))
        figure.set_layout_engine("constrained", h_pad=0.01, w_pad=0.02)
        for (row, directions), part in zip(shown, figure.subfigures(len(shown), 1, squeeze=False)[:, 0]):
            name = literal(result.images[result.image[row]])
            where = f"{literal(result.networks[result.network[row]])}, {literal(result.layer[row])}: {name}"
            part.suptitle(where, x=0.01, ha="left", fontsize=8)
            _draw(part, directions)
    return figure


def _rows(result: SpectrumResult) -> list[int]:
    last = {}
    for rows in result.groups():
        known = [row for row in rows.tolist() if result.directions(row)]
        if known:
            last[int(result.network[rows[0]])] = known[:MOST_IMAGES]
    return [row for rows in last.values() for row in rows]


def _num_columns(directions: Directions) -> int:
    return len(directions.known_ends) * min(MOST_SHOWN, directions.vector_values.shape[1])


def _draw(figure: SubFigure, directions: Directions) -> None:
    count, ends = min(MOST_SHOWN, directions.vector_values.shape[1]), len(directions.known_ends)
    widths = [1.0, *([0.25, *[1.0] * count] * ends)]
    grid = figure.subplots(3, len(widths), squeeze=False, width_ratios=widths)
    for axes in grid.flat:
        strip(axes)
    _show(grid[0, 0], directions.pixels)
    grid[0, 0].set_xlabel("$x$", fontsize=6, labelpad=2)
    for row, label in ((1, "$x + t\\,v$"), (2, "$x - t\\,v$")):
        grid[row, 0].text(0.98, 0.5, label, ha="right", va="center", fontsize=7, transform=grid[row, 0].transAxes)
    for end in range(ends):
        for vector in range(count):
            column = grid[:, 2 + end * (count + 1) + vector]
            _show(column[0], _as_image(directions.in_pixels[end, vector]))
            value = directions.vector_values[end, vector]
            column[0].set_xlabel(f"$\\sigma_{{{_index(end, vector)}}}$ = {value:.3g}", fontsize=6, labelpad=2)
            for way, sign in enumerate((1, -1)):
                change = directions.pixel_changes[end, vector, way]
                if np.isfinite(change):
                    _show(column[1 + way], directions.moved(end, vector, sign))
                column[1 + way].set_xlabel(_number(change), fontsize=6, labelpad=2)
            if vector == 0:
                column[0].set_title(f"{ENDS[end]} magnified", loc="left", fontsize=7, pad=3)


def _as_image(direction: ndarray) -> ndarray:
    """A direction with grey for zero, scaled by nearly the largest of its numbers, or by that where most are zero."""
    sizes = np.abs(direction)
    return 0.5 + 0.5 * direction / (np.quantile(sizes, BRIGHTEST) or sizes.max() or 1.0)


def _index(end: int, vector: int) -> str:
    """The index of a singular value, as it is written."""
    if end == 0:
        return f"{vector + 1}"
    return "n" if vector == 0 else f"n-{vector}"


def _show(axes: Axes, pixels: ndarray) -> None:
    """Draws an image; of other numbers of channels than one and three, their mean."""
    show_image(axes, pixels if len(pixels) in (1, 3) else pixels.mean(axis=0, keepdims=True))
    if pixels.shape[2] < PHOTOGRAPH:  # a page shows the pixels as they are
        axes.images[0].set_interpolation("none")


def _number(change: float) -> str:
    return f"{change:.2g}" if np.isfinite(change) else "not reached"
