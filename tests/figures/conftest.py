"""A report of two runs side by side, made once: that takes longer than all that is checked of it."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.results import TrainingCurvesResult
from analysis.saved.runs import read_run
from figures import build_report
from irevnet.models.config import IRevNetConfig, ResNetConfig

EVIL = "<img src=x onerror=alert(1)>"
"""What a stranger may call a class."""

NETWORKS = {
    "irevnet": IRevNetConfig(input_shape=(3, 4, 6), num_classes=3, blocks=(2, 3), strides=(1, 1)),
    "resnet": ResNetConfig(
        input_shape=(3, 4, 6), num_classes=3, block="basic", blocks=(2, 3), widths=(8, 16), stem="cifar"
    ),
}


def _record(name: str, study: str) -> dict:
    config = NETWORKS[name]
    return {
        "architecture": type(config).__name__.removesuffix("Config"),
        "config": dataclasses.asdict(config),
        "transform": {"channels": 3, "image_size": [4, 6], "resize": None, "mean": [0.0], "std": [1.0]},
        "data": "photos",
        "classes": ["cat", "dog", EVIL],
        "classes_studied": ["cat", "dog", EVIL],
        "metrics": {"test_top1": 0.77},
        "parameters": 1_234_567,
        "weights_sha256": 64 * "ab"[name == "resnet"],
        "command": ["irevnet-analyze", study, "--ckpt", name],
        "versions": {"torch": "2.11"},
        "seed": 0,
        "device": "cpu",
        "wall_seconds": 12.0,
    }


@pytest.fixture(scope="session")
def training_curves() -> TrainingCurvesResult:
    """One run that has ended an epoch, and one that has not."""
    return TrainingCurvesResult(
        names=np.array(["irevnet-b", "resnet-50"]),
        curve_run=np.array([0, 0, 0, 1, 1]),
        iteration=np.array([3, 4, 5, 3, 4]),
        loss=np.array([2.0, 1.0, 0.5, 2.0, 1.5]),
        epoch_run=np.array([0]),
        epoch_iteration=np.array([4]),
        test_accuracy=np.array([0.25]),
        window=np.array(3),
    )


@pytest.fixture(scope="session")
def reported(made_once, probe, sweep, inversion, interpolation, spectrum_result) -> Path:
    """A folder with two runs, `irevnet` and `resnet`, and their `report.html`: an i-RevNet with every study, and a
    ResNet with all that it can have but one."""
    curves = TrainingCurvesResult(
        names=np.array(["one"]),
        curve_run=np.zeros(600, dtype=int),
        iteration=np.arange(100, 700),
        loss=np.geomspace(2, 0.3, 600),
        epoch_run=np.zeros(3, dtype=int),
        epoch_iteration=np.array([200, 400, 600]),
        test_accuracy=np.array([0.3, 0.6, 0.77]),
        window=np.array(100),
    )
    rows = {"network": [0, 0], "layer": ["block-5"] * 2, "depth": [5, 5], "image": [0, 1]}
    spectra = [spectrum_result.spectrum(row) for row in (0, 1)]
    one_network = type(spectrum_result).of(spectra, networks=["x"], images=["cat", "dog"], **rows)
    evil = dataclasses.replace(interpolation, classes=np.array(["cat", "dog", EVIL]))
    results = {"irevnet": [curves, inversion, evil, one_network, probe, sweep], "resnet": [curves, one_network, probe]}

    def fill(folder: Path) -> None:
        for name, saved in results.items():
            run = folder / name
            run.mkdir()
            trained = {"model": f"{name}-small", "provenance": {"command": ["irevnet", "train"]}}
            (run / "config.json").write_text(json.dumps({**_record(name, "train"), **trained}))
            for result in saved:
                result.save(run / "analysis" / result.STUDY, _record(name, result.STUDY))
        page = folder / "report.html"
        with _blank_files(lay_out=False):
            page.write_text(build_report([read_run(folder / name) for name in results], page), encoding="utf-8")

    return made_once("reported", fill)


@contextmanager
def _blank_files(*, lay_out: bool) -> Iterator[None]:
    """Saves figures as blank PNG and PDF of their size, as to draw those takes longest; as SVG, for a page, in full."""
    savefig = Figure.savefig

    def save(figure: Figure, file: Any, *, format: str | None = None, **options: Any) -> None:
        format = format or Path(file).suffix[1:]
        if lay_out and format == "png":
            figure.draw_without_rendering()
        drawn = figure if format == "svg" else Figure(figsize=tuple(figure.get_size_inches()))
        savefig(drawn, file, format=format, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield


@pytest.fixture
def plain_pages(monkeypatch) -> Iterator[None]:
    """Pages are made without Vega, and with blank PNG and PDF of figures that are laid out all the same."""
    monkeypatch.setattr("figures.report.page._script", lambda: "")
    with _blank_files(lay_out=True):
        yield


@pytest.fixture
def two_runs(reported, tmp_path) -> list[Path]:
    """Both runs, to be changed."""
    return [shutil.copytree(reported / name, tmp_path / name) for name in NETWORKS]


@pytest.fixture(scope="session")
def page_text(reported) -> str:
    """The HTML of the report."""
    return (reported / "report.html").read_text(encoding="utf-8")
