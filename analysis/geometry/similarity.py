"""Debiased linear CKA: how alike the features of the same images are at two layers, whatever the rotation and scale.

Kornblith et al. (2019, arXiv:1905.00414) compare the Gram matrices K = X X^T and L = Y Y^T of n images. With K~, L~
these with zeros on the diagonal, the estimate of HSIC without bias is (Song et al., 2012, equation 5)

    HSIC = 1 / (n (n - 3)) [ tr(K~ L~) + 1'K~1 1'L~1 / ((n - 1) (n - 2)) - 2 / (n - 2) 1'K~L~1 ] ,

and debiased CKA = HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)), of which Murphy, Zylberberg and Fyshe (2024,
arXiv:2405.01012) say why: with fewer images than dimensions, CKA with a bias is near 1 whatever the features.

Neither Gram matrix is needed. With x_i, y_i the rows, a_i = |x_i|^2, b_i = |y_i|^2, s = sum x_i, t = sum y_i, and
C = X^T Y,

    tr(K~ L~) = |C|^2 - sum a_i b_i ,      1'K~1 = |s|^2 - sum a_i ,
    1'K~L~1   = sum (x_i s - a_i) (y_i t - b_i) = s' C t - s' sum b_i x_i - t' sum a_i y_i + sum a_i b_i .

All are sums over images, so that features are read some rows at a time, and the result is that of all images at once,
in exact arithmetic the same number. (Averages of HSIC over minibatches, as others take them, are not: these have the
same expectation and more variance.) HSIC does not change where a vector is added to all x_i; one near the mean is
subtracted, as it keeps the differences free of cancellation. Sums are in float64.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from analysis.geometry.jackknife import jackknife
from analysis.geometry.moments import finite

ROWS = 4096
"""Number of images read at once."""

VALUES = 2**25
"""Largest number of entries of the cross products of all groups at once: 256 MiB. They are found by parts of the
columns of X where there are more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Similarity:
    """Debiased linear CKA of two layers.

    Attributes:
        value: CKA; below 0 where layers have less in common than by chance.
        interval: its 95% interval by the jackknife, `(2,)`; NaN where there is none.
    """

    value: float
    interval: Float[ndarray, " 2"]


def unbiased_hsic(
    first: Float[ndarray, "n p"], second: Float[ndarray, "n q"], groups: Int[ndarray, " n"]
) -> Float[ndarray, " subsets"]:
    """The unbiased HSIC of all images, and of all but those of each group.

    Args:
        first: features X, of an image in each row; may be a memory map, which is read in parts.
        second: features Y of the same images.
        groups: group of each image, from 0 on, see `analysis.geometry.jackknife.deal`.

    Returns:
        HSIC of all images, then without each group; NaN of fewer than four images.

    Raises:
        ValueError: X and Y are of different numbers of images, or a feature is not finite.

    >>> x = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])
    >>> unbiased_hsic(x, 2 * x, np.zeros(5, dtype=int)).round(6).tolist()
    [20.666667, nan]
    """
    if len(first) != len(second):
        raise ValueError(f"there are features of {len(first)} and of {len(second)} images; expected the same images")
    num_groups = int(groups.max()) + 1
    width = max(1, VALUES // (num_groups * second.shape[1]))
    blocks = [_block(first, second, groups, start, width) for start in range(0, first.shape[1], width)]
    of_cross, of_x, mixed = np.sum([added for added, _ in blocks], axis=0)
    n, of_y, of_ay, a, b, ab = blocks[0][1]
    products = (of_x - a) * (of_y - b)
    mixed = mixed - of_ay + ab
    with np.errstate(invalid="ignore", divide="ignore"):
        found = of_cross - ab + products / ((n - 1) * (n - 2)) - 2 / (n - 2) * mixed
        return np.where(n < 4, np.nan, found / (n * (n - 3)))


def cka(
    both: Float[ndarray, " subsets"], first: Float[ndarray, " subsets"], second: Float[ndarray, " subsets"]
) -> Similarity:
    """CKA from the HSIC of X and Y, of X and X, and of Y and Y, as `unbiased_hsic` returns them.

    CKA is NaN where the HSIC of X or of Y with itself is not above 0, as of features that are the same of all images.
    """
    with np.errstate(invalid="ignore"):
        values = both / np.sqrt(np.where((first > 0) & (second > 0), first * second, np.nan))
    interval = jackknife(values) if len(values) > 2 else np.full(2, np.nan)
    return Similarity(value=float(values[0]), interval=interval)


def debiased_cka(first: Float[ndarray, "n p"], second: Float[ndarray, "n q"], groups: Int[ndarray, " n"]) -> Similarity:
    """The debiased linear CKA of features of the same images at two layers, with its interval.

    The arguments are those of `unbiased_hsic`.

    >>> x = np.random.default_rng(0).normal(size=(40, 3))
    >>> found = debiased_cka(x, 5 * x[:, ::-1] + 1, np.arange(40) % 20)
    >>> round(found.value, 12), found.interval.round(12).tolist()
    (1.0, [1.0, 1.0])
    """
    pairs = (first, second), (first, first), (second, second)
    return cka(*(unbiased_hsic(x, y, groups) for x, y in pairs))


def _block(
    first: Float[ndarray, "n p"], second: Float[ndarray, "n q"], groups: Int[ndarray, " n"], start: int, width: int
) -> tuple[Float[ndarray, "3 subsets"], Float[ndarray, "6 subsets"]]:
    """The sums of HSIC for all images, and for all but those of each group: those that are added up over the columns of
    X, for these columns; and those that are of all columns."""
    num_groups, q = int(groups.max()) + 1, second.shape[1]
    p = min(width, first.shape[1] - start)
    cross, scalars = np.zeros((num_groups, p, q)), np.zeros((num_groups, 3))
    s, bx, t, ay = (np.zeros((num_groups, size)) for size in (p, p, q, q))
    shifts = _near_mean(first), _near_mean(second)
    for row in range(0, len(first), ROWS):
        rows = slice(row, row + ROWS)
        x, y = (finite(each[rows]) - shift for each, shift in zip((first, second), shifts))
        a, b = np.square(x).sum(axis=1), np.square(y).sum(axis=1)
        x = x[:, start : start + width]
        for group in range(num_groups):
            at = groups[rows] == group
            cross[group] += x[at].T @ y[at]
            s[group] += x[at].sum(axis=0)
            t[group] += y[at].sum(axis=0)
            bx[group] += b[at] @ x[at]
            ay[group] += a[at] @ y[at]
            scalars[group] += a[at].sum(), b[at].sum(), a[at] @ b[at]
    images = np.bincount(groups, minlength=num_groups)
    fields = images, cross, s, t, bx, ay, scalars
    whole = [each.sum(axis=0) for each in fields]
    added, others = np.empty((3, num_groups + 1)), np.empty((6, num_groups + 1))
    for number in range(num_groups + 1):
        left = whole if number == 0 else [total - each[number - 1] for total, each in zip(whole, fields)]
        n, cross_, s_, t_, bx_, ay_, scalars_ = left
        added[:, number] = np.vdot(cross_, cross_), s_ @ s_, s_ @ cross_ @ t_ - s_ @ bx_
        others[:, number] = n, t_ @ t_, t_ @ ay_, *scalars_
    return added, others


def _near_mean(features: Float[ndarray, "n dims"]) -> Float[ndarray, " dims"]:
    """The mean of the first images; of a feature that they share its value, so that none differs from it by rounding,
    which CKA would see."""
    points = finite(features[:ROWS])
    return np.where((points == points[0]).all(axis=0), points[0], points.mean(axis=0))
