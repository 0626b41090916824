import math

import numpy as np
import pytest
import torch

from analysis.amplification import amplification


def dense_jacobians(function, points: torch.Tensor) -> list[np.ndarray]:
    return [
        torch.func.jacrev(lambda p: function(p[None])[0].flatten())(point).detach().reshape(-1, point.numel()).numpy()
        for point in points
    ]


def relative_norms(function, points: torch.Tensor) -> np.ndarray:
    """||input|| / ||output|| of each point."""
    outputs = function(points).detach()
    return np.array([(p.norm() / out.norm()).item() for p, out in zip(points, outputs)])


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("kind", ["bijective", "injective"])
def test_of_an_inverse_it_is_what_the_dense_jacobian_says(kind, depth, request, generator):
    model = request.getfixturevalue(kind)

    def inverse(phi):
        return model.inverse(phi, depth)

    phi = model.features(torch.rand(3, 3, 8, 8, dtype=torch.float64), depth).detach()
    found = amplification(inverse, phi, generator=generator, num_random=400, max_iterations=2000, tolerance=1e-9)
    scale = relative_norms(inverse, phi)
    singular = [np.linalg.svd(jacobian, compute_uv=False) for jacobian in dense_jacobians(inverse, phi)]
    np.testing.assert_allclose(found.largest, scale * [values[0] for values in singular], rtol=1e-6)
    assert (found.largest <= torch.tensor(scale * [values[0] for values in singular]) * (1 + 1e-12)).all()
    root_mean_square = [math.sqrt((values**2).sum() / phi[0].numel()) for values in singular]
    np.testing.assert_allclose(found.random, scale * root_mean_square, rtol=0.05)
    assert found.last_change.max() < 1e-9


def test_each_point_has_its_own(generator):
    """Of f(x) = x^3 the Jacobian at x is 3 x^2, so that relatively a change is magnified by 3 x^2 max / |x^3|."""
    points = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    found = amplification(lambda x: x**3, points, generator=generator, tolerance=1e-12)
    expected = [27 * math.sqrt(14) / math.sqrt(1 + 64 + 729), 3.0]
    np.testing.assert_allclose(found.largest, expected, rtol=1e-9)


def test_of_random_directions_it_is_the_root_mean_square(generator):
    """Of f(x, y) = (x, 0) at (1, 0): |cos| of an angle, of which the root mean square is 0.707 and the mean 0.637."""
    point = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    found = amplification(lambda x: x * torch.tensor([1.0, 0.0]), point, generator=generator, num_random=5000)
    assert found.random.item() == pytest.approx(math.sqrt(0.5), rel=0.02)


def test_an_iteration_that_has_not_ended_says_so(generator):
    matrix = torch.diag(torch.linspace(1, 2, 50, dtype=torch.float64))
    found = amplification(lambda x: x @ matrix, torch.ones(1, 50).double(), generator=generator, max_iterations=2)
    assert found.last_change.item() > 1e-3
    assert found.largest.item() < 2
