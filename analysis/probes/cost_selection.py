"""Selection of the C of a linear probe on the training set alone."""

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.svm import LinearSVC
from torch import Tensor

from analysis.probes.linear_probe import LinearProbe
from analysis.probes.logistic import fit_logistic
from analysis.probes.svm import LinearSVMs, fit_one_vs_rest

COST_GRID = tuple(10.0 ** (half / 2) for half in range(-10, 3))
"""Values of C to choose from, half decades from 1e-5 to 10; the paper states none. As features are standardised, the
scale of C depends only on the numbers of features and of images."""

CV_IMAGES = 2000
"""Number of training images used for cross-validation: "a small part of the training set" (section 5.1)."""

FOLDS = 3
"""Number of folds of the cross-validation, where each class has as many images."""

Solver = Literal["newton", "sklearn"]
"""`"newton"` is `analysis.probes.svm`, all classes at once and certified; `"sklearn"` is LinearSVC, the reference."""

Probe = LinearProbe | LinearSVC

Fit = Callable[..., Any]
"""Fits a probe to features and labels with a `cost`, C, and a `start`: a probe of the same classes to start from, such
as that of a similar C, or `None`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ChosenProbe:
    """A linear probe and how its C was chosen.

    Attributes:
        probe: probe fitted to the whole training set.
        cost: value of C that was chosen.
        cv_accuracy: cross-validated accuracy on the small part for each C of the grid, `(costs,)`; NaN for a single C.
        held_out_accuracy: accuracy on a held-out fifth of the whole training set for each C of the grid, NaN for values
            not tried there, `(costs,)`; all NaN where the small part is the whole training set.
        at_edge: whether an end of the grid is better than all other values tried, so that a C beyond it may be better
            still.
    """

    probe: Probe
    cost: float
    cv_accuracy: Float[ndarray, " costs"]
    held_out_accuracy: Float[ndarray, " costs"]
    at_edge: bool

    @property
    def gap(self) -> float | None:
        """Certified gap of the worst problem; `None` where the solver certifies nothing."""
        return float(self.probe.gap.max()) if isinstance(self.probe, LinearProbe) else None


def choose_svm(
    features: Float[Tensor, "n dims"],
    labels: Int[ndarray, " n"],
    *,
    cost_grid: Sequence[float] = COST_GRID,
    cv_images: int = CV_IMAGES,
    solver: Solver = "newton",
    seed: int = 0,
) -> ChosenProbe:
    """The linear SVM of all images, with a C from the grid, see `choose_cost`; `solver` is that of its problem."""
    fit = functools.partial(_fit_svm, solver=solver, seed=seed)
    return choose_cost(fit, features, labels, cost_grid=cost_grid, cv_images=cv_images, seed=seed)


def choose_logistic(
    features: Float[Tensor, "n dims"],
    labels: Int[ndarray, " n"],
    *,
    cost_grid: Sequence[float] = COST_GRID,
    cv_images: int = CV_IMAGES,
    seed: int = 0,
) -> ChosenProbe:
    """The logistic regression of all images, with a C from the grid, see `choose_cost`."""
    return choose_cost(_fit_logistic, features, labels, cost_grid=cost_grid, cv_images=cv_images, seed=seed)


def num_folds(labels: Int[ndarray, " n"]) -> int:
    """Number of folds in which C is cross-validated: three, or as many as the rarest class has images; with one there
    is nothing to choose C by."""
    _, counts = np.unique(labels, return_counts=True)
    return min(FOLDS, int(counts.min()))


def choose_cost(
    fit: Fit,
    features: Float[Tensor, "n dims"],
    labels: Int[ndarray, " n"],
    *,
    cost_grid: Sequence[float],
    cv_images: int,
    seed: int,
) -> ChosenProbe:
    """The probe of all images, with a C from the grid.

    C is cross-validated in three folds on at most `cv_images` images, as the paper does on "a small part". The best C
    for few images need not be the best for many, as losses are summed over them. So it is then checked on the whole
    training set: probes fitted to four fifths are scored on the other fifth, for C and its neighbours on the grid, then
    for the best of them and its neighbours, until the best lies between two that are worse, or at an end of the grid.
    Of values with the same accuracy the smallest is chosen. A single C is used as it is.

    Where the rarest class has two images, there are two folds, each with one image of it: of two images of each class,
    one of each is left out. The rest is then half of the set, too small a part for the C that suits it to suit all, and
    no more images are there to check it on. So folds are fitted with C n / m, with m of n images in them: at the same
    weight of the mean loss against the penalty as the whole set with C.

    Args:
        fit: fits the probe.
        features: coordinates along the principal components of the training set (`analysis.probes.pca`).
        labels: class of each image.
        cost_grid: values of C, in increasing order.
        cv_images: number of images of the small part; at least six for each class where there are as many.
        seed: seed of the parts and of the folds.

    Raises:
        ValueError: there are fewer than two classes, or several C to choose from and a class with one image.
    """
    if len(cost_grid) == 1:
        unknown = np.full(1, np.nan)
        probe = fit(features, labels, cost=cost_grid[0], start=None)
        return ChosenProbe(
            probe=probe,
            cost=float(cost_grid[0]),
            cv_accuracy=unknown,
            held_out_accuracy=unknown,
            at_edge=False,
        )
    folds, num_classes = num_folds(labels), len(np.unique(labels))
    if num_classes < 2 or folds < 2:
        raise ValueError(
            f"the rarest of {num_classes} classes has {folds} training images; to choose C takes at least two classes "
            "and two images of each; give one C"
        )
    # First on the small part, with each fold held out once.
    small = _stratified_part(labels, max(cv_images, 6 * num_classes), seed)
    cv_accuracy = _cross_validate(fit, features[small], labels[small], cost_grid, folds, seed)
    held_out_accuracy = np.full(len(cost_grid), np.nan)
    best, fitted = int(cv_accuracy.argmax()), None
    # Then on the whole training set, climbing from there to the next local maximum. Probes start from those of the C
    # before, which is near.
    if len(small) < len(labels):
        rows, held = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=seed)
        part, rest = features[rows], features[held]
        while np.isnan(held_out_accuracy[_around(best, len(cost_grid))]).any():
            for index in _around(best, len(cost_grid)):
                if np.isnan(held_out_accuracy[index]):
                    fitted = fit(part, labels[rows], cost=cost_grid[index], start=fitted)
                    held_out_accuracy[index] = _accuracy(fitted, rest, labels[held])
            best = int(np.nanargmax(held_out_accuracy))
    # Whether that maximum is at an end of the grid, by the accuracies that decided.
    deciding = held_out_accuracy if len(small) < len(labels) else cv_accuracy
    others = np.delete(deciding, best)
    return ChosenProbe(
        probe=fit(features, labels, cost=cost_grid[best], start=fitted),
        cost=float(cost_grid[best]),
        cv_accuracy=cv_accuracy,
        held_out_accuracy=held_out_accuracy,
        at_edge=best in (0, len(cost_grid) - 1) and bool(deciding[best] > np.nanmax(others)),
    )


def _around(index: int, length: int) -> list[int]:
    """An index and its neighbours."""
    return list(range(max(0, index - 1), min(length, index + 2)))


def _stratified_part(labels: ndarray, size: int, seed: int) -> ndarray:
    """Rows of a part of the training set with the classes in their proportions; all if few others would remain."""
    if len(labels) < size + len(np.unique(labels)):  # scikit-learn needs one of each class outside the part
        return np.arange(len(labels))
    part, _ = train_test_split(np.arange(len(labels)), train_size=size, stratify=labels, random_state=seed)
    return np.asarray(part)


def _cross_validate(
    fit: Fit, features: Tensor, labels: ndarray, cost_grid: Sequence[float], folds: int, seed: int
) -> ndarray:
    """The mean accuracy over the folds for each C."""
    scores = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a rare class may be missing from a fold
        splits = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels))
    for rows, held in splits:
        scale = len(labels) / len(rows) if folds < FOLDS else 1
        fitted, accuracies = None, []
        for cost in cost_grid:
            fitted = fit(features[rows], labels[rows], cost=scale * cost, start=fitted)
            accuracies.append(_accuracy(fitted, features[held], labels[held]))
        scores.append(accuracies)
    return np.mean(scores, axis=0)


def _fit_svm(
    features: Tensor, labels: ndarray, *, cost: float, start: Probe | None, solver: Solver, seed: int
) -> LinearSVMs | LinearSVC:
    if solver == "newton":
        near = start if isinstance(start, LinearSVMs) else None
        return fit_one_vs_rest(features, labels, C=cost, start=near, rotate=False)
    svm = LinearSVC(C=cost, dual="auto", max_iter=10_000, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # where C is far too large: scored all the same
        return svm.fit(features.cpu().numpy(), labels)


def _fit_logistic(features: Tensor, labels: ndarray, *, cost: float, start: LinearProbe | None) -> LinearProbe:
    return fit_logistic(features, labels, C=cost, start=start, rotate=False)


def _accuracy(probe: Probe, features: Tensor, labels: ndarray) -> float:
    return count_right(probe, features, labels) / len(labels)


def count_right(probe: Probe, features: Float[Tensor, "n dims"], labels: Int[ndarray, " n"]) -> int:
    """Number of images that a probe classifies correctly."""
    predicted = probe.predict(features if isinstance(probe, LinearProbe) else features.cpu().numpy())
    return int(np.count_nonzero(predicted == labels))
