import dataclasses

import numpy as np
import pytest

from analysis.results import SpectrumResult
from analysis.results.findings import FindingContext, caveats, find_accuracy

BOTH = FindingContext(network="net", invertible=frozenset({"net", "irevnet-b", "resnet-50"}), num_classes=4)
NONE = FindingContext(network="net", num_classes=4)  # of which no network is an i-RevNet


def test_accuracy_agrees_within_two_points_of_the_best_other():
    (near,) = find_accuracy({"a": 0.80}, {"b": 0.819, "c": 0.5})
    assert near.here == "top-1 error 20.0%, that of b 18.1%: 1.9 points"
    (far,) = find_accuracy({"a": 0.80}, {"b": 0.821})
    (alone,) = find_accuracy({"a": 0.80}, {})
    assert (near.verdict, far.verdict, alone.verdict) == ("agrees", "differs", "open")
    assert find_accuracy({}, {"b": 0.9}) == []


def test_losses_are_alike_within_a_tenth_at_every_quarter(curves):
    (alike,) = curves(1.0, 1.05).findings(NONE)
    assert alike.here == "at the quarters of the run its loss is 0.99, 0.98, 0.97, 0.95 times that of run-1"
    cases = {(1.0, 1.05): ["agrees"], (1.0, 0.85): ["differs"], (0.85, 1.0): ["differs"], (1.0,): ["open"]}
    cases[1.0, 1.0, 1.0] = ["agrees", "agrees"]  # the first with each of the others
    for ends, verdicts in cases.items():
        assert [finding.verdict for finding in curves(*ends).findings(NONE)] == verdicts


def test_inversion_agrees_if_no_error_is_above_the_papers(inversion):
    (small,) = inversion.findings(BOTH)
    assert small.here == "1.4e-07 on 8 test images and 2.0e-07 on 9 of uniform noise, in float32"
    assert small.verdict == "agrees"
    for images, noise, verdict in (
        (2.9e-6, 4.9e-6, "agrees"),
        (3.1e-6, 0.0, "differs"),
        (0.0, 5.1e-6, "differs"),
        (0.0, np.inf, "differs"),
    ):
        errors = {"image_errors": np.full(9, images), "noise_errors": np.full(9, noise)}
        assert dataclasses.replace(inversion, **errors).findings(BOTH)[0].verdict == verdict


def test_paths_are_judged_only_where_the_middle_is_known(interpolation):
    seen, middle = interpolation.findings(BOTH)
    assert seen.verdict == "open"
    assert "50% of the pixel values leave [0, 1]" in seen.here
    worst = np.zeros((2, 2, 3))
    worst[0, :, 1] = [0.8, 0.4]  # in the middle of the lines of features
    far = dataclasses.replace(interpolation, outside=worst).findings(BOTH)[0]
    assert "60% of the pixel values leave [0, 1] where that is worst (on lines of pixels 0%)" in far.here
    assert "1.0 times as long" in seen.here
    assert middle.here.endswith("in 0 of 1 cases")  # 0.4 through features, 0.3 through pixels
    assert middle.verdict == "differs"
    nearer = dataclasses.replace(interpolation, middle_feature_distance=np.array([[0.2, np.nan], [0.3, np.nan]]))
    assert nearer.findings(BOTH)[1].verdict == "agrees"
    unknown = dataclasses.replace(interpolation, middle_distance=np.full((2, 2), np.nan))
    assert len(unknown.findings(BOTH)) == 1


def test_a_spectrum_agrees_if_both_shares_are_near(geometric):
    def result(ratio: float) -> SpectrumResult:
        """150 values of which each is so many times the one before, all known."""
        values = ratio ** np.arange(150.0)
        norm = {"squared_norm": float((values**2).sum()), "squared_norm_error": 0.0}
        spectrum = dataclasses.replace(geometric(method="dense"), largest=values, **norm)
        rows = {"network": [0], "layer": ["block-9"], "depth": [9], "image": [0]}
        return SpectrumResult.of([spectrum], networks=["net"], images=["cat"], **rows)

    # E(1) = 1 - r^2 and E(10) = 1 - r^20, but for r^300
    (near,) = result(0.2**0.5).findings(BOTH)
    assert near.here == "E(1) = 0.80 and E(10) = 1.00 of 150, the same parts, at block-9"
    assert near.verdict == "agrees"
    assert result(0.2**0.5).findings(NONE)[0].verdict == "open"  # it is no i-RevNet
    for ratio in (0.9, 0.001):
        assert result(ratio).findings(BOTH)[0].verdict == "differs"


