import dataclasses
import errno
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.results import DepthProbeResult, SpectrumResult


@pytest.fixture
def result(probe) -> DepthProbeResult:
    return probe


def test_a_saved_result_is_loaded_as_it_was(tmp_path, result):
    files = result.save(tmp_path / "out", {"command": ["irevnet-analyze"]})
    assert [path.name for path in files] == ["depth-probe.npz", "depth-probe.csv", "depth-probe.json"]
    again = DepthProbeResult.load(tmp_path / "out")
    for field in dataclasses.fields(result):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(result, field.name))
    table = pd.read_csv(files[1])
    assert table["svm_accuracy"].tolist() == [0.5, 0.75, 0.9]
    assert table["nn_accuracy_high"].tolist() == [0.5, 0.75, 0.9]
    record = json.loads(files[2].read_text())
    assert record["provenance"] == {"command": ["irevnet-analyze"]}
    (network,) = record["summary"]["networks"]
    assert [row["depth"] for row in network["rows"]] == [1, 2, 5]
    assert [row["svm_gap"] for row in network["rows"]] == [1e-5, 2e-5, None]
    assert (network["accuracy"], network["restricted_accuracy"]) == (0.77, 0.85)


def test_a_later_result_replaces_an_earlier_one(tmp_path, result):
    result.save(tmp_path, {})
    dataclasses.replace(result, svm_cost=np.array([5.0, 5.0, 5.0])).save(tmp_path, {})
    assert DepthProbeResult.load(tmp_path).svm_cost.tolist() == [5.0, 5.0, 5.0]


def test_results_are_not_saved_among_other_files(tmp_path, result):
    (tmp_path / "thesis.tex").write_text("years of work")
    for folder, message in ((tmp_path, "holds other files"), (tmp_path / "thesis.tex", "is a file")):
        with pytest.raises(FileExistsError, match=message):
            result.save(folder, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_only_a_single_network_has_an_accuracy_of_its_own(probe, probes, inversion):
    assert probe.own_accuracy == 0.77
    assert dataclasses.replace(probe, network_accuracy=np.array([np.nan])).own_accuracy is None
    assert probes.own_accuracy is None
    assert inversion.own_accuracy is None


def test_an_unfinished_result_does_not_load(tmp_path, result):
    with pytest.raises(FileNotFoundError, match="no complete result of depth-probe; run the study first"):
        DepthProbeResult.load(tmp_path)
    result.save(tmp_path, {})
    (tmp_path / "depth-probe.json").unlink()
    with pytest.raises(FileNotFoundError, match="no complete result of depth-probe"):
        DepthProbeResult.load(tmp_path)


def test_a_failed_save_keeps_the_earlier_result(tmp_path, result, monkeypatch):
    before = {path.name: path.read_bytes() for path in result.save(tmp_path, {})}

    def fail(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(OSError, match=r"No space left on device: .*depth-probe\.csv"):
        dataclasses.replace(result, svm_accuracy=result.svm_accuracy / 2).save(tmp_path, {"seed": 1})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    DepthProbeResult.load(tmp_path)


def test_an_interrupted_save_leaves_no_complete_result(tmp_path, result, monkeypatch):
    result.save(tmp_path, {})
    rename = os.replace

    def fail(source, target):
        if Path(target).suffix == ".csv":
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        result.save(tmp_path, {})
    with pytest.raises(FileNotFoundError, match="holds no complete result of depth-probe; run the study first"):
        DepthProbeResult.load(tmp_path)


def test_a_damaged_result_is_refused(tmp_path, result):
    arrays = result.save(tmp_path, {})[0]
    arrays.write_bytes(arrays.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"depth-probe\.npz is damaged, or not a result of depth-probe"):
        DepthProbeResult.load(tmp_path)
    np.savez(arrays, other=np.arange(3))
    with pytest.raises(ValueError, match="not a result of depth-probe"):
        DepthProbeResult.load(tmp_path)


def test_pickled_arrays_are_not_loaded(tmp_path, result):
    arrays = result.save(tmp_path, {})[0]
    np.savez(arrays, **{field.name: np.array([{}], dtype=object) for field in dataclasses.fields(result)})
    with pytest.raises(ValueError, match=r"allow_pickle=False"):
        DepthProbeResult.load(tmp_path)


def test_the_inversion_table_has_a_row_for_each_number(inversion):
    table = inversion.table()
    counts = table.groupby(["set", "quantity"]).size().to_dict()
    assert counts == {
        ("test images", "relative error"): 9,
        ("uniform noise", "relative error"): 9,
        ("sample", "relative error"): 24,
        ("sample", "amplification, random"): 4,
        ("sample", "amplification, largest"): 4,
    }
    row = table[(table["set"] == "sample") & (table["depth"] == 12) & (table["index"] == 1)]
    assert row["arithmetic"].tolist() == ["float32", "float16", "exact", "float32", "float32"]
    assert row["value"].tolist() == [4e-7, np.inf, 0.0, 7.0, 70.0]


def test_the_inversion_summary_is_valid_json(inversion):
    summary = inversion.summary()
    json.dumps(summary, allow_nan=False)
    assert summary["images"].pop("mean") == pytest.approx(1.375e-7)
    assert summary["images"].pop("q99") == pytest.approx(4e-7 - 0.07 * 2e-7)
    assert summary["images"].pop("q90") == pytest.approx(2e-7 + 0.3 * 2e-7)
    assert summary["images"] == {"count": 8, "undefined": 1, "median": 1e-7, "max": 4e-7}
    assert summary["by_depth"][1] == {
        "depth": 12,
        "mean_error": {"float32": pytest.approx(3e-7), "float16": None, "exact": 0.0},
        "amplification_random": 6.0,
        "amplification_largest": 60.0,
    }


def test_a_network_of_other_classes_has_no_accuracy(probes):
    own, other = probes.summary()["networks"]
    assert (own["accuracy"], other["accuracy"], other["restricted_accuracy"]) == (0.77, None, None)
    assert [row["depth"] for row in other["rows"]] == [1, 2, 5]


def test_the_knees_of_a_sweep_are_in_its_summary(sweeps):
    for network in sweeps.summary()["networks"]:
        assert (network["svm_knee"], network["nn_knee"]) == (10, 10)
        assert [row["explained_variance"] for row in network["rows"]] == [0.3, 0.8, 1.0]


def test_spectra_of_different_lengths_are_saved(tmp_path, geometric):
    spectra = [geometric(), geometric(0.01, "dense"), geometric(inverse=False)]
    rows = {"network": [0, 0, 0], "layer": ["block-1"] * 3, "depth": [1] * 3, "image": [0, 1, 2]}
    SpectrumResult.of(spectra, networks=["one"], images=["a", "b", "c"], **rows).save(tmp_path, {})
    again = SpectrumResult.load(tmp_path)
    for row, spectrum in enumerate(spectra):
        found = again.spectrum(row)
        for field in dataclasses.fields(spectrum):
            expected = getattr(spectrum, field.name)
            np.testing.assert_array_equal(np.ravel(getattr(found, field.name))[: np.size(expected)], np.ravel(expected))
            assert np.shape(getattr(found, field.name))[-1:] == np.shape(expected)[-1:]
    assert pd.read_csv(tmp_path / "spectrum.csv")["rank"].tolist() == [
        *range(1, 11),
        *range(148, 151),
        *range(1, 151),
        *range(1, 11),
    ]


def damaged(folder, result, **changes) -> str:
    """Saves a result with other arrays, of which the name returned is the study's."""
    arrays = result.save(folder, {})[0]
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    np.savez(arrays, **fields | changes)
    return arrays.stem


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"svm_cost": np.zeros(4)}, r"its svm_cost is float64 of shape \(4,\); expected Float\[ndarray, 'rows'\]"),
        ({"svm_cost": np.array(["a", "b", "c"])}, "its svm_cost is <U1 of shape"),
        ({"num_test": np.array([20])}, "its num_test is int64 of shape"),
        ({"layer": np.zeros(3)}, "its layer is float64; expected text"),
        ({"layer": np.array(["\ud800"] * 3)}, ".*surrogates not allowed"),
        ({"network": np.array([0, 0, 1])}, "its network is expected to have rows for each of its 1 networks"),
        ({"network": np.array([-1, -1, -1])}, "its network is expected to have rows for each of its 1"),
    ],
)
def test_arrays_of_wrong_type_or_shape_are_refused(tmp_path, result, changes, message):
    damaged(tmp_path, result, **changes)
    with pytest.raises(ValueError, match=rf"depth-probe\.npz is damaged, or not a result of depth-probe: {message}"):
        DepthProbeResult.load(tmp_path)


