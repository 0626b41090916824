import dataclasses

import numpy as np
import pytest

from analysis.results import SpectrumResult, TrainingCurvesResult
from analysis.results.findings import (
    caveats,
    find_accuracy,
    find_components,
    find_depth,
    find_interpolation,
    find_inversion,
    find_spectrum,
    find_training,
)

BOTH = {"irevnet-b", "resnet-50"}


def curves(*ends: float) -> TrainingCurvesResult:
    """Runs of 100 iterations whose losses fall in a straight line from 2 to their ends."""
    count = len(ends)
    return TrainingCurvesResult(
        names=np.array([f"run-{number}" for number in range(count)]),
        curve_run=np.repeat(np.arange(count), 100),
        iteration=np.tile(np.arange(1, 101), count),
        loss=np.concatenate([np.linspace(2, end, 100) for end in ends]),
        epoch_run=np.arange(count),
        epoch_iteration=np.full(count, 100),
        test_accuracy=np.full(count, 0.5),
        window=np.array(1),
    )


def test_an_irevnet_classifies_as_well_as_the_best_other_network_within_two_points():
    (near,) = find_accuracy({"a": 0.80}, {"b": 0.819, "c": 0.5})
    assert near.here == "top-1 error 20.0%, that of b 18.1%: 1.9 points"
    assert near.verdict == "agrees"
    (far,) = find_accuracy({"a": 0.80}, {"b": 0.821})
    assert far.verdict == "differs"
    (alone,) = find_accuracy({"a": 0.80}, {})
    assert alone.verdict == "open"
    assert find_accuracy({}, {"b": 0.9}) == []


def test_losses_decrease_alike_if_they_are_within_a_tenth_at_every_quarter():
    (alike,) = find_training(curves(1.0, 1.05))
    assert alike.verdict == "agrees"
    assert alike.here == "at the quarters of the run its loss is 0.99, 0.98, 0.97, 0.95 times that of run-1"
    for ends in ((1.0, 0.85), (0.85, 1.0)):
        assert [finding.verdict for finding in find_training(curves(*ends))] == ["differs"]
    assert [finding.verdict for finding in find_training(curves(1.0))] == ["open"]
    assert len(find_training(curves(1.0, 1.0, 1.0))) == 2  # the first with each of the others


def test_reconstructions_agree_if_neither_error_is_above_the_papers(inversion):
    (small,) = find_inversion(inversion, "net")
    assert small.here == "1.4e-07 on 8 test images and 2.0e-07 on 9 of uniform noise, in float32"
    assert small.verdict == "agrees"
    for name, error in (("image_errors", 3.1e-6), ("noise_errors", 5.1e-6), ("noise_errors", np.inf)):
        worse = dataclasses.replace(inversion, **{name: np.full(9, error)})
        assert find_inversion(worse, "net")[0].verdict == "differs"
    just = dataclasses.replace(inversion, image_errors=np.full(9, 2.9e-6), noise_errors=np.full(9, 4.9e-6))
    assert find_inversion(just, "net")[0].verdict == "agrees"


def test_paths_are_measured_and_left_to_the_eye_but_where_the_middle_is_known(interpolation):
    seen, middle = find_interpolation(interpolation, "net")
    assert seen.verdict == "open"
    assert "50% of the pixel values leave [0, 1]" in seen.here
    worst = np.zeros((2, 2, 3))
    worst[0, :, 1] = [0.8, 0.4]  # in the middle of the lines of features
    far = find_interpolation(dataclasses.replace(interpolation, outside=worst), "net")[0]
    assert "60% of the pixel values leave [0, 1] where that is worst (on lines of pixels 0%)" in far.here
    assert "1.0 times as long" in seen.here
    assert middle.here.endswith("in 0 of 1 cases")  # 0.4 through features, 0.3 through pixels
    assert middle.verdict == "differs"
    nearer = dataclasses.replace(interpolation, middle_feature_distance=np.array([[0.2, np.nan], [0.3, np.nan]]))
    assert find_interpolation(nearer, "net")[1].verdict == "agrees"
    unknown = dataclasses.replace(interpolation, middle_distance=np.full((2, 2), np.nan))
    assert len(find_interpolation(unknown, "net")) == 1


def test_a_spectrum_decays_as_the_papers_if_both_shares_are_near(geometric):
    def result(ratio: float) -> SpectrumResult:
        """150 values of which each is so many times the one before, all known."""
        values = ratio ** np.arange(150.0)
        spectrum = dataclasses.replace(
            geometric(method="dense"), largest=values, squared_norm=float((values**2).sum()), squared_norm_error=0.0
        )
        return SpectrumResult.of(
            [spectrum], networks=["net"], images=["cat"], network=[0], layer=["block-9"], depth=[9], image=[0]
        )

    # E(1) = 1 - r^2 and E(10) = 1 - r^20, but for r^300
    (near,) = find_spectrum(result(0.2**0.5), {"net"})
    assert near.here == "E(1) = 0.80 and E(10) = 1.00 of 150, the same parts, at block-9"
    assert near.verdict == "agrees"
    assert find_spectrum(result(0.9), {"net"})[0].verdict == "differs"
    assert find_spectrum(result(0.2**0.5), set())[0].verdict == "open"  # it is no i-RevNet
    fast = result(0.001)  # E(1) = 1
    assert find_spectrum(fast, {"net"})[0].verdict == "differs"


