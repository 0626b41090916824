"""The singular values of one linear map, and what follows from them: energy, condition, volume."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray
from scipy.stats import t as students_t

CONFIDENCE = 0.95
"""Confidence level of every interval."""


def half_width(samples: Float[ndarray, "samples ..."]) -> Float[ndarray, "..."]:
    """Half the width of Student's interval for the mean of independent samples.

    >>> round(float(half_width(np.array([1.0, 3.0]))), 3)
    12.706
    """
    count = len(samples)
    quantile = students_t.ppf((1 + CONFIDENCE) / 2, count - 1)
    return np.asarray(quantile * samples.std(axis=0, ddof=1) / np.sqrt(count))


@dataclass(frozen=True, eq=False, kw_only=True)
class SingularVectors:
    """Singular values of a linear map A, n numbers to m, at both ends of its spectrum, with their vectors.

    The first index is 0 for the largest values, in decreasing order, and 1 for the smallest, in increasing order, which
    are NaN without an inverse. Of values that are nearly equal, only the subspace of their vectors is determined.

    Attributes:
        values: singular values s, `(2, count)`.
        right: right singular vectors v, of length 1, whose largest entry is positive, `(2, count, n)`.
        left: left singular vectors u, of length 1, `(2, count, m)`.
        residuals: relative residuals, computed anew from products: of the largest values ||A v - s u|| / s and
            ||A^T u - s v|| / s; of the smallest those of the inverse, ||A^-T v - u / s|| s and ||A^-1 u - v / s|| s,
            `(2, count, 2)`.
    """

    values: Float[ndarray, "2 count"]
    right: Float[ndarray, "2 count n"]
    left: Float[ndarray, "2 count m"]
    residuals: Float[ndarray, "2 count 2"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Spectrum:
    """The singular values of one linear map A, n numbers to m: some of them one by one, the others as a density.

    They are those of the matrix, decomposed (`"dense"`), or found from products with vectors alone (`"lanczos"`).

    Attributes:
        num_outputs: dimension m of the outputs.
        num_inputs: dimension n of the inputs.
        method: `"dense"` or `"lanczos"`.
        largest: largest singular values s, in decreasing order, `(k,)`; all of them, if the matrix was decomposed.
        largest_residuals: ||A^T u - s v|| of each of `largest`, the distance within which a singular value lies,
            `(k,)`; NaN if the matrix was decomposed.
        smallest: smallest singular values, in increasing order, from products with the inverse, `(l,)`; empty without
            an inverse, or if the matrix was decomposed.
        smallest_residuals: residual of each of `smallest` as a singular value of the inverse, relative to that value,
            `(l,)`.
        num_converged: number of `largest` whose residual is within the tolerance.
        squared_norm: ||A||_F^2, the sum of the squares of all singular values.
        squared_norm_error: half the width of the 95% interval of `squared_norm`.
        nodes: nodes of the density of all other singular values, in decreasing order, `(nodes,)`.
        weights: number of singular values that each node stands for, by each probe vector, `(probes, nodes)`.
        log_volume: log |det A| from products with A, which errs to the high side, and from products with its inverse,
            which errs to the low side, `(2,)`; NaN without an inverse.
        log_volume_error: half the width of the 95% interval of `log_volume`; if the matrix was decomposed, the
            rounding error that its condition allows.
        num_products: number of products with A, A^T and their inverses.
        loss_of_orthogonality: largest entry of |V V^T - 1| of the Lanczos vectors V; 0 if the matrix was decomposed.
        vectors: singular vectors at both ends, where they were asked for.
    """

    num_outputs: int
    num_inputs: int
    method: str
    largest: Float[ndarray, " k"]
    largest_residuals: Float[ndarray, " k"]
    smallest: Float[ndarray, " l"]
    smallest_residuals: Float[ndarray, " l"]
    num_converged: int
    squared_norm: float
    squared_norm_error: float
    nodes: Float[ndarray, " nodes"]
    weights: Float[ndarray, "probes nodes"]
    log_volume: Float[ndarray, "2"]
    log_volume_error: float
    num_products: int
    loss_of_orthogonality: float
    vectors: SingularVectors | None = None

    @property
    def count(self) -> int:
        """The number of singular values, the smaller of m and n."""
        return min(self.num_outputs, self.num_inputs)

    @property
    def condition(self) -> float:
        """The largest singular value over the smallest; NaN if that is not known, infinite if it is rounding alone."""
        if len(self.smallest) == 0 and len(self.largest) < self.count:
            return float("nan")
        least = float(self.smallest[0] if len(self.smallest) else self.largest[-1])
        rounding = np.finfo(np.float64).eps * self.count * float(self.largest[0])
        return float(self.largest[0]) / least if least > rounding else float("inf")

    def energy(self, dims: Shaped[ndarray, " dims"]) -> Float[ndarray, "dims 3"]:
        """E(d), the share of the d largest in the sum of all squares, and the lower and upper end of its 95% interval.

        As far as values are known one by one, the interval is that of the sum of all. Beyond, it is that of the density
        too, and of how its nodes are joined: by steps, as E(d) is, or by a smooth curve.
        """
        d, k = np.asarray(dims, dtype=float), len(self.largest)
        sums = np.concatenate(([0.0], np.cumsum(self.largest**2)))
        known = np.interp(d, np.arange(k + 1), sums)
        total, error = self.squared_norm, self.squared_norm_error
        shares = known[:, None] / np.array([total, total + error, max(total - error, sums[-1])])
        if len(self.nodes):
            steps = self._steps(d - k)
            mean, width = steps.mean(axis=0), half_width(steps)
            smooth, ended = self._smooth(d - k)
            width = width + np.abs(smooth - mean)
            rest = np.stack((mean, mean - width, np.where(ended, 1.0, mean + width)), axis=1)
            shares = shares + (1 - shares) * np.where(d[:, None] > k, rest, 0)
        return np.clip(shares, 0, 1)

    def _steps(self, dims: Float[ndarray, " dims"]) -> Float[ndarray, "probes dims"]:
        """The share that so many values which follow those known have in the squares of all that follow, by each probe:
        as many values as a node stands for are equal to it."""
        values = np.concatenate((self.nodes, self.smallest[::-1]))
        shares = []
        for weights in self.weights:
            counts = np.concatenate((weights, np.ones(len(self.smallest))))
            sums = np.cumsum(counts * values**2)
            shares.append(np.interp(dims, [0, *np.cumsum(counts)], [0, *sums / sums[-1]]))
        return np.array(shares)

    def _smooth(self, dims: Float[ndarray, " dims"]) -> tuple[Float[ndarray, " dims"], Bool[ndarray, " dims"]]:
        """The same of the values on the curve, and whether that has ended, as nothing is known of the smallest: beyond,
        the share is no less than on a straight line to 1, as it is concave, and may be 1."""
        ranks, values = self.curve()
        following = np.arange(len(self.largest) + 1, int(ranks[-1]) + 1)
        sums = np.cumsum(np.exp(2 * np.interp(following, ranks, np.log(values))))
        total = sums[-1] if len(self.smallest) else self.weights.mean(axis=0) @ self.nodes**2
        end = self.count - len(self.largest)
        shares = np.interp(dims, [*range(len(sums) + 1), end], [0, *sums / total, 1])
        return shares, (dims > len(sums)) & (dims < end)

    def dims_holding(self, share: float) -> tuple[int, int, int]:
        """The smallest d with E(d) of that share, and the ends of its interval."""
        dims = np.unique(
            np.concatenate((np.arange(1, len(self.largest) + 1), np.linspace(1, self.count, 2000).round()))
        )
        curves = self.energy(dims).T
        first, late, early = (
            int(dims[np.argmax(curve >= share)]) if curve[-1] >= share else self.count for curve in curves
        )
        return first, early, late

    def curve(self) -> tuple[Float[ndarray, " points"], Float[ndarray, " points"]]:
        """Ranks, from 1 on, and singular values in decreasing order: those known at both ends, the density between.

        Where nothing is known of the smallest, it ends where they begin.
        """
        first, last = len(self.largest), self.count - len(self.smallest)
        ranks, values = first + 0.5 + np.empty(0), np.empty(0)
        if len(self.nodes):
            # Nodes come in bunches of as many as there are probes, nearly equal, which stand for what lies around them.
            starts = np.arange(0, len(self.nodes), len(self.weights))
            counts = self.weights.mean(axis=0)
            numbers = np.add.reduceat(counts, starts)
            logarithms = np.log(np.maximum(self.nodes, np.finfo(float).tiny))
            values = np.exp(np.add.reduceat(counts * logarithms, starts) / numbers)
            ranks = first + 0.5 + np.cumsum(numbers) - numbers / 2
            if len(self.smallest) == 0:
                ranks, values = ranks[:-1], values[:-1]
        known = np.arange(1.0, first + 1), last + np.arange(1.0, len(self.smallest) + 1)
        return np.concatenate((known[0], ranks, known[1])), np.concatenate((self.largest, values, self.smallest[::-1]))
