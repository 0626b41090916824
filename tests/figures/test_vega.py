"""Panels as Vega-Lite, by its own compiler, which refuses a wrong one."""

import numpy as np
import vl_convert

from figures.chart import Curve, Panel, Rule
from figures.study_figure import figure_of
from figures.style import Look, look
from figures.vega import MOST_POINTS, VEGA_LITE, vega_lite


def test_panels_are_valid_and_have_the_values_of_their_curves(probes, sweep, inversion, spectrum_result):
    for result in (probes, sweep, inversion, spectrum_result):
        for panel in figure_of(result).chart(result).panels:
            spec = vega_lite(panel)
            vl_convert.vegalite_to_vega({**spec, "width": 300}, vl_version=VEGA_LITE)
            for key, curve in enumerate(panel.curves):
                if not np.isfinite(curve.y).any():
                    continue
                rows = [row for row in spec["data"]["values"] if row["curve"] == f"{key}"]
                assert 0 < len(rows) <= MOST_POINTS
                points = {(float(x), float(y)) for x, y in zip(curve.x, curve.y)}
                assert {(row["x"], row["y"]) for row in rows} <= points
                assert {row["name"] for row in rows} == {curve.name}
                ends = curve.x[np.isfinite(curve.y)][[0, -1]]
                assert [rows[0]["x"], rows[-1]["x"]] == ends.tolist()


def test_a_panel_of_every_kind_of_line_is_drawn():
    x = np.linspace(1, 2, 1000)
    curves = [Curve(name=f"{n}", x=x, y=x * n, low=x, high=x * 9, look=look(n)) for n in range(1, 6)]
    curves.append(Curve(name="points", x=x[:2], y=x[:2], look=Look("#000000", "none", "x")))
    curves.append(Curve(name="nothing", x=np.empty(0), y=np.empty(0), look=Look("#000000", "none", "")))
    rules = [Rule(x=1.5, look=look(0)), Rule(y=2.0, look=look(1, line=":"), name="rule")]
    panel = Panel(x_label="$x$", y_label="two\nlines", curves=curves, rules=rules, notes=[(1.0, "here")], low_y=0.0)
    svg = vl_convert.vegalite_to_svg({**vega_lite(panel), "width": 300}, vl_version=VEGA_LITE)
    assert ">here</text>" in svg
    assert ">two</" in svg
    assert 'stroke="currentColor"' in svg or 'fill="currentColor"' in svg  # in the page's ink
