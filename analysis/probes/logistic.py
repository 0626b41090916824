"""Multinomial logistic regression, with a certificate of its optimality.

The problem is that of scikit-learn's `LogisticRegression`. With p_i the softmax of W x_i + b and e_y the unit vector of
a class,

    minimise f(W, b) = 1/2 |W|^2 + C sum_i -log p_i[y_i],

in which b is not penalised. Of two classes scikit-learn's is the logistic loss of one vector w. That is twice this
objective at half the C, with W = (-w/2, w/2), and so it is solved.

f is convex. Newton's method with conjugate gradients only needs products with the features, and its steps end on a line
search without any. In the basis of the principal components sum_i x_i x_i^T is diagonal, which gives the diagonal of a
preconditioner, as for the SVM (`analysis.probes.svm`).

Certificate. As log sum exp z = max over distributions a of a . z + H(a), with H the entropy, any a_i give a lower bound
of f, and a finite one if sum_i (a_i - e_(y_i)) = 0, without which b could lower it at will. Minimised over W,

    f* >= D(a) = C sum_i H(a_i) - 1/2 |C sum_i (a_i - e_(y_i)) x_i^T|^2 .

At a = p the sum is r, the gradient of b over C, and f - D(p) is 1/2 |grad_W f|^2 where r = 0. Where it is not, a_i is
(1 - t) p_i + t q, with the one distribution q = (c - r (1 - t) / t) / n for all images, c the number of images of each
class, and the least t for which no entry of q is negative. Then the sum is 0, and H(a_i) >= (1 - t) H(p_i) + t H(q).
Objective, gradient and bound are evaluated in float64.
"""

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from analysis.linalg.parts import row_parts
from analysis.probes.linear_probe import TOLERANCE, LinearProbe, check_problem, with_ones
from irevnet.utils.precision import true_float32

STEPS, CG_PRODUCTS = 100, 200
"""Largest numbers of Newton steps, and of products with the Hessian in each of them."""


class LogisticRegressions(LinearProbe):
    """Multinomial logistic regression: one problem of all classes. The decision function is the logits."""


@true_float32()
def fit_logistic(
    features: Float[ndarray, "n dims"] | Float[Tensor, "n dims"],
    labels: Int[ndarray, " n"],
    *,
    C: float,
    tolerance: float = TOLERANCE,
    start: LinearProbe | None = None,
    rotate: bool = True,
    device: str | None = None,
) -> LogisticRegressions:
    """The logistic regression of all classes, with the objective certified to be close to its minimum.

    Args:
        features: features with an image in each row; used in float32, and in float64 for objectives and gradients.
        labels: class of each image, as any integers.
        C: weight of the loss.
        tolerance: largest (f - f*) / f*.
        start: regression of the same classes to start from, such as that of a similar C.
        rotate: whether to centre the features and rotate them to their principal components first. `False` for features
            that are coordinates along principal components (`analysis.probes.pca`): the regression is the same in any
            basis, but is found sooner in this one.
        device: device on which to compute; that of the features by default.

    Raises:
        ValueError: a feature is not finite, there are fewer than two classes, or C is not positive.
        RuntimeError: the tolerance was not reached; the message says which gap was.

    >>> import numpy as np
    >>> points, labels = np.array([[-1.0], [1.0], [3.0]]), np.array([0, 1, 1])
    >>> fit_logistic(points, labels, C=10.0).predict(np.array([[-0.5], [2.0]])).tolist()
    [0, 1]
    """
    classes, targets = check_problem(labels, C)
    points = with_ones(torch.as_tensor(features, device=device))
    axes, mean = _principal_basis(points, rotate=rotate)
    if rotate:
        for rows in row_parts(len(points), points.device):
            points[rows, :-1] = ((points[rows, :-1].double() - mean) @ axes).float()
    solution = torch.zeros(points.shape[1], len(classes), dtype=torch.float64, device=points.device)
    if start is not None:
        coef, intercept = (torch.from_numpy(part).to(solution) for part in (start.coef, start.intercept))
        solution[:-1], solution[-1] = axes.T @ coef.T, intercept + coef @ mean
    halves = 2 if len(classes) == 2 else 1
    problem = _Problem(points, torch.from_numpy(targets).to(points.device), len(classes), C / halves)
    objective, gap = problem.minimise(solution, tolerance)
    if not gap <= tolerance:
        raise RuntimeError(
            f"the objective of logistic regression has a relative distance of up to {gap:.1e} from its minimum; "
            f"expected at most {tolerance:.1e}; lower C={C}"
        )
    weights = axes @ solution[:-1]
    return LogisticRegressions(
        classes=classes,
        coef=weights.T.cpu().numpy(),
        intercept=(solution[-1] - mean @ weights).cpu().numpy(),
        objective=torch.tensor([halves * objective]).double().numpy(),
        gap=torch.tensor([gap]).double().numpy(),
    )


