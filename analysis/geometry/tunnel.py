"""Where accuracy on a network's own data saturates, and what becomes of other data from there on: the tunnel.

Masarczyk et al. (2023, arXiv:2305.19753): the first layers of a deep network, the extractor, make classes linearly
separable; the others, the tunnel, add little to that and lose what would tell the classes of other data apart. With
a_j the test accuracy of a linear probe at layer j of J, the tunnel starts at

    s = min {j : a_i >= 0.98 a_J for all i >= j} ,

and other data, with accuracies b_j, lose b_J - b_s in it. The share 0.98 is a choice.

Intervals are from a parametric bootstrap: numbers of images classified right are drawn anew from binomial
distributions, each layer's by itself. All layers see the same images, and err on many of the same, so that differences
between layers vary less than these draws have it: intervals are rather too wide than too narrow.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

SATURATED = 0.98
"""Share of the accuracy at the last layer from which on accuracy counts as saturated."""

RESAMPLES = 2000
"""Number of draws of the bootstrap."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tunnel:
    """The tunnel of one network, by indices of its layers. Each row is an estimate with both ends of its 95% interval.

    Attributes:
        start: first layer of the tunnel, `(3,)`; the last layer if there is no tunnel.
        peak: layer at which the accuracy on each of the other data is highest, `(others, 3)`.
        change: accuracy on each of the other data at the last layer less that at the start of the tunnel,
            `(others, 3)`.
    """

    start: Int[ndarray, "3"]
    peak: Int[ndarray, "others 3"]
    change: Float[ndarray, "others 3"]


def find_tunnel(
    own: Int[ndarray, " layers"],
    num_own: int,
    others: Int[ndarray, "others layers"],
    num_others: Int[ndarray, " others"],
    *,
    seed: int = 0,
) -> Tunnel:
    """The tunnel by the test images that linear probes classify right.

    Args:
        own: number of the network's own test images that the probe of each layer classifies right.
        num_own: number of these test images.
        others: the same of other data.
        num_others: number of test images of each of these.
        seed: seed of the bootstrap.

    >>> found = find_tunnel(
    ...     np.array([500, 900, 990, 1000]), 1000, np.array([[300, 600, 500, 200]]), np.array([1000])
    ... )
    >>> found.start.tolist(), found.peak.tolist(), found.change.round(2).tolist()
    ([2, 2, 2], [[1, 1, 1]], [[-0.3, -0.34, -0.26]])
    """
    rng = np.random.default_rng(seed)
    given = np.concatenate([own[None], others]), np.concatenate([[num_own], num_others])
    accuracy = given[0] / given[1][:, None]
    drawn = rng.binomial(given[1][:, None], accuracy, size=(RESAMPLES, *accuracy.shape)) / given[1][:, None]
    start, starts = _start(accuracy[0]), _start(drawn[:, 0])
    change = accuracy[1:, -1] - accuracy[1:, start]
    changes = drawn[:, 1:, -1] - np.take_along_axis(drawn[:, 1:], starts[:, None, None], axis=2)[..., 0]
    return Tunnel(
        start=np.array([start, *_ends(starts)]),
        peak=np.column_stack([accuracy[1:].argmax(axis=-1), *_ends(drawn[:, 1:].argmax(axis=-1))]),
        change=np.column_stack([change, *_ends(changes)]),
    )


def _start(accuracy: Float[ndarray, "*draws layers"]) -> Int[ndarray, "*draws"]:
    """The first layer from which on all accuracies are saturated."""
    below = accuracy < SATURATED * accuracy[..., -1:]
    after_last = below.shape[-1] - np.argmax(below[..., ::-1], axis=-1)
    return np.where(below.any(axis=-1), after_last, 0)


def _ends(drawn: ndarray) -> ndarray:
    """Both ends of the 95% interval of each quantity over the draws, which are along the first axis."""
    return np.quantile(drawn, [0.025, 0.975], axis=0, method="inverted_cdf")
