import dataclasses
import json

import numpy as np
import pytest

from analysis.probes.probing import LayerProbes, ProbeOptions, TrainingSet
from analysis.probes.saved_probes import SavedProbes, load_probes

NETWORK = {"weights_sha256": "0", "transform": {"image_size": [8, 8]}}


@pytest.fixture
def fitted(iris):
    """The probes of both layers, as the study has them and to be saved."""

    def make(classes: int = 3, **options):
        features = iris()
        chosen = np.flatnonzero(features.train_labels < classes)
        options = ProbeOptions(cost_grid=[0.5], logistic=True, **options)
        probes = [
            LayerProbes(features, layer, TrainingSet(rows=chosen, settings={}), options, seed=0, device="cpu")
            for layer in features.layers
        ]
        found = {each.layer: [each.chosen_svm().probe, each.chosen_logistic().probe] for each in probes}
        layers = {each.layer: each.fitted() for each in probes}
        names = ("setosa", "versicolor", "virginica")[:classes]
        saved = SavedProbes(name="flowers", network=NETWORK, classes=names, layers=layers)
        return features, probes, found, saved

    return make


@pytest.mark.parametrize("solver", ["newton", "sklearn"])
@pytest.mark.parametrize("classes", [2, 3])
def test_loaded_probes_decide_as_the_fitted_ones(fitted, tmp_path, solver, classes):
    features, probes, found, saved = fitted(classes, solver=solver)
    saved.save(tmp_path / "probes.npz")
    loaded = load_probes(tmp_path / "probes.npz")
    assert (loaded.name, loaded.network, loaded.classes) == ("flowers", NETWORK, saved.classes)
    assert loaded.codes == ["svm", "logistic"]
    for each in probes:
        _, test = each.coordinates
        for code, probe in zip(loaded.codes, found[each.layer]):
            decided = loaded.decision_function(each.layer, features.test[each.layer], probe=code)
            expected = probe.decision_function(test if code == "logistic" or solver == "newton" else test.numpy())
            if expected.ndim == 1:  # of two classes scikit-learn has one
                expected = np.stack((-expected, expected), axis=1)
            np.testing.assert_allclose(decided, expected, atol=1e-5 * np.abs(expected).max())
            names = loaded.predict(each.layer, features.test[each.layer], probe=code)
            assert names.tolist() == np.array(saved.classes)[expected.argmax(axis=1)].tolist()


@pytest.mark.parametrize(
    ("layer", "change", "probe", "message"),
    [
        ("block-3", lambda x: x, "svm", "there is no layer 'block-3'; did you mean"),
        ("block-1", lambda x: x, "nn", "there is no probe 'nn'; known: svm, logistic"),
        ("block-1", lambda x: x[:, :3], "svm", "there are 3 features; the probes of block-1 take 4"),
        ("block-1", lambda x: x / 0, "svm", "the features are not finite; the network's weights or inputs are broken"),
    ],
)
def test_features_that_do_not_fit_are_refused(fitted, layer, change, probe, message):
    features, *_, saved = fitted()
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=message):
        saved.predict(layer, change(features.test["block-1"]), probe=probe)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {"header": np.array("{")}, "Expecting property name"),
        (lambda a: {"header": np.array('{"name": "x"}')}, "its header does not name classes, layers and probes"),
        (lambda a: {"header": reworded(a, probes=["magic"])}, r"it has probes \['magic'\] of layers"),
        (lambda a: {"header": reworded(a, layers=["a", "a"])}, "it has probes .* of layers"),
        (
            lambda a: {"header": reworded(a, classes=["a", "b"])},
            r"its 0_svm_coef is float64 of shape \(3, 4\); expected",
        ),
        (
            lambda a: {"1_scale": a["1_scale"] * np.nan},
            r"its 1_scale is float64 of shape \(2,\); expected finite float64",
        ),
        (lambda a: {"0_mean": a["0_mean"].astype(np.float32)}, "its 0_mean is float32 of shape"),
    ],
)
def test_a_damaged_file_is_refused(fitted, tmp_path, change, message):
    *_, saved = fitted()
    path = tmp_path / "probes.npz"
    saved.save(path)
    with np.load(path) as arrays:
        content = dict(arrays)
    np.savez(path, **content | change(content))
    with pytest.raises(ValueError, match=rf"probes\.npz is damaged, or holds no probes: {message}"):
        load_probes(path)


def reworded(arrays, **changes) -> np.ndarray:
    return np.array(json.dumps({**json.loads(str(arrays["header"])), **changes}))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"probes\.npz"):
        load_probes(tmp_path / "probes.npz")


def test_an_svm_alone_is_saved(fitted, tmp_path):
    *_, saved = fitted()
    layers = {
        name: dataclasses.replace(each, weights={"svm": each.weights["svm"]}) for name, each in saved.layers.items()
    }
    dataclasses.replace(saved, layers=layers).save(tmp_path / "svm.npz")
    assert load_probes(tmp_path / "svm.npz").codes == ["svm"]
