"""How singular values and vectors change with depth: straight lines through log s, and the overlap of neighbours."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex

from analysis.results.depth_trends import DepthTrend
from analysis.results.directions import ENDS
from analysis.results.singular_values import half_width
from figures.chart import GUIDE, Chart, Curve, Panel, Rule
from figures.style import Look, literal, look

CAPTION = (
    "Singular values over depth, geometric means over the images, with straight lines through their logarithms; slopes "
    "and R^2 of these lines; and, where vectors were asked for, the mean squared overlap of the subspaces of the most "
    "and of the least magnified directions of neighbouring depths (thin line: by chance). Bands are 95% intervals over "
    "the images."
)


def trends_chart(trends: Sequence[DepthTrend]) -> Chart:
    """Panels of each network: values over depth, the slope and R^2 of each rank, and the overlaps if they are known."""
    panels = []
    for trend in trends:
        title = literal(trend.network) if len(trends) > 1 else ""
        panels += [_values(trend, title), _slopes(trend), _r_squared(trend)]
        if np.isfinite(trend.overlaps[:, 0]).all():
            panels.append(_overlaps(trend))
    return Chart(panels=panels, height=2.4 * -(-len(panels) // 2))


def _values(trend: DepthTrend, title: str) -> Panel:
    lines, shown = trend.lines, trend.shown
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(shown)))
    curves = []
    for at, colour in zip(shown, colours):
        hue, name = to_hex(colour), f"rank {trend.ranks[at]:,}"
        means = np.exp(np.log(trend.values[:, at]).mean(axis=0))
        fitted = np.exp(lines.intercepts[:, at].mean() + lines.slopes[:, at].mean() * trend.depths)
        curves.append(Curve(name=name, x=trend.depths, y=means, look=Look(hue, "none", "o")))
        curves.append(Curve(name=f"{name}, line", x=trend.depths, y=fitted, look=Look(hue, "-", ""), listed=False))
    return Panel(
        x_label="depth (block)",
        y_label="singular value",
        curves=curves,
        rules=[Rule(y=1.0, look=GUIDE)],
        title=title,
        whole_x=True,
        log_y=True,
    )


def _slopes(trend: DepthTrend) -> Panel:
    curves = _by_rank(trend, np.exp(trend.lines.slopes))
    return Panel(y_label="growth a block, exp(slope)", curves=curves, rules=[Rule(y=1.0, look=GUIDE)], **_RANKS)


def _r_squared(trend: DepthTrend) -> Panel:
    curves = _by_rank(trend, trend.lines.r_squared, most=1.0)
    return Panel(y_label="$R^2$ of the lines", curves=curves, low_y=0.0, high_y=1.02, **_RANKS)


_RANKS: dict[str, Any] = {"x_label": "rank, counted from either end", "log_x": True, "whole_x": True}


def _by_rank(trend: DepthTrend, values: np.ndarray, *, most: float = np.inf) -> list[Curve]:
    """The largest values, and the smallest, where they are known apart from these."""
    largest, smallest = values[:, : trend.num_largest], values[:, trend.num_largest :][:, ::-1]
    return [
        _mean_curve(name, np.arange(1, each.shape[1] + 1), each, look(number, marker=""), most=most)
        for number, (name, each) in enumerate({"largest values": largest, "smallest values": smallest}.items())
        if each.size
    ]


def _overlaps(trend: DepthTrend) -> Panel:
    depths = (trend.depths[:-1] + trend.depths[1:]) / 2
    curves = [
        _mean_curve(f"{name} magnified {trend.num_vectors}", depths, trend.overlaps[:, end], look(end), most=1.0)
        for end, name in enumerate(ENDS)
        if np.isfinite(trend.overlaps[:, end]).all()
    ]
    label = "overlap of the subspaces\nof a depth and the next"
    chance = Rule(y=trend.chance, look=GUIDE)
    return Panel(x_label="depth (block)", y_label=label, curves=curves, rules=[chance], low_y=0.0, high_y=1.02)


def _mean_curve(name: str, x: np.ndarray, samples: np.ndarray, drawn: Look, *, most: float = np.inf) -> Curve:
    """The mean over the images and its interval, up to what it may be at most; one image has none."""
    mean = samples.mean(axis=0)
    if len(samples) == 1:
        return Curve(name=name, x=x, y=mean, look=drawn)
    width = half_width(samples)
    return Curve(name=name, x=x, y=mean, low=mean - width, high=np.minimum(mean + width, most), look=drawn)
