"""How much a linear operator amplifies vectors: in random directions, and in the direction it amplifies most."""

import math
from dataclasses import dataclass

import torch

from analysis.linalg.lanczos import GolubKahan
from analysis.linalg.largest_values import largest_singular_values
from analysis.linalg.linear_operator import LinearOperator

WIDTH = 8
"""Number of vectors in a block; for a single value a small block is enough."""


@dataclass(frozen=True)
class Amplification:
    """Ratios ||A v|| / ||v|| of an operator A.

    Attributes:
        random: root mean square over uniformly distributed directions, ||A||_F / sqrt(n), by Hutchinson's method.
        largest: largest singular value of A, from below.
        residual: relative distance from `largest` within which A has a singular value.
    """

    random: float
    largest: float
    residual: float


def amplification(
    operator: LinearOperator, *, generator: torch.Generator, num_random: int = 16, tolerance: float = 1e-3
) -> Amplification:
    """How much an operator A amplifies vectors.

    Args:
        operator: linear operator A, m x n.
        generator: random number generator on the CPU.
        num_random: number of random directions.
        tolerance: relative residual at which the largest singular value has converged.

    >>> from analysis.linalg.linear_operator import aslinearoperator
    >>> round(amplification(aslinearoperator(2 * torch.eye(3)), generator=torch.Generator()).largest, 4)
    2.0
    """
    directions = torch.randn(num_random, operator.shape[1], generator=generator, dtype=torch.float64)
    directions = torch.nn.functional.normalize(directions).to(operator.device)
    squares = operator.matvec(directions).double().square().sum(dim=1)
    process = GolubKahan(operator, width=min(WIDTH, *operator.shape), generator=generator)
    found = largest_singular_values(process, num_values=1, tolerance=tolerance)
    largest, residual = found.values.item(), found.residuals.item()
    return Amplification(random=math.sqrt(squares.mean().item()), largest=largest, residual=residual / largest)
