import csv
import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest
import torch
from PIL import Image

from irevnet import read_checkpoint, save_checkpoint
from irevnet.checkpoints.checkpoint import read_training_state, weights_sha256
from irevnet.data.transforms import InputTransform
from irevnet.training.config import recipe
from irevnet.training.kept import kept_checkpoints
from irevnet.training.runs import (
    default_folder,
    find_checkpoint,
    new_run,
    prepare,
    resume_run,
    run_folder,
    study_folder,
)
from irevnet.training.settings import RunSettings, read_settings
from irevnet.training.trainer import EpochMetrics, Evaluation


def settings(**changes) -> RunSettings:
    """One epoch of three steps on two of the digits."""
    config = recipe("digits", **{"epochs": 1, "batch_size": 90, **changes.pop("training", {})})
    given = {"model": "irevnet-small", "data": "digits", "training": config, "classes": ("0", "1"), **changes}
    return RunSettings(**given)


def test_run_folder_has_all_its_files(finished_run):
    names = "best.pt classes.txt config.json last.pt losses.csv metrics.csv"
    assert sorted(path.name for path in finished_run.iterdir()) == names.split()
    config = json.loads((finished_run / "config.json").read_text())
    assert config["model"] == "irevnet-small"
    assert config["training"]["epochs"] == 5
    assert config["config"]["input_shape"] == [1, 8, 8]
    assert config["provenance"]["device"] in ("cpu", "cuda:0")
    assert set(config["provenance"]) >= {"command", "versions", "threads", "commit", "time"}
    metrics = pd.read_csv(finished_run / "metrics.csv", dtype=str).astype(float)  # to the last bit in every version
    assert list(metrics.columns) == list(EpochMetrics.__dataclass_fields__)
    assert metrics["epoch"].tolist() == list(range(1, 6))
    assert metrics["test_top1"].iloc[-1] >= 0.93
    losses = pd.read_csv(finished_run / "losses.csv")
    assert losses["step"].tolist() == list(range(1, 5 * 22 + 1))
    assert losses["loss"][-22:].mean() == pytest.approx(metrics["train_loss"].iloc[-1], rel=1e-4)
    assert (finished_run / "classes.txt").read_text().split() == list("0123456789")
    last, best = (read_checkpoint(finished_run / name) for name in ("last.pt", "best.pt"))
    rows = list(csv.DictReader((finished_run / "metrics.csv").read_text().splitlines()))
    assert last.metrics == {name: float(text) for name, text in rows[-1].items()}  # pandas 2.2 reads all digits but one
    assert best.metrics["test_top1"] == max(float(row["test_top1"]) for row in rows)
    assert read_settings(finished_run) == RunSettings(
        model="irevnet-small", data="digits", training=recipe("digits", epochs=5), classes=tuple("0123456789")
    )


@pytest.mark.slow
def test_default_run_on_digits_is_right_on_97_percent(tmp_path):
    torch.manual_seed(0)
    default = RunSettings(model="irevnet-small", data="digits", training=recipe("digits"))
    *_, last = new_run(tmp_path / "run", default).epochs()
    assert last.epoch == 20
    assert last.test_top1 >= 0.97


def test_best_checkpoint_is_not_replaced_by_a_worse_one(tmp_path, monkeypatch, unchecked_types):
    run = new_run(tmp_path / "run", settings(training={"epochs": 3}))
    top1 = iter((0.5, 0.9, 0.7))
    monkeypatch.setattr(
        "irevnet.training.trainer.evaluate",
        lambda *args, **options: Evaluation(loss=1.0, top1=next(top1), top5=1.0, num_images=1),
    )
    assert len(list(run.epochs())) == 3
    assert read_checkpoint(run.folder / "best.pt").metrics["epoch"] == 2
    assert read_checkpoint(run.folder / "last.pt").metrics["epoch"] == 3


