"""`--deterministic`, and what is said when a GPU has not enough memory."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import cli
from irevnet import IRevNet
from irevnet.commandline.terminal import deterministic

STUDIES = {"depth-probe": ["--depths", "11,12"], "spectrum": ["--num-images", "1", "--method", "lanczos"]}


pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "blank_figures")


def state() -> tuple:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


@pytest.mark.parametrize("workspace", [None, ":16:8"])
def test_torch_is_deterministic_while_asked_for(monkeypatch, workspace):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if workspace:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", workspace)
    before = state()
    with deterministic():
        assert state() == (True, False, False, ":4096:8")
        with deterministic():  # as a study within `all` is
            pass
        assert state() == (True, False, False, ":4096:8")
    assert state() == before


def test_the_same_seed_gives_the_same_tables():
    tables = []
    before = state()
    for name in ("one", "two"):
        run = Path("runs", name)
        train = ["train", "--epochs", "1", "--classes", "3", "--seed", "3", "--deterministic", "--out", str(run)]
        result = CliRunner().invoke(cli.main, train)
        assert result.exit_code == 0, result.output
        assert json.loads((run / "config.json").read_text())["provenance"]["deterministic"] is True
        found = {"losses": (run / "losses.csv").read_bytes()}
        found["metrics"] = pd.read_csv(run / "metrics.csv").drop(columns="seconds").to_csv().encode()
        for study, options in STUDIES.items():
            result = CliRunner().invoke(cli.analyze, [study, "--ckpt", str(run), "--deterministic", *options])
            assert result.exit_code == 0, result.output
            folder = run / "analysis" / study
            found[study] = (folder / f"{study}.csv").read_bytes()
            assert json.loads((folder / f"{study}.json").read_text())["provenance"]["deterministic"] is True
        tables.append(found)
    assert tables[0] == tables[1]
    assert (
        CliRunner()
        .invoke(cli.main, ["train", "--epochs", "1", "--classes", "3", "--seed", "4", "--out", "other"])
        .exit_code
        == 0
    )
    assert Path("other/losses.csv").read_bytes() != tables[0]["losses"]
    assert state() == before
    agenda = CliRunner().invoke(cli.analyze, ["all", "--deterministic", "--dry-run", "--json"])
    commands = {row["study"]: row["command"] for row in json.loads(agenda.stdout)["studies"]}
    assert all("--deterministic" in command for study, command in commands.items() if study != "training-curves")


@pytest.mark.parametrize(
    ("group", "command", "tried"),
    [
        (cli.main, ["train"], "--batch-size 64"),
        (cli.main, ["train", "--batch-size", "32"], "--batch-size 32"),
        (cli.main, ["evaluate", "--ckpt", "RUN"], "--batch-size 256"),
        (cli.analyze, ["features", "--ckpt", "RUN", "-b", "7"], "--batch-size 7"),
        (cli.analyze, ["spectrum", "--ckpt", "RUN"], "--block-width 16"),
    ],
)
def test_a_gpu_without_enough_memory_is_said_with_what_was_tried(finished_run, monkeypatch, group, command, tried):
    def fail(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(IRevNet, "forward", fail)
    monkeypatch.setattr(IRevNet, "features", fail)
    # what a study writes goes beside a copy of the weights
    Path("net.pt").write_bytes((finished_run / "last.pt").read_bytes())
    result = CliRunner().invoke(group, ["net.pt" if word == "RUN" else word for word in command])
    assert result.exit_code == 1
    line = f"Error: the GPU has not enough memory for {tried}; lower it, or compute with --device cpu"
    assert result.stderr.splitlines() == [line]


def test_what_has_no_batches_says_so_without_one(finished_run, monkeypatch):
    def fail(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    from PIL import Image

    Image.fromarray(np.zeros((8, 8), np.uint8)).save("x.png")
    monkeypatch.setattr(IRevNet, "features", fail)
    result = CliRunner().invoke(cli.main, ["encode", "x.png", "-o", "x.npz", "--ckpt", str(finished_run)])
    assert result.exit_code == 1
    assert result.stderr == "Error: the GPU has not enough memory; compute with --device cpu\n"
