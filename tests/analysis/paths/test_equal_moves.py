"""Steps to a distance, against closed forms."""

import math

import pytest
import torch

from analysis.paths.equal_moves import distance_moved, step_to_distance

X = torch.tensor([1.0, -2.0], dtype=torch.float64)
DIRECTION = torch.tensor([0.6, 0.8], dtype=torch.float64)


@pytest.mark.parametrize("value", [3.0, 1e-3, 5e3])  # whatever the derivative says
def test_step_changes_features_by_the_distance(value):
    step = step_to_distance(lambda x: 3 * x, X, DIRECTION, 6.0, value=value)
    assert step == pytest.approx(2, rel=1e-5)
    assert distance_moved(lambda x: 3 * x, X, DIRECTION, step) == pytest.approx(6, rel=1e-5)


def test_step_is_found_where_the_derivative_is_far_off():
    """f(t) = 0.001 t up to t = 0.5, from where on it rises a thousand times as fast."""

    def features(x):
        t = (x - X) @ DIRECTION
        return 1e-3 * t + (t - 0.5).relu()

    assert step_to_distance(features, X, DIRECTION, 0.5, value=1e-3) == pytest.approx((0.5 + 0.5) / 1.001, rel=1e-5)


def test_no_step_is_known_where_features_do_not_change_as_much():
    assert math.isnan(step_to_distance(torch.tanh, X, DIRECTION, 5.0, value=1.0))
    assert math.isnan(step_to_distance(torch.zeros_like, X, DIRECTION, 5.0, value=0.0))
