"""The first two moments of features, of each class and of each group of images, in one pass over the features.

Everything that depends on the covariance and the class means alone is a function of these, also without some of the
images: moments of sets of images add, and those of a part are taken away again by subtraction.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

VALUES = 2**23
"""Number of features converted to float64 at once, which bounds the workspace to 64 MiB."""


def parts(images: int, dims: int) -> Iterator[slice]:
    """Consecutive slices of the images, of about `VALUES` features each."""
    rows = max(1, VALUES // max(dims, 1))
    return (slice(start, min(start + rows, images)) for start in range(0, images, rows))


def finite(features: Float[ndarray, "n dims"]) -> Float[ndarray, "n dims"]:
    """Features in float64. Raises `ValueError` if one is not finite."""
    points = np.asarray(features, dtype=np.float64)
    if not np.isfinite(points).all():
        raise ValueError("the features are not finite; the network's weights or inputs are broken")
    return points


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Sums over images, in float64, of features x from which the same vector c is subtracted.

    Attributes:
        shift: c, a vector near the mean, so that nothing is lost to cancellation, `(dims,)`.
        counts: number of images of each class, `(classes,)`.
        sums: sum of x - c of each class, `(classes, dims)`.
        products: sum of (x - c) (x - c)^T of all images, `(dims, dims)`.
    """

    shift: Float[ndarray, " dims"]
    counts: Int[ndarray, " classes"]
    sums: Float[ndarray, "classes dims"]
    products: Float[ndarray, "dims dims"]

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of both sets of images, of which both have the same shift."""
        return self._combined(other, 1)

    def __sub__(self, other: "Moments") -> "Moments":
        """The moments without a part of the images."""
        return self._combined(other, -1)

    def _combined(self, other: "Moments", sign: int) -> "Moments":
        return Moments(
            shift=self.shift,
            counts=self.counts + sign * other.counts,
            sums=self.sums + sign * other.sums,
            products=self.products + sign * other.products,
        )

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.counts.sum())

    @property
    def means(self) -> Float[ndarray, "classes dims"]:
        """Mean of each class; NaN of a class without images."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.shift + self.sums / self.counts[:, None]

    @property
    def covariance(self) -> Float[ndarray, "dims dims"]:
        """Covariance of the features, the mean of (x - m) (x - m)^T over the images, m being their mean."""
        mean = self.sums.sum(axis=0) / self.images
        return self.products / self.images - np.outer(mean, mean)

    @property
    def within(self) -> Float[ndarray, "dims dims"]:
        """Covariance within classes, the mean of (x - m_k) (x - m_k)^T over the images, m_k being their class's."""
        return (self.products - self.sums.T @ (self.sums / np.maximum(self.counts, 1)[:, None])) / self.images


def grouped_moments(
    features: Float[ndarray, "n dims"], labels: Int[ndarray, " n"], groups: Int[ndarray, " n"]
) -> list[Moments]:
    """The moments of each group of images.

    Args:
        features: features with an image in each row; may be a memory map, which is read once, in parts.
        labels: class of each image, from 0 on.
        groups: group of each image, from 0 on.

    Raises:
        ValueError: a feature is not finite.

    >>> points = np.array([[0.0], [2.0], [4.0], [6.0]])
    >>> first, second = grouped_moments(points, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    >>> first.means.tolist(), (first + second).means.tolist(), (first + second).within.tolist()
    ([[0.0], [4.0]], [[1.0], [5.0]], [[1.0]])
    """
    (images, dims), num_classes, num_groups = features.shape, int(labels.max()) + 1, int(groups.max()) + 1
    counts = np.zeros((num_groups, num_classes), dtype=np.int64)
    np.add.at(counts, (groups, labels), 1)
    sums, products = np.zeros((num_groups, num_classes, dims)), np.zeros((num_groups, dims, dims))
    shift = np.zeros(dims)
    for number, rows in enumerate(parts(images, dims)):
        points = finite(features[rows])
        if number == 0:
            shift = points.mean(axis=0)
        points = points - shift
        for group in range(num_groups):
            chosen = groups[rows] == group
            of_group = points[chosen]
            np.add.at(sums[group], labels[rows][chosen], of_group)
            products[group] += of_group.T @ of_group
    return [
        Moments(shift=shift, counts=counts[group], sums=sums[group], products=products[group])
        for group in range(num_groups)
    ]
