import numpy as np
import pytest
from scipy.stats import t

from analysis.probes.scores import _intervals, wilson


def test_intervals_have_the_spread_of_draws_and_of_images():
    """With very many test images only the first is left, with draws that are the same only the second."""
    correct = np.array([[[0.61], [0.65], [0.72], [0.64]]])
    low, high = _intervals(correct * 10**9, 10**9)[0, 0]
    values = correct[0, :, 0]
    half = t.interval(0.95, 3)[1] * values.std(ddof=1) / 2
    np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], rtol=1e-3)
    same = np.full((1, 4, 1), 30.0)
    np.testing.assert_allclose(_intervals(same, 50)[0], wilson(np.array([30.0]), 50))


def test_an_interval_of_draws_covers_the_true_accuracy():
    """Of draws whose accuracies spread, on test images that all share."""
    rng = np.random.default_rng(0)
    trials, draws, images = 200, 5, 200
    accuracy = rng.normal(0.7, 0.03, size=(trials, draws, 1))
    easy = rng.beta(2, 2 * 0.3 / 0.7, size=(trials, 1, images))  # of each image, mean 0.7
    right = rng.uniform(size=(trials, draws, images)) < np.clip(easy + accuracy - 0.7, 0, 1)
    correct = right.sum(axis=2)[..., None].astype(np.float64)
    truth = np.clip(rng.beta(2, 2 * 0.3 / 0.7, 10**5) + rng.normal(0, 0.03, 10**5), 0, 1).mean()
    low, high = _intervals(correct, images)[:, 0].T
    covered = np.mean((low <= truth) & (truth <= high))
    assert 0.93 <= covered < 1
    alone, above = wilson(correct.mean(axis=1)[:, 0], images).T
    assert np.mean((alone <= truth) & (truth <= above)) <= covered


@pytest.mark.parametrize("count", [0.0, 20.0])
def test_ends_stay_between_0_and_1(count):
    found = _intervals(np.array([[[count], [10.0]]]), 20)
    assert ((found >= 0) & (found <= 1)).all()
