"""The page as text; what a browser makes of it is in `test_report_in_browser.py`."""

import base64
import html
import io
import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import vl_convert
from PIL import Image

from analysis.saved.reproduction import script
from analysis.saved.runs import read_run
from figures.chart import Chart, Curve, Key, Panel, Rule
from figures.report import build_report
from figures.report.blocks import PageChart, Table, image_uri
from figures.studies.depth_probe import chart_depth_probe
from figures.studies.inversion import chart_inversion
from figures.studies.pca_sweep import chart_pca_sweep
from figures.studies.spectrum import chart_spectrum
from figures.style import Look, look
from figures.text_table import TextTable
from figures.vega import MOST_POINTS, VEGA_LITE, vega_lite


class _Elements(HTMLParser):
    """Every element with its attributes, and the text outside scripts and styles."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.words.append(data)


@pytest.fixture
def elements(two_runs_page) -> _Elements:
    return _Elements(two_runs_page)


def files(page: _Elements) -> dict[str, bytes]:
    """Files that the page lets its reader save."""
    links = [each for tag, each in page.elements if tag == "a" and "download" in each]
    return {str(each["download"]): base64.b64decode(str(each["href"]).split(",", 1)[1]) for each in links}


def test_the_page_needs_nothing_from_elsewhere(elements):
    for tag, attributes in elements.elements:
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name) or ""
            assert not value or value.startswith(("data:", "#")), (tag, name, value[:80])
        assert tag not in ("iframe", "object", "embed", "base", "form")
    styles = re.findall(r"<style>.*?</style>", "".join(elements.rawdata), re.DOTALL)
    assert not any("url(" in style or "@import" in style for style in styles)


def test_names_are_text_and_never_markup(two_runs_page, elements):
    assert "<img src=x" not in two_runs_page
    assert not any("onerror" in attributes for _, attributes in elements.elements)
    assert "<img src=x onerror=alert(1)>" in html.unescape(" ".join(elements.words))


def test_every_section_says_what_the_paper_found_and_what_was_found_here(two_runs_page, elements):
    titles = re.findall(r"<h2 id[^>]*>(.*?)</h2>", two_runs_page)
    assert titles == [
        "Beside the paper",
        "The networks",
        "Training",
        "Reconstruction",
        "Paths between images",
        "What is contracted around an image",
        "Separation with depth",
        "How few directions the classes need",
        "Provenance",
    ]
    text = " ".join(elements.words)
    assert "these are of 3 classes of photos at 4 x 6" in text
    assert "top-1 error 23.0%, that of resnet-small 23.0%: 0.0 points." in text
    assert "resnet-small has no inverse." in text
    assert "This study of resnet-small has not been run." in text
    assert re.search(r"irevnet-analyze pca --ckpt \S+/resnet", text)


def test_the_tally_counts_the_verdicts(two_runs_page, elements):
    verdicts = pd.read_csv(io.BytesIO(files(elements)["findings.csv"]))["verdict"].tolist()
    counts = [verdicts.count(verdict) for verdict in ("agrees", "differs", "cannot be told")]
    assert sum(counts) == len(verdicts) >= 10
    said = re.search(r"Of (\d+) statements, (\d+) agree with the paper, (\d+) differ, and of (\d+)", two_runs_page)
    assert said is not None
    assert [int(each) for each in said.groups()] == [len(verdicts), *counts]


def test_runs_that_looked_at_the_same_images_are_in_one_chart(two_runs_page):
    specs = [json.loads(each) for each in re.findall(r'<script type="application/json">(.*?)</script>', two_runs_page)]
    (depth,) = (spec for spec in specs if "resnet-small, linear SVM" in json.dumps(spec))
    rows = {(row["name"], row["x_text"]): row["y_text"] for row in depth["data"]["values"]}
    for name in ("irevnet-small", "resnet-small"):
        assert rows[f"{name}, linear SVM", "2"] == "75 (65 to 80)"


def test_figures_and_tables_can_be_saved(elements):
    saved = files(elements)
    for name in ("depth-probe", "spectrum", "training-curves", "irevnet-invert", "irevnet-interpolate", "irevnet-pca"):
        assert Image.open(io.BytesIO(saved[f"{name}.png"])).width > 600
        assert saved[f"{name}.pdf"].startswith(b"%PDF")
        assert len(pd.read_csv(io.BytesIO(saved[f"{name}.csv"]))) > 0
    findings = pd.read_csv(io.BytesIO(saved["findings.csv"]))
    assert set(findings["verdict"]) <= {"agrees", "differs", "cannot be told"}
    table = pd.read_csv(io.BytesIO(saved["table-1.csv"]))
    assert table.iloc[0].tolist() == ["irevnet-small (photos)", "yes", "yes", "23.0%", "1.2 M"]
    assert table.iloc[1, 1:3].tolist() == ["no", "no"]


def test_the_page_keeps_the_commands_that_make_it_again(two_runs_page):
    (kept,) = re.findall(r'<script type="application/json" id="reproduction">(.*?)</script>', two_runs_page, re.DOTALL)
    lines = script(json.loads(kept)).splitlines()
    assert re.fullmatch(r"irevnet train --out \S+/irevnet", lines[0])
    assert "irevnet-analyze depth-probe --ckpt resnet" in lines
    assert re.fullmatch(r"irevnet-analyze report \S+/irevnet \S+/resnet --out \S+/report.html", lines[-1])


def test_a_run_without_studies_has_a_page_that_says_how_to_get_them(tmp_path, two_runs):
    for study in (two_runs[1] / "analysis").iterdir():
        for file in study.iterdir():
            file.unlink()
    text = html.unescape(build_report([read_run(two_runs[1])], tmp_path / "page.html"))
    assert "What resnet-small learned" in text
    for study in ("spectrum", "depth-probe", "pca"):
        assert f"irevnet-analyze {study} --ckpt {two_runs[1]}" in text
    assert f"irevnet-analyze training-curves {two_runs[1]}" in text
    assert "resnet-small has no inverse." in text


def test_a_config_that_describes_no_network_is_named(tmp_path, two_runs):
    path = two_runs[1] / "config.json"
    config = json.loads(path.read_text())
    config["config"] |= {"blocks": [2]}
    path.write_text(json.dumps(config))
    for study in (two_runs[1] / "analysis").iterdir():
        for file in study.iterdir():
            file.unlink()
    with pytest.raises(ValueError, match=r"the config that \S+resnet keeps describes no ResNet"):
        build_report([read_run(two_runs[1])], tmp_path / "page.html")


def charts(probe, probes, sweep, inversion, spectrum_result, spectra_by_depth) -> list[Chart]:
    return [
        chart_depth_probe(probe),
        chart_depth_probe(probes),
        chart_pca_sweep(sweep),
        chart_inversion(inversion),
        chart_spectrum(spectrum_result),
        chart_spectrum(spectra_by_depth),
    ]


def test_panels_are_valid_vega_lite_with_the_values_of_their_curves(
    probe, probes, sweep, inversion, spectrum_result, spectra_by_depth
):
    for chart in charts(probe, probes, sweep, inversion, spectrum_result, spectra_by_depth):
        for panel in chart.panels:
            spec = vega_lite(panel)
            vl_convert.vegalite_to_vega(
                {**spec, "width": 300}, vl_version=VEGA_LITE
            )  # Vega-Lite's own compiler, which refuses a wrong one
            known = [curve for curve in panel.curves if np.isfinite(curve.y).any()]
            for curve in known:
                place = str(list(panel.curves).index(curve))
                rows = [row for row in spec["data"]["values"] if row["curve"] == place]
                assert 0 < len(rows) <= MOST_POINTS
                points = {(float(x), float(y)) for x, y in zip(curve.x, curve.y)}
                assert {(row["x"], row["y"]) for row in rows} <= points
                assert {row["name"] for row in rows} == {curve.name}
                ends = curve.x[np.isfinite(curve.y)][[0, -1]]
                assert [rows[0]["x"], rows[-1]["x"]] == ends.tolist()


def test_a_panel_of_every_kind_of_line_is_drawn():
    x = np.linspace(1, 2, 1000)
    curves = [
        Curve(name=f"{number}", x=x, y=x * number, low=x, high=x * 9, look=look(number)) for number in range(1, 6)
    ]
    curves.append(Curve(name="points", x=x[:2], y=x[:2], look=Look("#000000", "none", "x")))
    curves.append(Curve(name="nothing", x=np.empty(0), y=np.empty(0), look=Look("#000000", "none", "")))
    rules = [Rule(x=1.5, look=look(0)), Rule(y=2.0, look=look(1, line=":"), name="rule")]
    panel = Panel(x_label="$x$", y_label="two\nlines", curves=curves, rules=rules, notes=[(1.0, "here")], low_y=0.0)
    spec = vega_lite(panel)
    svg = vl_convert.vegalite_to_svg({**spec, "width": 300}, vl_version=VEGA_LITE)
    assert ">here</text>" in svg
    assert ">two</" in svg
    assert 'stroke="currentColor"' in svg or 'fill="currentColor"' in svg  # in the page's ink
    block = PageChart.of(Chart(panels=[panel], stacked=True, keys=[Key(name="key", look=look(0))]), "caption", [])
    assert [entry.name for entry in block.legend.entries] == ["key"]
    assert block.panels[0].legend.entries == []  # one legend for all
    own = PageChart.of(Chart(panels=[panel]), "caption", []).panels[0].legend
    assert [entry.name for entry in own.entries] == ["1", "2", "3", "4", "5", "points", "nothing", "rule"]


def test_columns_of_numbers_are_told_from_text():
    rows = [
        ("block 1", "1,234", "5.1% (4% to 6%)", "-", "12 s", "1ef829f", "3 (image 2) to 1 (image 4)"),
        ("2 b", "-0.5", "1e-07", "3", "", "abc", "1 (image 7)"),
    ]
    assert Table.of(TextTable("abcdefg", rows), "caption", "name").numeric == [1, 2, 3, 4]


def test_small_images_are_kept_to_the_pixel_and_photographs_small():
    pixels = np.random.default_rng(0).integers(0, 256, size=(3, 5, 7))
    kept = Image.open(io.BytesIO(base64.b64decode(image_uri(pixels / 255).split(",")[1])))
    np.testing.assert_array_equal(np.asarray(kept).transpose(2, 0, 1), pixels)
    grey = Image.open(io.BytesIO(base64.b64decode(image_uri(pixels[:1] / 255).split(",")[1])))
    np.testing.assert_array_equal(np.asarray(grey), pixels[0])
    assert image_uri(np.full((3, 200, 200), np.nan)).startswith("data:image/jpeg")
    beyond = Image.open(io.BytesIO(base64.b64decode(image_uri(np.array([[[-1.0, 2.0]]])).split(",")[1])))
    np.testing.assert_array_equal(np.asarray(beyond), [[0, 255]])


HOSTILE = (
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "{{7*7}}{% for x in y %}",
    "javascript:alert(1)",
    "$\\frac{1$",
    "a$b_{$c",
)
"""What a stranger may call things."""


def renamed(content, names):
    """JSON whose words, but for those that the page goes by, are such names."""
    if isinstance(content, dict):
        kept = ("architecture", "config", "transform")
        return {key: value if key in kept else renamed(value, names) for key, value in content.items()}
    if isinstance(content, list):
        return [renamed(each, names) for each in content]
    return next(names) if isinstance(content, str) else content


def test_hostile_names_are_text_wherever_they_are(tmp_path, two_runs):
    folder = two_runs[0].rename(tmp_path / '" onmouseover="alert(1)<script>$\\frac{1$')
    names = itertools.cycle(HOSTILE)
    for path in folder.rglob("*.json"):
        path.write_text(json.dumps(renamed(json.loads(path.read_text()), names)))
    for path in folder.rglob("*.npz"):
        with np.load(path) as saved:
            arrays = dict(saved)
        for name, array in arrays.items():
            if array.dtype.kind == "U" and name not in ("method", "arithmetic", "arithmetics"):
                arrays[name] = np.array([next(names) for _ in range(array.size)]).reshape(array.shape)
        np.savez(path, **arrays)
    text = build_report([read_run(folder)], tmp_path / "page.html")
    page = _Elements(text)
    assert [tag for tag, _ in page.elements].count("script") == text.count('<script type="application/json"') + 1
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not [each for tag, each in page.elements if tag == "a" and not str(each["href"]).startswith(("data:", "#"))]
    words = html.unescape(" ".join(page.words))
    for name in HOSTILE[:6]:
        assert name in words, name
    for spec in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL):
        json.loads(spec)
