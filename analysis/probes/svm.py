"""One-vs-rest linear SVMs for all classes at once, with a certificate of their optimality.

The problem is that of scikit-learn's `LinearSVC` (liblinear). For each class k, with y_i = 1 for its images and -1 for
all others, and x~ = (x, 1), v = (w, b):

    minimise f(v) = 1/2 |v|^2 + C sum_i max(0, 1 - y_i v . x~_i)^2 .

It is convex, and its Hessian I + 2 C sum over the images with a positive loss of x~ x~^T. Newton's method with
conjugate gradients (Keerthi and DeCoste, 2005) needs products with the features alone, which all classes share. The
problem does not change under rotations of the features: in the basis of their principal components the sum over all
images is diagonal, and preconditions the sum over some of them.

Certificate: f is strongly convex with modulus 1, so that f(v) - f* <= 1/2 |grad f(v)|^2 (which is also the duality
gap at the dual point 2 C max(0, 1 - y_i v . x~_i)). Objective and gradient are evaluated in float64.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from analysis.linalg.precision import row_parts, true_float32

CG_STEPS, CG_PRODUCTS, DIRECT_STEPS = 20, 100, 300
"""Newton steps by conjugate gradients, products with the Hessian in each of them, and exact Newton steps after them."""

CLASSES = 128
"""Classes solved at once: bounds the work space."""

TOLERANCE = 1e-4
"""Relative distance of the objective from its minimum that is asked of every class."""


@dataclass(frozen=True, eq=False)
class LinearSVMs:
    """One linear SVM a class, against all others.

    Attributes:
        classes: labels of the classes, in increasing order, `(classes,)`.
        coef: their w, `(classes, dims)`.
        intercept: their b, `(classes,)`.
        objective: f at that point, `(classes,)`.
        gap: certified bound of (f - f*) / f*, `(classes,)`.
    """

    classes: Int[ndarray, " classes"]
    coef: Float[ndarray, "classes dims"]
    intercept: Float[ndarray, " classes"]
    objective: Float[ndarray, " classes"]
    gap: Float[ndarray, " classes"]

    def decision_function(
        self, features: Float[ndarray, "n dims"] | Float[Tensor, "n dims"]
    ) -> Float[ndarray, "n classes"]:
        """w . x + b of each class, computed where the features are."""
        points = torch.as_tensor(features)
        coef, intercept = (torch.as_tensor(part).to(points) for part in (self.coef, self.intercept))
        with true_float32():
            return (points @ coef.T + intercept).cpu().numpy()

    def predict(self, features: Float[ndarray, "n dims"] | Float[Tensor, "n dims"]) -> Int[ndarray, " n"]:
        """The class with the largest decision function; between two classes, as LinearSVC, the sign of the second's."""
        return self.classes[self.decision_function(features).argmax(axis=1)]


