import dataclasses

import numpy as np
import pytest

from analysis.cache import Cache
from analysis.geometry.dimension import two_nn
from analysis.geometry.jackknife import deal
from analysis.geometry.similarity import debiased_cka
from analysis.probes.svm import fit_one_vs_rest
from analysis.results.findings import FindingContext
from analysis.results.geometry import MEASURES, GeometryResult
from analysis.studies import layer_geometry
from analysis.studies.depth_probe import probe_networks
from analysis.studies.geometry import GeometryOptions, measure_networks


@pytest.fixture
def simplex(iris):
    """The first layer is noise, the second the corners of a simplex, blurred, which a linear layer sees."""
    rng = np.random.default_rng(0)
    corners = 5 * (np.eye(4) - 1 / 4) @ np.linalg.qr(rng.normal(size=(30, 4)))[0].T
    labels, test_labels = rng.permutation(np.arange(400) % 4), rng.permutation(np.arange(200) % 4)

    def features(of, spread):
        layers = {
            "block-1": rng.normal(size=(len(of), 3)),
            "block-2": corners[of] + spread * rng.normal(size=(len(of), 30)),
        }
        return {name: (each + 3).astype(np.float32) for name, each in layers.items()}

    def make(spread=0.1, **changes):
        train, test = features(labels, spread), features(test_labels, spread)
        weights, bias = 2 * corners[[3, 2, 1, 0]], np.arange(4.0)
        fields = {
            "train": train, "test": test, "train_labels": labels, "test_labels": test_labels,
            "test_logits": (test["block-2"] @ weights.T + bias).astype(np.float32), "columns": np.array([3, 2, 1, 0]),
            "classifier": (weights, bias),
        }  # fmt: skip
        return iris(**{**fields, **changes})

    return make


def test_a_simplex_has_collapsed_and_noise_has_not(simplex):
    net = simplex()
    result = measure_networks([net], GeometryOptions(num_images=300))
    assert result.dims.tolist() == [3, 30]
    for code in ("nc1", "nc2_norms", "nc2_cosines", "nc2_angles"):
        (noise, last), (_, (low, high)) = result.of(code)
        assert last < 0.1 < noise
        assert low <= last <= high
    np.testing.assert_allclose(result.of("nc3")[0], [np.nan, 0], atol=0.03)  # the layer sees the last features alone
    share, (_, high) = result.of("nc4")[0][1], result.of("nc4")[1][1]
    assert share == 0 < high < 0.03
    assert result.of("effective_rank")[0][0] == pytest.approx(3, abs=0.1)
    assert result.of("participation_ratio")[0][1] == pytest.approx(3, abs=0.2)
    assert result.of("dims_90")[0].tolist() == [3, 3]
    assert np.isnan(result.of("alpha")[0][0])
    assert result.fit_ranks.tolist() == [[0, 0], [3, 15]]
    assert result.part_images.tolist() == [[300, 150]] * 2
    table = result.table()
    assert len(table) == 2
    assert [code for code in MEASURES if f"{code}_low" not in table] == []


def test_each_number_is_that_of_the_functions_of_arrays(simplex):
    net = simplex()
    result = measure_networks([net], GeometryOptions(num_images=400), seed=5)
    whole = two_nn(net.train["block-2"], seed=5)
    assert result.of("two_nn")[0][1] == pytest.approx(whole.dimension, rel=1e-9)
    assert result.two_nn_error[1] == pytest.approx(whole.error, rel=1e-9)
    covariance = np.cov(net.train["block-2"].astype(np.float64).T, bias=True)
    np.testing.assert_allclose(result.variance(1), np.linalg.eigvalsh(covariance)[::-1], rtol=1e-8)
    groups = deal(net.test_labels, seed=5)
    expected = debiased_cka(net.test["block-1"], net.test["block-2"], groups)
    assert (result.first.tolist(), result.second.tolist()) == ([0, 0, 1], [0, 1, 1])
    np.testing.assert_allclose(result.cka, [1, expected.value, 1])
    np.testing.assert_allclose(result.cka_interval[1], expected.interval)
    weights = net.classifier[0][net.columns]
    means = np.array([net.train["block-2"][net.train_labels == k].mean(axis=0) for k in range(4)], dtype=np.float64)
    means -= means.mean(axis=0)
    distance = np.linalg.norm(weights / np.linalg.norm(weights) - means / np.linalg.norm(means))
    assert result.of("nc3")[0][1] == pytest.approx(distance, rel=1e-5)
    scale = net.train["block-2"].std(axis=0)
    svm = fit_one_vs_rest((net.train["block-2"] - net.train["block-2"].mean(axis=0)) / scale, net.train_labels, C=0.01)
    coef = svm.coef / scale
    distance = np.linalg.norm(coef / np.linalg.norm(coef) - means / np.linalg.norm(means))
    assert result.of("nc3_svm")[0][1] == pytest.approx(distance, abs=1e-3)


