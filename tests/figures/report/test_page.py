"""The page as text; what a browser makes of it is in `test_page_in_browser.py`."""

import base64
import html
import io
import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis.results.register import STUDIES
from analysis.saved.reproduction import script
from analysis.saved.runs import read_run
from figures import build_report


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


@pytest.fixture(scope="module")
def elements(page_text) -> _Elements:
    return _Elements(page_text)


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


def test_every_study_has_a_section_beside_the_paper(page_text, elements):
    titles = re.findall(r"<h2 id[^>]*>(.*?)</h2>", page_text)
    assert titles[:3] == ["Beside the paper", "The networks", "Training"]
    assert titles[2:-1] == [spec.title for spec in STUDIES.values() if not spec.optional]
    assert titles[-1] == "Provenance"
    text = " ".join(elements.words)
    assert "these are of 3 classes of photos at 4 x 6" in text
    assert "top-1 error 23.0%, that of resnet-small 23.0%: 0.0 points." in text
    assert "resnet-small has no inverse." in text
    assert re.search(r"This study of resnet-small has not been run\.\s.*irevnet-analyze pca --ckpt \S+/resnet", text)


def test_the_tally_counts_the_verdicts(page_text, elements):
    verdicts = pd.read_csv(io.BytesIO(files(elements)["findings.csv"]))["verdict"].tolist()
    counts = [verdicts.count(verdict) for verdict in ("agrees", "differs", "undecided")]
    assert sum(counts) == len(verdicts) >= 10
    said = r"Of (\d+) statements, (\d+) agree with the paper, (\d+) differ, and (\d+) are undecided"
    assert re.findall(said, page_text) == [tuple(map(str, (len(verdicts), *counts)))]


@pytest.mark.usefixtures("plain_pages")
def test_directions_and_what_other_papers_state_are_shown(two_runs, spectra_with_directions, tmp_path):
    folder = two_runs[1] / "analysis/spectrum"
    provenance = json.loads((folder / "spectrum.json").read_text())["provenance"]
    spectra_with_directions.save(folder, provenance)
    text = html.unescape(build_report([read_run(two_runs[1])], tmp_path / "page.html"))
    assert "In arXiv:2602.12384 the singular values of a network with fixed gates scale" in text
    assert "so that Jacobians of all depths nearly share them (arXiv:2602.12384)</td>" in text
    assert "agree with the papers, " in text
    for name in ("resnet-spectrum", "resnet-spectrum-directions", "resnet-spectrum-depth-trends"):
        assert f'download="{name}.png"' in text


def test_runs_of_the_same_images_share_a_chart(page_text):
    specs = [json.loads(each) for each in re.findall(r'<script type="application/json">(.*?)</script>', page_text)]
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
    table = pd.read_csv(io.BytesIO(saved["table-1.csv"]))
    assert table.iloc[0].tolist() == ["irevnet-small (photos)", "yes", "yes", "23.0%", "1.2 M"]
    assert table.iloc[1, 1:3].tolist() == ["no", "no"]


def test_the_page_holds_the_commands_that_make_it_again(page_text):
    (content,) = re.findall(r'<script type="application/json" id="reproduction">(.*?)</script>', page_text, re.DOTALL)
    lines = script(json.loads(content)).splitlines()
    assert re.fullmatch(r"irevnet train --out \S+/irevnet", lines[0])
    assert "irevnet-analyze depth-probe --ckpt resnet" in lines
    assert re.fullmatch(r"irevnet-analyze report \S+/irevnet \S+/resnet --out \S+/report.html", lines[-1])


@pytest.fixture
def run_alone(two_runs) -> Path:
    """The ResNet's run, without its studies."""
    shutil.rmtree(two_runs[1] / "analysis")
    return two_runs[1]


def test_missing_studies_are_named_with_their_commands(tmp_path, run_alone, plain_pages):
    text = html.unescape(build_report([read_run(run_alone)], tmp_path / "page.html"))
    assert "What resnet-small learned" in text
    for study in ("spectrum", "depth-probe", "pca"):
        assert f"irevnet-analyze {study} --ckpt {run_alone}" in text
    assert f"irevnet-analyze training-curves {run_alone}" in text


def test_a_config_of_no_network_is_refused(tmp_path, run_alone):
    path = run_alone / "config.json"
    config = json.loads(path.read_text())
    config["config"] |= {"blocks": [2]}
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"the config in \S+resnet describes no ResNet"):
        build_report([read_run(run_alone)], tmp_path / "page.html")


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
"""Names that a stranger may choose."""


def renamed(content, names):
    """JSON with such names for all texts but those that the page depends on."""
    if isinstance(content, dict):
        same = ("architecture", "config", "transform")
        return {key: value if key in same else renamed(value, names) for key, value in content.items()}
    if isinstance(content, list):
        return [renamed(each, names) for each in content]
    return next(names) if isinstance(content, str) else content


def test_hostile_names_are_text_wherever_they_are(tmp_path, two_runs, plain_pages):
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


@pytest.mark.usefixtures("plain_pages")
def test_page_of_features_names_their_file_and_no_network(tmp_path, probe):
    record = {"features": "x.npz", "features_sha256": "ab12", "data": "x.npz", "held_out": True, "classes": ["a", "b"]}
    command = ["irevnet-analyze", "depth-probe", "--features", "x.npz"]
    probe.save(tmp_path / "x-analysis" / "depth-probe", {**record, "command": command, "pool": "max"})
    text = " ".join(_Elements(build_report([read_run(tmp_path / "x-analysis")], tmp_path / "page.html")).words)
    assert "these are of 2 classes of x.npz. They" in text
    assert text.count("Of x there are features, and no network.") == 5
    assert re.search(r"This study of x has not been run\.\s.*irevnet-analyze pca --features x\.npz", text)
    assert "features: x.npz, SHA-256 ab12" in text
    assert "test images: a fifth of each class, drawn by the seed" in text
    assert "Features are pooled by --pool max, where the paper averages." in text