def test_run_stopped_within_an_epoch_resumes_exactly(tmp_path, unchecked_types):
    """With four classes drawn at random and augmented images, so with everything that the folder has to keep."""
    asked = settings(classes=4, class_seed=7, training={"epochs": 2, "batch_size": 150, "augmentation": "cifar"})
    torch.manual_seed(0)
    whole = new_run(tmp_path / "whole", asked)
    list(whole.epochs())
    torch.manual_seed(0)
    run = new_run(tmp_path / "parts", asked)
    for steps in (2, 2, 1):
        list(run.epochs(max_steps=steps))
        assert not run.finished
        torch.manual_seed(steps)
        run = resume_run(run.folder, read_settings(run.folder))
    list(run.epochs())
    assert run.finished
    assert weights_sha256(run.checkpoint.model) == weights_sha256(whole.checkpoint.model)
    for name in ("losses.csv", "classes.txt"):
        assert (tmp_path / "parts" / name).read_text() == (tmp_path / "whole" / name).read_text()
    tables = [pd.read_csv(tmp_path / name / "metrics.csv").drop(columns="seconds") for name in ("whole", "parts")]
    pd.testing.assert_frame_equal(*tables)
    assert len(read_checkpoint(tmp_path / "parts" / "last.pt").classes) == 4


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_run_keeps_the_same_checkpoints_whether_it_was_resumed_or_not(tmp_path, unchecked_types):
    asked = settings(training={"epochs": 2}, keep_every=2)
    folders = []
    for name in ("whole", "parts"):
        torch.manual_seed(0)
        run = new_run(tmp_path / name, asked)
        folders.append(run.folder / "kept")
        if name == "whole":
            list(run.epochs())
            continue
        list(run.epochs(max_steps=3))
        early = contents(run.folder / "kept")
        assert [*early] == ["step-000000.pt", "step-000002.pt"]
        (run.folder / "kept" / "step-000002.pt").unlink()
        (run.folder / "last.pt").unlink()  # as after a kill before anything else was saved
        torch.manual_seed(0)
        run = resume_run(run.folder, read_settings(run.folder))
        list(run.epochs(stop=lambda: run.training.step == 6))  # noqa: B023  # before the evaluation
        assert not run.finished
        assert [*contents(run.folder / "kept")] == [*early, "step-000004.pt"]
        list(resume_run(run.folder, read_settings(run.folder)).epochs())
    whole, parts = map(contents, folders)
    assert [*whole] == [f"step-{step:06d}.pt" for step in (0, 2, 4, 6)]
    assert parts == whole
    found = kept_checkpoints(tmp_path / "whole")
    assert [*found] == [0, 2, 4, 6]
    metrics = [read_checkpoint(path).metrics for path in found.values()]
    assert metrics[:3] == [{"step": step} for step in (0, 2, 4)]
    last = read_checkpoint(tmp_path / "whole" / "last.pt")
    assert metrics[3] == {name: value for name, value in last.metrics.items() if name != "seconds"}
    assert weights_sha256(read_checkpoint(found[6]).model) == weights_sha256(last.model)
    with pytest.raises(ValueError, match="holds weights but no training state"):
        read_training_state(found[6])
    assert run_folder(found[0]) == tmp_path / "whole"
    assert study_folder(found[0], "pca") == tmp_path / "whole/kept/step-000000-analysis/pca"


def test_only_the_first_process_keeps_checkpoints(tmp_path, monkeypatch):
    run = new_run(tmp_path / "run", settings(keep_every=1))
    monkeypatch.setattr("irevnet.utils.distributed.rank", lambda: 1)
    run._keep()
    assert not (run.folder / "kept").exists()


def test_run_saves_within_an_epoch_at_intervals(tmp_path, monkeypatch, unchecked_types):
    monkeypatch.setattr("irevnet.training.runs.SAVE_EVERY", 0.0)
    run = new_run(tmp_path / "run", settings())
    seen, step = [], run.training._do_step

    def look_before(*batch):
        seen.append((run.folder / "last.pt").is_file())
        step(*batch)

    monkeypatch.setattr(run.training, "_do_step", look_before)
    list(run.epochs())
    assert seen == [False, True, True]


def test_runs_with_nothing_saved_and_with_all_done_are_resumed(finished_run, tmp_path):
    runs = []
    for start in (new_run, resume_run):
        torch.manual_seed(0)
        runs.append(start(tmp_path / "run", settings()))
        assert runs[-1].training.step == 0
    assert weights_sha256(runs[0].checkpoint.model) == weights_sha256(runs[1].checkpoint.model)
    run = resume_run(finished_run, read_settings(finished_run))
    assert run.finished
    assert list(run.epochs()) == []


@pytest.mark.parametrize("stop", [2, 3])
def test_stop_is_asked_after_every_step_and_in_an_evaluation(tmp_path, stop, unchecked_types):
    run = new_run(tmp_path / "run", settings())
    assert list(run.epochs(stop=lambda: run.training.step == stop)) == []  # 3 steps are the epoch
    assert not run.finished
    assert read_checkpoint(run.folder / "last.pt").metrics == {"step": stop}
    assert not (run.folder / "best.pt").exists()
    resumed = resume_run(run.folder, read_settings(run.folder))
    assert resumed.training.step == stop
    (metrics,) = resumed.epochs()
    assert (metrics.epoch, resumed.finished) == (1, True)
    assert read_checkpoint(run.folder / "best.pt").metrics["epoch"] == 1


def test_infinite_loss_error_names_the_last_good_checkpoint(tmp_path, unchecked_types):
    run = new_run(tmp_path / "run", settings(training={"epochs": 2}))
    list(run.epochs(max_steps=2))
    before = (run.folder / "last.pt").read_bytes()
    with torch.no_grad():
        run.checkpoint.model.head.classifier.bias[0] = torch.nan
    message = r"the loss is nan at step 3, .*; the last good checkpoint is .*last\.pt, after step 2"
    with pytest.raises(FloatingPointError, match=message):
        list(run.epochs())
    assert (run.folder / "last.pt").read_bytes() == before


