"""Charts as data, for paper (`draw`) and for a page (`figures.vega`) alike."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy import ndarray

from figures.style import GREY, PAGE, Look, new_figure, pattern, shade, style


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """A line through points, with the band of their intervals if these are known.

    Attributes:
        name: name in the legend.
        x: x of the points, `(points,)`.
        y: y of the points, `(points,)`; NaN where not known.
        look: colour, line and marker.
        low: lower ends of the band, `(points,)`.
        high: upper ends of the band, `(points,)`.
        listed: whether the legend has the curve.
    """

    name: str
    x: ndarray
    y: ndarray
    look: Look
    low: ndarray | None = None
    high: ndarray | None = None
    listed: bool = True


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A straight line across a panel, at one x or at one y; the legend has it if it has a name."""

    look: Look
    x: float | None = None
    y: float | None = None
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Key:
    """An entry of a legend that belongs to no single curve."""

    name: str
    look: Look


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Curves over one pair of axes.

    Attributes:
        x_label: label of the horizontal axis.
        y_label: label of the vertical axis.
        curves: curves to draw.
        rules: straight lines across the panel.
        notes: texts above the panel, each at an x.
        title: title of the legend, where panels are of different things.
        log_x: whether the horizontal axis is logarithmic.
        log_y: whether the vertical axis is logarithmic.
        whole_x: whether x are whole numbers.
        low_y: lower end of the vertical axis; `None` for that of the curves.
        high_y: upper end of the vertical axis; `None` for that of the curves.
        height: height relative to other panels of the column.
    """

    x_label: str
    y_label: str
    curves: Sequence[Curve]
    rules: Sequence[Rule] = ()
    notes: Sequence[tuple[float, str]] = ()
    title: str = ""
    log_x: bool = False
    log_y: bool = False
    whole_x: bool = False
    low_y: float | None = None
    high_y: float | None = None
    height: float = 1.0

    def keys(self) -> list[Key]:
        """The entries of its legend."""
        entries = [(each.name, each.look) for each in self.curves if each.listed]
        entries += [(each.name, each.look) for each in self.rules if each.name]
        return [Key(name=name, look=look) for name, look in dict(entries).items()]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Panels side by side or one above the other, which then share their x.

    Attributes:
        panels: panels of the chart.
        stacked: whether the panels stand one above the other.
        keys: entries of a legend for all panels, in place of their own.
        width: width on paper, in inches.
        height: height on paper, in inches.
    """

    panels: Sequence[Panel]
    stacked: bool = False
    keys: Sequence[Key] = ()
    width: float = PAGE
    height: float = 2.6


LABELS = 0.5
"""What the label and the numbers of a vertical axis take of the width of a column, in inches."""


def draw(chart: Chart) -> Figure:
    """The chart on paper."""
    with style():
        figure = new_figure(chart.width, chart.height)
        draw_panels(figure, chart)
    return figure


def draw_panels(figure: Figure | SubFigure, chart: Chart) -> None:
    """Draws the panels of a chart into a figure, or a part of one."""
    columns = 1 if chart.stacked else 2
    rows = -(-len(chart.panels) // columns)
    heights = [panel.height for panel in chart.panels[::columns]]
    grid = figure.subplots(rows, columns, squeeze=False, sharex=chart.stacked, height_ratios=heights)
    room = figure.bbox.width / columns - LABELS * figure.dpi
    for axes, panel in zip(grid.flat, chart.panels):
        _draw_panel(axes, panel)
        if not chart.keys:
            _add_legend(axes, panel, room)
    for axes in grid.flat[len(chart.panels) :]:
        axes.remove()
    if chart.stacked:
        for axes in grid[:-1, 0]:
            axes.set_xlabel("")
    if chart.keys:
        length = _line_length(chart.keys, usual=2.0)
        figure.legend(handles=_handles(chart.keys), loc="outside upper center", ncols=3, handlelength=length)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for curve in panel.curves:
        colour, line, marker = curve.look
        axes.plot(curve.x, curve.y, color=colour, linestyle=pattern(line), marker=marker, label=curve.name)
        if curve.low is not None and curve.high is not None:
            shade(axes, curve.x, curve.low, curve.high, colour)
    for rule in panel.rules:
        colour, line, _ = rule.look
        drawn: dict[str, Any] = {
            "color": colour,
            "linestyle": pattern(line),
            "zorder": 0,
            "label": rule.name or "_rule",
        }
        drawn["linewidth"] = 1.2 if rule.name else 0.6
        if rule.x is not None:
            axes.axvline(rule.x, **drawn)
        if rule.y is not None:
            axes.axhline(rule.y, **drawn)
    for x, text in panel.notes:
        axes.annotate(text, (x, 1.01), xycoords=("data", "axes fraction"), color=GREY, fontsize=6)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    if panel.log_x:
        axes.set_xscale("log")
        _mark_powers(axes.xaxis, [curve.x for curve in panel.curves], whole=panel.whole_x)
    elif panel.whole_x:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if panel.log_y:
        axes.set_yscale("log")
        _mark_powers(axes.yaxis, [curve.y for curve in panel.curves])
    for end in (panel.low_y, panel.high_y):
        if end is not None:  # the margin at the other end is a part of the whole axis
            axes.update_datalim([(0, end)], updatex=False)
    axes.autoscale_view()
    axes.set_ylim(panel.low_y, panel.high_y)


def _mark_powers(axis: Axis, values: Iterable[ndarray], *, whole: bool = False) -> None:
    """Numbers written out along a logarithmic axis where it is short or those of things counted, else powers of ten."""
    known = np.concatenate([np.empty(0), *values])
    known = known[np.isfinite(known) & (known > 0)]
    if whole:
        axis.set_major_locator(LogLocator(subs=(1, 3)))
    elif len(known) and known.max() < 1000 * known.min():
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        return
    axis.set_major_formatter("{x:.10g}")
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _add_legend(axes: Axes, panel: Panel, room: float) -> None:
    """Above the panel, where it hides nothing, in as many columns as have room: a width in pixels."""
    keys = panel.keys()
    if len(keys) < 2 and not panel.title:
        return
    for columns in range(max(len(keys), 1), 0, -1):
        legend = axes.legend(
            handles=_handles(keys),
            title=panel.title or None,
            title_fontsize="medium",
            alignment="left",
            loc="lower left",
            bbox_to_anchor=(-0.05, 1.06 if panel.notes else 1.0),
            borderaxespad=0.2,
            ncols=columns,
            handlelength=_line_length(keys, usual=1.7),
            columnspacing=1.2,
        )
        if legend.get_window_extent().width <= room:
            return


def _line_length(keys: Sequence[Key], *, usual: float) -> float:
    """Length of the lines in a legend, in letters: enough for the longest pattern."""
    return 3.4 if {key.look.line for key in keys} & {"-..", "__"} else usual


def _handles(keys: Sequence[Key]) -> list[Line2D]:
    handles = []
    for key in keys:
        colour, line, marker = key.look
        drawn: dict[str, Any] = {"color": colour, "linestyle": pattern(line), "marker": marker}
        handles.append(Line2D([], [], label=key.name, **drawn))
    return handles


GUIDE = Look(GREY, "-", "")
"""Look of rules that only guide the eye."""
