import dataclasses
import functools
import itertools

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from analysis.cache import Cache
from analysis.probes import cost_selection as cost
from analysis.probes.cost_selection import choose_svm
from analysis.probes.pca import principal_components
from analysis.probes.svm import fit_one_vs_rest
from analysis.studies.pca_sweep import PCASweepOptions, default_dims, sweep_networks


@pytest.fixture
def digits(iris):
    """The 64 pixels of handwritten digits, as if they were the features of a layer."""
    data, labels = load_digits(return_X_y=True)

    def make(**changes):
        fields = {
            "layers": ["block-9"], "depths": [9], "relative_depths": [1.0],
            "train": {"block-9": data[:500]}, "test": {"block-9": data[500:1000]},
            "train_labels": labels[:500], "test_labels": labels[500:1000],
            "test_logits": np.eye(10)[labels[500:1000]], "columns": np.arange(10),
        }  # fmt: skip
        return iris(**{**fields, **changes})

    return make


def test_it_is_the_protocol_of_the_paper_by_hand(digits, monkeypatch):
    """Standardised, then rotated and cut, and never standardised again."""
    monkeypatch.setattr(cost, "fit_one_vs_rest", functools.partial(fit_one_vs_rest, tolerance=1e-8))
    features = digits()
    result = sweep_networks([features], PCASweepOptions(dims=[2, 30], cost_grid=[0.01]))
    scaler = StandardScaler().fit(features.train["block-9"])
    pca = PCA(svd_solver="full").fit(scaler.transform(features.train["block-9"]))
    train, test = (pca.transform(scaler.transform(part["block-9"])) for part in (features.train, features.test))
    assert result.dims.tolist() == [2, 30, 64]
    np.testing.assert_allclose(result.explained, pca.explained_variance_ratio_.cumsum()[[1, 29, 63]], atol=1e-5)
    for row, d in enumerate(result.dims):
        nearest = KNeighborsClassifier(1, algorithm="brute").fit(train[:, :d], features.train_labels)
        assert result.nn_accuracy[row] == pytest.approx(nearest.score(test[:, :d], features.test_labels), abs=2e-3)
        svm = LinearSVC(C=0.01, dual=False, tol=1e-8).fit(train[:, :d], features.train_labels)
        assert result.svm_accuracy[row] == pytest.approx(svm.score(test[:, :d], features.test_labels), abs=2e-3)
    assert result.svm_accuracy[0] < 0.6 < 0.85 < result.svm_accuracy[-1]
    assert (result.svm_gap <= 1e-4).all()


def test_c_is_chosen_anew_for_every_d(digits):
    features, grid = digits(), [1e-4, 1e-3, 1e-2, 0.1, 1.0]
    result = sweep_networks([features], PCASweepOptions(dims=[3], cost_grid=grid))
    train = principal_components(features.train["block-9"]).transform(features.train["block-9"])
    expected = [choose_svm(train[:, :d], features.train_labels, cost_grid=grid).cost for d in (3, 64)]
    assert result.svm_cost.tolist() == expected
    assert len(set(expected)) > 1


def test_results_that_are_there_are_not_computed_again(digits, tmp_path):
    result = sweep_networks([digits(cache=Cache(tmp_path))], PCASweepOptions(dims=[2, 10], cost_grid=[0.01]))
    parts = {path.name for path in tmp_path.iterdir()}
    assert parts == {f"block-9-{part}.json" for part in (2, 10, 64, "nearest")}
    nothing = {split: {"block-9": np.full((500, 64), np.nan)} for split in ("train", "test")}
    again = sweep_networks([digits(cache=Cache(tmp_path), **nothing)], PCASweepOptions(dims=[2, 10], cost_grid=[0.01]))
    assert again.table().equals(result.table())
    for dims in ([2, 10, 11], [2]):  # one more SVM, and neighbours of other numbers of components
        with pytest.raises(ValueError, match="the features are not finite"):
            sweep_networks([digits(cache=Cache(tmp_path), **nothing)], PCASweepOptions(dims=dims, cost_grid=[0.01]))


def test_numbers_of_components_that_there_are_not_are_refused(digits):
    with pytest.raises(ValueError, match="0 to 65 components were asked for; flowers has 1 to 64 at block-9"):
        sweep_networks([digits()], PCASweepOptions(dims=[0, 65]))


@pytest.mark.parametrize("total", [1, 5, 3072])
def test_default_dims_go_from_1_to_all(total):
    dims = default_dims(total)
    assert (dims[0], dims[-1]) == (1, total)
    assert all(low < high <= max(low + 1, 1.5 * low) for low, high in itertools.pairwise(dims))


@pytest.mark.parametrize(
    ("accuracy", "knee"),
    [
        ([0.5, 0.9, 0.905], 10),
        ([0.885, 0.9, 0.9], 10),  # a point and a half is more than a point
        ([0.895, 0.6, 0.9], 64),  # within a point by luck, and out of it again
        ([0.92, 0.91, 0.905], 1),
    ],
)
def test_the_knee_is_where_accuracy_falls_by_more_than_a_point(sweeps, accuracy, knee):
    """Of the second network, of 1, 10 and 64 components."""
    changed = dataclasses.replace(sweeps, svm_accuracy=np.array([0.1, 0.1, 0.9, *accuracy]))
    assert changed.knee(1, "svm") == knee
    summary = changed.summary()["networks"]
    assert [(each["svm_knee"], each["nn_knee"]) for each in summary] == [(64, 10), (knee, 10)]


def test_further_probes_and_few_images_are_swept(digits, tmp_path):
    options = {"dims": [3, 20], "cost_grid": [0.01], "logistic": True, "neighbours": [5], "metric": "cosine"}
    whole = sweep_networks([digits(cache=Cache(tmp_path))], PCASweepOptions(**options))
    assert whole.further.tolist() == ["logistic", "5nn_cosine"]
    assert whole.further_accuracy.shape == (3, 2)
    assert (np.diff(whole.further_accuracy, axis=0) > 0).all()
    nothing = {split: {"block-9": np.full((500, 64), np.nan)} for split in ("train", "test")}
    again = sweep_networks([digits(cache=Cache(tmp_path), **nothing)], PCASweepOptions(**options))
    assert again.table().equals(whole.table())
    few = PCASweepOptions(**options, shots=4, draws=2)
    result = sweep_networks([digits(cache=Cache(tmp_path))], few)
    assert result.table().equals(sweep_networks([digits()], few).table())
    assert (result.svm_accuracy < whole.svm_accuracy).all()
    assert result.svm_accuracy[-1] > 0.6


def test_there_is_no_knee_where_accuracies_are_unknown(sweep):
    unknown = dataclasses.replace(sweep, svm_accuracy=np.full(3, np.nan))
    assert (unknown.knee(0, "svm"), unknown.knee(0, "nn")) == (None, 10)
    assert unknown.summary()["networks"][0]["svm_knee"] is None
