"""The directions around an image that a network magnifies most and least, and the image moved along them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from analysis.results.base import finite_or_none

ENDS = ("most", "least")
"""The two ends of a spectrum: the most and the least magnified directions."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Directions:
    """Singular vectors at both ends of the spectrum of a Jacobian A, and the image x moved along them.

    The first index is that of `ENDS`: the most magnified directions first, by decreasing singular value, then the least
    magnified, by increasing value, which are NaN without an inverse. The last index of what is moved is 0 for x + t v
    and 1 for x - t v. All moves change the features of the image by the same distance.

    Attributes:
        vector_values: singular values s, `(2, vectors)`.
        right_vectors: right singular vectors v, in the network's input, of length 1, `(2, vectors, c, h, w)`.
        left_vectors: left singular vectors u, in the features, of length 1, `(2, vectors, m)`.
        vector_residuals: relative residuals ||A v - s u|| / s and ||A^T u - s v|| / s of the most magnified; those of
            the inverse, ||A^-T v - u / s|| s and ||A^-1 u - v / s|| s, of the least magnified, `(2, vectors, 2)`.
        pixels: pixel values of the image, `(c, h, w)`.
        pixel_scale: pixel value of a unit of the network's input, by channel, `(c,)`.
        steps: steps t > 0, `(2, vectors, 2)`; NaN where no step changes the features by as much.
        feature_changes: ||Phi(x + t v) - Phi(x)||, `(2, vectors, 2)`.
    """

    vector_values: Float[ndarray, "2 vectors"]
    right_vectors: Float[ndarray, "2 vectors c h w"]
    left_vectors: Float[ndarray, "2 vectors m"]
    vector_residuals: Float[ndarray, "2 vectors 2"]
    pixels: Float[ndarray, "c h w"]
    pixel_scale: Float[ndarray, " c"]
    steps: Float[ndarray, "2 vectors 2"]
    feature_changes: Float[ndarray, "2 vectors 2"]

    @classmethod
    def none(cls) -> "Directions":
        """No directions, for rows of which none were asked for."""
        return cls(
            vector_values=np.empty((2, 0)),
            right_vectors=np.empty((2, 0, 0, 0, 0), np.float32),
            left_vectors=np.empty((2, 0, 0), np.float32),
            vector_residuals=np.empty((2, 0, 2)),
            pixels=np.empty((0, 0, 0), np.float32),
            pixel_scale=np.empty(0),
            steps=np.empty((2, 0, 2)),
            feature_changes=np.empty((2, 0, 2)),
        )

    def fits(self, num_inputs: int, num_outputs: int) -> bool:
        """Whether these are vectors of a map of those dimensions, and images that can be shown."""
        (c, h, w), count = self.pixels.shape, len(self.known_ends)
        vectors = self.right_vectors[:count].reshape(count, self.vector_values.shape[1], -1), self.left_vectors[:count]
        lengths = np.array([np.linalg.norm(each.astype(np.float64), axis=2) for each in vectors])
        return bool(
            c * h * w == num_inputs
            and self.left_vectors.shape[2] == num_outputs
            and ((np.abs(lengths - 1) < 1e-3) | (self.vector_values[:count] == 0)).all()
            and (self.vector_values[:count] >= 0).all()
            and np.isfinite(self.pixels).all()
            and np.isfinite(self.pixel_scale).all()
            and not (self.steps <= 0).any()
        )

    @property
    def known_ends(self) -> tuple[str, ...]:
        """Those of `ENDS` that are known: both, or the first without an inverse."""
        return tuple(name for name, values in zip(ENDS, self.vector_values) if np.isfinite(values).all())

    @property
    def in_pixels(self) -> Float[ndarray, "2 vectors c h w"]:
        """Right singular vectors as changes of pixel values."""
        return self.right_vectors * self.pixel_scale[:, None, None]

    @property
    def pixel_changes(self) -> Float[ndarray, "2 vectors 2"]:
        """Root-mean-square change of pixel values by each move."""
        return self.steps * np.sqrt((self.in_pixels.astype(np.float64) ** 2).mean(axis=(2, 3, 4)))[..., None]

    @property
    def first_order(self) -> Float[ndarray, "2 vectors 2"]:
        """t s over ||Phi(x + t v) - Phi(x)||: the share of the change of features that the Jacobian accounts for."""
        with np.errstate(invalid="ignore", divide="ignore"):  # a map of zeros changes nothing
            return self.steps * self.vector_values[..., None] / self.feature_changes

    def moved(self, end: int, vector: int, sign: int) -> Float[ndarray, "c h w"]:
        """Pixel values of x + t v for the sign 1, of x - t v for -1; they may leave [0, 1]."""
        step = self.steps[end, vector, 0 if sign > 0 else 1]
        return self.pixels + sign * step * self.in_pixels[end, vector]

    def by_rank(self, count: int) -> dict[str, Float[ndarray, " count"]]:
        """Numbers of each direction, the worse residual and means over both moves, at the rank of its value among those
        of a spectrum; NaN at all other ranks."""
        numbers = {
            "vector_residual": self.vector_residuals.max(axis=2),
            "pixel_change": self.pixel_changes.mean(axis=2),
            "feature_change": self.feature_changes.mean(axis=2),
            "first_order": self.first_order.mean(axis=2),
        }
        columns = {name: np.full(count, np.nan) for name in numbers}
        for name, (most, least) in numbers.items():
            columns[name][: len(most)] = most
            if ENDS[1] in self.known_ends:
                columns[name][count - len(least) :] = least[::-1]
        return columns

    def summary(self) -> dict[str, Any]:
        """The numbers of each direction, as plain values for JSON."""
        pixel_changes, first_order = self.pixel_changes, self.first_order
        return {
            name: [
                {
                    "singular_value": float(self.vector_values[end, vector]),
                    "residuals": list(map(finite_or_none, self.vector_residuals[end, vector])),
                    "feature_changes": list(map(finite_or_none, self.feature_changes[end, vector])),
                    "first_order": list(map(finite_or_none, first_order[end, vector])),
                    "pixel_changes": list(map(finite_or_none, pixel_changes[end, vector])),
                }
                for vector in range(self.vector_values.shape[1])
            ]
            for end, name in enumerate(self.known_ends)
        }
