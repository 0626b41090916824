import json
import shutil

import numpy as np
import pytest

from analysis.results import InversionResult
from analysis.study import Study


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
    assert study.data == "digits"
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
