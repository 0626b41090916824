import pytest
import torch
from torch import nn

from irevnet.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (16, 16)])
def test_singular_values_become_nearly_one_and_singular_vectors_stay(shape):
    """Five steps take singular values from 0.02 to 1 (of a norm of 1) to between 0.67 and 1.23: the extrema of the
    polynomial's iterates on that interval."""
    rank = min(shape)
    u, v = (torch.linalg.qr(torch.randn(size, rank, dtype=torch.float64)).Q for size in shape)
    values = torch.rand(rank, dtype=torch.float64) * 0.9 + 0.1
    found = orthogonal((u * values @ v.T)[None])[0]
    inner = u.T @ found @ v
    torch.testing.assert_close(inner - inner.diag().diag(), torch.zeros_like(inner), rtol=0, atol=1e-10)
    torch.testing.assert_close(u @ inner @ v.T, found, rtol=0, atol=1e-10)
    x = torch.linspace(0.02, 1, 10_000, dtype=torch.float64)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    assert (inner.diag() >= x.min()).all()
    assert (inner.diag() <= x.max()).all()
    assert x.min() > 0.66
    assert x.max() < 1.24


def test_kernels_alike_are_stepped_as_each_alone():
    """By the formulas of the class, kernel by kernel, over three steps."""
    torch.manual_seed(0)
    kernels = [nn.Parameter(torch.randn(shape).double()) for shape in ((8, 4, 3, 3), (8, 4, 3, 3), (80, 2, 3, 3))]
    expected = [kernel.detach().clone() for kernel in kernels]
    buffers = [torch.zeros_like(kernel) for kernel in expected]
    optimiser = Muon(kernels, 0.1, momentum=0.6)
    for _ in range(3):
        for index, kernel in enumerate(kernels):
            gradient = kernel.grad = torch.randn_like(kernel)
            rows = len(kernel)
            buffers[index] = 0.6 * buffers[index] + gradient
            matrix = (gradient + 0.6 * buffers[index]).reshape(1, rows, -1)
            update = orthogonal(matrix).reshape(kernel.shape) * max(1, rows / matrix.shape[2]) ** 0.5
            expected[index] = expected[index] * rows**0.5 / expected[index].norm() - 0.1 * update
        optimiser.step()
    for kernel, other in zip(kernels, expected):
        torch.testing.assert_close(kernel.detach(), other)


def test_kernels_without_a_gradient_stay_as_they_are():
    kernels = [nn.Parameter(torch.ones(2, 2, 1, 1)) for _ in range(2)]
    kernels[0].grad = torch.randn(2, 2, 1, 1)
    Muon(kernels, 0.1, momentum=0.6).step()
    assert not torch.equal(kernels[0], torch.ones(2, 2, 1, 1))
    assert torch.equal(kernels[1], torch.ones(2, 2, 1, 1))
