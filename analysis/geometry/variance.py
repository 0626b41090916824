"""How the variance of features is spread over directions: functions of the eigenvalues of their covariance."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

MOST_RANKS, LEAST_RANKS = 500, 10
"""Last rank that a power law is fitted to (as by Stringer et al., 2019, Fig. 2), and least number of ranks to fit."""


def eigenvalues(covariance: Float[ndarray, "dims dims"]) -> Float[ndarray, " dims"]:
    """The variance along each principal axis, in decreasing order; 0 below what float64 can tell from it.

    Raises `ValueError` where there is no variance: the features are the same of all images.

    >>> eigenvalues(np.array([[2.0, 1.0], [1.0, 2.0]])).round(12).tolist()
    [3.0, 1.0]
    """
    values = np.linalg.eigvalsh(covariance)[::-1]
    values = np.where(values > len(values) * np.finfo(np.float64).eps * values[0], values, 0.0)
    if not values[0] > 0:
        raise ValueError("the features are the same of all images; their geometry is not defined")
    return values


def participation_ratio(variance: Float[ndarray, " dims"]) -> float:
    """(sum l_i)^2 / sum l_i^2 of the eigenvalues l_i: d where d of them are equal and all others 0.

    Gao et al. (2017, bioRxiv 214262), its dimension of neural activity.

    >>> participation_ratio(np.array([2.0, 2.0, 2.0, 0.0]))
    3.0
    """
    share = variance / variance.sum()
    return float(1 / np.square(share).sum())


def effective_rank(variance: Float[ndarray, " dims"]) -> float:
    """exp(-sum p_i log p_i), p_i = l_i / sum l, of the eigenvalues l_i: d where d of them are equal and all others 0.

    Roy and Vetterli (2007), definition 1, of the covariance matrix, whose singular values are its eigenvalues. (RankMe,
    arXiv:2210.02885, takes those of the features, their square roots.)

    >>> round(effective_rank(np.array([2.0, 2.0, 2.0, 0.0])), 12)
    3.0
    """
    share = variance[variance > 0] / variance.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def dims_holding(variance: Float[ndarray, " dims"], share: float) -> int:
    """The least d such that the d largest eigenvalues have this share of their sum.

    >>> dims_holding(np.array([6.0, 3.0, 1.0]), 0.9)
    2
    """
    held = variance.cumsum() / variance.sum()
    return min(int(np.searchsorted(held, share - len(variance) * np.finfo(np.float64).eps)) + 1, len(variance))


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """The straight line log l_r = c - alpha log r, fitted to the eigenvalues l_r of a range of ranks r.

    Attributes:
        alpha: exponent.
        scale: exp c, the eigenvalue of rank 1 by the line.
        r2: share of the variance of log l_r, over these ranks, that the line explains.
        ranks: first and last rank fitted.
    """

    alpha: float
    scale: float
    r2: float
    ranks: tuple[int, int]


def default_ranks(variance: Float[ndarray, " dims"]) -> tuple[int, int] | None:
    """The ranks that a power law is fitted to: those from 3 to half of the rank, at most to `MOST_RANKS`.

    The first two eigenvalues stand apart where there are few classes, and the last are of noise or of few images.
    `None` where these are less than `LEAST_RANKS`.

    >>> default_ranks(np.ones(64)), default_ranks(np.ones(8))
    ((3, 32), None)
    """
    last = min(int(np.count_nonzero(variance)) // 2, MOST_RANKS)
    return (3, last) if last - 2 >= LEAST_RANKS else None


def fit_power_law(variance: Float[ndarray, " dims"], ranks: tuple[int, int]) -> PowerLaw:
    """Least squares of log l_r on log r, each rank with the same weight, over the ranks from first to last.

    The eigenvalues of features often follow a power law (arXiv:2202.05808).

    Raises `ValueError` for ranks that are not there, or whose eigenvalues are 0.

    >>> law = fit_power_law(4 / np.arange(1.0, 50.0) ** 1.5, (3, 20))
    >>> round(law.alpha, 12), round(law.scale, 12), round(law.r2, 12)
    (1.5, 4.0, 1.0)
    """
    first, last = ranks
    known = int(np.count_nonzero(variance))
    if not 1 <= first < last <= known:
        raise ValueError(f"ranks {first} to {last} were asked for; expected two or more of 1 to {known}")
    x, y = np.log(np.arange(first, last + 1.0)), np.log(variance[first - 1 : last])
    centred = x - x.mean()
    slope = centred @ y / (centred @ centred)
    left = y - y.mean() - slope * centred
    total = np.square(y - y.mean()).sum()
    r2 = 1 - float(left @ left / total) if total > 0 else 1.0
    return PowerLaw(alpha=-float(slope), scale=float(np.exp(y.mean() - slope * x.mean())), r2=r2, ranks=ranks)
