"""Images, or features, near given ones that have given logits, by small steps.

Of an image x with logits h(x) and wanted logits w, a step is the smallest change y that brings the logits to w to first
order,

    minimise ||y||    subject to    h'(x) y = w - h(x)    and, where there are bounds, low <= x + y <= high.

It is repeated from x + y until the logits are w (the Gauss-Newton method), and halved while it does not bring them
nearer. For h = head(Phi x), h' = head' J with the Jacobian J of the features: J y is the smallest change of features in
the norm of the image, ||J^-1 .||. Each step is the smallest, but not their sum: the images found are near the given
ones, without a certificate that no others are nearer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from analysis.invariances.nearest import norms, solve

MOST_STEPS, HALVINGS, BOUND_STEPS = 40, 6, 20
"""Most steps, most halvings of one, and most steps of Newton's method that finds one within bounds."""

Points = Float[Tensor, "points *shape"]
Rows = Float[Tensor, "points classes dims"]
Vectors = Float[Tensor, "points dims"]


@dataclass(frozen=True, eq=False)
class Approached:
    """Points whose logits have been brought to given ones.

    Attributes:
        points: these points, in the shape of the first ones.
        difference: norm of the difference of their logits from those wanted, over the norm of these, `(points,)`.
    """

    points: Points
    difference: Float[Tensor, " points"]


def approach(
    function: Callable[[Tensor], Tensor],
    start: Points,
    wanted: Float[Tensor, "points classes"],
    *,
    within: float,
    bounds: tuple[Tensor, Tensor] | None = None,
) -> Approached:
    """Points near `start` at which a function has given values.

    Args:
        function: function of a batch of points, whose values at one do not depend on the others; in its precision.
        start: points at which to start.
        wanted: values to have.
        within: relative difference of the values at which a point is left as it is.
        bounds: least and greatest value of each coordinate, which broadcast to a point; none by default.

    >>> found = approach(lambda x: x.square(), torch.tensor([[2.0]]), torch.tensor([[9.0]]), within=1e-6)
    >>> found.points.round(decimals=5).tolist()
    [[3.0]]
    """
    points, wanted = start.clone(), wanted.double()
    if bounds is not None:
        points = points.clamp(*bounds)
    size = norms(wanted).clamp(min=torch.finfo(torch.float64).tiny)
    with torch.no_grad():
        difference = norms(wanted - function(points).double()) / size
    left = (difference > within).nonzero()[:, 0]
    for _ in range(MOST_STEPS):
        if len(left) == 0:
            break
        values, rows = _values_and_rows(function, points[left])
        step = _smallest_step(rows, wanted[left] - values, points[left], bounds).reshape(points[left].shape)
        points[left], found = _take(function, points[left], step, wanted[left], difference[left] * size[left], bounds)
        found /= size[left]
        stuck = found >= difference[left]
        difference[left] = found
        left = left[(found > within) & ~stuck]
    return Approached(points=points, difference=difference)


def _values_and_rows(
    function: Callable[[Tensor], Tensor], points: Points
) -> tuple[Float[Tensor, "points classes"], Rows]:
    """The values and, as products with the transposed Jacobian, the gradient of each, in float64."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        values = function(points)
        rows = [
            torch.autograd.grad(values[:, k].sum(), points, retain_graph=k + 1 < values.shape[1])[0]
            for k in range(values.shape[1])
        ]
    return values.detach().double(), torch.stack([row.flatten(1) for row in rows], dim=1).double()


def _smallest_step(
    rows: Rows, right: Float[Tensor, "points classes"], points: Points, bounds: tuple[Tensor, Tensor] | None
) -> Vectors:
    """The smallest y with K y = r, and within the bounds."""
    if bounds is None:
        return _combine(rows, solve(rows @ rows.mT, right))
    # Of the dual with a multiplier for each class, y = clip(K^T lambda): Newton's method, which is exact once the
    # coordinates at a bound are those of the solution.
    low, high = ((bound.to(points).expand_as(points) - points).flatten(1).double() for bound in bounds)
    multipliers, step = torch.zeros_like(right), torch.zeros_like(low)
    for _ in range(BOUND_STEPS):
        free = _combine(rows, multipliers)
        step = torch.minimum(torch.maximum(free, low), high)
        missing = right - (rows @ step[:, :, None])[:, :, 0]
        if (norms(missing) <= 1e-9 * norms(right)).all():
            break
        inside = rows * ((free > low) & (free < high))[:, None]
        multipliers = multipliers + solve(inside @ inside.mT, missing)
    return step


def _take(
    function: Callable[[Tensor], Tensor],
    points: Points,
    step: Points,
    wanted: Float[Tensor, "points classes"],
    earlier: Float[Tensor, " points"],
    bounds: tuple[Tensor, Tensor] | None,
) -> tuple[Points, Float[Tensor, " points"]]:
    """The points after the longest of 1, 1/2, 1/4, ... times a step that brings values nearer by a third of what it
    promises, and how far they are then; the points as they were if there is none."""
    length = torch.ones_like(earlier)
    taken, left = points.clone(), earlier.clone()
    for _ in range(HALVINGS):
        candidates = points + (length.reshape(-1, *(1 for _ in points.shape[1:])) * step).to(points)
        if bounds is not None:
            candidates = candidates.clamp(*bounds)  # of rounding alone
        with torch.no_grad():
            found = norms(wanted - function(candidates).double())
        good = (found <= (1 - length / 3) * earlier) & (left == earlier)
        taken[good], left[good] = candidates[good], found[good]
        if (left < earlier).all():
            break
        length = torch.where(left < earlier, length, length / 2)
    return taken, left


def _combine(rows: Rows, weights: Float[Tensor, "points classes"]) -> Vectors:
    return (rows.mT @ weights[:, :, None])[:, :, 0]