def test_svm_of_many_images_is_that_of_some_of_each_class(simplex, monkeypatch):
    monkeypatch.setattr(layer_geometry, "SVM_IMAGES", 100)
    net = simplex()
    rows = layer_geometry.draw_of_each_class(net.train_labels, 100, seed=5)
    assert len(np.unique(rows)) == 100
    rare = np.where(np.arange(10_000) == 7, 1, 0)
    assert 7 in layer_geometry.draw_of_each_class(rare, 100, seed=5)
    fewer = dataclasses.replace(
        net, train={name: each[rows] for name, each in net.train.items()}, train_labels=net.train_labels[rows]
    )
    weights = [layer_geometry.LayerGeometry(each, "block-2", 100, 5, "cpu")._svm_weights() for each in (net, fewer)]
    np.testing.assert_allclose(*weights, rtol=1e-4)


def test_finished_parts_are_not_computed_again(simplex, tmp_path):
    net = simplex(cache=Cache(tmp_path))
    result = measure_networks([net], GeometryOptions(num_images=200))
    assert {path.name for path in tmp_path.glob("*.json")} == {
        f"block-{depth}-{part}.json" for depth in (1, 2) for part in ("dimension", "moments", "similarity")
    }
    nothing = {name: np.full_like(each, np.nan) for name, each in net.train.items()}
    again = measure_networks([dataclasses.replace(net, train=nothing)], GeometryOptions(num_images=200))
    assert again.table().equals(result.table())
    np.testing.assert_array_equal(again.cka_interval, result.cka_interval)
    with pytest.raises(
        ValueError, match=r"block-1 of flowers: .* are not finite; .*leave it out by `depths` or `layers`"
    ):
        measure_networks([dataclasses.replace(net, train=nothing)], GeometryOptions(num_images=201))


def test_similarity_of_other_features_is_computed_anew(simplex, tmp_path):
    net = simplex(cache=Cache(tmp_path))
    first = measure_networks([net], GeometryOptions(num_images=100)).cka[1]
    other = {**net.test, "block-2": net.test["block-1"]}
    assert measure_networks([dataclasses.replace(net, test=other)], GeometryOptions(num_images=100)).cka[1] != first


def test_networks_are_compared_layer_by_layer(simplex):
    nets = [simplex(), simplex(spread=0.5, name="others")]
    result = measure_networks(nets, GeometryOptions(num_images=100))
    assert result.network.tolist() == [0, 0, 1, 1]
    matrix = result.similarity()
    assert matrix.shape == (4, 4)
    assert np.isfinite(matrix).all()
    assert matrix[1, 3] > 0.8 > 0.2 > abs(matrix[0, 3])
    alone = [measure_networks([net], GeometryOptions(num_images=100)) for net in nets]
    joined = GeometryResult.join(alone, ["flowers", "others"])
    assert joined.table().equals(result.table())
    np.testing.assert_array_equal(joined.variance(3), result.variance(3))
    expected = matrix.copy()
    expected[:2, 2:] = expected[2:, :2] = np.nan
    np.testing.assert_array_equal(joined.similarity(), expected)


