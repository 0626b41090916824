import base64
import io

import numpy as np
from PIL import Image

from figures.chart import Chart, Curve, Key, Panel, Rule
from figures.report.blocks import PageChart, Table, image_uri
from figures.style import look
from figures.text_table import TextTable


def test_a_chart_has_one_legend_or_one_for_each_panel():
    x = np.array([1.0, 2.0])
    curves = [Curve(name=name, x=x, y=x, look=look(number)) for number, name in enumerate(("one", "two"))]
    rules = [Rule(x=1.5, look=look(0)), Rule(y=2.0, look=look(1, line=":"), name="rule")]
    panel = Panel(x_label="$x$", y_label="y", curves=curves, rules=rules)
    block = PageChart.of(Chart(panels=[panel], stacked=True, keys=[Key(name="key", look=look(0))]), "caption", [])
    assert [entry.name for entry in block.legend.entries] == ["key"]
    assert block.panels[0].legend.entries == []  # one legend for all
    own = PageChart.of(Chart(panels=[panel]), "caption", []).panels[0].legend
    assert [entry.name for entry in own.entries] == ["one", "two", "rule"]


def test_columns_of_numbers_are_told_from_text():
    rows = [
        ("block 1", "1,234", "5.1% (4% to 6%)", "-", "12 s", "1ef829f", "3 (image 2) to 1 (image 4)"),
        ("2 b", "-0.5", "1e-07", "3", "", "abc", "1 (image 7)"),
    ]
    assert Table.of(TextTable("abcdefg", rows), "caption", "name").numeric == [1, 2, 3, 4]


def test_small_images_are_png_and_photographs_jpeg():
    def saved(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(image_uri(pixels).split(",")[1]))))

    pixels = np.random.default_rng(0).integers(0, 256, size=(3, 5, 7))
    np.testing.assert_array_equal(saved(pixels / 255).transpose(2, 0, 1), pixels)
    np.testing.assert_array_equal(saved(pixels[:1] / 255), pixels[0])
    np.testing.assert_array_equal(saved(np.array([[[-1.0, 2.0]]])), [[0, 255]])
    assert image_uri(np.full((3, 200, 200), np.nan)).startswith("data:image/jpeg")
