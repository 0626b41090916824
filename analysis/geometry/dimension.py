"""The intrinsic dimension of points by their two nearest neighbours: TwoNN.

Facco, d'Errico, Rodriguez and Laio (2017, doi:10.1038/s41598-017-11873-y). Where the density of points on a manifold of
dimension d is about constant as far as their second neighbours, the ratio mu = r_2 / r_1 of the distances to the second
and the first has the density d mu^(-d - 1). Of N points the estimate of maximum likelihood is

    d = N / sum_i log mu_i ,

with the standard error d / sqrt(N) if the mu_i were independent and of that density. Neighbours share their own, and
densities vary, so the interval is from a bootstrap: of the ratios of N points drawn with replacement, the neighbours
staying what they are (with copies among the points, new neighbours would be at the distance 0). Facco et al. fit a line
to all but the largest tenth of the mu_i instead; here no point is left out.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from analysis.probes.nearest_neighbour import k_nearest

RESAMPLES = 1000
"""Number of sets of points in the bootstrap."""

LEAST = 100
"""Least number of points in a part of them."""

MOST_HALVINGS = 6
"""Largest number of times that points are halved."""


@dataclass(frozen=True, kw_only=True)
class TwoNN:
    """An estimate of the intrinsic dimension.

    Attributes:
        dimension: d.
        error: standard error of maximum likelihood.
        interval: lower and upper end of the 95% interval by bootstrap.
        points: number of points, each different from all others.
        copies: number of points that were left out, as they are copies of others.
    """

    dimension: float
    error: float
    interval: tuple[float, float]
    points: int
    copies: int


def distinct(points: Float[ndarray, "n dims"]) -> Float[ndarray, "m dims"]:
    """The points without copies, of which the first stays where it is.

    A copy is at the distance 0, where no density has it.
    """
    _, first = np.unique(points, axis=0, return_index=True)
    return points[np.sort(first)]


@torch.no_grad()
def log_ratios(points: Float[Tensor, "n dims"]) -> Float[ndarray, " n"]:
    """log(r_2 / r_1) of each point, from exact neighbours and distances in float64.

    Args:
        points: points that all differ, on the device on which to compute.

    Raises `ValueError` for fewer than three points, or two that are the same.

    >>> log_ratios(torch.tensor([[0.0], [1.0], [3.0]])).round(6).tolist()
    [1.098612, 0.693147, 0.405465]
    """
    if len(points) < 3:
        raise ValueError(f"there are {len(points)} points that differ; two neighbours need three or more")
    nearest = torch.as_tensor(k_nearest(points, points, 3)[0], device=points.device)
    squares = torch.empty(len(points), 2, dtype=torch.float64, device=points.device)
    for rows in torch.arange(len(points), device=points.device).split(max(1, 2**21 // points.shape[1])):
        apart = points[nearest[rows, 1:]].double() - points[rows, None].double()
        squares[rows] = apart.square().sum(dim=2)
    if not bool((squares > 0).all()):
        raise ValueError("some points are copies of others; give them without copies (`distinct`)")
    return 0.5 * (squares[:, 1].log() - squares[:, 0].log()).clamp(min=0).cpu().numpy()


def maximum_likelihood(ratios: Float[ndarray, " n"], *, seed: int = 0, copies: int = 0) -> TwoNN:
    """d = N / sum log mu, with its standard error and a bootstrap over the points.

    Raises `ValueError` where all points are as far from their first as from their second neighbour, as on a grid.

    >>> found = maximum_likelihood(np.full(100, 0.25))
    >>> found.dimension, found.error, found.interval
    (4.0, 0.4, (4.0, 4.0))
    """
    if not ratios.sum() > 0:
        raise ValueError("all points are as far from their first neighbour as from their second; no density has that")
    rng, count = np.random.default_rng(seed), len(ratios)
    sums = np.array([ratios[rng.integers(count, size=count)].sum() for _ in range(RESAMPLES)])
    with np.errstate(divide="ignore"):
        low, high = np.quantile(count / sums, (0.025, 0.975), method="nearest")
    d = count / float(ratios.sum())
    return TwoNN(
        dimension=d, error=d / math.sqrt(count), interval=(float(low), float(high)), points=count, copies=copies
    )


def two_nn(points: Float[ndarray, "n dims"], *, seed: int = 0, device: str = "cpu") -> TwoNN:
    """The intrinsic dimension of points, of which copies are left out.

    Args:
        points: finite points, with one in each row.
        seed: seed of the bootstrap.
        device: device on which to compute.

    Raises:
        ValueError: fewer than three points differ, or points are not finite.

    >>> plane = np.random.default_rng(0).normal(size=(2000, 2)) @ np.random.default_rng(1).normal(size=(2, 9))
    >>> round(two_nn(plane).dimension, 1)
    2.0
    """
    alone = distinct(points)
    ratios = log_ratios(torch.as_tensor(alone, device=device))
    return maximum_likelihood(ratios, seed=seed, copies=len(points) - len(alone))


def two_nn_by_halving(
    points: Float[ndarray, "n dims"], *, halvings: int, seed: int = 0, device: str = "cpu"
) -> list[TwoNN | None]:
    """The same of all points, of halves of them, of quarters and so on, whose neighbours are farther away.

    Where d is the same at all distances, the curve is level; where it rises with the number of points, the nearest of
    them see directions that others do not, such as noise (Facco et al., 2017, Fig. 3). Each point is in one half, one
    quarter and so on, drawn at random; the ratios of all parts enter one estimate.

    Args:
        points: finite points, with one in each row.
        halvings: number of times that points are halved.
        seed: seed of the parts, and of the bootstrap.
        device: device on which to compute.

    Returns:
        Estimates for all points, halves, quarters, ...; `None` where a part would have fewer than three points.
    """
    alone = distinct(points)
    shuffled = torch.as_tensor(alone[np.random.default_rng(seed).permutation(len(alone))], device=device)
    found: list[TwoNN | None] = []
    for halving in range(halvings + 1):
        if halving > 0 and len(alone) < 3 * 2**halving:
            found.append(None)
            continue
        ratios = np.concatenate([log_ratios(part) for part in shuffled.tensor_split(2**halving)])
        found.append(maximum_likelihood(ratios, seed=seed, copies=len(points) - len(alone)))
    return found


def default_halvings(points: int) -> int:
    """How often points are halved: as long as parts have `LEAST`, and at most `MOST_HALVINGS` times.

    >>> default_halvings(1000), default_halvings(60)
    (3, 0)
    """
    return min(MOST_HALVINGS, max(0, int(np.log2(max(points, 1) / LEAST))))