@pytest.mark.parametrize("keep_every", [None, 1])
def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch, keep_every):
    run = new_run(tmp_path / "run", settings(keep_every=keep_every))

    def step(*batch):
        run.training.step += 1
        with torch.no_grad():
            run.checkpoint.model.head.classifier.bias[0] = torch.inf

    monkeypatch.setattr(run.training, "_do_step", step)
    message = r"a weight is no longer finite after step 1; .*; no checkpoint has been saved"
    with pytest.raises(FloatingPointError, match=message):
        list(run.epochs(max_steps=1))
    assert not (run.folder / "last.pt").exists()
    assert [*kept_checkpoints(run.folder)] == ([0] if keep_every else [])


def test_run_does_not_resume_from_another_checkpoint(finished_run, tmp_path):
    with pytest.raises(ValueError, match="digits was started with all images; repair those that cannot be read, or"):
        resume_run(finished_run, read_settings(finished_run), on_error="skip")
    other = new_run(tmp_path / "other", settings(classes=3))
    shutil.copy(finished_run / "last.pt", other.folder)
    with pytest.raises(ValueError, match=r"last\.pt has another network or other data than .*config\.json says"):
        resume_run(other.folder, read_settings(other.folder))
    bare = new_run(tmp_path / "bare", settings())
    save_checkpoint(bare.folder / "last.pt", bare.checkpoint)
    with pytest.raises(ValueError, match=r"last\.pt holds weights but no training state"):
        resume_run(bare.folder, read_settings(bare.folder))


def test_folders_that_hold_something_are_left_alone(finished_run, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    before = {path: path.read_bytes() for folder in (finished_run, tmp_path) for path in folder.iterdir()}
    with pytest.raises(FileExistsError, match=r"digits holds another run; resume that run, or name a folder"):
        new_run(finished_run, settings())
    for out in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(FileExistsError, match="holds other files"):
            new_run(out, settings())
    assert {path: path.read_bytes() for folder in (finished_run, tmp_path) for path in folder.iterdir()} == before


def test_training_that_cannot_start_leaves_no_files(tmp_path):
    for changes, message in (
        ({"model": "resnet"}, "there is no model"),
        ({"data": "mnist"}, "there is no data set"),
        ({"training": {"batch_size": 5000}}, "larger than the training set"),
    ):
        with pytest.raises(ValueError, match=message):
            new_run(tmp_path / "run", settings(**changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("model", "size"), [("irevnet-small", 224), ("irevnet-cifar-bijective", 32)])
def test_images_get_the_size_of_the_network_or_of_the_settings(tmp_path, model, size):
    for place in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (60, 40)).save(tmp_path / place / "x.png")
    asked = settings(model=model, data=str(tmp_path), classes=None, training={"batch_size": 2})
    assert prepare(asked)[1].model.config.input_shape == (3, size, size)
    _, made, _ = prepare(settings(model=model, image_size=16, training={"normalise": True}))
    assert made.transform == InputTransform(channels=1, image_size=(16, 16), mean=(0.3053,), std=(0.3761,))
    assert made.model.config.input_shape == (1, 16, 16)


def test_runs_that_begin_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("irevnet.training.runs.datetime", Mock(now=lambda: datetime(2026, 1, 2, 3, 4, 5)))
    for name in ("", "-2", "-3"):
        folder = default_folder(settings())
        assert str(folder) == f"runs/digits-irevnet-small-20260102-030405{name}"
        folder.mkdir(parents=True)


def test_the_newest_run_is_found(tmp_path):
    for age, name in enumerate(("new", "old")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "last.pt").touch()
        os.utime(tmp_path / name / "last.pt", (1e9 - age, 1e9 - age))
    (tmp_path / "unfinished").mkdir()
    assert find_checkpoint(None, tmp_path) == tmp_path / "new" / "last.pt"
    assert find_checkpoint(tmp_path / "old", tmp_path) == tmp_path / "old" / "last.pt"
    assert find_checkpoint(tmp_path / "old" / "last.pt", tmp_path) == tmp_path / "old" / "last.pt"
    for path, message in (
        (None, r"there is no run under .*; train a network with 'irevnet train', or give a checkpoint"),
        (tmp_path, r"holds no last\.pt; give a run's folder or a checkpoint file"),
        (tmp_path / "nowhere.pt", r"there is no checkpoint .*nowhere\.pt"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            find_checkpoint(path, tmp_path / "empty")


def test_results_go_into_the_run_or_beside_a_bare_checkpoint(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").touch()
    for checkpoint, folder in (
        ("run/last.pt", "run/analysis"),
        ("run/best.pt", "run/best-analysis"),
        ("last.pt", "last-analysis"),
        ("net.pth", "net-analysis"),
    ):
        assert study_folder(tmp_path / checkpoint, "invert") == tmp_path / folder / "invert"