def test_tunnel_is_that_of_the_probes_on_both_data(simplex):
    net = simplex()
    swapped = {"block-1": "block-2", "block-2": "block-1"}  # other data, which the last layer mixes up
    other = dataclasses.replace(
        net,
        train={name: net.train[swapped[name]] for name in net.train},
        test={n: net.test[swapped[n]] for n in net.test},
    )
    nets, others = [net, simplex(name="others")], [other, other]
    options = GeometryOptions(num_images=100)
    result = measure_networks(nets, options, probed={"flowers": nets, "photos/birds": others}, seed=3)
    own, mixed = probe_networks(nets, seed=3), probe_networks(others, seed=3)
    assert result.probe_data.tolist() == ["flowers", "birds"]
    np.testing.assert_array_equal(result.probe_accuracy, np.stack((own.svm_accuracy, mixed.svm_accuracy), axis=1))
    np.testing.assert_array_equal(result.probe_interval[:, 1], mixed.svm_interval)
    assert result.tunnel_start.tolist() == [[2, 2, 2]] * 2
    assert result.other_peak[:, 0].tolist() == [[1, 1, 1]] * 2
    assert result.summary()["networks"][0]["tunnel"]["other_data"][0]["peak"] == [1, 1, 1]
    assert result.table()["svm_birds"].tolist() == mixed.svm_accuracy.tolist()
    found = [each for each in result.findings(FindingContext(network="", num_classes=4)) if "19753" in each.source]
    assert [each.verdict for each in found] == 2 * ["differs", "open"]
    alone = measure_networks(nets, options, seed=3)
    joined = GeometryResult.join([result, alone], ["a", "b", "c", "d"])
    assert joined.probe_data.tolist() == []
    assert np.isnan(joined.tunnel_start).all()
    assert alone.table().equals(result.table().drop(columns=[name for name in result.table() if "svm_" in name[:4]]))


def test_a_tunnel_that_loses_other_data_agrees(simplex, tmp_path):
    result = dataclasses.replace(
        measure_networks([simplex()], GeometryOptions(num_images=100)),
        probe_data=np.array(["flowers", "birds", "fish"]), probe_accuracy=np.ones((2, 3)),
        probe_interval=np.ones((2, 3, 2)), tunnel_start=np.ones((1, 3)), other_peak=np.ones((1, 2, 3)),
        other_change=np.array([[[-0.1, -0.2, -0.05], [-0.1, -0.2, 0.05]]]),
    )  # fmt: skip
    found = [each for each in result.findings(FindingContext(network="", num_classes=4)) if "19753" in each.source]
    assert [each.verdict for each in found] == ["agrees", "agrees", "differs"]
    assert (
        found[1].here
        == "accuracy on birds changes by -10.0 points (-20.0 to -5.0) in it, and is highest at depth 1 (1 to 1)"
    )
    result.save(tmp_path, {})
    assert GeometryResult.load(tmp_path).summary() == result.summary()
    fewer = {"probe_data": np.array(["a"]), "probe_accuracy": np.ones((2, 1)), "probe_interval": np.ones((2, 1, 2))}
    dataclasses.replace(result, **fewer).save(tmp_path, {})
    with pytest.raises(ValueError, match="it has 2 others for 1 probe_data; expected one less"):
        GeometryResult.load(tmp_path)
    dataclasses.replace(result, tunnel_start=np.full((1, 3), 7.0)).save(tmp_path, {})
    with pytest.raises(ValueError, match="its tunnel_start is 7; expected a depth of flowers"):
        GeometryResult.load(tmp_path)


def test_tunnel_needs_images_to_choose_c_by(simplex):
    net = simplex()
    few = [int(np.flatnonzero(net.train_labels == k)[0]) for k in range(4)]
    alone = {name: each[few] for name, each in net.train.items()}
    net = dataclasses.replace(net, train=alone, train_labels=net.train_labels[few])
    with pytest.raises(ValueError, match="a class has one training image, which leaves none to choose the C"):
        measure_networks([net], probed={"flowers": [net], "birds": [net]})


