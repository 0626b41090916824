"""What others found of the geometry of features, beside what it is at the layers of one network."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from analysis.results.findings import Finding, verdict

DIMENSION = "arXiv:1905.12784"
"""Ansuini, Laio, Macke, Zoccolan: Intrinsic dimension of data representations in deep neural networks, NeurIPS 2019."""

COLLAPSE = "arXiv:2008.08186"
"""Papyan, Han, Donoho: Prevalence of neural collapse during the terminal phase of deep learning training, PNAS 2020."""

POWER_LAW = "arXiv:2202.05808"
"""Ghosh, Mondal, Agrawal, Richards: Investigating power laws in deep representation learning, 2022."""

TUNNEL = "arXiv:2305.19753"
"""Masarczyk et al.: The tunnel effect: building data representations in deep neural networks, NeurIPS 2023."""

COLLAPSED = 0.1
"""Largest value of NC1, NC2 and NC3 at which features count as collapsed, where 0 is collapse itself."""

DISAGREEING = 0.05
"""Largest share of images at which the nearest class mean counts as the network's answer."""

SMALLER = 10
"""Number of times that the intrinsic dimension is to be smaller than the number of features."""

STRAIGHT = 0.95
"""Least R^2 of a power law, over the ranks fitted."""


def find_in_layers(
    network: str,
    depth: Int[ndarray, " rows"],
    dims: Int[ndarray, " rows"],
    values: Mapping[str, Float[ndarray, " rows"]],
    intervals: Mapping[str, Float[ndarray, "rows 2"]],
    r2: Float[ndarray, " rows"],
    num_classes: int,
) -> list[Finding]:
    """The findings of one network, whose layers are in the order of their depth.

    Args:
        network: name of the network.
        depth: number of each layer among the network's blocks, or the layers chosen.
        dims: number of features of each layer.
        values: measures of each layer by their codes.
        intervals: their intervals.
        r2: share of the variance that the power law of each layer explains.
        num_classes: number of classes studied.
    """
    parts = [
        *_find_hunchback(depth, values["two_nn"], intervals["two_nn"]),
        _find_few_dimensions(dims, values["two_nn"], intervals["two_nn"]),
        _find_curved(values, intervals),
        *_find_collapse(values, intervals, num_classes),
        *_find_power_law(values["alpha"], intervals["alpha"], r2),
    ]
    return [Finding(network=network, **part) for part in parts]


def find_in_tunnel(
    network: str,
    last: int,
    start: Float[ndarray, "3"],
    others: Sequence[str],
    peak: Float[ndarray, "others 3"],
    change: Float[ndarray, "others 3"],
) -> list[Finding]:
    """What becomes of the accuracy of linear probes at the last layers of one network.

    Args:
        network: name of the network.
        last: depth of the last layer.
        start: depth at which the tunnel starts, with both ends of the interval.
        others: names of other data.
        peak: depth at which the accuracy on each of these is highest, with both ends.
        change: accuracy on each at the last depth less that at the start of the tunnel, with both ends.
    """
    found: list[dict] = [
        {
            "source": TUNNEL,
            "paper": "the last layers, the tunnel, add little to the accuracy of linear probes",
            "here": f"98% of the last accuracy is reached at depth {with_interval(start[0], start[1:])} of {last}",
            "verdict": verdict(bool(start[2] < last)),
            "rule": "the interval's upper end is below the last depth",
        }
    ]
    for name, top, each in zip(others, peak, change, strict=True):
        points = [f"{100 * number:+.1f}" for number in each]
        found.append(
            {
                "source": TUNNEL,
                "paper": "the tunnel loses what would tell the classes of other data apart",
                "here": f"accuracy on {name} changes by {points[0]} points ({points[1]} to {points[2]}) in it, and is "
                f"highest at depth {with_interval(top[0], top[1:])}",
                "verdict": verdict(bool(each[2] < 0), applies=bool(start[2] < last)),
                "rule": "the change is negative with its interval; only where there is a tunnel",
            }
        )
    return [Finding(network=network, **part) for part in found]


def with_interval(value: float, interval: ndarray) -> str:
    """A number with its interval, where it has one."""
    ends = f" ({interval[0]:.3g} to {interval[1]:.3g})" if np.isfinite(interval).all() else " (no interval)"
    return f"{value:.3g}{ends}"


def rises_and_falls(dimension: Float[ndarray, " rows"], interval: Float[ndarray, "rows 2"]) -> bool:
    """Whether the largest of the values at layers is at neither end, its interval above those at both ends."""
    top = int(dimension.argmax())
    inside = 0 < top < len(dimension) - 1
    return inside and bool(interval[top, 0] > max(interval[0, 1], interval[-1, 1]))


