"""Neural collapse: how near features are to one point a class, the points being the corners of a simplex.

Papyan, Han and Donoho (2020, arXiv:2008.08186), of whom the names NC1 to NC4 are. With m_k the mean of class k, of K, m
the mean of these, and M the matrix with the rows m_k - m. Every class weighs the same in m and M, however many images
it has. Means are of training images.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from analysis.geometry.moments import finite, parts


def centred_means(means: Float[ndarray, "classes dims"]) -> Float[ndarray, "classes dims"]:
    """M. Raises `ValueError` for one class, or classes that all have the same mean."""
    if len(means) < 2:
        raise ValueError("there is one class; neural collapse is of two or more")
    centred = means - means.mean(axis=0)
    if not np.abs(centred).max() > _rounding(means):
        raise ValueError("all classes have the same mean; neural collapse is not defined")
    return centred


def variability(within: Float[ndarray, "dims dims"], means: Float[ndarray, "classes dims"]) -> float:
    """NC1: tr(S_W pinv(S_B)) / K, which is 0 where all images of a class have the same features.

    S_W is the covariance within classes, the mean over the images of (x - m_k) (x - m_k)^T, and S_B = M^T M / K. Of
    M = U diag(s) V^T, pinv(S_B) = K V diag(s^-2) V^T over the s above rounding, of the means too, so that

        NC1 = sum_i v_i^T S_W v_i / s_i^2 .

    >>> round(variability(np.array([[0.5, 0.0], [0.0, 9.0]]), np.array([[-1.0, 0.0], [1.0, 0.0]])), 12)
    0.25
    """
    centred = centred_means(means)
    _, s, axes = np.linalg.svd(centred, full_matrices=False)
    # M has the rank K - 1 at most. What is left beyond is the rounding of the means, however far from 0 they all are.
    least = max(centred.shape) * np.finfo(np.float64).eps * max(s[0], np.abs(means).max())
    kept = (s > least) & (np.arange(len(s)) < len(means) - 1)
    axes, s = axes[kept], s[kept]
    return float((((axes @ within) * axes).sum(axis=1) / s**2).sum())


def simplex(means: Float[ndarray, "classes dims"]) -> tuple[float, float, float]:
    """NC2: how far the rows of M are from equal norms and equal, largest angles.

    The standard deviation of the norms over their mean; the standard deviation of the cosines between two of them; and
    the mean of |cos + 1 / (K - 1)|. All three are 0 where the means are the corners of a simplex, and of two classes
    the angles always are.

    Raises `ValueError` where the mean of a class is that of all.

    >>> [round(value, 12) for value in simplex(np.eye(3) + 5)]
    [0.0, 0.0, 0.0]
    """
    centred = centred_means(means)
    norms = np.linalg.norm(centred, axis=1)
    if not norms.min() > _rounding(means):
        raise ValueError(f"the mean of class {int(norms.argmin())} is that of all classes; it has no angle")
    units = centred / norms[:, None]
    cosines = (units @ units.T)[np.triu_indices(len(means), k=1)]
    deviation = np.abs(cosines + 1 / (len(means) - 1)).mean()
    return float(norms.std() / norms.mean()), float(cosines.std()), float(deviation)


def duality(weights: Float[ndarray, "classes dims"], means: Float[ndarray, "classes dims"]) -> float:
    """NC3: || W / |W| - M / |M| ||, in the Frobenius norm, of a linear classifier with the weights W.

    0 where each class's weights have the direction of its mean, 2 where they have the opposite one. Papyan et al. draw
    its square.

    Raises `ValueError` for weights that are all 0.

    >>> round(duality(3 * np.array([[-1.0, 0.0], [1.0, 0.0]]), np.array([[4.0, 7.0], [6.0, 7.0]])), 12)
    0.0
    """
    centred = centred_means(means)
    size = np.linalg.norm(weights)
    if not size > 0:
        raise ValueError("the weights of the classifier are all 0; it has no direction")
    return float(np.linalg.norm(weights / size - centred / np.linalg.norm(centred)))


def nearest_means(features: Float[ndarray, "n dims"], means: Float[ndarray, "classes dims"]) -> Int[ndarray, " n"]:
    """The class whose mean is nearest to each image, of equally near ones the first.

    NC4 is how often this is not what the network says.

    >>> nearest_means(np.array([[0.9], [3.0]]), np.array([[0.0], [1.0], [5.0]])).tolist()
    [1, 1]
    """
    centre = means.mean(axis=0)
    centred = means - centre
    squares = np.square(centred).sum(axis=1)
    found = np.empty(len(features), dtype=np.int64)
    for rows in parts(*features.shape):
        found[rows] = (squares - 2 * (finite(features[rows]) - centre) @ centred.T).argmin(axis=1)
    return found


def _rounding(means: Float[ndarray, "classes dims"]) -> float:
    """What the means less their mean may differ by from rounding alone."""
    return len(means) * np.finfo(np.float64).eps * float(np.abs(means).max())
