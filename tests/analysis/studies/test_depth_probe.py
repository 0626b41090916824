import math

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from analysis.cache import Cache
from analysis.probes.network_features import ProbeOptions
from analysis.studies.depth_probe import probe_networks


def standardised(features, layer):
    mean, scale = features.train[layer].mean(axis=0), features.train[layer].std(axis=0)
    return (features.train[layer] - mean) / scale, (features.test[layer] - mean) / scale


@pytest.mark.parametrize("solver", ["newton", "sklearn"])
def test_accuracies_are_those_of_the_protocol_by_hand(iris, solver):
    features = iris()
    result = probe_networks([features], ProbeOptions(cost_grid=[0.5], solver=solver))
    for row, layer in enumerate(features.layers):
        x, x_test = standardised(features, layer)
        svm = LinearSVC(C=0.5, random_state=0, dual=False).fit(x, features.train_labels)
        assert result.svm_accuracy[row] == np.mean(svm.predict(x_test) == features.test_labels)
        distances = ((x_test[:, None] - x[None]) ** 2).sum(axis=2)
        nearest = features.train_labels[distances.argmin(axis=1)]
        assert result.nn_accuracy[row] == np.mean(nearest == features.test_labels)
    assert result.svm_accuracy[0] > 0.85 > 0.6 > result.svm_accuracy[1]
    assert result.layer.tolist() == ["block-1", "block-2"]
    assert result.dims.tolist() == [4, 2]
    assert (int(result.num_train), int(result.num_test)) == (90, 60)
    assert np.isnan(result.svm_gap).all() == (solver == "sklearn")
    assert solver == "sklearn" or (result.svm_gap <= 1e-4).all()


def test_distances_are_those_of_all_pairs_of_test_images(iris):
    features = iris()
    result = probe_networks([features], ProbeOptions(cost_grid=[0.5]))
    for row, layer in enumerate(features.layers):
        _, points = standardised(features, layer)
        squares = ((points[:, None] - points[None]) ** 2).sum(axis=2)
        same = features.test_labels[:, None] == features.test_labels[None]
        pairs = np.triu(np.ones_like(same), k=1)
        expected = math.sqrt(squares[same & pairs].mean() / squares[~same & pairs].mean())
        assert result.distance_ratio[row] == pytest.approx(expected, rel=1e-5)


