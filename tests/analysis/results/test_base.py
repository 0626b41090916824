import dataclasses
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
    dataclasses.replace(result, svm_cost=np.array([5.0, 5.0, 5.0])).save(tmp_path, {})  # which the later one replaces
    files = result.save(tmp_path, {"command": ["irevnet-analyze"]})
    assert [path.name for path in files] == ["depth-probe.npz", "depth-probe.csv", "depth-probe.json"]
    again = DepthProbeResult.load(tmp_path)
    for field in dataclasses.fields(result):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(result, field.name))
    table = pd.read_csv(files[1])
    assert table["svm_accuracy"].tolist() == [0.5, 0.75, 0.9]
    assert table["nn_accuracy_high"].tolist() == [0.5, 0.75, 0.9]
    record = json.loads(files[2].read_text())
    assert record["provenance"] == {"command": ["irevnet-analyze"]}
    (network,) = record["summary"]["networks"]
    assert [(row["depth"], row["svm_gap"]) for row in network["rows"]] == [(1, 1e-5), (2, 2e-5), (5, None)]
    assert (network["accuracy"], network["restricted_accuracy"]) == (0.77, 0.85)


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


def test_a_damaged_result_is_refused(tmp_path, result):
    with pytest.raises(FileNotFoundError, match="no complete result of depth-probe; run the study first"):
        DepthProbeResult.load(tmp_path)
    arrays = result.save(tmp_path, {})[0]
    arrays.write_bytes(arrays.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"depth-probe\.npz is damaged, or not a result of depth-probe"):
        DepthProbeResult.load(tmp_path)
    np.savez(arrays, other=np.arange(3))
    with pytest.raises(ValueError, match="not a result of depth-probe"):
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


def test_the_inversion_table_has_a_row_for_each_number(inversion):
    table = inversion.table()
    assert table["set"].value_counts().to_dict() == {"sample": 24 + 4 + 4, "test images": 9, "uniform noise": 9}
    row = table[(table["set"] == "sample") & (table["depth"] == 12) & (table["index"] == 1)]
    assert row["arithmetic"].tolist() == ["float32", "float16", "exact", "float32", "float32"]
    assert row["quantity"].tolist() == ["relative error"] * 3 + ["amplification, random", "amplification, largest"]
    assert row["value"].tolist() == [4e-7, np.inf, 0.0, 7.0, 70.0]


def test_the_inversion_summary_is_valid_json(inversion):
    summary = inversion.summary()
    json.dumps(summary, allow_nan=False)
    errors = np.sort(inversion.image_errors[np.isfinite(inversion.image_errors)])
    quantiles = dict(zip(("median", "q90", "q99", "max"), np.quantile(errors, [0.5, 0.9, 0.99, 1])))
    expected = {"count": 8, "undefined": 1, "mean": errors.mean(), **quantiles}
    assert summary["images"] == pytest.approx(expected)
    assert summary["by_depth"][1] == {
        "depth": 12,
        "mean_error": {"float32": pytest.approx(3e-7), "float16": None, "exact": 0.0},
        "amplification_random": 6.0,
        "amplification_largest": 60.0,
    }


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
    table = pd.read_csv(tmp_path / "spectrum.csv").set_index(["image", "rank"])
    for image, spectrum in zip("abc", spectra):
        values, known = table.loc[image], np.concatenate((spectrum.largest, spectrum.smallest[::-1]))
        ranks = [*range(1, 1 + len(spectrum.largest)), *range(151 - len(spectrum.smallest), 151)]
        assert values.index.tolist() == ranks
        np.testing.assert_allclose(values["singular_value"], known)
        energy = np.cumsum(known**2)[: len(spectrum.largest)] / spectrum.squared_norm
        np.testing.assert_allclose(values["energy"][: len(spectrum.largest)], energy)


def check_refused(folder, result, changes, message) -> None:
    """A result saved with other arrays."""
    arrays = result.save(folder, {})[0]
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    np.savez(arrays, **fields | changes)
    study = result.STUDY
    with pytest.raises(ValueError, match=rf"{study}\.npz is damaged, or not a result of {study}: {message}"):
        type(result).load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"svm_cost": np.zeros(4)}, r"its svm_cost is float64 of shape \(4,\); expected Float\[ndarray, 'rows'\]"),
        ({"svm_cost": np.array(["a", "b", "c"])}, "its svm_cost is <U1 of shape"),
        ({"layer": np.zeros(3)}, "its layer is float64; expected text"),
        ({"layer": np.array(["\ud800"] * 3)}, ".*surrogates not allowed"),
        ({"network": np.array([0, 0, 1])}, "its network is expected to have rows for each of its 1 networks"),
    ],
)
def test_arrays_of_wrong_type_or_shape_are_refused(tmp_path, result, changes, message):
    check_refused(tmp_path, result, changes, message)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (
            "interpolation",
            lambda r: {"top_class": r.top_class + 1},
            "its top_class goes from 1 to 3; expected indices",
        ),
        (
            "interpolation",
            lambda r: {"images": r.images[:, :, :, :2]},
            r"its images are of shape .*; expected \(2, ",
        ),
        ("inversion", lambda r: {"shown": r.shown + 7}, r"its shown has \[8, 11, 9\]; expected indices of 9 images"),
        ("inversion", lambda r: {"num_image_shown": np.array(6)}, "its num_image_shown is 6, and its originals are of"),
        (
            "inversion",
            lambda r: {"arithmetics": np.array([], dtype=str), "depth_errors": np.zeros((0, 2, 4))},
            "its depths, arithmetics or amplifications are empty",
        ),
        (
            "spectrum_result",
            lambda r: {"image": r.image + 1},
            "its image goes from 1 to 2; expected indices of its",
        ),
        (
            "spectrum_result",
            lambda r: {"weights": r.weights * 1e15},
            "its row 0 is no spectrum of a map from 150 to",
        ),
        ("spectrum_result", lambda r: {"num_inputs": r.num_inputs * 0}, "its row 0 is no spectrum of a map from 0 to"),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path, request, kind, change, message):
    result = request.getfixturevalue(kind)
    check_refused(tmp_path, result, change(result), message)


def test_every_kind_of_result_is_loaded_as_it_was(
    tmp_path, interpolation, inversion, spectrum_result, spectra_by_depth, sweeps, probes
):
    for number, made in enumerate((interpolation, inversion, spectrum_result, spectra_by_depth, sweeps, probes)):
        made.save(tmp_path / str(number), {})
        assert type(made).load(tmp_path / str(number)).summary() == made.summary()


def test_probes_saved_before_there_were_others_are_loaded(tmp_path, probe, sweep):
    """Their files lack the fields of other probes and of draws."""
    for result in (probe, sweep):
        folder = tmp_path / result.STUDY
        arrays = result.save(folder, {})[0]
        earlier = set(result.added({}))
        fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
        np.savez(arrays, **{name: value for name, value in fields.items() if name not in earlier})
        again = type(result).load(folder)
        assert again.summary() == result.summary()
        assert again.table().equals(result.table())
        assert again.further.tolist() == []


def test_probes_of_unknown_codes_are_refused(tmp_path, probe):
    changes = {
        "further": np.array(["magic"]),
        "further_accuracy": np.zeros((3, 1)),
        "further_interval": np.zeros((3, 1, 2)),
    }
    check_refused(tmp_path, probe, changes, "'magic' is no probe; expected svm, nn, logistic, or numbers of neighbours")