@true_float32()
def fit_one_vs_rest(
    features: Float[ndarray, "n dims"] | Float[Tensor, "n dims"],
    labels: Int[ndarray, " n"],
    *,
    C: float,
    tolerance: float = TOLERANCE,
    start: LinearSVMs | None = None,
    rotate: bool = True,
    device: str | None = None,
) -> LinearSVMs:
    """The linear SVMs of all classes, each objective certified to be within `tolerance`, relatively, of its minimum.

    Args:
        features: one row an image; used in float32, and in float64 for objectives and gradients.
        labels: its class; any integers.
        C: weight of the loss.
        tolerance: of (f - f*) / f* of each class.
        start: SVMs of the same classes to start from, such as those of a near C.
        rotate: look for the principal components first. `False` for features that are coordinates along such, see
            `analysis.probes.pca`: the SVMs are the same in any basis, and sooner found in a good one.
        device: where to compute; where the features are by default.

    Raises:
        ValueError: features that are not finite, fewer than two classes, or a C that is not positive.
        RuntimeError: the tolerance was not reached, with the worst class and what was reached.

    >>> points, labels = np.array([[-1.0], [1.0], [3.0]]), np.array([0, 1, 1])
    >>> fit_one_vs_rest(points, labels, C=10.0).predict(np.array([[-0.5], [2.0]])).tolist()
    [0, 1]
    """
    classes, targets = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"there is one class among {len(labels)} labels; expected two or more")
    if not C > 0:
        raise ValueError(f"C={C}; expected a positive number")
    points = _with_ones(torch.as_tensor(features, device=device))
    axes = _principal_axes(points) if rotate else torch.eye(points.shape[1], dtype=torch.float64, device=points.device)
    if rotate:
        for rows in row_parts(len(points), points.device):
            points[rows] = points[rows] @ axes.float()
    first = np.zeros((len(classes), points.shape[1]))
    if start is not None:
        first = np.column_stack((start.coef, start.intercept))
    given = axes.T @ torch.from_numpy(first).to(axes).T
    of_class = torch.from_numpy(targets).to(points.device)
    parts = [
        _Problem(points, of_class, range(low, min(low + CLASSES, len(classes))), C).minimise(
            given[:, low : low + CLASSES], tolerance
        )
        for low in range(0, len(classes), CLASSES)
    ]
    solution, objective, gap = (torch.cat(pieces, dim=-1) for pieces in zip(*parts))
    if not (gap <= tolerance).all():
        worst = int(gap.argmax())
        raise RuntimeError(
            f"the SVM of class {classes[worst]} is within {gap[worst]:.1e} of its optimum, relatively; "
            f"{tolerance:.1e} was asked for; lower C={C}"
        )
    weights = (axes @ solution).T.cpu().numpy()
    return LinearSVMs(
        classes=classes,
        coef=weights[:, :-1],
        intercept=weights[:, -1],
        objective=objective.cpu().numpy(),
        gap=gap.cpu().numpy(),
    )


def _with_ones(features: Float[Tensor, "n dims"]) -> Float[Tensor, "n dims+1"]:
    """x~ = (x, 1) of each image, in float32."""
    points = torch.ones(len(features), features.shape[1] + 1, device=features.device)
    points[:, :-1] = features
    if not points.isfinite().all():
        raise ValueError("the features are not finite")
    return points


