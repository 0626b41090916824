"""Features of one's own have the results of a network with the same features."""

import dataclasses
import json

import numpy as np
import pytest

from analysis.cache import Cache
from analysis.own_features import is_of_features, open_features
from analysis.studies.depth_probe import DepthProbeOptions, depth_probe, probe_networks
from analysis.studies.pca_sweep import PCASweepOptions, pca_sweep, sweep_networks
from analysis.subjects import save_result

OPTIONS = {"cost_grid": (0.01, 0.1)}


@pytest.fixture
def net(iris):
    """Features in float32, as all are kept."""
    features = iris()
    rounded = {
        split: {layer: each.astype(np.float32) for layer, each in getattr(features, split).items()}
        for split in ("train", "test")
    }
    return iris(**rounded, name="x", test_logits=np.zeros((60, 0)), columns=None)


@pytest.fixture
def arrays(net):
    """The same by name."""
    return {
        **{f"{split}/{layer}": array for split in ("train", "test") for layer, array in getattr(net, split).items()},
        "train/labels": net.train_labels,
        "test/labels": net.test_labels,
    }


def assert_equal(found, expected):
    for field in dataclasses.fields(expected):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name), err_msg=field.name)


def test_results_are_those_of_a_network_with_these_features(net, arrays, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    for opened in (open_features(arrays, name="x", seed=3), open_features(tmp_path / "x.npz", seed=3)):
        assert_equal(
            depth_probe([opened], DepthProbeOptions(**OPTIONS)),
            probe_networks([net], DepthProbeOptions(**OPTIONS), seed=3),
        )
        last = dataclasses.replace(net, layers=["block-2"], depths=[2], relative_depths=[1.0])
        options = PCASweepOptions(dims=[1], **OPTIONS)
        assert_equal(pca_sweep([opened], options), sweep_networks([last], options, seed=3))


def test_layers_are_chosen_by_number_or_name(arrays):
    opened = open_features(arrays)
    chosen = {"depths": DepthProbeOptions(depths=[2], **OPTIONS), "names": DepthProbeOptions(layers=["*-2"], **OPTIONS)}
    by_depth, by_name = (depth_probe([opened], options) for options in chosen.values())
    assert (by_depth.layer.tolist(), by_depth.depth.tolist(), by_depth.relative_depth.tolist()) == (
        ["block-2"],
        [2],
        [1],
    )
    assert (by_name.layer.tolist(), by_name.depth.tolist()) == (["block-2"], [1])
    with pytest.raises(ValueError, match="there is no layer 'block-3'; did you mean"):
        opened.layers(names=["block-3"])
    with pytest.raises(ValueError, match="depth 3 does not exist"):
        opened.layers(depths=[3])
    with pytest.raises(ValueError, match="`depths` and `layers` were both given; give one of them"):
        opened.layers(depths=[1], names=["block-1"])


def test_result_is_saved_beside_the_file_with_its_digest(net, tmp_path):
    np.save(tmp_path / "x.npy", net.train["block-1"])
    np.save(tmp_path / "y.npy", np.array(["setosa", "versicolor", "virginica"])[net.train_labels])
    opened = open_features(tmp_path / "x.npy", tmp_path / "y.npy", command=["irevnet-analyze", "depth-probe"], seed=1)
    result = depth_probe([opened], DepthProbeOptions(**OPTIONS))
    assert (result.networks.tolist(), result.layer.tolist(), int(result.num_test)) == (["x"], ["features"], 18)
    files = save_result([opened], result, wall_seconds=1.0)
    assert files[0] == tmp_path / "x-analysis" / "depth-probe" / "depth-probe.npz"
    record = json.loads(files[2].read_text())["provenance"]
    assert (record["features"], record["labels"]) == (str(tmp_path / "x.npy"), str(tmp_path / "y.npy"))
    assert len({record["features_sha256"], record["labels_sha256"]}) == 2
    assert (record["classes"], record["held_out"]) == (["setosa", "versicolor", "virginica"], True)
    assert (files[0].parent / "classes.txt").read_text() == "setosa\nversicolor\nvirginica\n"
    both = opened.record([opened, opened], result)["networks"]
    assert [each["features"] for each in both] == [record["features"]] * 2


def test_scores_are_kept_by_the_features_and_what_is_held_out(net, arrays, tmp_path):
    """Another seed draws other test images, if any are drawn."""
    np.save(tmp_path / "x.npy", net.train["block-1"])
    np.savez(tmp_path / "x.npz", **arrays)

    def folder(file, labels=None, seed=0):
        opened = open_features(tmp_path / file, labels, seed=seed)
        return opened.features(opened.layers(), "pca", label="x").cache.folder

    drawn = folder("x.npy", net.train_labels)
    assert drawn.parent.parent == tmp_path / "x-analysis" / "features"
    assert drawn == folder("x.npy", net.train_labels)
    others = [folder("x.npy", net.train_labels, seed=1), folder("x.npy", net.train_labels[::-1]), folder("x.npz")]
    assert len({drawn, *others}) == 4
    assert folder("x.npz", seed=1) == folder("x.npz")
    in_memory = open_features(arrays)
    assert in_memory.features(in_memory.layers(), "pca", label="x").cache.folder is Cache().folder is None
    assert in_memory.results_folder("pca").parts == ("features-analysis", "pca")


def test_features_that_the_probes_cannot_take_are_refused(net, tmp_path):
    features, labels = net.train["block-1"], net.train_labels
    with pytest.raises(ValueError, match="features has one class, '0'; the probes need at least two"):
        depth_probe([open_features(features, np.zeros_like(labels))])
    rare = {"train/x": features, "train/labels": np.minimum(np.arange(90), 1), "test/x": features[:2]}
    with pytest.raises(
        ValueError, match=r"class '0' of features has 1 training images, but .* or leave that class out"
    ):
        depth_probe([open_features({**rare, "test/labels": np.array([0, 1])})], DepthProbeOptions(shots=2))
    np.savez(tmp_path / "x.npz", x=features, labels=labels)
    with pytest.raises(ValueError, match="`labels` were given, and the features have labels of their own; give one"):
        open_features(tmp_path / "x.npz", labels)
    with pytest.raises(ValueError, match=r"x\.npz is no \.npy file; give `labels` as one array"):
        open_features(features, tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", x=features, labels=labels[1:])
    with pytest.raises(ValueError, match=r"x\.npz: x has 90 rows, and there are 89 labels"):
        open_features(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"^features has 90 rows, and there are 89 labels"):
        open_features(features, labels[1:])


def test_files_of_features_are_told_from_folders_of_them(tmp_path):
    (tmp_path / "features").mkdir()
    (tmp_path / "x.txt").touch()
    names = ("features", "new", "x.txt", "absent.npz", "absent.npy")
    assert [is_of_features(tmp_path / name) for name in names] == [False, False, True, True, True]
