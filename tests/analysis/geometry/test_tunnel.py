import numpy as np
import pytest
from scipy.stats import norm

from analysis.geometry.tunnel import SATURATED, find_tunnel

NONE = np.zeros((0, 4), dtype=int), np.zeros(0, dtype=int)


def test_tunnel_starts_where_accuracy_stays_saturated():
    for own, start in (
        ([10, 500, 990, 1000], 2),
        ([10, 990, 500, 1000], 3),  # it falls again
        ([1000, 1000, 1000, 1000], 0),
        ([1000, 900, 800, 700], 0),
        ([0, 100, 200, 1000], 3),  # no tunnel
        ([0, 0, 979, 1000], 3),
        ([0, 0, 980, 1000], 2),
    ):
        assert SATURATED == 0.98
        assert find_tunnel(np.array(own), 1000, *NONE).start[0] == start


def test_intervals_hold_the_truth_as_often_as_they_say():
    truth, others, images = np.array([0.3, 0.75, 0.9, 0.905]), np.array([0.3, 0.5, 0.45, 0.42]), 1000
    rng = np.random.default_rng(0)
    found = [
        find_tunnel(
            rng.binomial(images, truth), images, rng.binomial(images, others)[None], np.array([images]), seed=seed
        )
        for seed in range(200)
    ]
    held = [each.change[0, 1] <= others[3] - others[2] <= each.change[0, 2] for each in found]
    starts = [each.start[1] <= 2 <= each.start[2] for each in found]
    # Of 200 intervals of 95% each fewer than 180 hold the truth with a probability below 0.3%.
    assert sum(held) >= 180
    assert sum(starts) >= 180


def test_a_change_between_certain_layers_has_the_interval_of_a_difference():
    images = 10_000
    found = find_tunnel(
        np.array([5_000, images, images]), images, np.array([[9_000, 6_000, 5_000]]), np.array([images])
    )
    assert found.start.tolist() == [1, 1, 1]
    assert found.peak.tolist() == [[0, 0, 0]]
    half = norm.ppf(0.975) * np.sqrt((0.6 * 0.4 + 0.5 * 0.5) / images)
    # The standard error of a 2.5% quantile of 2,000 normal draws is 0.06 standard deviations.
    np.testing.assert_allclose(found.change, [[-0.1, -0.1 - half, -0.1 + half]], atol=4 * 0.06 * half / 1.96)


def test_without_a_tunnel_nothing_changes_in_it():
    found = find_tunnel(np.array([1, 500, 1000]), 1000, np.array([[1, 2, 3], [3, 2, 1]]), np.array([10, 10]))
    assert found.start.tolist() == [2, 2, 2]
    assert found.change == pytest.approx(0)
    assert found.peak[:, 0].tolist() == [2, 0]
