import dataclasses

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import StratifiedKFold, cross_val_score, train_test_split
from sklearn.svm import LinearSVC

from analysis.depth_probe import depth_probe
from analysis.svm import fit_one_vs_rest


@pytest.fixture
def iris():
    """Real data that is nearly, but not wholly, separable; the second depth shows only noise."""
    data = load_iris()
    x, x_test, y, y_test = train_test_split(data.data, data.target, test_size=0.4, stratify=data.target, random_state=0)
    noise = np.random.default_rng(0)
    return [x, noise.normal(size=(90, 2))], y, [x_test, noise.normal(size=(60, 2))], y_test


@pytest.mark.parametrize("solver", ["newton", "sklearn"])
def test_accuracies_are_those_of_the_protocol_by_hand(iris, solver):
    train, labels, test, test_labels = iris
    result = depth_probe(*iris, depths=[1, 2], cost_grid=[0.5], solver=solver)
    for row in range(2):
        mean, scale = train[row].mean(axis=0), train[row].std(axis=0)
        x, x_test = (train[row] - mean) / scale, (test[row] - mean) / scale
        svm = LinearSVC(C=0.5, random_state=0, dual=False).fit(x, labels)
        assert result.svm_accuracy[row] == np.mean(svm.predict(x_test) == test_labels)
        distances = ((x_test[:, None] - x[None]) ** 2).sum(axis=2)
        assert result.nn_accuracy[row] == np.mean(labels[distances.argmin(axis=1)] == test_labels)
    assert result.svm_accuracy[0] > 0.85 > 0.6 > result.svm_accuracy[1]
    assert result.channels.tolist() == [4, 2]
    assert (int(result.num_train), int(result.num_test)) == (90, 60)


def test_intervals_are_wilsons(iris):
    result = depth_probe(*iris, depths=[1, 2], cost_grid=[0.5])
    z, n = 1.959963984540054, 60
    for accuracy, interval in zip(result.nn_accuracy, result.nn_interval):
        centre = (accuracy + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(accuracy * (1 - accuracy) / n + z**2 / (4 * n**2))
        np.testing.assert_allclose(interval, [centre - half, centre + half], rtol=1e-9)


def test_c_is_chosen_by_cross_validation(iris):
    train, labels, test, test_labels = iris
    result = depth_probe(train[:1], labels, test[:1], test_labels, depths=[1], cost_grid=[1e-6, 1.0])
    assert result.svm_cost.tolist() == [1.0]  # 1e-6 leaves the classes to the intercepts


def test_a_c_that_wins_at_the_edge_of_the_grid_is_reported(iris):
    train, labels, test, test_labels = iris
    result = dataclasses.replace(
        depth_probe(train * 2, labels, test * 2, test_labels, depths=[3, 5, 7, 9], cost_grid=[0.5]),
        svm_cost=np.array([0.1, 0.1, 0.5, 2.5]),
        cost_grid=np.array([0.1, 0.5, 2.5]),
        cv_accuracy=np.array([[0.9, 0.8, 0.7], [0.9, 0.9, 0.7], [0.7, 0.9, 0.8], [0.7, 0.8, 0.9]]),
    )
    # A tie with a value inside the grid, as at depth 5, says nothing of what lies beyond.
    assert result.summary()["depths_at_edge_of_cost_grid"] == [3, 9]


@pytest.mark.parametrize("solver", ["newton", "sklearn"])
def test_cross_validated_accuracies_are_kept_for_every_c(iris, solver):
    train, labels, _, _ = iris
    result = depth_probe(*iris, depths=[1, 2], cost_grid=[1.0, 0.01], solver=solver)
    assert result.cost_grid.tolist() == [0.01, 1.0]
    x = (train[0] - train[0].mean(axis=0)) / train[0].std(axis=0)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    for column, cost in enumerate(result.cost_grid):
        scores = cross_val_score(LinearSVC(C=cost, dual=False), x, labels, cv=folds)
        assert result.cv_accuracy[0, column] == pytest.approx(scores.mean())
    assert result.svm_cost[0] == result.cost_grid[result.cv_accuracy[0].argmax()]


def test_c_is_chosen_on_part_of_the_training_set_and_the_svm_fitted_to_all(iris, monkeypatch):
    sizes = []

    def fit(features, labels, **options):
        sizes.append(len(features))
        return fit_one_vs_rest(features, labels, **options)

    monkeypatch.setattr("analysis.depth_probe.fit_one_vs_rest", fit)
    depth_probe(*iris, depths=[1, 2], cost_grid=[0.5], cv_images=30)
    assert sizes == [20, 20, 20, 90] * 2


def test_constant_features_are_no_obstacle(iris):
    train, labels, test, test_labels = iris
    padded = [np.hstack([part[0], np.full((len(part[0]), 1), 7.0)]) for part in (train, test)]
    with_constant = depth_probe([padded[0]], labels, [padded[1]], test_labels, depths=[1])
    without = depth_probe(train[:1], labels, test[:1], test_labels, depths=[1])
    assert with_constant.svm_accuracy == without.svm_accuracy
    assert with_constant.nn_accuracy == without.nn_accuracy


def test_more_features_than_images_are_no_obstacle():
    rng = np.random.default_rng(0)
    labels = np.arange(20) % 2
    train, test = rng.normal(size=(2, 20, 200)) + 3 * labels[:, None]
    assert depth_probe([train], labels, [test], labels, depths=[1]).svm_accuracy[0] == 1.0


def test_the_certificate_of_the_worst_class_is_kept(iris):
    assert (depth_probe(*iris, depths=[1, 2], cost_grid=[0.5]).svm_gap <= 1e-4).all()
    assert np.isnan(depth_probe(*iris, depths=[1, 2], cost_grid=[0.5], solver="sklearn").svm_gap).all()


def test_the_networks_own_accuracy_is_recorded_or_said_to_be_missing(iris):
    known = depth_probe(*iris, depths=[1, 2], cost_grid=[0.5], network_accuracy=0.5)
    assert known.summary()["network_accuracy"] == 0.5
    unknown = depth_probe(*iris, depths=[1, 2], cost_grid=[0.5])
    assert unknown.summary()["network_accuracy"] is None


def test_broken_features_are_named(iris):
    iris[2][1][3, 1] = np.nan
    with pytest.raises(ValueError, match="the features at depth 12 are not finite"):
        depth_probe(*iris, depths=[7, 12], cost_grid=[0.5])


def test_too_few_images_of_a_class_are_refused(iris):
    train, labels, test, test_labels = iris
    labels = np.where(labels == 2, 1, labels)
    labels[:2] = 2
    with pytest.raises(ValueError, match="the rarest of the classes has 2 training images; three-fold"):
        depth_probe(train, labels, test, test_labels, depths=[1, 2])
    with pytest.raises(ValueError, match="at least two classes"):
        depth_probe(train, np.zeros_like(labels), test, test_labels, depths=[1, 2])
