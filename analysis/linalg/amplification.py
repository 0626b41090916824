"""How much a linear map magnifies vectors: in random directions, and in the one it magnifies most."""

import math
from dataclasses import dataclass

import torch

from analysis.linalg.lanczos import GolubKahan
from analysis.linalg.linear_operator import LinearMap
from analysis.linalg.search import Keeper, Search
from irevnet.utils.progress import no_report

WIDTH = 8
"""Vectors a block: for a single value a small one will do."""


@dataclass(frozen=True)
class Amplification:
    """||A v|| over ||v||.

    Attributes:
        random: root mean square over directions that are drawn evenly, ||A||_F / sqrt(n), by Hutchinson's method.
        largest: the largest singular value of A.
        residual: so far from that, at most, is a singular value, relatively; the largest itself is no less.
    """

    random: float
    largest: float
    residual: float


def amplification(
    linear_map: LinearMap, *, generator: torch.Generator, num_random: int = 16, tolerance: float = 1e-3
) -> Amplification:
    """How much a map A magnifies.

    Args:
        linear_map: A, n numbers to m.
        generator: draws directions, on the CPU.
        num_random: random directions.
        tolerance: of the residual.

    >>> from analysis.linalg.linear_operator import of_matrix
    >>> round(amplification(of_matrix(2 * torch.eye(3)), generator=torch.Generator()).largest, 4)
    2.0
    """
    directions = torch.randn(num_random, linear_map.shape[1], generator=generator, dtype=torch.float64)
    directions = torch.nn.functional.normalize(directions).to(linear_map.device)
    squares = linear_map.matvec(directions).double().square().sum(dim=1)
    process = GolubKahan(linear_map, width=min(WIDTH, *linear_map.shape), generator=generator)
    search = Search("largest", process, wanted=1, tolerance=tolerance, keeper=Keeper(), report=no_report)
    largest, residual = search.values.item(), search.residuals.item()
    return Amplification(random=math.sqrt(squares.mean().item()), largest=largest, residual=residual / largest)
