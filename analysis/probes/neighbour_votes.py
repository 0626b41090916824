"""Classification by the k nearest neighbours, in distance or in angle.

Euclidean: the class that most of the k nearest training images have. Of classes with as many votes, that of the nearest
image among theirs.

Cosine: the vote of each of the k nearest by cosine similarity weighs exp(cos / 0.07), as in the evaluation of DINO
(Caron et al., 2021, section 3.2, and Wu et al., 2018, whose temperature that is). On unit vectors
|x - y|^2 = 2 - 2 cos, so that the nearest in angle are the nearest in distance, and as exact. Points at the origin have
no direction; their cosine with any point is 0, as scikit-learn has it.

Both are of the features that all probes are shown: standardised on the training set. DINO's are neither centred nor
scaled; there, features that are large or far from zero for all images decide most of the angle. A rotation, such as
that to all principal components, changes no angle.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from analysis.probes.nearest_neighbour import VALUES, k_nearest

Metric = Literal["euclidean", "cosine"]
"""What nearness is: distance, or the cosine of an angle."""

TEMPERATURE = 0.07
"""What cosines are divided by in the weights of votes."""

CHUNK = 256
"""Number of test points whose votes are counted at once."""


def classify(
    train: Float[Tensor, "n _"],
    labels: Int[ndarray, " n"],
    test: Float[Tensor, "m _"],
    *,
    neighbours: Sequence[int],
    metric: Metric = "euclidean",
    dims: Sequence[int] | None = None,
) -> Int[ndarray, "dims numbers m"]:
    """Class of each test point by its k nearest training points, for each number of leading coordinates and each k.

    Args:
        train: training points, on the device on which to compute.
        labels: class of each of them.
        test: test points, on the same device.
        neighbours: numbers of neighbours k.
        metric: `"euclidean"` for a vote each, `"cosine"` for weights by angle.
        dims: numbers of leading coordinates, in increasing order; by default only the number of all coordinates.

    Raises `ValueError` for what `k_nearest` refuses, such as more neighbours than training points.

    >>> train, test = torch.tensor([[0.0, 1.0], [9.0, 9.0], [8.0, 8.0]]), torch.tensor([[1.0, 2.0]])
    >>> classify(train, np.array([4, 7, 7]), test, neighbours=[1, 3]).tolist()
    [[[4], [7]]]
    """
    most, dims = max(neighbours), [train.shape[1]] if dims is None else list(dims)
    if metric == "euclidean":
        found = k_nearest(train, test, most, dims=dims)
        weights = np.ones(found.shape)
    else:
        each = [_nearest_in_angle(train[:, :d], test[:, :d], most) for d in dims]
        found, weights = (np.stack(part) for part in zip(*each))
    votes = labels[found]
    return np.stack(
        [
            np.stack([_count(of_dims[:, :k], weight[:, :k]) for k in neighbours])
            for of_dims, weight in zip(votes, weights)
        ]
    )


def _nearest_in_angle(
    train: Float[Tensor, "n d"], test: Float[Tensor, "m d"], k: int
) -> tuple[Int[ndarray, "m k"], Float[ndarray, "m k"]]:
    """The k training points of largest cosine with each test point, and the weights of their votes up to a factor."""
    directions, queries = _directions(train, 0), _directions(test, 1)
    (found,) = k_nearest(directions, queries, k)
    weights = torch.empty(found.shape, dtype=torch.float64, device=train.device)
    step = max(1, VALUES // (k * queries.shape[1]))
    for start in range(0, len(test), step):
        rows = slice(start, start + step)
        near = directions[torch.from_numpy(found[rows]).to(train.device)]
        cosines = (near * queries[rows, None]).sum(dim=2)
        weights[rows] = ((cosines - cosines[:, :1]) / TEMPERATURE).exp()
    return found, weights.cpu().numpy()


def _directions(points: Float[Tensor, "n d"], side: int) -> Float[Tensor, "n d+2"]:
    """The points divided by their norms, in float64, with two coordinates more: points at the origin become unit
    vectors along the one or the other, which are orthogonal to all points of the other side."""
    padded = torch.zeros(len(points), points.shape[1] + 2, dtype=torch.float64, device=points.device)
    scaled = points.double()
    largest = scaled.abs().amax(dim=1, keepdim=True)  # so that no square underflows
    scaled = scaled / torch.where(largest > 0, largest, 1)
    norms = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    padded[:, :-2] = scaled / torch.where(norms > 0, norms, 1)
    padded[norms[:, 0] == 0, points.shape[1] + side] = 1
    return padded


def _count(votes: Int[ndarray, "m k"], weights: Float[ndarray, "m k"]) -> Int[ndarray, " m"]:
    """The class with the most weight in each row, of equal ones that of the first vote."""
    chosen = np.empty(len(votes), dtype=votes.dtype)
    for start in range(0, len(votes), CHUNK):
        rows = slice(start, start + CHUNK)
        same = votes[rows, :, None] == votes[rows, None, :]
        total = np.where(same, weights[rows, None, :], 0).sum(axis=2)  # of the class of each vote
        chosen[rows] = np.take_along_axis(votes[rows], total.argmax(axis=1)[:, None], axis=1)[:, 0]
    return chosen
