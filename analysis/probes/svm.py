"""One-vs-rest linear SVMs for all classes at once, with a certificate of their optimality.

The problem is that of scikit-learn's `LinearSVC` (liblinear). For each class k, with y_i = 1 for its images and -1 for
all others, and x~ = (x, 1), v = (w, b):

    minimise f(v) = 1/2 |v|^2 + C sum_i max(0, 1 - y_i v . x~_i)^2 .

It is convex, with the Hessian H = I + 2 C sum x~_i x~_i^T over the images with a positive loss. Newton's method with
conjugate gradients (Keerthi and DeCoste, 2005) only needs products with the features, which all classes share. The
problem does not change under rotations of the features: in the basis of their principal components the sum over all
images is diagonal, and is a preconditioner for the sum over some of them.

Certificate: f is strongly convex with modulus 1, so that f(v) - f* <= 1/2 |grad f(v)|^2 (which is also the duality
gap at the dual point 2 C max(0, 1 - y_i v . x~_i)). Objective and gradient are evaluated in float64.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from analysis.linalg.parts import row_parts
from analysis.probes.linear_probe import TOLERANCE, LinearProbe, check_problem, with_ones
from irevnet.utils.precision import true_float32

CG_STEPS, CG_PRODUCTS, DIRECT_STEPS = 20, 100, 300
"""Largest numbers of Newton steps by conjugate gradients, of products with the Hessian in each of them, and of exact
Newton steps after them."""

CLASSES = 128
"""Number of classes solved at once, which bounds the workspace."""


class LinearSVMs(LinearProbe):
    """Linear SVMs, each of one class against all others, with an objective and a gap of its own."""


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
    """The linear SVMs of all classes, with the objective of each certified to be close to its minimum.

    Args:
        features: features with an image in each row; used in float32, and in float64 for objectives and gradients.
        labels: class of each image, as any integers.
        C: weight of the loss.
        tolerance: largest (f - f*) / f* of each class.
        start: SVMs of the same classes to start from, such as those of a similar C.
        rotate: whether to rotate the features to their principal components first. `False` for features that are
            coordinates along principal components (`analysis.probes.pca`): the SVMs are the same in any basis, but are
            found sooner in this one.
        device: device on which to compute; that of the features by default.

    Raises:
        ValueError: a feature is not finite, there are fewer than two classes, or C is not positive.
        RuntimeError: the tolerance was not reached; the message names the worst class and its gap.

    >>> points, labels = np.array([[-1.0], [1.0], [3.0]]), np.array([0, 1, 1])
    >>> fit_one_vs_rest(points, labels, C=10.0).predict(np.array([[-0.5], [2.0]])).tolist()
    [0, 1]
    """
    classes, targets = check_problem(labels, C)
    # x~ = (x, 1) of each image, (n, d), in the basis in which sum x~ x~^T is diagonal: v turns with it, and |v| stays.
    points = with_ones(torch.as_tensor(features, device=device))
    axes = _principal_axes(points) if rotate else torch.eye(points.shape[1], dtype=torch.float64, device=points.device)
    if rotate:
        for rows in row_parts(len(points), points.device):
            points[rows] = points[rows] @ axes.float()
    # Each class is a problem of its own, with v a column of (d, classes); some are solved together, to share products.
    initial = np.zeros((len(classes), points.shape[1]))
    if start is not None:
        initial = np.column_stack((start.coef, start.intercept))
    rotated = axes.T @ torch.from_numpy(initial).to(axes).T
    class_indices = torch.from_numpy(targets).to(points.device)
    parts = [
        _Problem(points, class_indices, range(low, min(low + CLASSES, len(classes))), C).minimise(
            rotated[:, low : low + CLASSES], tolerance
        )
        for low in range(0, len(classes), CLASSES)
    ]
    solution, objective, gap = (torch.cat(pieces, dim=-1) for pieces in zip(*parts))
    if not (gap <= tolerance).all():
        worst = int(gap.argmax())
        raise RuntimeError(
            f"the objective of class {classes[worst]} has a relative distance of up to {gap[worst]:.1e} from its "
            f"minimum; expected at most {tolerance:.1e}; lower C={C}"
        )
    weights = (axes @ solution).T.cpu().numpy()
    return LinearSVMs(
        classes=classes,
        coef=weights[:, :-1],
        intercept=weights[:, -1],
        objective=objective.cpu().numpy(),
        gap=gap.cpu().numpy(),
    )


def _principal_axes(points: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """Orthonormal axes, one in each column and in float64, in which the Gram matrix of the points is diagonal."""
    gram = torch.zeros(points.shape[1], points.shape[1], dtype=torch.float64, device=points.device)
    for rows in row_parts(len(points), points.device):
        gram += (points[rows].T @ points[rows]).double()
    return torch.linalg.eigh(gram).eigenvectors


class _Problem:
    """The objectives f of some classes, their derivatives and minima, in a basis that diagonalises the Gram matrix.

    Args:
        points: x~ of each image in that basis, `(n, d)`.
        targets: index of the class of each image, `(n,)`.
        classes: indices of the classes of this problem, k in number.
        C: weight of the loss.
    """

    def __init__(self, points: Float[Tensor, "n d"], targets: Int[Tensor, " n"], classes: range, C: float):
        self.points = points
        self.C = C
        self.signs = 2.0 * (targets[:, None] == torch.tensor(classes, device=points.device)) - 1
        self.gram = torch.stack(
            [points[rows].double().square().sum(dim=0) for rows in row_parts(len(points), points.device)]
        ).sum(dim=0)

    def minimise(self, solution: Float[Tensor, "d k"], tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
        """The minima `(d, k)`, the objectives there, and their certified relative distances from the minimum.

        Where a large C leaves few images with a loss, the set of these images changes with every step, and inexact
        steps stop converging: classes that are not done after `CG_STEPS` go on with exact ones.
        """
        num_classes = solution.shape[1]
        objective = torch.zeros(num_classes, dtype=torch.float64, device=solution.device)
        gap = torch.full_like(objective, torch.inf)
        remaining = torch.arange(num_classes, device=solution.device)
        for step in range(CG_STEPS + DIRECT_STEPS):
            # The certificate f - f* <= |grad f|^2 / 2 gives f* a lower bound, and (f - f*) / f* an upper one. Classes
            # within the tolerance are done.
            slack, value, gradient = self._evaluate(solution[:, remaining], remaining)
            bound = gradient.square().sum(dim=0) / 2
            objective[remaining] = value
            gap[remaining] = bound / (value - bound).clamp(min=0)
            unconverged = gap[remaining] > tolerance
            remaining = remaining[unconverged]
            if len(remaining) == 0:
                break
            # Newton's step -H^-1 grad f with a line search: f is quadratic between the points where an image gets or
            # loses its loss, and a full step would be exact if no image did.
            slack, gradient = slack[:, unconverged], gradient[:, unconverged]
            solve = self._solve_by_cg if step < CG_STEPS else self._solve_directly
            direction = -solve(gradient, slack > 0)
            slope = (gradient * direction).sum(dim=0)
            length = self._step_length(solution[:, remaining], direction, slope, slack, remaining)
            solution[:, remaining] += direction * length
        return solution, objective, gap

    def _evaluate(self, solution: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """1 - y v . x~ of each image and class, `(n, k)`, f and its gradient, `(d, k)`, all in float64."""
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

        The preconditioner is the diagonal of H if the images with a loss were a random sample of all.
        """
        # For a share p of all images with a loss, H is about I + 2 C p G, with G the diagonal Gram matrix of all. The
        # gradient is scaled to a norm of 1 in that metric, as small ones would underflow in float32.
        share = active.float().mean(dim=0)
        weights = 1 / (1 + 2 * self.C * share * self.gram[:, None])
        scale = (weights * gradient.square()).sum(dim=0).sqrt()
        weights = weights.float()
        residual = (gradient / scale).float()
        solved = torch.zeros_like(residual)
        search = weights * residual
        norm = (residual * search).sum(dim=0)
        for _ in range(CG_PRODUCTS):
            # H p of the search directions p, (d, k): one product with the features and one with their transpose, in
            # between of which images without a loss are set to zero.
            curved = search.clone()
            for rows in row_parts(len(self.points), self.points.device):
                points = self.points[rows]
                curved += 2 * self.C * (points.T @ (active[rows] * (points @ search)))
            # Classes whose squared residual has fallen from 1 to 0.01, a tenth of the norm, stay as they are.
            unconverged = norm > 0.01
            length = norm / (search * curved).sum(dim=0)
            solved += torch.where(unconverged, length * search, 0)
            residual -= torch.where(unconverged, length * curved, 0)
            scaled = weights * residual
            previous, norm = norm, (residual * scaled).sum(dim=0)
            if (norm <= 0.01).all():
                break
            search = scaled + norm / previous * search
        return solved.double() * scale

    def _solve_directly(self, gradient: Float[Tensor, "d k"], active: Tensor) -> Tensor:
        """H^-1 grad by a Cholesky decomposition of H, `(d, d)`, one class after the other, in float64."""
        solved = torch.empty_like(gradient)
        identity = torch.eye(len(gradient), dtype=torch.float64, device=gradient.device)
        for k in range(gradient.shape[1]):
            points = self.points[active[:, k]].double()
            hessian = identity + 2 * self.C * (points.T @ points)
            solved[:, k] = torch.cholesky_solve(gradient[:, k, None], torch.linalg.cholesky(hessian))[:, 0]
        return solved

    def _step_length(
        self, solution: Tensor, direction: Tensor, slope: Tensor, slack: Tensor, classes: Tensor
    ) -> Tensor:
        """A step length t of each class at which the derivative of f(v + t p) is at most a tenth of that at 0.

        The derivative is v . p + t |p|^2 + 2 C sum max(0, r_i + t d_i) d_i, with r_i the slack and d_i = -y_i p . x~_i:
        increasing and piecewise linear in t. Newton's method on it, kept within a bracket, ends in a few steps.
        """
        # d_i of each image and class, (n, k), after which no products with the features are needed.
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
            unconverged = now.abs() > 0.1 * slope.abs()
            if not unconverged.any():
                break
            # The zero lies to the right of where the derivative is negative, to the left of where it is positive. A
            # Newton step that leaves the bracket is replaced by its middle, or by twice t where it has no upper end.
            low, high = torch.where(now < 0, t, low), torch.where(now < 0, high, t)
            newton = t - now / curvature
            middle = torch.where(high.isfinite(), (low + high) / 2, 2 * t)
            t = torch.where(unconverged, torch.where((newton > low) & (newton < high), newton, middle), t)
        return t
