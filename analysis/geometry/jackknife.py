"""Intervals of statistics of images, from the statistics without some of the images: the jackknife by groups.

Images are dealt to G groups at random, within each class. With t_g the statistic of all images but those of group g,
and m the mean of these, the variance of the statistic of all is estimated by (G - 1) / G sum_g (t_g - m)^2 (Shao and
Tu, 1995, section 2.3). The interval is that of Student's t with G - 1 degrees of freedom. It is for images drawn anew
of each class, as many as there are.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.stats import t

GROUPS = 20
"""Number of groups: t is 2.09 then, and 1.96 for any number."""


def deal(labels: Int[ndarray, " n"], *, seed: int = 0) -> Int[ndarray, " n"]:
    """The group of each image, drawn at random within its class.

    Groups differ by at most one in their number of images, and by at most one in that of any class. There are `GROUPS`,
    or as many as there are images.

    >>> deal(np.array([0, 0, 1, 1])).tolist()
    [1, 0, 3, 2]
    """
    order = np.lexsort((np.random.default_rng(seed).random(len(labels)), labels))
    groups = np.empty(len(labels), dtype=np.int64)
    groups[order] = np.arange(len(labels)) % min(GROUPS, len(labels))
    return groups


def jackknife(statistics: Float[ndarray, "subsets *shape"]) -> Float[ndarray, "*shape 2"]:
    """The 95% interval of statistics of all images; NaN where a statistic is not known without one of the groups.

    Args:
        statistics: statistics of all images, then of all but those of each group, of which there are two or more.

    >>> jackknife(np.array([2.0, 1.5, 2.0, 2.5])).round(3).tolist()
    [-0.484, 4.484]
    """
    groups = len(statistics) - 1
    error = np.sqrt((groups - 1) * statistics[1:].var(axis=0))
    return statistics[0, ..., None] + float(t.ppf(0.975, groups - 1)) * error[..., None] * np.array([-1.0, 1.0])
