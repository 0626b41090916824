"""How much a map magnifies small changes of its input: in random directions, and in the one it magnifies most."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vjp

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Amplification:
    """Of each point, the relative change of the output over the relative change of the input, where both are small.

    Attributes:
        random: root mean square over directions that are drawn evenly, `(points,)`.
        largest: in the direction found by power iteration, `(points,)`; from below.
        last_change: relative change of `largest` in the last iteration, `(points,)`.
    """

    random: Float[Tensor, " points"]
    largest: Float[Tensor, " points"]
    last_change: Float[Tensor, " points"]


@torch.no_grad()
def amplification(
    function: Map,
    points: Float[Tensor, "points ..."],
    *,
    generator: torch.Generator,
    num_random: int = 16,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
) -> Amplification:
    """Singular values of J, the Jacobian of a map at each of several points, times ||input|| / ||output||.

    In random directions the root mean square of ||J v|| / ||v|| is ||J||_F / sqrt(n) for n numbers of input, estimated
    by Hutchinson's method. The largest singular value is found by power iteration on J^T J, which comes from below.

    Args:
        function: maps each of a batch of points for itself, `(points, ...)` to `(points, ...)`.
        points: where to look.
        generator: draws directions, on the CPU.
        num_random: random directions a point.
        max_iterations: of the power iteration.
        tolerance: it ends when no estimate has changed by more than this, relatively.

    >>> doubled = amplification(lambda x: 2 * x, torch.ones(1, 3), generator=torch.Generator().manual_seed(0))
    >>> round(doubled.largest.item(), 4)  # an image twice as large changes twice as much: relatively, it does not
    1.0
    """
    outputs, pull_back, *_ = vjp(function, points)
    # J is the transpose of J^T, which is linear.
    _, push_forward, *_ = vjp(lambda cotangent: pull_back(cotangent)[0], torch.zeros_like(outputs))
    scale = _norms(points) / _norms(outputs)

    def draw() -> Tensor:
        drawn = torch.randn(points.shape, generator=generator, dtype=points.dtype).to(points.device)
        return _normalised(drawn)

    squares = torch.stack([_norms(push_forward(draw())[0]) ** 2 for _ in range(num_random)])
    direction, largest = draw(), torch.zeros_like(scale)
    change = torch.full_like(scale, torch.inf)
    for _ in range(max_iterations):
        (image,) = push_forward(direction)
        before, largest = largest, _norms(image)
        change = (largest - before).abs() / largest
        if change.max() < tolerance:
            break
        direction = _normalised(pull_back(image)[0])
    return Amplification(random=squares.mean(dim=0).sqrt() * scale, largest=largest * scale, last_change=change)


def _norms(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def _normalised(x: Tensor) -> Tensor:
    return x / _norms(x).reshape(-1, *[1] * (x.ndim - 1))