def test_the_last_of_several_layers_counts(spectra_by_depth, spectrum_result):
    assert [finding.here[-10:] for finding in spectra_by_depth.findings(BOTH)] == ["at block-5"]
    spread = spectrum_result.findings(BOTH)
    assert [finding.network for finding in spread] == ["irevnet-b", "resnet-50"]
    shares = [1 - 10 ** (power / 149 * 2) for power in (-2, -3)]  # of one value of 150, nearly
    assert f"E(1) = {np.mean(shares):.2f} (" in spread[0].here


def deep(probe, svm: list[float], nearest: list[float], **changed):
    """One network of as many blocks as there are accuracies."""
    rows = len(svm)
    of_rows = ("layer", "dims", "svm_cost", "svm_gap", "at_edge", "cv_accuracy", "held_out_accuracy", "distance_ratio")
    fields = {name: np.repeat(getattr(probe, name)[:1], rows, axis=0) for name in of_rows}
    fields |= type(probe).added({"network": np.zeros(rows), "cost_grid": probe.cost_grid})
    fields |= {"network": np.zeros(rows, dtype=int)}
    fields |= {"depth": np.arange(1, rows + 1), "relative_depth": np.arange(1, rows + 1) / rows}
    for name, accuracy in (("svm", np.array(svm)), ("nn", np.array(nearest))):
        interval = np.stack((accuracy - 0.1, accuracy + 0.01), axis=1)
        fields |= {f"{name}_accuracy": accuracy, f"{name}_interval": interval}
    return dataclasses.replace(probe, **{**fields, **changed})


def test_probes_of_every_block_agree(probe):
    svm = [0.3, 0.4, 0.45, 0.5, 0.6, 0.7, 0.765]
    found = deep(probe, svm, [value - 0.05 for value in svm]).findings(BOTH)
    rises, better, jump, own = found
    assert rises.here.endswith("over 7 layers: Spearman 1.00 (linear SVM), 1.00 (1-NN)")
    assert better.here == "it is better at 7 of 7 layers, at the last one by 5.0 points"
    assert jump.here.startswith("the last three blocks add 26.5 points to the linear SVM, the three before them 20.0")
    assert own.here == "it has 76.5% (up to 77.5%), the network 77.0%"
    assert {finding.verdict for finding in found} == {"agrees"}
    of_a_resnet = deep(probe, svm, [value - 0.05 for value in svm]).findings(NONE)
    assert [finding.verdict for finding in of_a_resnet] == ["agrees", "agrees", "open", "open"]


def test_probes_that_fall_differ(probe):
    svm = [0.5, 0.6, 0.4, 0.7, 0.3, 0.72, 0.75]
    found = deep(probe, svm, [value + 0.01 for value in svm]).findings(BOTH)
    assert [each.verdict for each in found] == ["differs"] * 4
    falls = deep(probe, [0.3, 0.4, 0.5], [0.5, 0.4, 0.3])
    assert falls.findings(BOTH)[0].verdict == "differs"  # 1-NN has to rise, too


def test_probes_of_few_blocks_say_less(probe):
    apart = deep(probe, [0.1 * each for each in range(1, 8)], [0.0] * 7, depth=np.array([1, 2, 3, 4, 5, 6, 9]))
    unknown = dataclasses.replace(apart, network_accuracy=np.array([np.nan]))
    assert [each.paper.split()[0] for each in unknown.findings(BOTH)] == ["linear", "the"]
    assert len(deep(probe, [0.5, 0.6], [0.4, 0.5]).findings(BOTH)) == 2


@pytest.mark.parametrize(("dims", "verdict"), [([2, 20, 64], "agrees"), ([5, 20, 64], "differs")])
def test_a_fifteenth_of_the_components_agrees(sweep, dims, verdict):
    fields = {"svm_accuracy": np.array([0.895, 0.9, 0.9]), "nn_accuracy": np.array([0.5, 0.7, 0.9])}
    result = dataclasses.replace(sweep, dims=np.array(dims), **fields)
    (finding,) = result.findings(BOTH)
    assert finding.verdict == verdict
    assert finding.here.startswith(f"the linear SVM is within one point of all 64 components from d = {dims[0]} on")
    assert finding.here.endswith(f"1-NN from 64: 1 in {64 / dims[0]:.1f}, and {dims[0] / 4:.1f} a class")
    assert result.findings(NONE)[0].verdict == "open"


def test_data_other_than_imagenet_are_a_caveat():
    imagenet = {"data": "imagenet", "classes": ["c"] * 1000, "transform": {"image_size": [224, 224]}}
    cifar = {"data": "cifar10", "classes": ["c"] * 10, "transform": {"image_size": [32, 32]}}
    assert caveats([imagenet]) == []
    (note,) = caveats([imagenet, cifar, cifar])
    assert note.count("10 classes of cifar10 at 32 x 32") == 1
