"""The exact nearest neighbours of each point, by matrix products in float32 and a bound on their rounding errors.

For a test point x and training points y_j, from all of which the same c is subtracted, which changes no distance,

    t_j = |x - y_j|^2 - |x|^2 = |y_j|^2 - 2 x . y_j,

which for all x and j is one matrix product, of (-2 x, 1) and (y_j, |y_j|^2). Let s_j be its result in float32, with
|s_j - t_j| <= E. Let S be the k-th smallest of the scores s, or larger. At least k points have t_j <= S + E, and so
has each of the k nearest, whose scores are then s_j <= t_j + E <= S + 2 E. Few points have such scores, and where there
are more than one, their distances are computed again, in float64, from the points as they were given: the result is
that of a search in float64.

The bound. c is the mean of the training points, which keeps norms, and so E, small. The centred points are computed in
float64, multiplied by a power of two that brings all coordinates to 1 or less, and rounded to float32; |x| and |y_j|
are norms of the rounded points, t_j is of the exact ones. Let u = 2^-24, g_p = p u / (1 - p u), and b the largest
|y_j|. To first order in u, the error of s_j is at most

    2 u b^2 + 4 u |x| b         for the coordinates, each of them within u of itself,
    u b^2                       for the squares |y_j|^2, summed in float64 and rounded,
    g_p (b^2 + 2 |x| b)         for a sum of p products in any order (Higham, 2002, section 3.1),

where p is d + 1, or d + k if the products are summed over k blocks of columns, each with its own part of |y_j|^2. As
g_p + 3 u <= g_{p + 4} - u,

    E = g_{p + 4} (b^2 + 2 |x| b) + d 2^-50 (|x| + b)^2 + d 2^-120

leaves u (b^2 + 2 |x| b) for terms of higher order, enough up to d = 2^22. The second term includes the points that a
search in float64 cannot distinguish from the nearest, in whatever order it sums. The third is for underflow, which
loses at most the smallest normal number, 2^-126, in fewer than 32 d operations, as coordinates are at most 1.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from irevnet.utils.precision import true_float32

CHUNK = 256
"""Number of test points processed at once, which bounds the workspace: a number for each of them and each training
point."""

BLOCK = 64
"""Number of scores in a block: only blocks whose smallest score is within the bound are searched for candidates."""

VALUES = 2**22
"""Number of coordinates processed at once in float64, which bounds the workspace where there are many candidates."""


@torch.no_grad()
def nearest_neighbours(
    train: Float[Tensor, "n _"], test: Float[Tensor, "m _"], *, dims: Sequence[int] | None = None
) -> Int[ndarray, "dims m"]:
    """argmin_j |x_i - y_j| over the first d coordinates, for each test point x_i and each d of `dims`.

    The first of the neighbours that `k_nearest` finds, which says what the arguments are.

    Returns:
        Index j for each number of coordinates and each test point.

    >>> train, test = torch.tensor([[0.0, 9.0], [2.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.5, 1.0], [2.0, 8.0]])
    >>> nearest_neighbours(train, test, dims=[1, 2]).tolist()
    [[0, 1], [1, 0]]
    """
    return k_nearest(train, test, 1, dims=dims)[..., 0]


@torch.no_grad()
def k_nearest(
    train: Float[Tensor, "n _"], test: Float[Tensor, "m _"], k: int, *, dims: Sequence[int] | None = None
) -> Int[ndarray, "dims m k"]:
    """The k training points y_j of least |x_i - y_j| over the first d coordinates, for each test point x_i and each d.

    Of points at the same distance in float64, such as copies of a point, those with the lowest indices j come first.
    All numbers of coordinates are computed in one sweep over the columns, in which no product is computed twice.

    Args:
        train: training points y_j, on the device on which to compute.
        test: test points x_i, on the same device.
        k: number of neighbours.
        dims: numbers of leading coordinates, in increasing order; by default only the number of all coordinates.

    Returns:
        Indices j for each number of coordinates and each test point, the nearest first.

    Raises:
        ValueError: there are no training points, or fewer than k, points differ in their number of coordinates, a value
            is not finite, or `dims` do not increase from at least 1 to at most the number of coordinates.

    >>> train, test = torch.tensor([[0.0], [2.0], [3.0], [2.0]]), torch.tensor([[0.5], [9.0]])
    >>> k_nearest(train, test, 3).tolist()
    [[[0, 1, 3], [2, 1, 3]]]
    """
    dims = [train.shape[1]] if dims is None else list(dims)
    _check(train, test, k, dims)
    train, test = train[:, : dims[-1]], test[:, : dims[-1]]
    blocks = list(pairwise((0, *dims)))  # columns that each number of coordinates adds
    # The shift c and the scale that bring all coordinates to 1 or less: |x - c| <= 2 max |x|.
    centre = torch.stack([train[rows].double().sum(dim=0) for rows in _chunks(train)]).sum(dim=0) / len(train)
    scale = 0.5 ** (1 + math.frexp(max(_largest(train), _largest(test)))[1])

    # The right factor (y_j, |y_j|^2), a row for each training point: for each block of columns its coordinates and
    # their squared norm. Rows are added up to a full block of scores, with a "norm" too large to ever be nearest.
    num_scores = BLOCK * math.ceil(len(train) / BLOCK)
    points = torch.zeros(num_scores, dims[-1] + len(dims), dtype=torch.float32, device=train.device)
    points[len(train) :, dims[0]] = 2.0**100
    radii = torch.zeros(len(dims), dtype=torch.float64, device=train.device)
    for rows in _chunks(train):
        centred = ((train[rows].double() - centre) * scale).float()
        squares = _squares(centred, blocks)
        points[rows] = _joined(centred, squares.float(), blocks)
        radii = torch.maximum(radii, squares.cumsum(dim=0).sqrt().amax(dim=1))

    # Test points, some at a time, are the left factor (-2 x, 1). Scores s, (chunk, num_scores), are sums of a product
    # for each block of columns: after each block they are those of one of the numbers of coordinates, whose candidates
    # are then compared in float64.
    found = torch.empty(len(dims), len(test), k, dtype=torch.int64, device=train.device)
    space = points.new_empty(min(CHUNK, len(test)), num_scores)
    for rows in _chunks(test):
        centred = ((test[rows].double() - centre) * scale).float()
        squares = _squares(centred, blocks)
        norms = squares.cumsum(dim=0).sqrt()
        queries = _joined(-2 * centred, torch.ones_like(squares, dtype=torch.float32), blocks)
        scores = space[: len(queries)].zero_()
        for number, (low, high) in enumerate(blocks):
            columns = slice(low + number, high + number + 1)
            with true_float32():
                scores.addmm_(queries[:, columns], points[:, columns].T)
            error = _error(high, high + number + 1, norms[number], radii[number])
            found[number, rows] = _nearest(train[:, :high], test[rows, :high], *_candidates(scores, error, k), k)
    return found.cpu().numpy()


def _check(train: Tensor, test: Tensor, k: int, dims: list[int]) -> None:
    if train.shape[1] != test.shape[1]:
        raise ValueError(
            f"training points have {train.shape[1]} coordinates, test points {test.shape[1]}; expected the same number"
        )
    if train.numel() == 0:
        raise ValueError(
            f"training points have shape {tuple(train.shape)}; expected at least one point and one coordinate"
        )
    if not 1 <= k <= len(train):
        raise ValueError(f"`k` is {k}; expected 1 to {len(train)} neighbours, the number of training points")
    if not dims or dims[0] < 1 or dims[-1] > train.shape[1] or any(low >= high for low, high in pairwise(dims)):
        raise ValueError(f"dims={dims}; expected increasing numbers of coordinates, from 1 to {train.shape[1]}")
    for name, points in (("training", train), ("test", test)):
        if not math.isfinite(_largest(points)):
            count = int((~points.isfinite()).sum())
            raise ValueError(f"{count} of {points.numel()} values of the {name} points are not finite; expected none")


def _largest(points: Tensor) -> float:
    return float(torch.linalg.vector_norm(points, ord=torch.inf)) if points.numel() > 0 else 0.0


def _chunks(points: Tensor) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, len(points))) for start in range(0, len(points), CHUNK))


def _squares(points: Float[Tensor, "n d"], blocks: list[tuple[int, int]]) -> Float[Tensor, "blocks n"]:
    """Squared norm over each block of columns, in float64."""
    return torch.stack([points[:, low:high].double().square().sum(dim=1) for low, high in blocks])


def _joined(
    points: Float[Tensor, "n d"], squares: Float[Tensor, "blocks n"], blocks: list[tuple[int, int]]
) -> Float[Tensor, "n joined"]:
    """Each block of columns, with its square as another column after it."""
    parts = [(points[:, low:high], square[:, None]) for (low, high), square in zip(blocks, squares)]
    return torch.cat([part for pair in parts for part in pair], dim=1)


def _error(d: int, p: int, norms: Float[Tensor, " m"], radius: Float[Tensor, ""]) -> Float[Tensor, " m"]:
    """Bound E of the errors of scores, for test points of norms |x|, training points of norms up to b = `radius`, d
    coordinates and sums of p products."""
    unit = (p + 4) * 2.0**-24
    rounding = unit / (1 - unit) * radius * (radius + 2 * norms)
    return rounding + d * 2.0**-50 * (norms + radius).square() + d * 2.0**-120


def _candidates(scores: Float[Tensor, "m n"], error: Float[Tensor, " m"], k: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of the scores within 2 E of the k-th smallest of their row, or of a larger one, by rows.

    The smallest score of each block of `BLOCK` columns shows which blocks have candidates, so that only these blocks
    are searched score by score. The k-th smallest of these is a score that at least k do not exceed.
    """
    parts = scores.view(len(scores), -1, BLOCK)
    least = parts.amin(dim=2)
    reached = (least if least.shape[1] >= k else scores).topk(k, dim=1, largest=False).values.amax(dim=1)
    # Rounding to nearest is monotonic: float32 numbers that are not above a limit are not above the rounded limit.
    limits = (reached.double() + 2 * error).float()
    row, part = (least <= limits[:, None]).nonzero(as_tuple=True)
    index, column = (parts[row, part] <= limits[row, None]).nonzero(as_tuple=True)
    return row[index], part[index] * BLOCK + column


def _nearest(
    train: Float[Tensor, "n d"], test: Float[Tensor, "m d"], row: Tensor, column: Tensor, k: int
) -> Int[Tensor, "m k"]:
    """Columns of the k candidates nearest to each row in float64, and of equally near ones the lowest columns."""
    if len(row) == len(test):  # one candidate in each row
        return column[:, None]
    distances = [
        _sums((test[i].double() - train[j].double()).square())
        for i, j in zip(*(indices.split(max(1, VALUES // train.shape[1])) for indices in (row, column)))
    ]
    # Candidates sorted by row, then by distance, then by column, in which order they come; the first of each row are
    # its nearest. To reduce by row without sorting is not deterministic on a GPU.
    order = torch.cat(distances).argsort(stable=True)
    order = order[row[order].argsort(stable=True)]
    first = torch.searchsorted(row, torch.arange(len(test), device=row.device))  # rows are in increasing order
    return column[order[first[:, None] + torch.arange(k, device=row.device)]]


def _sums(values: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Sums of rows, halves added to halves: in the same order in each row, so that copies of a point are tied."""
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        values = torch.cat((values[:, :half] + values[:, half : 2 * half], values[:, 2 * half :]), dim=1)
    return values[:, 0]
