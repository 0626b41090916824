"""How the singular values and vectors of a network's Jacobians change from depth to depth, at the same images.

Jacobians of depth L are products of L others. For products of independent random matrices log s_k grows linearly with L
(its slope is a Lyapunov exponent), and the right singular vectors converge as the values part. Whether that holds of a
network is measured by a straight line through log s_k, and by the principal angles between the subspaces that the right
singular vectors of neighbouring depths span.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from analysis.results.base import finite_or_none
from analysis.results.directions import ENDS, Directions
from analysis.results.findings import Finding, verdict
from analysis.results.singular_values import Spectrum, half_width

FEWEST_DEPTHS = 4
"""Number of depths from which on a straight line is judged; three points are near one too easily."""

LINEAR = 0.9
"""R^2 from which on log s_k counts as linear in depth."""

ALIGNED = 0.5
"""Mean squared overlap from which on the vectors of neighbouring depths count as aligned."""

SOURCE = "arXiv:2602.12384"
"""Where the statements about depth are from."""


@dataclass(frozen=True, eq=False)
class Lines:
    """Straight lines by least squares.

    Attributes:
        slopes: slopes, `(...)`.
        intercepts: values at x = 0, `(...)`.
        r_squared: share of the variance of y that the line accounts for; NaN where y is constant, `(...)`.
    """

    slopes: Float[ndarray, "..."]
    intercepts: Float[ndarray, "..."]
    r_squared: Float[ndarray, "..."]


def fit_lines(x: Float[ndarray, " points"], y: Float[ndarray, "*lines points"]) -> Lines:
    """A straight line through the points of each row of y.

    >>> line = fit_lines(np.array([0.0, 1.0, 3.0]), np.array([1.0, 3.0, 7.0]))
    >>> float(line.slopes), float(line.intercepts), round(float(line.r_squared), 12)
    (2.0, 1.0, 1.0)
    """
    centred, deviations = x - x.mean(), y - y.mean(axis=-1, keepdims=True)
    slopes = np.asarray(deviations @ centred / (centred @ centred))
    left = deviations - slopes[..., None] * centred
    total = (deviations**2).sum(axis=-1)
    # Rounding of the logarithms alone is no variance to account for.
    rounding = len(x) * (10 * np.finfo(float).eps * np.abs(y).max(axis=-1)) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        r_squared = np.where(total > rounding, 1 - (left**2).sum(axis=-1) / total, np.nan)
    return Lines(slopes, np.asarray(y.mean(axis=-1) - slopes * x.mean()), r_squared)


def overlap(first: Float[ndarray, "vectors n"], second: Float[ndarray, "vectors n"]) -> float:
    """The mean squared cosine of the principal angles between the spans of two sets of vectors, the rows.

    It is 1 for the same subspace and 0 for orthogonal ones; that of random subspaces is vectors / n on average.

    >>> overlap(np.eye(3)[:2], np.eye(3)[1:])
    0.5
    """
    one, other = (np.linalg.qr(each.astype(np.float64).T).Q for each in (first, second))
    return float(np.square(one.T @ other).sum() / len(first))


@dataclass(frozen=True, eq=False, kw_only=True)
class DepthTrend:
    """The trend of one network over at least `FEWEST_DEPTHS` depths.

    Attributes:
        network: name of the network.
        depths: block indices, `(depths,)`.
        num_largest: number of ranks that are counted from the largest value on; the others are the last.
        ranks: ranks k whose values are known one by one at all depths and images, `(ranks,)`.
        values: singular values s_k, `(images, ranks, depths)`.
        num_vectors: number of singular vectors at each end.
        overlaps: `overlap` of the right singular vectors of each depth and the next, those of the largest values and
            those of the smallest, `(images, 2, depths - 1)`; NaN where they were not asked for or are not known.
        chance: its expectation for random subspaces, the number of vectors over that of inputs; NaN without vectors.
    """

    network: str
    depths: Int[ndarray, " depths"]
    num_largest: int
    ranks: Int[ndarray, " ranks"]
    values: Float[ndarray, "images ranks depths"]
    num_vectors: int
    overlaps: Float[ndarray, "images 2 neighbours"]
    chance: float

    @property
    def lines(self) -> Lines:
        """Straight lines through log s_k over depth, of each image, `(images, ranks)`."""
        return fit_lines(self.depths.astype(float), np.log(self.values))

    @property
    def r_squared_of_largest(self) -> float:
        """R^2 of the largest values: the mean over the images, of which the median over the ranks."""
        means = self.lines.r_squared[:, : self.num_largest].mean(axis=0)
        known = means[np.isfinite(means)]
        return float(np.median(known)) if len(known) else np.nan

    def summary(self) -> dict[str, Any]:
        """The numbers of a few ranks, and of all neighbours, as plain values for JSON."""
        lines = self.lines
        return {
            "network": self.network,
            "depths": self.depths.tolist(),
            "images": len(self.values),
            "ranks_from_the_largest": self.num_largest,
            "r_squared_of_largest": finite_or_none(self.r_squared_of_largest),
            "ranks": [
                {
                    "rank": int(self.ranks[at]),
                    "slope": mean_and_interval(lines.slopes[:, at]),
                    "r_squared": mean_and_interval(lines.r_squared[:, at]),
                }
                for at in self.shown
            ],
            "vectors": self.num_vectors,
            "overlap_by_chance": finite_or_none(self.chance),
            "overlaps": {
                name: [
                    {
                        "depths": [int(self.depths[at]), int(self.depths[at + 1])],
                        **mean_and_interval(self.overlaps[:, end, at]),
                    }
                    for at in range(len(self.depths) - 1)
                ]
                for end, name in enumerate(ENDS)
                if np.isfinite(self.overlaps[:, end]).all()
            },
        }

    def findings(self) -> list[Finding]:
        """What became of the statements of `SOURCE` about log s_k, and about the vectors where they are known."""
        r_squared, several = self.r_squared_of_largest, f"{len(self.values)} image{'s' * (len(self.values) > 1)}"
        growth = np.exp(self.lines.slopes[:, 0].mean())
        where = f"over {len(self.depths)} depths, at {several}"
        findings = [
            Finding(
                network=self.network,
                paper="the singular values of a network with fixed gates scale exponentially with depth: log s_k is "
                "linear in it",
                here=f"the median R^2 of the lines through log s_k is {r_squared:.2f} for the {self.num_largest:,} "
                f"largest, {where}; the largest value grows {growth:.2f} times a block",
                verdict=verdict(r_squared >= LINEAR, applies=bool(np.isfinite(r_squared))),
                rule=f"it is at least {LINEAR:g}",
                source=SOURCE,
            )
        ]
        found = self.overlaps[:, 0]
        if np.isfinite(found).all():
            findings.append(
                Finding(
                    network=self.network,
                    paper="as singular values part, singular vectors align, so that Jacobians of all depths nearly "
                    "share them",
                    here=f"the {self.num_vectors} most magnified directions of a depth and of the next of those looked "
                    f"at have a mean squared overlap of {found.mean():.2f} (of single steps {found.min():.2f} to "
                    f"{found.max():.2f}; by chance {self.chance:.2g}), {where}",
                    verdict=verdict(bool(found.mean() >= ALIGNED)),
                    rule=f"the mean is at least {ALIGNED:g}",
                    source=SOURCE,
                )
            )
        return findings

    @property
    def shown(self) -> list[int]:
        """Indices into `ranks` of a few of them, from the first to the last at each end."""
        top = np.unique(np.geomspace(1, self.num_largest, 4).round().astype(int)) - 1
        rest = len(self.ranks) - self.num_largest
        return [*top.tolist(), *([self.num_largest, len(self.ranks) - 1] if rest > 1 else [])]


def depth_trend(
    network: str,
    depths: Sequence[int],
    spectra: Sequence[Sequence[Spectrum]],
    directions: Sequence[Sequence[Directions | None]],
) -> DepthTrend:
    """The trend of a network.

    Args:
        network: name of the network.
        depths: block indices, in increasing order.
        spectra: spectrum of each depth and image.
        directions: directions of each depth and image, where they were asked for.
    """
    each = [spectrum for images in spectra for spectrum in images]
    num_largest = min(map(_num_above_rounding, each))
    counts = {spectrum.count for spectrum in each}
    num_smallest = min(len(spectrum.smallest) for spectrum in each) if len(counts) == 1 else 0
    values = [
        [np.concatenate((one.largest[:num_largest], one.smallest[:num_smallest][::-1])) for one in images]
        for images in spectra
    ]
    last = min(counts) - num_smallest + np.arange(1, num_smallest + 1)
    found = [one for images in directions for one in images if one is not None]
    complete = len(found) == len(each)
    num_vectors = min(len(one.vector_values[0]) for one in found) if complete else 0
    return DepthTrend(
        network=network,
        depths=np.array(depths),
        num_largest=num_largest,
        ranks=np.concatenate((np.arange(1, num_largest + 1), last)),
        values=np.array(values).transpose(1, 2, 0),
        num_vectors=num_vectors,
        overlaps=np.array([_overlaps(images, num_vectors) for images in zip(*directions)]),
        chance=num_vectors / each[0].num_inputs if num_vectors else np.nan,
    )


def _num_above_rounding(spectrum: Spectrum) -> int:
    """Number of the largest values that are no rounding errors of zeros, as those of a map of low rank may be."""
    rounding = np.finfo(np.float64).eps * spectrum.count * spectrum.largest[0]
    return int((spectrum.largest > rounding).sum())


def _overlaps(directions: Sequence[Directions | None], num_vectors: int) -> Float[ndarray, "2 neighbours"]:
    """The overlaps of the depths of an image, at both ends."""
    found = np.full((2, len(directions) - 1), np.nan)
    for at, (one, other) in enumerate(pairwise(directions)):
        for end in range(len(ENDS)):
            if one is not None and other is not None and num_vectors:
                vectors = [each.right_vectors[end, :num_vectors].reshape(num_vectors, -1) for each in (one, other)]
                if np.isfinite(vectors).all():
                    found[end, at] = overlap(*vectors)
    return found


def mean_and_interval(samples: Float[ndarray, " images"]) -> dict[str, float | None]:
    """The mean over the images, and its 95% interval, of which one image has none."""
    mean = float(samples.mean())
    width = float(half_width(samples)) if len(samples) > 1 else np.nan
    found = {"mean": mean, "low": mean - width, "high": mean + width}
    return {name: finite_or_none(value) for name, value in found.items()}