def _find_hunchback(depth: ndarray, dimension: ndarray, interval: ndarray) -> list[dict]:
    if len(depth) < 3:
        return []
    top = int(dimension.argmax())
    return [
        {
            "source": DIMENSION,
            "paper": "the intrinsic dimension first increases and then decreases over the layers",
            "here": f"{with_interval(dimension[0], interval[0])} at block {depth[0]}, most at block {depth[top]} with "
            f"{with_interval(dimension[top], interval[top])}, {with_interval(dimension[-1], interval[-1])} at block "
            f"{depth[-1]}",
            "verdict": verdict(rises_and_falls(dimension, interval)),
            "rule": "the largest is neither at the first nor the last layer, its interval above those of both",
        }
    ]


def _find_few_dimensions(dims: ndarray, dimension: ndarray, interval: ndarray) -> dict:
    ratio = dims / interval[:, 1]
    worst = int(ratio.argmin())
    return {
        "source": DIMENSION,
        "paper": "the intrinsic dimension is orders of magnitude smaller than the number of units of a layer",
        "here": f"{with_interval(dimension[worst], interval[worst])} of {dims[worst]} averaged features, where the "
        "ratio is least",
        "verdict": verdict(bool(ratio[worst] >= SMALLER)),
        "rule": f"the interval's upper end is at most a {SMALLER}th of the features at every layer",
    }


def _find_curved(values: Mapping[str, ndarray], intervals: Mapping[str, ndarray]) -> dict:
    linear, own = (with_interval(values[code][-1], intervals[code][-1]) for code in ("dims_90", "two_nn"))
    return {
        "source": DIMENSION,
        "paper": "the images of a layer lie on curved manifolds: linear methods find a far higher dimension",
        "here": f"at the last layer 90% of the variance takes d = {linear}; the intrinsic dimension is {own}",
        "verdict": verdict(bool(values["dims_90"][-1] > 2 * intervals["two_nn"][-1, 1])),
        "rule": "d is more than twice the upper end of the interval of the intrinsic dimension",
    }


def _find_collapse(values: Mapping[str, ndarray], intervals: Mapping[str, ndarray], num_classes: int) -> list[dict]:
    statements = {
        "NC1": ("the variation of features within classes collapses to zero", ["nc1"]),
        "NC2": ("class means have equal norms and equal, largest angles", ["nc2_norms", "nc2_cosines", "nc2_angles"]),
        "NC3": ("class means and the classifier's weights converge to each other", ["nc3"]),
        "NC4": ("the classifier's decision collapses to the nearest class mean", ["nc4"]),
    }
    found = []
    for name, (statement, codes) in statements.items():
        known = all(np.isfinite(values[code][-1]) for code in codes)
        highest = max(_upper(values[code][-1], intervals[code][-1]) for code in codes)
        most = DISAGREEING if name == "NC4" else COLLAPSED
        numbers = ", ".join(with_interval(values[code][-1], intervals[code][-1]) for code in codes)
        first = f"; {with_interval(values['nc1'][0], intervals['nc1'][0])} at the first" if name == "NC1" else ""
        why = "the averages of the last layer are not what the network's own linear layer sees; name that by --layers"
        why = {"NC3": why, "NC4": "the network's answers are not known"}.get(name, "every class has one image")
        found.append(
            {
                "source": COLLAPSE,
                "paper": f"{name}: {statement} late in training",
                "here": f"{numbers} at the last layer{first}" if known else why,
                "verdict": verdict(bool(highest <= most), applies=known and num_classes > 2),
                "rule": f"at most {most:g} at the last layer, with the interval; 0 is collapse itself",
            }
        )
    return found


def _upper(value: float, interval: ndarray) -> float:
    return float(interval[1]) if np.isfinite(interval[1]) else float(value)


def _find_power_law(alpha: ndarray, interval: ndarray, r2: ndarray) -> list[dict]:
    known = np.flatnonzero(np.isfinite(alpha))
    if not len(known):
        return []
    last, least = int(known[-1]), float(r2[known].min())
    return [
        {
            "source": POWER_LAW,
            "paper": "the eigenvalues of the covariance of features often follow a power law",
            "here": f"R^2 is {least:.3f} or more over the ranks fitted, of {len(known)} layers; alpha is "
            f"{with_interval(alpha[last], interval[last])} at the last of them",
            "verdict": verdict(least >= STRAIGHT),
            "rule": f"R^2 is at least {STRAIGHT:g} at every layer with ranks enough",
        }
    ]
