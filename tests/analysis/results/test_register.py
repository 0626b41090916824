import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from analysis.results.register import STUDIES, load_result


def test_studies_are_in_the_order_of_the_paper():
    assert list(STUDIES) == ["training-curves", "invert", "interpolate", "spectrum", "depth-probe", "pca"]


@pytest.mark.parametrize("spec", STUDIES.values(), ids=STUDIES)
def test_a_study_has_a_module_and_a_figure(spec):
    for package in ("analysis.studies", "figures.studies"):
        assert find_spec(f"{package}.{spec.module}") is not None


def test_any_saved_result_is_loaded(tmp_path, probe, inversion):
    for result in (probe, inversion):
        result.save(tmp_path / result.STUDY, {})
        loaded = load_result(tmp_path / result.STUDY)
        assert type(loaded) is type(result)
        assert loaded.summary() == result.summary()


def test_a_folder_without_one_result_is_refused(tmp_path, probe, inversion):
    with pytest.raises(FileNotFoundError, match=r"holds no result of a study; expected one of training-curves, invert"):
        load_result(tmp_path)
    probe.save(tmp_path, {})
    (tmp_path / "invert.json").write_text("{}")
    with pytest.raises(ValueError, match=r"results of several studies \(invert, depth-probe\); load each by its own"):
        load_result(tmp_path)
    np.savez(tmp_path / "depth-probe.npz", other=np.zeros(1))
    (tmp_path / "invert.json").unlink()
    with pytest.raises(ValueError, match="not a result of depth-probe"):
        load_result(tmp_path)


def test_results_are_read_without_torch():
    code = "import sys, analysis.results.register; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
