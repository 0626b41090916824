import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.results import TrainingCurvesResult
from analysis.studies.training_curves import (
    TrainingCurvesOptions,
    TrainingRun,
    describe_run,
    moving_average,
    open_runs,
    training_curves,
)
from analysis.subjects import save_result
from irevnet.training.config import recipe
from irevnet.training.runs import new_run
from irevnet.training.settings import RunSettings


def record(name: str, iterations: int) -> TrainingRun:
    return TrainingRun(
        name=name,
        folder=Path(name),
        losses=np.linspace(2, 1, iterations),
        epoch_iteration=np.array([iterations]),
        test_accuracy=np.array([0.5]),
    )


def test_the_moving_average_is_that_of_pandas():
    losses = np.random.default_rng(0).uniform(size=500)
    expected = pd.Series(losses).rolling(100).mean().dropna()
    np.testing.assert_allclose(moving_average(losses, 100), expected, rtol=1e-12)


def test_curves_of_different_lengths_stand_side_by_side():
    result = training_curves([record("a", 8), record("b", 6)], TrainingCurvesOptions(window=5))
    assert result.iteration.tolist() == [5, 6, 7, 8, 5, 6]
    np.testing.assert_allclose(result.loss[:2], [np.linspace(2, 1, 8)[i : i + 5].mean() for i in range(2)])
    first, second = result.summary()["runs"]
    assert (first["name"], first["iterations"], second["test_accuracy"]) == ("a", 8, 0.5)
    assert first["loss_at_quarters"] == result.loss[:4].tolist()
    assert result.table()["run"].tolist() == ["a"] * 4 + ["b"] * 2


def test_a_run_shorter_than_the_window_is_refused():
    with pytest.raises(ValueError, match="b has 99 iterations; a moving average over 100 needs as many, lower `win"):
        training_curves([record("a", 100), record("b", 99)])


def test_the_record_of_a_run_is_read_and_saved_again(finished_run, tmp_path):
    (read,) = open_runs([finished_run])
    assert read.name == "irevnet-small"
    metrics = pd.read_csv(finished_run / "metrics.csv")
    assert read.test_accuracy.tolist() == metrics["test_top1"].tolist()
    assert read.losses.reshape(5, 22).mean(axis=1) == pytest.approx(metrics["train_loss"], rel=1e-4)
    result = training_curves([read])
    save_result([replace(read, out=tmp_path)], result)
    assert TrainingCurvesResult.load(tmp_path).summary() == result.summary()
    expected = hashlib.sha256((finished_run / "losses.csv").read_bytes()).hexdigest()
    assert describe_run(finished_run)["losses_sha256"] == expected


def test_networks_of_the_same_name_are_called_by_their_folders(finished_run, tmp_path):
    copy = shutil.copytree(finished_run, tmp_path / "again")
    assert [read.name for read in open_runs([finished_run, copy])] == ["digits", "again"]


def test_a_run_within_its_first_epoch_has_no_accuracy_yet(finished_run, tmp_path):
    settings = RunSettings(model="irevnet-small", data="digits", training=recipe("digits"), classes=("1", "2"))
    run = new_run(tmp_path / "run", settings)
    with pytest.raises(FileNotFoundError, match=r"run holds no losses\.csv: that run has recorded nothing yet"):
        open_runs([run.folder])
    list(run.epochs(max_steps=3))
    result = training_curves(open_runs([run.folder]), TrainingCurvesOptions(window=2))
    assert result.summary()["runs"][0]["test_accuracy"] is None
    with pytest.raises(
        ValueError, match=r"run was trained on 2 classes of digits, .*digits on 10 classes of digits; g"
    ):
        open_runs([finished_run, run.folder])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("losses.csv", ""),
        ("losses.csv", "step,value\n1,2\n"),
        ("losses.csv", "step,loss\n1,much\n"),
        ("metrics.csv", f"step,test_top1\n1{'0' * 30},0.5\n"),
        ("metrics.csv", "step,test_top1\n,0.5\n"),
    ],
)
def test_a_damaged_record_is_named(finished_run, tmp_path, file, content):
    run: Path = shutil.copytree(finished_run, tmp_path / "run")
    (run / file).write_text(content)
    with pytest.raises(ValueError, match=rf"{file} is (damaged: |of no run: expected a number of steps)"):
        open_runs([run])