def test_indices_out_of_range_are_refused(tmp_path, interpolation, inversion, spectrum_result):
    wrong = [
        (
            interpolation,
            {"top_class": interpolation.top_class + 1},
            "its top_class goes from 1 to 3; expected indices of its 3 classes",
        ),
        (
            interpolation,
            {"images": interpolation.images[:, :, :, :2]},
            r"its images are of shape .*; expected \(2, lines, steps, 1 or 3, height, width\)",
        ),
        (inversion, {"shown": inversion.shown + 7}, r"its shown has \[8, 11, 9\]; expected indices of 9 images"),
        (inversion, {"num_image_shown": np.array(6)}, "its num_image_shown is 6, and its originals are of shape"),
        (
            inversion,
            {"arithmetics": np.array([], dtype=str), "depth_errors": np.zeros((0, 2, 4))},
            "its depths, arithmetics or amplifications are empty",
        ),
        (
            spectrum_result,
            {"image": spectrum_result.image + 1},
            "its image goes from 1 to 2; expected indices of its 2 images",
        ),
        (
            spectrum_result,
            {"weights": spectrum_result.weights * 1e15},
            "its row 0 is no spectrum of a map from 150 to 150 dimensions",
        ),
        (
            spectrum_result,
            {"num_inputs": spectrum_result.num_inputs * 0},
            "its row 0 is no spectrum of a map from 0 to 150 dimensions",
        ),
    ]
    for number, (made, changes, message) in enumerate(wrong):
        study = damaged(tmp_path / str(number), made, **changes)
        with pytest.raises(ValueError, match=rf"{study}\.npz is damaged, or not a result of {study}: {message}"):
            type(made).load(tmp_path / str(number))


def test_every_kind_of_result_is_loaded_as_it_was(
    tmp_path, interpolation, inversion, spectrum_result, spectra_by_depth, sweeps, probes
):
    for number, made in enumerate((interpolation, inversion, spectrum_result, spectra_by_depth, sweeps, probes)):
        made.save(tmp_path / str(number), {})
        assert type(made).load(tmp_path / str(number)).summary() == made.summary()
