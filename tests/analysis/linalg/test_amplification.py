import math

import numpy as np
import pytest
import torch

from analysis.linalg.amplification import amplification
from analysis.linalg.linear_operator import aslinearoperator
from analysis.linearisation import linearise


def test_inverse_amplification_is_that_of_the_dense_jacobian(injective, generator):
    x = torch.rand(3, 8, 8, dtype=torch.float64)
    phi = injective.features(x[None])[0].detach()
    found = amplification(linearise(injective, x).inverse, generator=generator, num_random=1000, tolerance=1e-6)
    jacobian = torch.func.jacrev(lambda features: injective.inverse(features[None])[0])(phi).detach()
    singular = np.linalg.svd(jacobian.reshape(192, -1), compute_uv=False)
    assert found.largest == pytest.approx(singular[0], rel=1e-9)
    assert found.largest <= singular[0] * (1 + 1e-12)
    assert found.residual <= 1e-6
    assert found.random == pytest.approx(math.sqrt((singular**2).sum() / phi.numel()), rel=0.05)


def test_random_amplification_is_a_root_mean_square(generator):
    """Of f(x, y) = (x, 0): |cos| of an angle, of which the root mean square is 0.707 and the mean 0.637."""
    matrix = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    found = amplification(aslinearoperator(matrix), generator=generator, num_random=5000)
    assert found.random == pytest.approx(math.sqrt(0.5), rel=0.02)


def test_residual_bounds_the_distance_from_a_singular_value(generator):
    matrix = torch.diag(torch.linspace(1, 2, 500, dtype=torch.float64))
    found = amplification(aslinearoperator(matrix), generator=generator, tolerance=0.1)
    assert 2 * (1 - found.residual) <= found.largest < 2
    assert 1e-6 < found.residual <= 0.1