def test_of_several_layers_the_last_one_counts(spectra_by_depth, spectrum_result):
    assert [finding.here[-10:] for finding in find_spectrum(spectra_by_depth, BOTH)] == ["at block-5"]
    spread = find_spectrum(spectrum_result, BOTH)
    assert [finding.network for finding in spread] == ["irevnet-b", "resnet-50"]
    shares = [1 - 10 ** (power / 149 * 2) for power in (-2, -3)]  # of one value of 150, nearly
    assert f"E(1) = {np.mean(shares):.2f} (" in spread[0].here


def deep(probe, svm: list[float], nearest: list[float], **changed):
    """One network of as many blocks as there are accuracies."""
    rows = len(svm)
    fields = {
        field.name: np.repeat(getattr(probe, field.name)[:1], rows, axis=0)
        for field in dataclasses.fields(probe)
        if field.name in ("layer", "dims", "svm_cost", "svm_gap", "at_edge", "cv_accuracy", "held_out_accuracy")
    }
    accuracies = np.array(svm), np.array(nearest)
    fields |= {"network": np.zeros(rows, dtype=int), "distance_ratio": np.ones(rows)}
    fields |= {"depth": np.arange(1, rows + 1), "relative_depth": np.arange(1, rows + 1) / rows}
    for name, accuracy in zip(("svm", "nn"), accuracies):
        fields |= {
            f"{name}_accuracy": accuracy,
            f"{name}_interval": np.stack((accuracy - 0.1, accuracy + 0.01), axis=1),
        }
    return dataclasses.replace(probe, **{**fields, **changed})


def test_probes_of_every_block(probe):
    svm = [0.3, 0.4, 0.45, 0.5, 0.6, 0.7, 0.765]
    found = find_depth(deep(probe, svm, [value - 0.05 for value in svm]), BOTH)
    rises, better, jump, own = found
    assert rises.here.endswith("over 7 layers: Spearman 1.00 (linear SVM), 1.00 (1-NN)")
    assert better.here == "it is better at 7 of 7 layers, at the last one by 5.0 points"
    assert jump.here.startswith("the last three blocks add 26.5 points to the linear SVM, the three before them 20.0")
    assert own.here == "it has 76.5% (up to 77.5%), the network 77.0%"
    assert {finding.verdict for finding in found} == {"agrees"}
    of_a_resnet = find_depth(deep(probe, svm, [value - 0.05 for value in svm]), set())
    assert [finding.verdict for finding in of_a_resnet] == ["agrees", "agrees", "open", "open"]


def test_probes_that_say_otherwise(probe):
    svm = [0.5, 0.6, 0.4, 0.7, 0.3, 0.72, 0.75]
    verdicts = [each.verdict for each in find_depth(deep(probe, svm, [value + 0.01 for value in svm]), BOTH)]
    assert verdicts == ["differs", "differs", "differs", "differs"]
    falls = deep(probe, [0.3, 0.4, 0.5], [0.5, 0.4, 0.3])
    assert find_depth(falls, BOTH)[0].verdict == "differs"  # 1-NN has to rise, too


def test_what_a_probe_does_not_tell_is_not_said(probe):
    apart = deep(probe, [0.1 * each for each in range(1, 8)], [0.0] * 7, depth=np.array([1, 2, 3, 4, 5, 6, 9]))
    unknown = dataclasses.replace(apart, network_accuracy=np.array([np.nan]))
    assert [each.paper.split()[0] for each in find_depth(unknown, BOTH)] == ["linear", "the"]
    assert len(find_depth(deep(probe, [0.5, 0.6], [0.4, 0.5]), BOTH)) == 2


@pytest.mark.parametrize(("dims", "verdict"), [([2, 20, 64], "agrees"), ([5, 20, 64], "differs")])
def test_few_components_suffice_if_they_are_a_fifteenth(sweep, dims, verdict):
    fields = {"svm_accuracy": np.array([0.895, 0.9, 0.9]), "nn_accuracy": np.array([0.5, 0.7, 0.9])}
    result = dataclasses.replace(sweep, dims=np.array(dims), **fields)
    (finding,) = find_components(result, BOTH, 4)
    assert finding.verdict == verdict
    assert finding.here.startswith(f"the linear SVM is within one point of all 64 components from d = {dims[0]} on")
    assert finding.here.endswith(f"1-NN from 64: 1 in {64 / dims[0]:.1f}, and {dims[0] / 4:.1f} a class")
    assert find_components(result, set(), 4)[0].verdict == "open"


def test_other_data_than_the_papers_are_named():
    imagenet = {"data": "imagenet", "classes": ["c"] * 1000, "transform": {"image_size": [224, 224]}}
    cifar = {"data": "cifar10", "classes": ["c"] * 10, "transform": {"image_size": [32, 32]}}
    assert caveats([imagenet]) == []
    (note,) = caveats([imagenet, cifar, cifar])
    assert note.count("10 classes of cifar10 at 32 x 32") == 1
