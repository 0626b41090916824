"""A report of two runs side by side, drawn once: that takes longer than all that is checked of it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from analysis.results import InterpolationResult, TrainingCurvesResult
from analysis.saved.runs import read_run
from figures.report import build_report

EVIL = "<img src=x onerror=alert(1)>"
"""What a stranger may call a class."""

NETWORKS = {
    "irevnet": {
        "architecture": "IRevNet",
        "config": {
            "input_shape": [3, 4, 6],
            "num_classes": 3,
            "blocks": [2, 3],
            "strides": [1, 1],
            "initial_squeeze": 2,
            "kernel_sizes": [1, 3, 1],
            "bottleneck_ratio": 4.0,
            "channels": None,
            "dropout": 0.0,
            "squeeze_order": "block",
        },
    },
    "resnet": {
        "architecture": "ResNet",
        "config": {
            "input_shape": [3, 4, 6],
            "num_classes": 3,
            "block": "basic",
            "blocks": [2, 3],
            "widths": [8, 16],
            "stem": "cifar",
        },
    },
}

_PAGES: dict[str, str] = {}


def _record(name: str, study: str) -> dict:
    return {
        **NETWORKS[name],
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


@pytest.fixture
def two_runs(tmp_path, probe, sweep, inversion, interpolation, spectrum_result) -> list[Path]:
    """An i-RevNet with every study, and a ResNet with all that can be had of it but one."""
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
    one_network = type(spectrum_result).of(
        [spectrum_result.spectrum(row) for row in (0, 1)],
        networks=["x"],
        images=["cat", "dog"],
        network=[0, 0],
        layer=["block-5"] * 2,
        depth=[5, 5],
        image=[0, 1],
    )
    evil = dataclasses.replace(interpolation, classes=np.array(["cat", "dog", EVIL]))
    assert isinstance(evil, InterpolationResult)
    results = {"irevnet": [curves, inversion, evil, one_network, probe, sweep], "resnet": [curves, one_network, probe]}
    folders = []
    for name, saved in results.items():
        folder = tmp_path / name
        folder.mkdir()
        config = {**_record(name, "train"), "model": f"{name}-small", "provenance": {"command": ["irevnet", "train"]}}
        (folder / "config.json").write_text(json.dumps(config))
        for result in saved:
            result.save(folder / "analysis" / result.STUDY, _record(name, result.STUDY))
        folders.append(folder)
    return folders


@pytest.fixture
def two_runs_page(two_runs) -> str:
    """The page of both."""
    if "both" not in _PAGES:
        _PAGES["both"] = build_report([read_run(folder) for folder in two_runs], two_runs[0] / "report.html")
    return _PAGES["both"]