def test_intervals_are_wilsons(iris):
    result = probe_networks([iris()], ProbeOptions(cost_grid=[0.5]))
    z, n = 1.959963984540054, 60
    accuracies = [*result.nn_accuracy, *result.svm_accuracy, *result.network_accuracy, *result.restricted_accuracy]
    intervals = [*result.nn_interval, *result.svm_interval, *result.network_interval, *result.restricted_interval]
    for accuracy, interval in zip(accuracies, intervals, strict=True):
        centre = (accuracy + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(accuracy * (1 - accuracy) / n + z**2 / (4 * n**2))
        np.testing.assert_allclose(interval, [centre - half, centre + half], rtol=1e-9)


def test_what_c_was_chosen_by_is_kept(iris):
    result = probe_networks([iris()], ProbeOptions(cost_grid=[1.0, 1e-6]))
    assert result.cost_grid.tolist() == [1e-6, 1.0]
    assert result.svm_cost[0] == 1.0  # 1e-6 leaves the classes to the intercepts
    assert result.at_edge[0]
    assert result.cv_accuracy.shape == (2, 2)
    assert np.isnan(result.held_out_accuracy).all()
    checked = probe_networks([iris()], ProbeOptions(cost_grid=[1e-6, 1.0], cv_images=20))
    assert np.isfinite(checked.held_out_accuracy).all()


def test_constant_features_are_no_obstacle(iris):
    plain = iris()
    padded = {
        split: {"block-1": np.column_stack((part["block-1"], np.full(len(part["block-1"]), 7.0)))}
        for split, part in (("train", plain.train), ("test", plain.test))
    }
    place = {"layers": ["block-1"], "depths": [1], "relative_depths": [1.0]}
    with_constant = probe_networks([iris(**padded, **place)], ProbeOptions(cost_grid=[0.5]))
    without = probe_networks([iris(**place)], ProbeOptions(cost_grid=[0.5]))
    assert with_constant.svm_accuracy == without.svm_accuracy
    assert with_constant.nn_accuracy == without.nn_accuracy


def test_features_that_are_all_constant_tell_nothing_apart(iris):
    features = iris()
    constant = {
        split: {"block-1": np.ones((n, 3)), "block-2": np.ones((n, 3))} for split, n in (("train", 90), ("test", 60))
    }
    result = probe_networks([iris(**constant)], ProbeOptions(cost_grid=[0.5]))
    assert result.svm_accuracy.tolist() == [np.mean(features.test_labels == 0)] * 2 or result.svm_accuracy[0] < 0.4
    assert result.nn_accuracy[0] == np.mean(features.test_labels == features.train_labels[0])
    assert np.isnan(result.distance_ratio).all()


def test_more_features_than_images_are_no_obstacle(iris):
    rng = np.random.default_rng(0)
    labels = np.arange(20) % 2
    train, test = rng.normal(size=(2, 20, 200)) + 3 * labels[:, None]
    features = iris(
        train={"block-1": train}, test={"block-1": test}, train_labels=labels, test_labels=labels,
        test_logits=np.eye(2)[labels], columns=None, layers=["block-1"], depths=[1], relative_depths=[1.0],
    )  # fmt: skip
    assert probe_networks([features]).svm_accuracy[0] == 1.0


def test_the_networks_own_accuracy_has_all_its_classes_in_play(iris):
    result = probe_networks([iris()], ProbeOptions(cost_grid=[0.5]))
    (network,) = result.summary()["networks"]
    assert network["accuracy"] == 0.9  # every tenth image goes to a fourth class
    assert network["restricted_accuracy"] == 1.0
    unknown = probe_networks([iris(columns=None)], ProbeOptions(cost_grid=[0.5]))
    assert unknown.summary()["networks"][0]["accuracy"] is None
    assert unknown.summary()["networks"][0]["accuracy_interval"] == [None, None]


def test_columns_say_which_logits_belong_to_the_classes(iris):
    features = iris(test_logits=iris().test_logits[:, [3, 2, 0, 1]], columns=np.array([2, 3, 1]))
    assert (features.accuracy(), features.restricted_accuracy()) == (0.9, 1.0)


def test_networks_are_compared_row_by_row(iris):
    other = iris(name="again", layers=["block-2"], depths=[2], relative_depths=[1.0], columns=None)
    result = probe_networks([iris(), other], ProbeOptions(cost_grid=[0.5]))
    assert result.networks.tolist() == ["flowers", "again"]
    assert result.network.tolist() == [0, 0, 1]
    assert result.depth.tolist() == [1, 2, 2]
    assert result.relative_depth.tolist() == [0.5, 1.0, 1.0]
    table = result.table()
    assert table["network"].tolist() == ["flowers", "flowers", "again"]
    assert [len(network["rows"]) for network in result.summary()["networks"]] == [2, 1]
    np.testing.assert_equal(result.restricted_accuracy, [1.0, np.nan])


def test_an_interrupted_study_goes_on_without_computing_again(iris, tmp_path):
    whole = probe_networks([iris(cache=Cache(tmp_path / "whole"))], ProbeOptions(cost_grid=[0.5]))
    broken = iris(cache=Cache(tmp_path / "parts"))
    broken.test["block-2"] = np.full((60, 2), np.nan)
    with pytest.raises(ValueError, match="the features are not finite"):
        probe_networks([broken], ProbeOptions(cost_grid=[0.5]))
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["block-1.json"]
    features = iris(cache=Cache(tmp_path / "parts"))
    features.train["block-1"] = features.test["block-1"] = np.full((1, 4), np.nan)  # not looked at again
    features.test["block-2"], features.train["block-2"] = iris().test["block-2"], iris().train["block-2"]
    again = probe_networks([features], ProbeOptions(cost_grid=[0.5]))
    assert again.table().loc[0].equals(whole.table().loc[0])


def test_other_settings_are_computed_anew(iris, tmp_path):
    cache = Cache(tmp_path)
    one = probe_networks([iris(cache=cache)], ProbeOptions(cost_grid=[1e-6]))
    other = probe_networks([iris(cache=cache)], ProbeOptions(cost_grid=[0.5]))
    assert one.svm_accuracy[0] < other.svm_accuracy[0]
    assert probe_networks([iris(cache=cache)], ProbeOptions(cost_grid=[0.5]), seed=1).svm_cost[0] == 0.5


def test_a_damaged_part_is_computed_anew(tmp_path):
    cache = Cache(tmp_path)
    assert cache.get("a", lambda: {"x": 1}, seed=0) == {"x": 1}
    assert cache.get("a", lambda: {"x": 2}, seed=0) == {"x": 1}
    damages = ("{", "[]", '{"settings": {"seed": 0}}', "[" * 10**5, '{"settings": {"seed": 0}, "result": {"x": "1"}}')
    for damage in damages:
        (tmp_path / "a.json").write_text(damage)
        assert cache.get("a", lambda: {"x": 3}, dict[str, int], seed=0) == {"x": 3}


def test_broken_features_are_named(iris):
    features = iris()
    features.train["block-2"][3, 1] = np.nan
    with pytest.raises(ValueError, match="the features are not finite"):
        probe_networks([features], ProbeOptions(cost_grid=[0.5]))


def test_features_are_standardised_by_the_training_set_alone(iris):
    features = iris()
    shifted = iris(test={layer: 2 * part + 1 for layer, part in features.test.items()})
    x = StandardScaler().fit(features.train["block-1"])
    svm = LinearSVC(C=0.5, dual=False).fit(x.transform(features.train["block-1"]), features.train_labels)
    expected = np.mean(svm.predict(x.transform(shifted.test["block-1"])) == features.test_labels)
    assert probe_networks([shifted], ProbeOptions(cost_grid=[0.5])).svm_accuracy[0] == expected
