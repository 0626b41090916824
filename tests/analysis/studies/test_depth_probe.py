import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from analysis.cache import Cache
from analysis.probes.probing import ProbeOptions, training_sets
from analysis.studies.depth_probe import check_can_be_fitted, probe_networks
from irevnet.utils.files import write_json

HALF = ProbeOptions(cost_grid=[0.5])


def standardised(features, layer):
    """By the training set alone."""
    mean, scale = features.train[layer].mean(axis=0), features.train[layer].std(axis=0)
    return (features.train[layer] - mean) / scale, (features.test[layer] - mean) / scale


@pytest.mark.parametrize("solver", ["newton", "sklearn"])
def test_accuracies_are_those_of_the_protocol_by_hand(iris, solver):
    features = iris()
    labels, test_labels = features.train_labels, features.test_labels
    result = probe_networks([features], ProbeOptions(cost_grid=[0.5], solver=solver))
    for row, layer in enumerate(features.layers):
        x, x_test = standardised(features, layer)
        svm = LinearSVC(C=0.5, random_state=0, dual=False).fit(x, labels)
        assert result.svm_accuracy[row] == np.mean(svm.predict(x_test) == test_labels)
        nearest = labels[cdist(x_test, x).argmin(axis=1)]
        assert result.nn_accuracy[row] == np.mean(nearest == test_labels)
        squares, same = cdist(x_test, x_test) ** 2, test_labels[:, None] == test_labels[None]
        pairs = np.triu(np.ones_like(same), k=1)
        expected = math.sqrt(squares[same & pairs].mean() / squares[~same & pairs].mean())
        assert result.distance_ratio[row] == pytest.approx(expected, rel=1e-5)
    assert result.svm_accuracy[0] > 0.85 > 0.6 > result.svm_accuracy[1]
    assert (result.layer.tolist(), result.dims.tolist()) == (["block-1", "block-2"], [4, 2])
    assert (int(result.num_train), int(result.num_test)) == (90, 60)
    assert np.isnan(result.svm_gap).all() if solver == "sklearn" else (result.svm_gap <= 1e-4).all()


