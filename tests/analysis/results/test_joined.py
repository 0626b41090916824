"""Results of one network each, put together."""

import dataclasses

import numpy as np
import pytest

from analysis.results import SpectrumResult, TrainingCurvesResult


def test_probes_of_two_networks_are_joined(probe, sweep):
    for one in (probe, sweep):
        other = dataclasses.replace(one, svm_accuracy=one.svm_accuracy / 2, network_accuracy=np.array([0.1]))
        joined = type(one).join([one, other], ["a", "b"])
        assert joined.subjects == ["a", "b"]
        np.testing.assert_array_equal(joined.network, [0, 0, 0, 1, 1, 1])
        np.testing.assert_array_equal(joined.svm_accuracy[3:], one.svm_accuracy / 2)
        np.testing.assert_array_equal(joined.network_accuracy, [0.77, 0.1])
        assert joined.num_train == 100
        assert joined.table()["network"].tolist() == ["a"] * 3 + ["b"] * 3
        more = type(one).join([joined, one], ["a", "b", "c"])
        np.testing.assert_array_equal(more.network, np.repeat([0, 1, 2], 3))


def test_probes_of_other_images_are_not_joined(probe):
    with pytest.raises(ValueError, match="results that differ in num_train cannot be joined"):
        type(probe).join([probe, dataclasses.replace(probe, num_train=np.array(5))], ["a", "b"])


def test_spectra_of_other_lengths_are_joined(spectrum_result, spectra_by_depth):
    joined = SpectrumResult.join([spectra_by_depth, spectrum_result], ["a", "b", "c"])
    assert joined.networks.tolist() == ["a", "b", "c"]
    assert joined.images.tolist() == ["cat", "dog"]
    assert joined.network.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert joined.image.tolist() == [0, 0, 0, 0, 1, 0, 1]
    made = [spectra_by_depth.spectrum(row) for row in range(3)] + [spectrum_result.spectrum(row) for row in range(4)]
    for row, same in enumerate(made):
        for field in dataclasses.fields(same):
            if np.size(getattr(same, field.name)):  # of nothing there may be more probes
                found = getattr(joined.spectrum(row), field.name)
                np.testing.assert_array_equal(found, getattr(same, field.name))


def test_training_curves_are_joined(curves):
    one, other = curves(1.0), curves(0.5)
    joined = TrainingCurvesResult.join([one, other], ["a", "b"])
    assert joined.subjects == ["a", "b"]
    assert joined.curve_run.tolist() == [0] * 100 + [1] * 100
    assert joined.epoch_run.tolist() == [0, 1]
    assert joined.loss.tolist() == [*one.loss, *other.loss]
    with pytest.raises(ValueError, match="differ in window"):
        TrainingCurvesResult.join([one, dataclasses.replace(one, window=np.array(2))], ["a", "b"])
