import dataclasses
import shutil

import numpy as np
import pytest
from sklearn.datasets import load_digits

from analysis import open_experiment, open_features
from analysis.opening import DataOptions
from analysis.probes.saved_probes import load_probes
from analysis.results import DepthProbeResult
from analysis.results.applied_probes import AppliedProbesResult
from analysis.studies.apply_probes import apply_probes
from analysis.studies.depth_probe import DepthProbeOptions, depth_probe, probes_files


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory):
    """A run with the probes of two of its blocks, and their result."""
    folder = shutil.copytree(finished_run, tmp_path_factory.mktemp("applied") / "digits")
    experiment = open_experiment(folder)
    options = DepthProbeOptions(depths=[6, 12], cost_grid=[0.01], logistic=True, save_probes=True)
    result = depth_probe([experiment], options)
    (file,) = probes_files(experiment.results_folder("depth-probe"), 1)
    return folder, result, load_probes(file)


def test_on_the_same_images_accuracies_are_those_of_the_study(run, tmp_path):
    folder, result, probes = run
    applied = apply_probes(open_experiment(folder, features_root=tmp_path), probes)
    assert isinstance(result, DepthProbeResult)
    assert applied.layer.tolist() == ["block-6", "block-6", "block-12", "block-12"]
    assert applied.probe.tolist() == ["svm", "logistic"] * 2
    np.testing.assert_array_equal(applied.accuracy[::2], result.svm_accuracy)
    np.testing.assert_array_equal(applied.interval[::2], result.svm_interval)
    np.testing.assert_array_equal(applied.accuracy[1::2], result.further_accuracy[:, 0])
    assert not list(tmp_path.rglob("train/block-*"))  # whose images are not looked at
    applied.save(tmp_path / "results", {})
    again = AppliedProbesResult.load(tmp_path / "results")
    assert again.summary() == applied.summary()
    assert again.summary()["rows"][0]["accuracy"] == result.svm_accuracy[0]


def test_some_of_the_classes_are_told_apart_from_all(run):
    folder, _, probes = run
    some = open_experiment(folder, data=DataOptions(classes=("8", "3")))
    applied = apply_probes(some, probes)
    store = some.store()
    assert sorted(some.classes) == ["3", "8"]
    names = np.array(some.classes)[store.labels("test")]
    expected = np.mean(probes.predict("block-12", store.features("test", "block-12")) == names)
    assert applied.accuracy[2] == expected
    assert applied.num_test == len(names) < 100


def test_other_networks_and_classes_are_refused(run):
    folder, _, probes = run
    experiment = open_experiment(folder)
    other = dataclasses.replace(probes, network={**probes.network, "weights_sha256": "0", "transform": {}})
    message = r"fitted to \S+, from which digits differs in its weights, transform; open the network that they were"
    with pytest.raises(ValueError, match=message):
        apply_probes(experiment, other)
    with pytest.raises(ValueError, match="from which digits differs in its pool; open the network"):
        apply_probes(open_experiment(folder, pool="max"), probes)
    few = dataclasses.replace(probes, classes=probes.classes[:9])
    with pytest.raises(ValueError, match="class '9' of digits is none of the 9 classes that the probes tell apart"):
        apply_probes(experiment, few)


def test_probes_of_features_of_ones_own_are_saved(run, tmp_path):
    pixels, labels = load_digits(return_X_y=True)
    opened = open_features(pixels[:300].astype(np.float32), labels[:300], out=tmp_path)
    result = depth_probe([opened], DepthProbeOptions(cost_grid=[0.01], save_probes=True))
    (file,) = probes_files(tmp_path, 1)
    probes = load_probes(file)
    content = opened.content
    truth = np.array(opened.classes)[content.test_labels]
    assert np.mean(probes.predict("features", content.test["features"]) == truth) == result.svm_accuracy[0]
    with pytest.raises(ValueError, match="fitted to features, from which digits differs in its weights, arch"):
        apply_probes(open_experiment(run[0]), probes)


def test_probes_of_several_networks_have_a_file_each(tmp_path):
    assert [path.name for path in probes_files(tmp_path, 2)] == [
        "depth-probe.probes-1.npz",
        "depth-probe.probes-2.npz",
    ]


def test_probes_that_cannot_be_saved_are_refused(run):
    with pytest.raises(ValueError, match="`save_probes` saves the probes of one training set, `shots` makes several"):
        DepthProbeOptions(save_probes=True, shots=3)
