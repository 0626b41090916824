import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from analysis.invariances.approach import approach


def test_of_a_linear_function_it_is_the_solution_of_least_norm():
    matrix = torch.randn(4, 20, dtype=torch.float64)
    start, wanted = torch.randn(3, 20, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    found = approach(lambda x: x @ matrix.T, start, wanted, within=1e-12)
    expected = start + (wanted - start @ matrix.T) @ torch.linalg.pinv(matrix).T
    torch.testing.assert_close(found.points, expected, rtol=0, atol=1e-10)
    assert (found.difference <= 1e-12).all()


@pytest.mark.filterwarnings("ignore:Values in x were outside bounds:RuntimeWarning")  # of older releases of SciPy
def test_within_bounds_it_is_the_constrained_solution():
    matrix = torch.randn(2, 8, dtype=torch.float64)
    start = torch.rand(1, 8, dtype=torch.float64)
    wanted = torch.rand(1, 8, dtype=torch.float64) @ matrix.T
    bounds = torch.tensor(0.0), torch.tensor(1.0)
    found = approach(lambda x: x @ matrix.T, start, wanted, within=1e-12, bounds=bounds)
    best = minimize(
        lambda x: 0.5 * ((x - start[0].numpy()) ** 2).sum(),
        start[0].numpy(),
        method="SLSQP",
        bounds=[(0, 1)] * 8,
        constraints={"type": "eq", "fun": lambda x: matrix.numpy() @ x - wanted[0].numpy()},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    assert best.success
    np.testing.assert_allclose(found.points[0], best.x, atol=1e-6)  # SLSQP's own accuracy
    assert found.points.min() >= 0
    assert found.points.max() <= 1


def test_points_that_cannot_reach_are_left_and_said():
    found = approach(torch.sigmoid, torch.tensor([[0.0], [0.0]]), torch.tensor([[0.9], [2.0]]), within=1e-6)
    assert found.difference[0] <= 1e-6
    assert found.difference[1] > 0.1
    assert found.points.isfinite().all()
