"""Charts for a page, as Vega-Lite describes them: the same panels as on paper, with their values under the cursor."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from figures.chart import Curve, Panel
from figures.style import INK

VEGA_LITE = "6.1"
"""Version of Vega-Lite; 6.4 finds the point nearest to the cursor, but not its values."""

MOST_POINTS = 400
"""Largest number of points of a curve on a page, where more cannot be seen."""

SMALL = 1e-3
"""Value below which an axis is labelled by powers of ten."""

DASHES = {
    "-": [1, 0],
    "--": [6, 3],
    "-.": [6, 3, 1, 3],
    ":": [2, 3],
    "-..": [6, 3, 1, 3, 1, 3],
    "__": [12, 3],
    "none": [0, 1],
}
_SHAPES = {
    "o": "circle",
    "s": "square",
    "D": "diamond",
    "^": "triangle-up",
    "v": "triangle-down",
    "x": "cross",
    "P": "cross",
}


_NEAREST = {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"}

_CONFIG = {
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        **{f"{part}Color": "currentColor" for part in ("label", "title", "domain", "tick", "grid")},
        "gridOpacity": 0.12,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
}


def vega_lite(panel: Panel) -> dict[str, Any]:
    """The panel as a specification of Vega-Lite, as wide as its column, in the page's own ink."""
    curves = {f"{number}": curve for number, curve in enumerate(panel.curves) if np.isfinite(curve.y).any()}
    tiny_x, tiny_y = (any(np.nanmin(getattr(each, axis)) < SMALL for each in curves.values()) for axis in "xy")
    x = _axis("x", panel.x_label, log=panel.log_x, small=tiny_x, whole=panel.whole_x)
    y = _axis("y", panel.y_label, log=panel.log_y, small=tiny_y, low=panel.low_y, high=panel.high_y)
    return {
        "data": {"values": [row for key, curve in curves.items() for row in _rows(key, curve)]},
        "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "height": round(190 * max(1.0, panel.height**0.5)),
        "background": None,
        "layer": [*_drawn(curves, x, y), *_rules(panel, x, y), _pointed_at(panel, curves, x, y)],
        "config": _CONFIG,
    }


def _drawn(curves: Mapping[str, Curve], x: Mapping[str, Any], y: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Bands, then lines, then markers, of those curves that have them."""
    colour = _colour(curves)
    band = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour}
    dash = _channel({key: DASHES[each.look.line] for key, each in curves.items()})
    shape = _channel({key: _SHAPES.get(each.look.marker, "circle") for key, each in curves.items()})
    layers = [
        ({"type": "area", "opacity": 0.15}, band, lambda curve: curve.low is not None),
        (
            {"type": "line", "strokeWidth": 2},
            {"x": x, "y": y, "color": colour, "strokeDash": dash},
            lambda curve: curve.look.line != "none",
        ),
        (
            {"type": "point", "filled": True, "size": 40, "opacity": 1},
            {"x": x, "y": y, "color": colour, "shape": shape},
            lambda curve: curve.look.marker,
        ),
    ]
    for mark, encoding, has in layers:
        keys = [key for key, curve in curves.items() if has(curve)]
        if keys:  # an empty layer is complained of
            chosen = [{"filter": {"field": "curve", "oneOf": keys}}]
            yield {"transform": chosen, "mark": mark, "encoding": encoding}


def _pointed_at(
    panel: Panel, curves: Mapping[str, Curve], x: Mapping[str, Any], y: Mapping[str, Any]
) -> dict[str, Any]:
    """The point nearest to the cursor, with its values."""
    return {
        "params": [{"name": "pointed_at", "select": _NEAREST}],
        "mark": {"type": "point", "filled": True, "size": 90},
        "encoding": {
            "x": x,
            "y": y,
            "color": _colour(curves),
            "opacity": {"condition": {"param": "pointed_at", "empty": False, "value": 1}, "value": 0},
            "tooltip": [
                {"field": "name", "title": "title"},  # which makes it the heading
                {"field": "y_text", "title": plain_text(panel.y_label)},
                {"field": "x_text", "title": plain_text(panel.x_label)},
            ],
        },
    }


def _colour(curves: Mapping[str, Curve]) -> dict[str, Any]:
    return _channel({key: page_ink(each.look.colour) for key, each in curves.items()})


def _channel(looks: Mapping[str, Any]) -> dict[str, Any]:
    """The look of each curve in one respect; the page has a legend of its own."""
    scale = {"domain": list(looks), "range": list(looks.values())}
    return {"field": "curve", "type": "nominal", "scale": scale, "legend": None}


def page_ink(colour: str) -> str:
    """A colour of a figure on a page, where ink is dark or light as the reader likes."""
    return "currentColor" if colour == INK else colour


def plain_text(label: str) -> str:
    """A label of a figure without its marks for formulas."""
    return re.sub(r"(?<!\\)\$", "", label).replace(r"\$", "$").replace("\n", " ")


def _axis(
    field: str,
    label: str,
    *,
    log: bool = False,
    whole: bool = False,
    small: bool = False,
    low: float | None = None,
    high: float | None = None,
) -> dict[str, Any]:
    scale: dict[str, Any] = {"type": "log", "nice": False} if log else {"zero": False, "nice": False}
    if low is not None:
        scale["domainMin"] = low
    if high is not None:
        scale["domainMax"] = high
    title = [plain_text(part) for part in label.split("\n")]
    axis: dict[str, Any] = {"title": title, "labelOverlap": "greedy", "tickCount": 6, "grid": True}
    if log and not whole:
        axis["format"] = "~e" if small else "~g"
    if whole:
        axis |= {"format": ",d", "tickMinStep": 1}
    return {"field": field, "type": "quantitative", "scale": scale, "axis": axis}


def _rules(panel: Panel, x: Mapping[str, Any], y: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for rule in panel.rules:
        encoding = {"x": x} if rule.x is not None else {"y": y}
        yield {
            "data": {"values": [{"x": rule.x} if rule.x is not None else {"y": rule.y}]},
            "mark": {
                "type": "rule",
                "color": page_ink(rule.look.colour),
                "strokeDash": DASHES[rule.look.line],
                "strokeWidth": 2 if rule.name else 1,
            },
            "encoding": encoding,
        }
    if panel.notes:
        yield {
            "data": {"values": [{"x": at, "note": text} for at, text in panel.notes]},
            "mark": {"type": "text", "align": "left", "baseline": "bottom", "color": "currentColor", "fontSize": 11},
            "encoding": {"x": x, "y": {"value": -2}, "text": {"field": "note"}},
        }


def _rows(key: str, curve: Curve) -> Iterator[dict[str, Any]]:
    """A row for each point: its x and y, and the text shown under the cursor."""
    chosen = np.unique(np.linspace(0, len(curve.x) - 1, min(len(curve.x), MOST_POINTS)).round().astype(int))
    for at in chosen.tolist():
        x, y = float(curve.x[at]), float(curve.y[at])
        if not np.isfinite(y):
            continue
        row = {"curve": key, "x": x, "y": y, "name": plain_text(curve.name), "x_text": f"{x:.6g}", "y_text": f"{y:.4g}"}
        if curve.low is not None and curve.high is not None:
            row |= {"low": float(curve.low[at]), "high": float(curve.high[at])}
            row["y_text"] += f" ({row['low']:.4g} to {row['high']:.4g})"
        yield row
