"""A run with saved results."""

import json
from pathlib import Path

import pytest

NETWORK = {
    "architecture": "IRevNet",
    "config": {"channels": None},
    "data": "digits",
    "classes": ["0", "1"],
    "transform": {"image_size": [8, 8]},
}
RECORD = {
    **NETWORK,
    "command": ["irevnet-analyze", "depth-probe"],
    "versions": {"torch": "2.11"},
    "python": "3.12.1",
    "commit": "0123456789abcdef",
    "device": "cpu",
    "checkpoint": "some where/net.pt",
}


@pytest.fixture
def record() -> dict:
    """The provenance of a result."""
    return dict(RECORD)


@pytest.fixture
def run(tmp_path, probe, inversion) -> Path:
    """A run with two studies, in a folder whose name a shell would take apart."""
    folder = tmp_path / "a run"
    folder.mkdir()
    config = {
        **NETWORK,
        "model": "irevnet-b",
        "provenance": {"command": ["irevnet", "train", "--out", "elsewhere", "--epochs", "2"]},
    }
    (folder / "config.json").write_text(json.dumps(config))
    probe.save(folder / "analysis" / "depth-probe", {**RECORD, "seed": 3})
    command = ["irevnet-analyze", "invert", "--ckpt=other", "--resume"]
    inversion.save(folder / "analysis" / "invert", {**RECORD, "command": command})
    return folder
