"""Muon: momentum whose steps are orthogonal matrices (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon)."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer


class Muon(Optimizer):
    """Muon on the kernels of convolutions whose scale does not matter, as where batch normalisation follows.

    A kernel is a matrix W, with a row for each output channel, and G its gradient. A step at rate r with momentum m:

        B <- m B + G
        W <- W sqrt(rows) / ||W||_F - r sqrt(max(1, rows / columns)) orthogonal(G + m B)

    where `orthogonal` gives nearly the nearest matrix with orthonormal rows or columns. Setting the norm of W takes the
    place of weight decay: the rate alone says how fast W may turn.

    Args:
        kernels: weights `(out, in, k, k)` or `(out, in)`.
        lr: rate r.
        momentum: momentum m.
    """

    def __init__(self, kernels: Iterable[nn.Parameter], lr: float, *, momentum: float):
        super().__init__(kernels, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step; kernels without a gradient stay as they are. There is no use for a `closure`."""
        for group in self.param_groups:
            alike: dict[tuple[Any, ...], list[nn.Parameter]] = defaultdict(list)
            for kernel in group["params"]:
                if kernel.grad is not None:
                    alike[kernel.shape, kernel.device, kernel.dtype].append(kernel)
            for kernels in alike.values():  # in one product of matrices
                _step(kernels, [self._momentum(kernel) for kernel in kernels], group["lr"], group["momentum"])

    def _momentum(self, kernel: nn.Parameter) -> Tensor:
        state = self.state[kernel]
        if not state:
            state["momentum"] = torch.zeros_like(kernel)
        return state["momentum"]


def _step(kernels: list[nn.Parameter], buffers: list[Tensor], lr: float, momentum: float) -> None:
    directions = []
    for kernel, buffer in zip(kernels, buffers):
        assert kernel.grad is not None
        buffer.mul_(momentum).add_(kernel.grad)
        directions.append(kernel.grad.add(buffer, alpha=momentum).flatten(1))
    rows, columns = directions[0].shape
    updates = orthogonal(torch.stack(directions)).to(kernels[0].dtype) * (lr * max(1, rows / columns) ** 0.5)
    for kernel, update in zip(kernels, updates):
        kernel.mul_(rows**0.5 / torch.linalg.vector_norm(kernel).clamp_min(1e-7)).sub_(update.reshape(kernel.shape))


def orthogonal(matrices: Float[Tensor, "n rows columns"], *, steps: int = 5) -> Float[Tensor, "n rows columns"]:
    """U V^T of each matrix U S V^T, nearly: singular values of more than 0.02 of its norm become 0.66 to 1.24.

    By the Newton-Schulz iteration X <- a X + b (X X^T) X + c (X X^T)^2 X, whose coefficients Jordan et al. chose to
    raise small singular values quickly rather than to converge to 1. In bfloat16 on GPUs.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide.bfloat16() if wide.is_cuda else wide
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrices.shape[1] <= matrices.shape[2] else x.mT
