"""One look for every figure: colour-blind safe, legible in a two-column paper, fonts embedded."""

from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

COLUMN = 3.3
"""Width of one column of a paper, in inches."""

PAGE = 6.9
"""Width of a page of text, in inches."""

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6E6E6E"  # Okabe and Ito's palette, and a neutral

INK = "#000000"


def literal(name: object) -> str:
    """A name as a figure is to show it, though it may have the marks of a formula.

    >>> literal("a$b")
    'a\\\\$b'
    """
    return str(name).replace("$", r"\$")


class Look(NamedTuple):
    """Colour, line and marker of a curve, as matplotlib names them; `""` for no marker, `"none"` for no line."""

    colour: str
    line: str
    marker: str


LINES = ("-", "--", "-.", "-..", "__")
"""Lines that can be told apart, the last two by names of our own: a dash and two dots, and long dashes."""

_PATTERNS: dict[str, Any] = {"-..": (0, (4, 1.2, 1, 1.2, 1, 1.2)), "__": (0, (9, 2))}


def pattern(line: str) -> Any:
    """A line as matplotlib takes it."""
    return _PATTERNS.get(line, line)


_CYCLE = [
    Look(BLUE, "-", "o"),
    Look(ORANGE, "--", "s"),
    Look(GREEN, "-.", "D"),
    Look("#CC79A7", ":", "^"),
    Look(GREY, "-", "v"),
    Look("#56B4E9", "-..", "x"),
    Look("#E69F00", "__", "P"),
]


def look(number: int, **changed: str) -> Look:
    """The look of the thing compared that has this number, which differs in more than colour from the others'; with the
    attributes given changed."""
    return _CYCLE[number % len(_CYCLE)]._replace(**changed)


_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.edgecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "pdf.fonttype": 42,  # TrueType, embedded: journals refuse Type 3
    "savefig.dpi": 300,
}


def some_of(length: int, most: int, *, marker: str) -> list[tuple[int, Look]]:
    """Indices of so many of a row of layers, the first, the last and others between, with colours from light to dark.

    >>> [at for at, _ in some_of(9, 3, marker="")]
    [0, 4, 8]
    """
    at = np.unique(np.linspace(0, length - 1, min(most, length)).round().astype(int)).tolist()
    colours = matplotlib.colormaps["viridis_r"](np.linspace(0.1, 1, len(at)))
    return [(place, Look(to_hex(colour), "-", marker)) for place, colour in zip(at, colours)]


def style(**more: Any) -> AbstractContextManager[None]:
    """A context in which figures have this look; `more` are further settings of matplotlib, with `_` for `.`."""
    changed: dict[Any, Any] = {name.replace("_", "."): value for name, value in more.items()}
    return matplotlib.rc_context(_STYLE | changed)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches; drawn without pyplot, so that no window opens and nothing is global."""
    return Figure(figsize=(width, height), layout="constrained")


def show_image(axes: Axes, pixels: np.ndarray) -> None:
    """Draws pixel values `(c, h, w)`, clipped to [0, 1], without ticks and frame."""
    image = np.clip(np.nan_to_num(pixels.transpose(1, 2, 0)), 0, 1)
    axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
    strip(axes)


def shade(axes: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str) -> None:
    """Draws the band between two curves, behind the line of that colour."""
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def strip(axes: Axes) -> None:
    """Takes ticks and frame away."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