def test_findings_say_collapse_where_it_is(simplex):
    collapsed, noisy = (
        measure_networks([simplex(spread=spread)], GeometryOptions(num_images=100)) for spread in (0.05, 2)
    )
    context = FindingContext(network="flowers", num_classes=4)
    for result, expected in ((collapsed, "agrees"), (noisy, "differs")):
        found = {each.paper[:3]: each for each in result.findings(context) if each.source == "arXiv:2008.08186"}
        assert [found[name].verdict for name in ("NC1", "NC2", "NC4")] == 3 * [expected]
    unseen = dataclasses.replace(simplex(), classifier=None, columns=None)
    found = measure_networks([unseen], GeometryOptions(num_images=100)).findings(context)
    by_name = {each.paper[:3]: each for each in found}
    assert by_name["NC3"].verdict == by_name["NC4"].verdict == "open"
    assert by_name["NC4"].here == "the network's answers are not known"


def test_hunchback_is_found_where_the_dimension_rises_and_falls(simplex):
    rng = np.random.default_rng(0)
    net = simplex()
    for dims, expected in (((1, 6, 1), "agrees"), ((1, 3, 6), "differs")):
        layers = {f"block-{at}": rng.normal(size=(600, d)) for at, d in enumerate(dims, start=1)}
        changed = dataclasses.replace(
            net, layers=list(layers), depths=[1, 2, 3], relative_depths=[1 / 3, 2 / 3, 1.0],
            train={name: each[:400] for name, each in layers.items()},
            test={name: each[400:] for name, each in layers.items()},
        )  # fmt: skip
        findings = measure_networks([changed]).findings(FindingContext(network="flowers", num_classes=4))
        (found,) = (each for each in findings if "increases and then decreases" in each.paper)
        assert found.verdict == expected


def test_where_there_is_no_interval_there_is_none(simplex, monkeypatch):
    monkeypatch.setattr(layer_geometry, "JACKKNIFE_DIMS", 10)
    result = measure_networks([simplex()], GeometryOptions(num_images=100))
    assert np.isfinite(result.of("nc1")[0]).all()
    assert np.isfinite(result.of("nc1")[1][0]).all()
    assert np.isnan(result.of("nc1")[1][1]).all()


def test_one_image_a_class_has_no_nc1(simplex):
    net = simplex()
    few = [int(np.flatnonzero(net.train_labels == k)[0]) for k in range(4)]
    alone = {name: each[few] for name, each in net.train.items()}
    result = measure_networks([dataclasses.replace(net, train=alone, train_labels=net.train_labels[few])])
    assert np.isnan(result.of("nc1")[0]).all()
    assert np.isfinite(result.of("nc2_norms")[0]).all()
    assert np.isnan(result.of("nc2_norms")[1]).all()


def test_constant_features_are_refused_by_the_name_of_their_layer(simplex):
    net = simplex()
    dead = {**net.train, "block-2": np.ones_like(net.train["block-2"])}
    with pytest.raises(ValueError, match=r"block-2 of flowers: .*; leave it out by `depths` or `layers`"):
        measure_networks([dataclasses.replace(net, train=dead)])


def test_too_few_images_to_have_neighbours_are_refused():
    with pytest.raises(ValueError, match="`num_images` is 2; expected 3 or more, for two neighbours"):
        GeometryOptions(num_images=2)


def test_a_saved_result_is_loaded_and_others_are_refused(simplex, tmp_path):
    result = measure_networks([simplex()], GeometryOptions(num_images=100))
    result.save(tmp_path, {})
    again = GeometryResult.load(tmp_path)
    assert again.summary() == result.summary()
    changed = dataclasses.replace(result, measures=result.measures[::-1])
    changed.save(tmp_path, {})
    with pytest.raises(ValueError, match=r"its measures are nc4, nc3_svm, .*; expected two_nn, participation_ratio"):
        GeometryResult.load(tmp_path)
    changed = dataclasses.replace(result, eigenvalue_row=0 * result.eigenvalue_row)
    with pytest.raises(ValueError, match=r"its eigenvalues are expected to be of each of its \d+ rows"):
        changed.check()
