"""Steps to a distance, against closed forms."""

import math

import numpy as np
import pytest
import torch

from analysis.paths.equal_moves import distance_moved, move_along, step_to_distance
from analysis.results.singular_values import SingularVectors
from irevnet.data.transforms import InputTransform

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


def test_moves_are_as_long_as_the_least_magnified_one():
    """By x -> A x of A = diag(9, 1, 3, 0.5), where a step is the distance over the singular value."""
    scale = torch.tensor([9.0, 1.0, 3.0, 0.5], dtype=torch.float64)
    unit = np.eye(4)[[[0, 2], [3, 1]]]
    vectors = SingularVectors(
        values=np.array([[9.0, 3.0], [0.5, 1.0]]), right=unit, left=unit, residuals=np.zeros((2, 2, 2))
    )
    transform = InputTransform(channels=1, image_size=(2, 2), mean=(0.5,), std=(0.25,))
    x, done = torch.zeros(1, 2, 2, dtype=torch.float64), []
    found = move_along(
        vectors,
        lambda image: scale * image.flatten(),
        x,
        transform,
        pixel_change=0.1,
        step_done=lambda: done.append(1),
    )
    step = 0.1 * 2 / 0.25  # root mean square over four pixels, each of 0.25 a unit
    np.testing.assert_allclose(found.steps[1, 0], step, rtol=1e-5)
    np.testing.assert_allclose(found.steps[..., 0], step * 0.5 / vectors.values, rtol=1e-5)
    np.testing.assert_allclose(found.pixel_changes[1, 0], 0.1, rtol=1e-5)
    np.testing.assert_allclose(found.first_order, 1, rtol=1e-5)
    np.testing.assert_allclose(found.pixels, 0.5)
    assert len(done) == 8


@pytest.mark.parametrize("unit", [0.0, 0.5])
def test_a_map_of_zeros_has_no_moves(unit):
    right = np.full((2, 1, 4), unit)
    values = np.array([[0.0], [np.nan]])
    vectors = SingularVectors(values=values, right=right, left=0 * right, residuals=np.full((2, 1, 2), np.nan))
    transform = InputTransform(channels=1, image_size=(2, 2))
    found = move_along(vectors, torch.zeros_like, torch.zeros(1, 2, 2), transform, pixel_change=0.1)
    assert np.isnan(found.steps[0, 0, 1])
    assert not np.isfinite(found.first_order).any()
    (number,) = found.summary()["most"]
    assert number["residuals"] == number["first_order"] == [None, None]
    assert found.fits(4, 4)
