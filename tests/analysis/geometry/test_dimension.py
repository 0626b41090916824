import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from sklearn.datasets import load_digits, make_swiss_roll

from analysis.geometry.dimension import log_ratios, maximum_likelihood, two_nn, two_nn_by_halving


def cube(count: int, dims: int, within: int) -> np.ndarray:
    rng = np.random.default_rng(dims)
    return rng.uniform(size=(count, dims)) @ np.linalg.qr(rng.normal(size=(within, dims)))[0].T


def sphere(count: int, dims: int) -> np.ndarray:
    points = np.random.default_rng(0).normal(size=(count, dims + 1))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("points", "dims", "near"),
    [
        (cube(2500, 1, 20), 1, 0.1),
        (cube(2500, 2, 20), 2, 0.15),
        (cube(2500, 5, 20), 5, 0.6),  # its edges are near for many: every estimator finds less
        (sphere(2500, 3), 3, 0.25),
        (make_swiss_roll(2500, random_state=0)[0], 2, 0.15),
        (np.random.default_rng(0).normal(size=(2500, 4)), 4, 0.4),
    ],
    ids=["line", "square", "cube-5", "sphere-3", "swiss-roll", "normal-4"],
)
def test_manifolds_have_their_dimension(points, dims, near):
    assert two_nn(points).dimension == pytest.approx(dims, abs=near)


def test_ratios_are_those_of_another_search():
    data = np.unique(load_digits().data.astype(np.float32), axis=0)
    distances, _ = cKDTree(data.astype(np.float64)).query(data, 3)
    expected = np.log(distances[:, 2] / distances[:, 1])
    np.testing.assert_allclose(log_ratios(torch.from_numpy(data)), expected, atol=1e-12)


def test_estimate_maximises_the_likelihood():
    ratios = np.random.default_rng(0).exponential(1 / 7, size=4000)  # log mu of the density 7 mu^-8
    found = maximum_likelihood(ratios)
    grid = np.linspace(5, 9, 4001)
    likelihood = len(ratios) * np.log(grid) - (grid + 1) * ratios.sum()
    assert found.dimension == pytest.approx(grid[likelihood.argmax()], abs=1e-3)
    assert found.error == pytest.approx(1 / np.sqrt(len(ratios) / found.dimension**2))  # of the curvature
    low, high = found.interval
    assert (high - low) / 2 == pytest.approx(1.96 * found.error, rel=0.15)
    assert low < 7 < high


def test_intervals_hold_the_dimension_as_often_as_they_say():
    """95 of 100 would: fewer than 88, or all, happen once in a hundred times."""
    draws = np.random.default_rng(0).exponential(1 / 3, size=(100, 100))
    held = [low < 3 < high for low, high in (maximum_likelihood(ratios).interval for ratios in draws)]
    assert 88 <= sum(held) < 100


def test_copies_are_left_out_and_counted():
    points = cube(400, 2, 5)
    found = two_nn(np.concatenate((points, points[:30])))
    assert (found.copies, found.points) == (30, 400)
    assert found.dimension == two_nn(points).dimension


def test_scale_and_rotation_change_nothing():
    points = cube(500, 3, 3)
    turned = 100 * points @ np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0] - 7
    assert two_nn(turned).dimension == pytest.approx(two_nn(points).dimension, rel=1e-9)


def test_noise_is_seen_by_near_neighbours_alone():
    """A plane with noise in three directions: the fewer the points, the nearer to 2."""
    points = cube(3000, 2, 5) + 0.003 * np.random.default_rng(0).normal(size=(3000, 5))
    curve = [found.dimension for found in two_nn_by_halving(points, halvings=5)]
    assert curve[0] > 3 > 2.5 > curve[-1]
    assert curve == sorted(curve, reverse=True)


def test_halves_of_points_are_those_points():
    points = cube(64, 2, 3)
    whole, halves, quarters, *_ = two_nn_by_halving(points, halvings=2, seed=3)
    assert whole.dimension == pytest.approx(two_nn(points).dimension, rel=1e-12)
    assert whole.points == halves.points == quarters.points == 64
    assert two_nn_by_halving(points[:5], halvings=2)[1:] == [None, None]


def test_constant_features_are_refused():
    with pytest.raises(ValueError, match="there are 1 points that differ; two neighbours need three or more"):
        two_nn(np.full((50, 8), 0.1))


def test_it_is_its_definition_with_fewer_points_than_dimensions():
    points = np.random.default_rng(0).normal(size=(12, 40)) * np.linspace(0.1, 2, 40)
    ratios = [np.divide(*np.sort(np.linalg.norm(points - point, axis=1))[2:0:-1]) for point in points]
    assert two_nn(points).dimension == pytest.approx(12 / np.log(ratios).sum(), rel=1e-12)


def test_points_without_two_neighbours_are_refused():
    with pytest.raises(ValueError, match="there are 2 points that differ; two neighbours need three or more"):
        two_nn(np.repeat(np.eye(2), 3, axis=0))
    with pytest.raises(ValueError, match=r"some points are copies of others; give them without copies \(`distinct`\)"):
        log_ratios(torch.zeros(5, 2))


def test_a_grid_is_refused():
    grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), axis=-1).reshape(-1, 2)
    with pytest.raises(ValueError, match="all points are as far from their first neighbour as from their second"):
        two_nn(grid)


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="values of the training points are not finite"):
        two_nn(np.array([[0.0], [1.0], [np.inf], [3.0]]))