def test_intervals_are_wilsons(iris):
    result = probe_networks([iris()], HALF)
    z, n = 1.959963984540054, 60
    for kind in ("nn", "svm", "network", "restricted"):
        accuracy = getattr(result, f"{kind}_accuracy")
        centre = (accuracy + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(accuracy * (1 - accuracy) / n + z**2 / (4 * n**2))
        interval = getattr(result, f"{kind}_interval")
        np.testing.assert_allclose(interval, np.stack((centre - half, centre + half), axis=1), rtol=1e-9)


def test_what_c_was_chosen_by_is_kept(iris):
    result = probe_networks([iris()], ProbeOptions(cost_grid=[1.0, 1e-6]))
    assert result.cost_grid.tolist() == [1e-6, 1.0]
    assert result.svm_cost[0] == 1.0  # 1e-6 leaves the classes to the intercepts
    assert result.at_edge[0]
    assert result.cv_accuracy.shape == (2, 2)
    assert np.isnan(result.held_out_accuracy).all()
    checked = probe_networks([iris()], ProbeOptions(cost_grid=[1e-6, 1.0], cv_images=20))
    assert np.isfinite(checked.held_out_accuracy).all()


def test_features_that_are_all_constant_tell_nothing_apart(iris):
    constant = {
        split: {layer: np.ones((count, 3)) for layer in ("block-1", "block-2")}
        for split, count in (("train", 90), ("test", 60))
    }
    features = iris(**constant)
    result = probe_networks([features], HALF)
    assert result.svm_accuracy[0] < 0.4
    assert result.nn_accuracy[0] == np.mean(features.test_labels == features.train_labels[0])
    assert np.isnan(result.distance_ratio).all()


def test_the_networks_own_accuracy_has_all_its_classes_in_play(iris):
    result = probe_networks([iris()], HALF)
    (network,) = result.summary()["networks"]
    # Every tenth image goes to a fourth class.
    assert (network["accuracy"], network["restricted_accuracy"]) == (0.9, 1.0)
    permuted = iris(test_logits=iris().test_logits[:, [3, 2, 0, 1]], columns=np.array([2, 3, 1]))
    assert (permuted.accuracy(), permuted.restricted_accuracy()) == (0.9, 1.0)


def test_networks_are_compared_row_by_row(iris):
    other = iris(name="again", layers=["block-2"], depths=[2], relative_depths=[1.0], columns=None)
    result = probe_networks([iris(), other], HALF)
    assert result.networks.tolist() == ["flowers", "again"]
    assert result.network.tolist() == [0, 0, 1]
    assert result.depth.tolist() == [1, 2, 2]
    assert result.relative_depth.tolist() == [0.5, 1.0, 1.0]
    assert result.table()["network"].tolist() == ["flowers", "flowers", "again"]
    first, second = result.summary()["networks"]
    assert (len(first["rows"]), len(second["rows"])) == (2, 1)
    assert (first["restricted_accuracy"], second["restricted_accuracy"], second["accuracy"]) == (1.0, None, None)
    assert second["accuracy_interval"] == [None, None]


def test_an_interrupted_study_goes_on_without_computing_again(iris, tmp_path):
    whole = probe_networks([iris()], HALF)
    broken = iris(cache=Cache(tmp_path))
    broken.test["block-2"] = np.full((60, 2), np.nan)
    with pytest.raises(ValueError, match="the features are not finite"):
        probe_networks([broken], HALF)
    assert [path.name for path in tmp_path.iterdir()] == ["block-1.json"]
    features = iris(cache=Cache(tmp_path))
    features.train["block-1"] = features.test["block-1"] = np.full((1, 4), np.nan)  # not looked at again
    assert probe_networks([features], HALF).table().loc[0].equals(whole.table().loc[0])


def test_other_settings_are_computed_anew(iris, tmp_path):
    cache = Cache(tmp_path)
    one = probe_networks([iris(cache=cache)], ProbeOptions(cost_grid=[1e-6]))
    other = probe_networks([iris(cache=cache)], HALF)
    assert one.svm_accuracy[0] < other.svm_accuracy[0]


def test_a_damaged_part_is_computed_anew(tmp_path):
    cache = Cache(tmp_path)
    assert cache.get("a", lambda: {"x": 1}, seed=0) == {"x": 1}
    assert cache.get("a", lambda: {"x": 2}, seed=0) == {"x": 1}
    damages = ("{", "[]", '{"settings": {"seed": 0}}', "[" * 10**5, '{"settings": {"seed": 0}, "result": {"x": "1"}}')
    for damage in damages:
        (tmp_path / "a.json").write_text(damage)
        assert cache.get("a", lambda: {"x": 3}, dict[str, int], seed=0) == {"x": 3}


def test_further_probes_are_those_of_scikit_learn(iris):
    features = iris()
    options = ProbeOptions(cost_grid=[0.5], logistic=True, neighbours=[1, 7], metric="cosine")
    result = probe_networks([features], options)
    assert result.further.tolist() == ["logistic", "1nn_cosine", "7nn_cosine"]
    weights = {"metric": "cosine", "weights": lambda distance: np.exp((1 - distance) / 0.07), "algorithm": "brute"}
    theirs = [LogisticRegression(C=0.5), *(KNeighborsClassifier(k, **weights) for k in (1, 7))]
    for row, layer in enumerate(features.layers):
        x, x_test = standardised(features, layer)
        scores = [each.fit(x, features.train_labels).score(x_test, features.test_labels) for each in theirs]
        np.testing.assert_allclose(result.further_accuracy[row], scores, atol=1.01 / 60)  # an image
    plain = probe_networks([features], HALF)
    np.testing.assert_array_equal(result.svm_accuracy, plain.svm_accuracy)
    np.testing.assert_array_equal(result.nn_accuracy, plain.nn_accuracy)
    assert (result.logistic_gap <= 1e-4).all()
    assert "logistic_accuracy" not in plain.table()
    assert result.table()["7nn_cosine_accuracy"].tolist() == result.further_accuracy[:, 2].tolist()


def test_few_images_are_probed_in_several_draws(iris):
    options = ProbeOptions(shots=5, draws=2, neighbours=[3], cost_grid=[0.1, 1.0])
    features = iris()
    result = probe_networks([features], options)
    assert (int(result.shots), int(result.draws), int(result.num_train)) == (5, 2, 15)
    assert result.draw_accuracy.shape == (2, 3, 2)
    first = [result.svm_accuracy[0], result.nn_accuracy[0], result.further_accuracy[0, 0]]
    np.testing.assert_allclose(result.draw_accuracy[0].mean(axis=1), first)
    for draw, chosen in enumerate(training_sets(features.train_labels, options, seed=0)):
        train = {layer: part[chosen.rows] for layer, part in features.train.items()}
        alone = iris(train=train, train_labels=features.train_labels[chosen.rows], test=features.test)
        of_draw = probe_networks([alone], ProbeOptions(neighbours=[3], cost_grid=[0.1, 1.0]))
        found = [of_draw.svm_accuracy[0], of_draw.nn_accuracy[0], of_draw.further_accuracy[0, 0]]
        np.testing.assert_array_equal(result.draw_accuracy[0, :, draw], found)


def test_with_one_image_of_a_class_linear_probes_are_unknown_without_c(iris):
    options = {"shots": 1, "draws": 2, "logistic": True}
    result = probe_networks([iris()], ProbeOptions(**options))
    assert np.isnan(result.svm_accuracy).all()
    assert np.isnan([result.svm_cost, result.svm_gap, result.logistic_cost]).all()
    assert np.isnan(result.further_accuracy).all()
    assert result.nn_accuracy[0] > 0.6
    (network,) = result.summary()["networks"]
    assert (network["rows"][0]["svm_accuracy"], network["rows"][0]["svm_cost"]) == (None, None)
    given = probe_networks([iris()], ProbeOptions(**options, cost_grid=[0.1]))
    assert given.svm_accuracy[0] > 0.6
    assert (given.svm_cost == 0.1).all()


def test_parts_are_not_confused_between_options(iris, tmp_path):
    """Each set of options gives with a cache that others have filled what it gives without one."""
    several = [
        {},
        {"logistic": True},
        {"neighbours": [5]},
        {"neighbours": [5], "metric": "cosine"},
        {"neighbours": [5, 9], "metric": "cosine"},
        {"shots": 4, "logistic": True, "neighbours": [5]},
        {"shots": 4, "draws": 3, "neighbours": [5], "metric": "cosine"},
        {"shots": 6, "neighbours": [5]},
        {"cost_grid": [0.1], "logistic": True},
    ]
    made = [ProbeOptions(**{"cost_grid": [0.5], **each}) for each in several]
    one = {"layers": ["block-1"], "depths": [1], "relative_depths": [1.0]}
    fresh = [probe_networks([iris(**one)], each).table() for each in made]
    for _ in range(2):
        for options, expected in zip(made, fresh):
            assert probe_networks([iris(**one, cache=Cache(tmp_path))], options).table().equals(expected)


def test_parts_kept_before_there_were_other_probes_are_used(iris, tmp_path):
    settings = {"cost_grid": [0.5], "cv_images": 2000, "solver": "newton", "seed": 0}
    kept = {"dims": 4, "nn_correct": 3, "distance_ratio": 0.5, "svm_correct": 6, "svm_cost": 0.5, "svm_gap": 1e-5}
    kept |= {"at_edge": False, "cv_accuracy": [0.25], "held_out_accuracy": [None]}
    write_json(tmp_path / "block-1.json", {"settings": settings, "result": kept})
    result = probe_networks([iris(cache=Cache(tmp_path))], HALF)
    assert (result.svm_accuracy[0], result.nn_accuracy[0], result.cv_accuracy[0, 0]) == (0.1, 0.05, 0.25)


def test_probes_without_a_c_cannot_be_saved(iris):
    features = iris(train_labels=np.where(np.arange(90) == 3, 3, iris().train_labels))
    with pytest.raises(ValueError, match="a class has one training image, which leaves none to choose the C of probes"):
        check_can_be_fitted(features, ProbeOptions())
    check_can_be_fitted(features, HALF)