def _principal_axes(points: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """Orthonormal axes in float64 in which the Gram matrix of the points is diagonal."""
    gram = torch.zeros(points.shape[1], points.shape[1], dtype=torch.float64, device=points.device)
    for rows in row_parts(len(points), points.device):
        gram += (points[rows].T @ points[rows]).double()
    return torch.linalg.eigh(gram).eigenvectors


class _Problem:
    """f of some classes, its derivatives, and its minimum, in coordinates in which the Gram matrix is diagonal."""

    def __init__(self, points: Float[Tensor, "n d"], targets: Int[Tensor, " n"], classes: range, C: float):
        self.points = points
        self.C = C
        self.signs = 2.0 * (targets[:, None] == torch.tensor(classes, device=points.device)) - 1
        self.gram = torch.stack(
            [points[rows].double().square().sum(dim=0) for rows in row_parts(len(points), points.device)]
        ).sum(dim=0)

    def minimise(self, solution: Float[Tensor, "d k"], tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
        """The minima `(d, k)`, the objectives there, and the certified relative distances from the optimum.

        Where a large C leaves few images with a loss, the set of these changes with every step, and inexact steps end
        nowhere: classes that are still open after `CG_STEPS` go on with exact ones.
        """
        num_classes = solution.shape[1]
        objective = torch.zeros(num_classes, dtype=torch.float64, device=solution.device)
        gap = torch.full_like(objective, torch.inf)
        left = torch.arange(num_classes, device=solution.device)
        for step in range(CG_STEPS + DIRECT_STEPS):
            slack, value, gradient = self._evaluate(solution[:, left], left)
            bound = gradient.square().sum(dim=0) / 2
            objective[left] = value
            gap[left] = bound / (value - bound).clamp(min=0)
            open_ = gap[left] > tolerance
            left = left[open_]
            if len(left) == 0:
                break
            slack, gradient = slack[:, open_], gradient[:, open_]
            solve = self._solve_by_cg if step < CG_STEPS else self._solve_directly
            direction = -solve(gradient, slack > 0)
            slope = (gradient * direction).sum(dim=0)
            solution[:, left] += direction * self._step(solution[:, left], direction, slope, slack, left)
        return solution, objective, gap

    def _evaluate(self, solution: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """1 - y v . x~ of each image and class, f, and its gradient, by products in float64."""
        slack = torch.empty(len(self.points), len(classes), dtype=torch.float64, device=solution.device)
        value = solution.square().sum(dim=0) / 2
        gradient = solution.clone()
        for rows in row_parts(len(self.points), self.points.device):
            points, signs = self.points[rows].double(), self.signs[rows][:, classes]
            slack[rows] = 1 - signs * (points @ solution)
            loss = slack[rows].clamp(min=0)
            value += self.C * loss.square().sum(dim=0)
            gradient -= 2 * self.C * (points.T @ (signs * loss))
        return slack, value, gradient

    def _solve_by_cg(self, gradient: Float[Tensor, "d k"], active: Tensor) -> Tensor:
        """H^-1 grad, to a tenth, by conjugate gradients in float32, each class with its own step lengths.

        Preconditioned by the diagonal of H if the images with a loss were a random part of all.
        """
        share = active.float().mean(dim=0)
        weights = 1 / (1 + 2 * self.C * share * self.gram[:, None])
        scale = (weights * gradient.square()).sum(dim=0).sqrt()  # float32 has no room for small gradients
        weights = weights.float()
        residual = (gradient / scale).float()
        solved = torch.zeros_like(residual)
        search = weights * residual
        norm = (residual * search).sum(dim=0)
        for _ in range(CG_PRODUCTS):
            curved = search.clone()
            for rows in row_parts(len(self.points), self.points.device):
                points = self.points[rows]
                curved += 2 * self.C * (points.T @ (active[rows] * (points @ search)))
            open_ = norm > 0.01  # of 1 at the start: a tenth of the gradient's norm
            length = norm / (search * curved).sum(dim=0)
            solved += torch.where(open_, length * search, 0)
            residual -= torch.where(open_, length * curved, 0)
            scaled = weights * residual
            previous, norm = norm, (residual * scaled).sum(dim=0)
            if (norm <= 0.01).all():
                break
            search = scaled + norm / previous * search
        return solved.double() * scale

    def _solve_directly(self, gradient: Float[Tensor, "d k"], active: Tensor) -> Tensor:
        """H^-1 grad, one class after the other."""
        solved = torch.empty_like(gradient)
        identity = torch.eye(len(gradient), dtype=torch.float64, device=gradient.device)
        for k in range(gradient.shape[1]):
            points = self.points[active[:, k]].double()
            hessian = identity + 2 * self.C * (points.T @ points)
            solved[:, k] = torch.cholesky_solve(gradient[:, k, None], torch.linalg.cholesky(hessian))[:, 0]
        return solved

    def _step(self, solution: Tensor, direction: Tensor, slope: Tensor, slack: Tensor, classes: Tensor) -> Tensor:
        """For each class a step length t at which f(v + t p) falls or rises a tenth as steeply as at 0, or less.

        Its derivative is v . p + t |p|^2 + 2 C sum max(0, r_i + t d_i) d_i, with r_i the slack and d_i = -y_i p . x~_i:
        increasing and piecewise linear in t. Newton's method on it, kept within a bracket, ends in a few steps.
        """
        change = torch.empty_like(slack)
        for rows in row_parts(len(self.points), self.points.device):
            change[rows] = -self.signs[rows][:, classes] * (self.points[rows] @ direction.float())
        linear = (solution * direction).sum(dim=0)
        square = direction.square().sum(dim=0)
        low, high = torch.zeros_like(linear), torch.full_like(linear, torch.inf)
        t = torch.ones_like(linear)
        for _ in range(30):
            now, curvature = linear + t * square, square.clone()
            for rows in row_parts(len(slack), slack.device):
                loss = torch.addcmul(slack[rows], change[rows], t).clamp_(min=0)
                now += 2 * self.C * (loss * change[rows]).sum(dim=0)
                curvature += 2 * self.C * (loss.sign_() * change[rows].square()).sum(dim=0)
            open_ = now.abs() > 0.1 * slope.abs()
            if not open_.any():
                break
            low, high = torch.where(now < 0, t, low), torch.where(now < 0, high, t)
            newton = t - now / curvature
            middle = torch.where(high.isfinite(), (low + high) / 2, 2 * t)
            t = torch.where(open_, torch.where((newton > low) & (newton < high), newton, middle), t)
        return t
