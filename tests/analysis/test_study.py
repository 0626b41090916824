import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from analysis.results import InversionResult
from analysis.study import Study
from irevnet.recipes import recipe
from irevnet.runs import new_run
from irevnet.settings import RunSettings
from irevnet.train import evaluate


@pytest.fixture
def run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


@pytest.fixture
def result():
    return InversionResult(
        image_errors=np.zeros(1),
        noise_errors=np.zeros(1),
        originals=np.zeros((2, 1, 2, 2)),
        reconstructions=np.zeros((2, 1, 2, 2)),
        shown_errors=np.zeros(2),
        num_image_shown=np.array(1),
        depth=np.array(12),
    )


def test_a_run_is_opened_with_its_own_data(run):
    study = Study.open(run, device="cpu")
    assert study.path == run / "last.pt"
    assert study.source.name == "digits"
    assert len(study.images("test")) == 360
    assert not study.checkpoint.model.training


def test_results_are_saved_into_the_run_with_their_provenance(run, result):
    files = Study.open(run, seed=5).save(result, ["irevnet-analyze", "invert"])
    assert files[0] == run / "analysis" / "invert" / "invert.npz"
    record = json.loads(files[2].read_text())["provenance"]
    assert record["seed"] == 5
    assert record["data"] == "digits"
    assert record["config"]["blocks"] == [4, 4, 4]
    assert record["classes"] == list("0123456789")
    assert len(record["checkpoint_sha256"]) == 64
    assert record["wall_seconds"] >= 0


def test_results_go_where_they_are_sent(run, result, tmp_path):
    study = Study.open(run, out=tmp_path / "elsewhere")
    assert study.save(result, [])[0] == tmp_path / "elsewhere" / "invert.npz"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(FileExistsError, match="holds other files"):
        Study.open(run, out=tmp_path / "full").folder(InversionResult)


def test_the_classes_looked_at_are_those_trained_on_unless_others_are_asked_for(run):
    assert Study.open(run).classes == tuple("0123456789")
    few = Study.open(run, classes=("3", "8"))
    assert few.classes == ("3", "8")
    assert set(few.images("test").labels) == {0, 1}
    drawn = [Study.open(run, classes=4, class_seed=seed).classes for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_images_of_a_subset_are_labelled_as_the_network_knows_them(run):
    study = Study.open(run, classes=("3", "8"))
    images = study.images("test")
    relabelled = study.with_network_labels(images)
    assert [(3, 8)[label] for label in images.labels] == relabelled.labels
    assert evaluate(study.checkpoint.model, relabelled).top1 > 0.9
    other = replace(study, checkpoint=replace(study.checkpoint, classes=("3", "7")))
    assert other.with_network_labels(images) is None
    unnamed = replace(study, checkpoint=replace(study.checkpoint, classes=()))
    assert unnamed.with_network_labels(images) is None
    assert unnamed.with_network_labels(Study.open(run).images("test")) is not None


def test_a_network_trained_on_some_classes_is_studied_on_them(tmp_path):
    settings = RunSettings(model="irevnet-small", data="digits", classes=("9", "1"), training=recipe("digits", steps=1))
    made = new_run(tmp_path / "some", settings)
    list(made.epochs())
    study = Study.open(tmp_path / "some")
    assert study.classes == ("1", "9")
    assert study.with_network_labels(study.images("test")).labels == study.images("test").labels