def _principal_basis(points: Float[Tensor, "n d"], *, rotate: bool) -> tuple[Tensor, Tensor]:
    """The principal axes of the features, one in each column, and their mean, in float64; those of the features as they
    are if they are not to be rotated."""
    dims, device = points.shape[1] - 1, points.device
    if not rotate:
        return torch.eye(dims, dtype=torch.float64, device=device), torch.zeros(
            dims, dtype=torch.float64, device=device
        )
    gram = torch.zeros(dims + 1, dims + 1, dtype=torch.float64, device=device)
    for rows in row_parts(len(points), device):
        part = points[rows].double()
        gram += part.T @ part
    mean = gram[-1, :-1] / len(points)
    return torch.linalg.eigh(gram[:-1, :-1] - len(points) * torch.outer(mean, mean)).eigenvectors, mean


class _Problem:
    """The objective f, its derivatives and its minimum.

    Args:
        points: x~ of each image, (x, 1), in a basis in which sum x x^T is about diagonal, `(n, d)`.
        targets: index of the class of each image, `(n,)`.
        num_classes: number of classes, k.
        C: weight of the loss.
    """

    def __init__(self, points: Float[Tensor, "n d"], targets: Int[Tensor, " n"], num_classes: int, C: float):
        self.points = points
        self.targets = targets
        self.C = C
        self.counts = torch.bincount(targets, minlength=num_classes).double()
        self.gram = torch.zeros(points.shape[1], dtype=torch.float64, device=points.device)  # its diagonal
        self.sums = torch.zeros(points.shape[1], num_classes, dtype=torch.float64, device=points.device)  # by class
        for rows in row_parts(len(points), points.device):
            part = points[rows].double()
            self.gram += part.square().sum(dim=0)
            self.sums += part.T @ self._one_hot(rows)

    def minimise(self, solution: Float[Tensor, "d k"], tolerance: float) -> tuple[float, float]:
        """Moves a solution to the minimum; returns the objective there, and its certified relative distance from the
        minimum."""
        value, gap = torch.inf, torch.inf
        for _ in range(STEPS):
            logits, probabilities, value, gradient, bound = self._evaluate(solution)
            gap = (value - bound) / bound if bound > 0 else torch.inf
            if gap <= tolerance:
                break
            direction = -self._solve(gradient, probabilities)
            slope = float((gradient * direction).sum())
            solution += direction * self._step_length(solution, direction, slope, logits)
            solution[-1] -= solution[-1].mean()  # to add a number to all intercepts changes nothing
        return value, gap

    def _one_hot(self, rows: slice) -> Tensor:
        return torch.nn.functional.one_hot(self.targets[rows], len(self.counts)).double()

    def _evaluate(self, solution: Tensor) -> tuple[Tensor, Tensor, float, Tensor, float]:
        """Logits, `(n, k)`, in float64, the probabilities in float32, f, its gradient, `(d, k)`, and a lower bound of
        the minimum."""
        n, k = len(self.points), len(self.counts)
        logits = torch.empty(n, k, dtype=torch.float64, device=solution.device)
        probabilities = torch.empty(n, k, device=solution.device)
        excess, loss, entropy = torch.zeros_like(solution), 0.0, 0.0
        for rows in row_parts(n, self.points.device):
            points = self.points[rows].double()
            logits[rows] = points @ solution
            logs = logits[rows].log_softmax(dim=1)
            p = logs.exp()
            loss -= float(logs.gather(1, self.targets[rows, None]).sum())
            entropy -= float((p * logs).sum())
            excess += points.T @ p
            probabilities[rows] = p.float()
        excess -= self.sums
        penalty = solution.clone()
        penalty[-1] = 0
        value = float(penalty.square().sum()) / 2 + self.C * loss
        return logits, probabilities, value, penalty + self.C * excess, self._bound(excess, entropy)

    def _bound(self, excess: Float[Tensor, "d k"], entropy: float) -> float:
        """The lower bound D(a) of the minimum, from sum (p - e) x~^T and the sum of the entropies of p."""
        n, residual = len(self.points), excess[-1]
        t = float((residual / (self.counts + residual)).clamp(min=0).max())
        if t > 0:
            q = ((self.counts - residual * (1 - t) / t) / n).clamp(min=0)
            common = torch.outer(self.sums.sum(dim=1), q) - self.sums
            excess = (1 - t) * excess + t * common
            entropy = (1 - t) * entropy + t * n * float(torch.special.entr(q).sum())
        return self.C * entropy - self.C**2 * float(excess[:-1].square().sum()) / 2

    def _solve(self, gradient: Float[Tensor, "d k"], probabilities: Float[Tensor, "n k"]) -> Tensor:
        """H^-1 grad, to a tenth, by conjugate gradients in float32.

        H V = V + C sum_i x~_i (diag p_i - p_i p_i^T) V^T x~_i, without V for the intercepts. The preconditioner is its
        diagonal if the spread p (1 - p) of a class did not depend on the image. The gradient is scaled to a norm of 1
        in that metric, as small ones would underflow in float32.
        """
        spread = (probabilities * (1 - probabilities)).mean(dim=0).clamp(min=1e-6).double()
        diagonal = 1 + self.C * torch.outer(self.gram, spread)
        diagonal[-1] -= 1
        weights = 1 / diagonal
        scale = (weights * gradient.square()).sum().sqrt()
        weights = weights.float()
        residual = (gradient / scale).float()
        solved = torch.zeros_like(residual)
        search = weights * residual
        norm = (residual * search).sum()
        for _ in range(CG_PRODUCTS):
            curved = search.clone()
            curved[-1] = 0
            for rows in row_parts(len(self.points), self.points.device):
                points, p = self.points[rows], probabilities[rows]
                change = p * (points @ search)
                curved += self.C * (points.T @ (change - p * change.sum(dim=1, keepdim=True)))
            length = norm / (search * curved).sum()
            solved += length * search
            residual -= length * curved
            scaled = weights * residual
            previous, norm = norm, (residual * scaled).sum()
            if norm <= 0.01:
                break
            search = scaled + norm / previous * search
        return solved.double() * scale

    def _step_length(self, solution: Tensor, direction: Tensor, slope: float, logits: Float[Tensor, "n k"]) -> float:
        """A step length t at which the derivative of f(v + t p) is at most a tenth of that at 0.

        With z the logits and a their change, the derivative is W . P + t |P|^2 + C sum (softmax(z + t a) - e) . a, and
        increases in t. Newton's method on it, kept within a bracket, ends in a few steps.
        """
        change = torch.empty_like(logits)
        for rows in row_parts(len(self.points), self.points.device):
            change[rows] = self.points[rows].double() @ direction
        towards = float(change.gather(1, self.targets[:, None]).sum())
        linear = float((solution[:-1] * direction[:-1]).sum()) - self.C * towards
        square = float(direction[:-1].square().sum())
        low, high, t = 0.0, torch.inf, 1.0
        for _ in range(30):
            mean, spread = self._moments(logits, change, t)
            now, curvature = linear + t * square + self.C * mean, square + self.C * spread
            if abs(now) <= 0.1 * abs(slope):
                break
            low, high = (t, high) if now < 0 else (low, t)
            newton = t - now / curvature if curvature > 0 else torch.inf
            t = newton if low < newton < high else (low + high) / 2 if high < torch.inf else 2 * t
        return t

    def _moments(self, logits: Tensor, change: Tensor, t: float) -> tuple[float, float]:
        """Sums over images of the mean of the change, and of its variance, under softmax(z + t a)."""
        mean, spread = 0.0, 0.0
        for rows in row_parts(len(logits), logits.device):
            p = torch.add(logits[rows], change[rows], alpha=t).softmax(dim=1)
            first = (p * change[rows]).sum(dim=1)
            mean += float(first.sum())
            spread += float(((p * change[rows].square()).sum(dim=1) - first.square()).sum())
        return mean, spread
