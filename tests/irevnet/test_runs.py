import json
import os
from pathlib import Path

import pandas as pd
import pytest
import torch

from irevnet import read_checkpoint
from irevnet.runs import choose_device, find_checkpoint, study_folder, train_run
from irevnet.train import EpochMetrics, TrainConfig


def test_a_run_folder_holds_config_metrics_classes_and_checkpoints(finished_run):
    assert {path.name for path in finished_run.iterdir()} == {
        "config.json",
        "metrics.csv",
        "classes.txt",
        "last.pt",
        "best.pt",
    }
    config = json.loads((finished_run / "config.json").read_text())
    assert config["model"] == "irevnet-small"
    assert config["training"]["epochs"] == 20
    assert config["config"]["input_shape"] == [1, 8, 8]
    metrics = pd.read_csv(finished_run / "metrics.csv")
    assert list(metrics.columns) == list(EpochMetrics.__dataclass_fields__)
    assert metrics["epoch"].tolist() == list(range(1, 21))
    assert metrics["test_top1"].iloc[-1] >= 0.97
    assert (finished_run / "classes.txt").read_text().split() == list("0123456789")
    last, best = (read_checkpoint(finished_run / name) for name in ("last.pt", "best.pt"))
    assert last.metrics == metrics.iloc[-1].to_dict()
    assert best.metrics["test_top1"] == metrics["test_top1"].max()


def test_the_best_checkpoint_is_not_replaced_by_a_worse_one(tmp_path, monkeypatch):
    from irevnet import runs

    def epochs(*args, **options):
        for epoch, top1 in enumerate((0.5, 0.9, 0.7), start=1):
            values = dict.fromkeys(EpochMetrics.__dataclass_fields__, 0.0) | {
                "epoch": epoch,
                "step": 0,
                "test_top1": top1,
            }
            yield EpochMetrics(**values)

    monkeypatch.setattr(runs, "fit", epochs)
    folder, metrics = train_run(tmp_path / "run", model="irevnet-small", data="digits", config=TrainConfig())
    assert len(list(metrics)) == 3
    assert read_checkpoint(folder / "best.pt").metrics["epoch"] == 2
    assert read_checkpoint(folder / "last.pt").metrics["epoch"] == 3


def test_a_folder_that_holds_a_run_is_left_alone(finished_run):
    before = {path: path.read_bytes() for path in finished_run.iterdir()}
    with pytest.raises(FileExistsError, match="digits holds another run; name a folder that is new or empty"):
        train_run(finished_run, model="irevnet-small", data="digits", config=TrainConfig(epochs=1))
    assert {path: path.read_bytes() for path in finished_run.iterdir()} == before


def test_a_folder_or_file_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for out in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(FileExistsError, match="holds other files"):
            train_run(out, model="irevnet-small", data="digits", config=TrainConfig(epochs=1))
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_nothing_is_left_behind_where_training_cannot_start(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="there is no model"):
        train_run(out, model="resnet", data="digits", config=TrainConfig())
    with pytest.raises(ValueError, match="there is no data set"):
        train_run(out, model="irevnet-small", data="mnist", config=TrainConfig())
    with pytest.raises(ValueError, match="larger than the training set"):
        train_run(out, model="irevnet-small", data="digits", config=TrainConfig(batch_size=5000))
    assert not out.exists()


def test_images_are_resized_where_asked(tmp_path):
    folder, epochs = train_run(
        tmp_path / "run",
        model="irevnet-small",
        data="digits",
        config=TrainConfig(epochs=1, batch_size=1437),
        image_size=4,
    )
    assert next(epochs).step == 1
    assert read_checkpoint(folder / "last.pt").transform.image_size == (4, 4)


def test_a_run_without_a_name_is_called_after_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, _ = train_run(None, model="irevnet-small", data="digits", config=TrainConfig())
    assert folder.parent == Path("runs")
    assert folder.name.startswith("digits-irevnet-small-20")


def test_the_newest_run_is_found(tmp_path):
    for age, name in enumerate(("new", "old")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "last.pt").touch()
        os.utime(tmp_path / name / "last.pt", (1e9 - age, 1e9 - age))
    (tmp_path / "unfinished").mkdir()
    assert find_checkpoint(None, tmp_path) == tmp_path / "new" / "last.pt"
    assert find_checkpoint(tmp_path / "old", tmp_path) == tmp_path / "old" / "last.pt"
    assert find_checkpoint(tmp_path / "old" / "last.pt", tmp_path) == tmp_path / "old" / "last.pt"


def test_what_cannot_be_found_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"there is no run under .*; train one with 'irevnet train', or give --ckpt"
    ):
        find_checkpoint(None, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no last\.pt; give a run's folder or a checkpoint file"):
        find_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*nowhere\.pt"):
        find_checkpoint(tmp_path / "nowhere.pt")


def test_results_go_into_the_run_or_beside_a_bare_checkpoint(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").touch()
    assert study_folder(run / "last.pt", "invert") == run / "analysis" / "invert"
    assert study_folder(run / "best.pt", "invert") == run / "best-analysis" / "invert"
    assert study_folder(tmp_path / "last.pt", "invert") == tmp_path / "last-analysis" / "invert"
    assert study_folder(tmp_path / "net.pth", "invert") == tmp_path / "net-analysis" / "invert"


def test_devices(monkeypatch):
    assert choose_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(ValueError, match="torch finds no CUDA device here; compute on the cpu instead"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == "cuda"
