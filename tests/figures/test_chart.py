import itertools

import numpy as np
import pytest

from figures.chart import Chart, Curve, Panel, draw
from figures.style import Look, some_of


@pytest.mark.parametrize("name", ["block {}", "stages.{}.conv", "a longer name of layer {}"])
@pytest.mark.parametrize("count", [2, 5])
def test_legends_keep_to_their_column(name, count):
    x = np.arange(5.0)
    curves = [Curve(name=name.format(row), x=x, y=row * x, look=look) for row, look in some_of(17, count, marker="")]
    figure = draw(Chart(panels=4 * [Panel(x_label="x", y_label="y", curves=curves)], height=5))
    figure.draw_without_rendering()
    legends = [axes.get_legend().get_window_extent() for axes in figure.axes]
    assert all(0 <= each.x0 < each.x1 <= figure.bbox.width for each in legends)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(legends, 2))
    assert all(axes.bbox.width > 0.35 * figure.bbox.width for axes in figure.axes)  # not squeezed by a legend


@pytest.mark.parametrize("ends", [{"low_y": 0.0}, {"high_y": 9.0}, {"low_y": 0.01, "log_y": True}, {}])
def test_markers_are_drawn_whole(ends):
    """Though what is shown of the axis is many times the range of the values."""
    curve = Curve(name="", x=np.arange(5.0), y=np.linspace(1.0, 1.1, 5), look=Look("black", "-", "o"))
    figure = draw(Chart(panels=[Panel(x_label="x", y_label="y", curves=[curve], **ends)], stacked=True))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    line = axes.get_lines()[0]
    heights = axes.transData.transform(np.stack((curve.x, curve.y), axis=1))[:, 1]
    radius = line.get_markersize() / 2 * figure.dpi / 72
    assert axes.bbox.y0 <= heights.min() - radius
    assert heights.max() + radius <= axes.bbox.y1
