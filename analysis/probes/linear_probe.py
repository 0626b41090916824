"""What linear probes have in common: a weight vector and an intercept for each class, and a certificate."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from irevnet.utils.precision import true_float32

TOLERANCE = 1e-4
"""Largest relative distance of an objective from its minimum."""


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A linear classifier of features, whose objective is certified to be close to its minimum.

    Attributes:
        classes: labels of the classes, in increasing order, `(classes,)`.
        coef: weights w of each class, `(classes, dims)`.
        intercept: intercept b of each class, `(classes,)`.
        objective: objective f of each problem at (w, b): of each class, or the one of all classes, `(problems,)`.
        gap: certified upper bound of (f - f*) / f* of each problem, `(problems,)`.
    """

    classes: Int[ndarray, " classes"]
    coef: Float[ndarray, "classes dims"]
    intercept: Float[ndarray, " classes"]
    objective: Float[ndarray, " problems"]
    gap: Float[ndarray, " problems"]

    def decision_function(
        self, features: Float[ndarray, "n dims"] | Float[Tensor, "n dims"]
    ) -> Float[ndarray, "n classes"]:
        """Decision function w . x + b of each class, computed on the device of the features."""
        points = torch.as_tensor(features)
        coef, intercept = (torch.as_tensor(part).to(points) for part in (self.coef, self.intercept))
        with true_float32():
            return (points @ coef.T + intercept).cpu().numpy()

    def predict(self, features: Float[ndarray, "n dims"] | Float[Tensor, "n dims"]) -> Int[ndarray, " n"]:
        """Class with the largest decision function of each row.

        Of two classes, whose decision functions mirror each other, this is the sign of the second's, as scikit-learn
        has it.
        """
        return self.classes[self.decision_function(features).argmax(axis=1)]


def check_problem(labels: Int[ndarray, " n"], C: float) -> tuple[Int[ndarray, " classes"], Int[ndarray, " n"]]:
    """The classes, and the index of the class of each image.

    Raises `ValueError` if there are fewer than two classes, or C is not positive.
    """
    classes, targets = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"there is one class among {len(labels)} labels; expected two or more")
    if not C > 0:
        raise ValueError(f"C={C}; expected a positive number")
    return classes, targets


def with_ones(features: Float[Tensor, "n dims"]) -> Float[Tensor, "n dims+1"]:
    """x~ = (x, 1) of each image, in float32; raises `ValueError` if a feature is not finite."""
    points = torch.ones(len(features), features.shape[1] + 1, device=features.device)
    points[:, :-1] = features
    if not points.isfinite().all():
        raise ValueError("the features are not finite")
    return points
