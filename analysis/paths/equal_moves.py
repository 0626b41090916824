"""An input of a network, moved along directions until its features have changed by a given distance.

To first order Phi(x + t v) - Phi(x) = t J v, so that along a singular vector v of a value s a step t = d / s leads to a
distance d. But the derivative holds only near x, least far along the directions that it contracts: steps are searched.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from analysis.results.directions import Directions
from analysis.results.singular_values import SingularVectors
from irevnet.data.transforms import InputTransform

Features = Callable[[Tensor], Tensor]

FURTHEST = 2.0**20
"""Steps that are searched, in units of the step to first order."""

PRECISION = 1e-6
"""Relative precision of a step."""


@torch.no_grad()
def distance_moved(features: Features, x: Float[Tensor, "..."], direction: Float[Tensor, "..."], step: float) -> float:
    """||Phi(x + t v) - Phi(x)|| of a step t along a direction v."""
    return torch.linalg.vector_norm(features(x + step * direction) - features(x)).item()


@torch.no_grad()
def step_to_distance(
    features: Features, x: Float[Tensor, "..."], direction: Float[Tensor, "..."], distance: float, *, value: float
) -> float:
    """A step t > 0 with ||Phi(x + t v) - Phi(x)|| = d; NaN where features do not change by as much.

    Args:
        features: function Phi.
        x: point that is moved.
        direction: direction v.
        distance: distance d > 0.
        value: ||J v||, with which d / ||J v|| is the step to first order.

    >>> x, direction = torch.zeros(2, dtype=torch.float64), torch.tensor([0.6, 0.8], dtype=torch.float64)
    >>> round(step_to_distance(lambda x: 3 * x, x, direction, 6.0, value=1.0), 4)
    2.0
    """
    start = features(x)

    def beyond(step: float) -> float:
        return torch.linalg.vector_norm(features(x + step * direction) - start).item() - distance

    if not (value > 0 and distance > 0):
        return math.nan
    low, high = 0.0, distance / value
    while beyond(high) < 0:
        low, high = high, 2 * high
        if high * value > FURTHEST * distance:
            return math.nan
    return float(brentq(beyond, low, high, xtol=1e-12 * high, rtol=PRECISION))  # pyright: ignore[reportArgumentType]


def move_along(
    vectors: SingularVectors,
    features: Features,
    x: Float[Tensor, "c h w"],
    transform: InputTransform,
    *,
    pixel_change: float,
    step_done: Callable[[], object] = lambda: None,
) -> Directions:
    """Moves an image along singular vectors of its Jacobian, both ways, by equal distances in features.

    The distance is that of the move along the least magnified of the directions known which changes the pixel values by
    a given amount.

    Args:
        vectors: singular vectors of the Jacobian of the features at the image.
        features: features of an input.
        x: the image as an input of the network, in the precision in which features are computed.
        transform: transform that made it of pixel values.
        pixel_change: root-mean-square change of pixel values by that move.
        step_done: function called after each move.
    """
    scale = np.broadcast_to(np.array(transform.std), len(x))
    right = vectors.right.reshape(2, -1, *x.shape)
    end, last = (1, 0) if np.isfinite(vectors.values[1]).all() else (0, -1)
    unit = float(np.sqrt(np.mean((scale[:, None, None] * right[end, last]) ** 2)))
    longest = pixel_change / unit if unit > 0 else math.nan  # no direction is known of a map of zeros
    distance = distance_moved(features, x, torch.tensor(right[end, last]).to(x), longest)

    steps = np.full((*right.shape[:2], 2), np.nan)
    changes = steps.copy()
    for at in np.argwhere(np.isfinite(vectors.values)).tolist():
        for way, sign in enumerate((1, -1)):
            v = sign * torch.tensor(right[*at]).to(x)
            step = step_to_distance(features, x, v, distance, value=float(vectors.values[*at]))
            steps[*at, way], changes[*at, way] = step, distance_moved(features, x, v, step)
            step_done()
    steps[end, last, 0], changes[end, last, 0] = longest, distance
    return Directions(
        vector_values=vectors.values,
        right_vectors=right.astype(np.float32),
        left_vectors=vectors.left.astype(np.float32),
        vector_residuals=vectors.residuals,
        pixels=transform.to_pixels(x).cpu().numpy().astype(np.float32),
        pixel_scale=scale.astype(np.float64),
        steps=steps,
        feature_changes=changes,
    )
