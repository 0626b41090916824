"""Selection of the C of a linear SVM on the training set alone."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.svm import LinearSVC
from torch import Tensor

from analysis.probes.svm import LinearSVMs, fit_one_vs_rest

COST_GRID = tuple(10.0 ** (half / 2) for half in range(-10, 3))
"""Values of C to choose from, half decades from 1e-5 to 10; the paper states none. As features are standardised, the
scale of C depends only on the numbers of features and of images."""

CV_IMAGES = 2000
"""Number of training images used for cross-validation: "a small part of the training set" (section 5.1)."""

FOLDS = 3
"""Number of folds of the cross-validation, and so the smallest number of training images of a class."""

Solver = Literal["newton", "sklearn"]
"""`"newton"` is `analysis.probes.svm`, all classes at once and certified; `"sklearn"` is LinearSVC, the reference."""

SVM = LinearSVMs | LinearSVC


@dataclass(frozen=True, kw_only=True, eq=False)
class ChosenSVM:
    """An SVM and how its C was chosen.

    Attributes:
        svm: SVM fitted to the whole training set.
        cost: value of C that was chosen.
        cv_accuracy: cross-validated accuracy on the small part for each C of the grid, `(costs,)`.
        held_out_accuracy: accuracy on a held-out fifth of the whole training set for each C of the grid, NaN for values
            not tried there, `(costs,)`; all NaN where the small part is the whole training set.
        at_edge: whether an end of the grid is better than all other values tried, so that a C beyond it may be better
            still.
    """

    svm: SVM
    cost: float
    cv_accuracy: Float[ndarray, " costs"]
    held_out_accuracy: Float[ndarray, " costs"]
    at_edge: bool

    @property
    def gap(self) -> float | None:
        """Certified gap of the worst class; `None` where the solver certifies nothing."""
        return float(self.svm.gap.max()) if isinstance(self.svm, LinearSVMs) else None


def choose_svm(
    features: Float[Tensor, "n dims"],
    labels: Int[ndarray, " n"],
    *,
    cost_grid: Sequence[float] = COST_GRID,
    cv_images: int = CV_IMAGES,
    solver: Solver = "newton",
    seed: int = 0,
) -> ChosenSVM:
    """The SVM of all images, with a C from the grid.

    C is cross-validated in three folds on at most `cv_images` images, as the paper does on "a small part". The best C
    for few images need not be the best for many, as losses are summed over them. So it is then checked on the whole
    training set: SVMs fitted to four fifths are scored on the other fifth, for C and its neighbours on the grid, then
    for the best of them and its neighbours, until the best lies between two that are worse, or at an end of the grid.
    Of values with the same accuracy the smallest is chosen.

    Args:
        features: coordinates along the principal components of the training set (`analysis.probes.pca`).
        labels: class of each image.
        cost_grid: values of C, in increasing order.
        cv_images: number of images of the small part; at least six for each class where there are as many.
        solver: solver of the SVMs' problem.
        seed: seed of the parts, of the folds and of scikit-learn's solver.

    Raises:
        ValueError: there are fewer than two classes, or too few images of a class for cross-validation.
    """
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    if len(counts) < 2 or counts.min() < FOLDS:
        raise ValueError(
            f"the rarest of {len(counts)} classes has {counts.min()} training images; three-fold cross-validation "
            f"needs at least two classes and {FOLDS} images of each"
        )
    # First on the small part, with each fold held out once.
    small = _stratified_part(labels, max(cv_images, 6 * len(counts)), seed)
    cv_accuracy = _cross_validate(features[small], labels[small], cost_grid, solver, seed)
    held_out_accuracy = np.full(len(cost_grid), np.nan)
    best, fitted = int(cv_accuracy.argmax()), None
    # Then on the whole training set, climbing from there to the next local maximum. SVMs start from those of the C
    # before, which is near.
    if len(small) < len(labels):
        rows, held = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=seed)
        part, rest = features[rows], features[held]
        while np.isnan(held_out_accuracy[_around(best, len(cost_grid))]).any():
            for index in _around(best, len(cost_grid)):
                if np.isnan(held_out_accuracy[index]):
                    fitted = _fit(part, labels[rows], cost_grid[index], solver, seed, start=fitted)
                    held_out_accuracy[index] = _accuracy(fitted, rest, labels[held])
            best = int(np.nanargmax(held_out_accuracy))
    # Whether that maximum is at an end of the grid, by the accuracies that decided.
    deciding = held_out_accuracy if len(small) < len(labels) else cv_accuracy
    others = np.delete(deciding, best)
    return ChosenSVM(
        svm=_fit(features, labels, cost_grid[best], solver, seed, start=fitted),
        cost=float(cost_grid[best]),
        cv_accuracy=cv_accuracy,
        held_out_accuracy=held_out_accuracy,
        at_edge=best in (0, len(cost_grid) - 1) and len(others) > 0 and bool(deciding[best] > np.nanmax(others)),
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
    features: Tensor, labels: ndarray, cost_grid: Sequence[float], solver: Solver, seed: int
) -> ndarray:
    """The mean accuracy over three folds for each C."""
    scores = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a rare class may be missing from a fold
        folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(labels, labels))
    for rows, held in folds:
        fitted, accuracies = None, []
        for cost in cost_grid:
            fitted = _fit(features[rows], labels[rows], cost, solver, seed, start=fitted)
            accuracies.append(_accuracy(fitted, features[held], labels[held]))
        scores.append(accuracies)
    return np.mean(scores, axis=0)


def _fit(features: Tensor, labels: ndarray, cost: float, solver: Solver, seed: int, *, start: SVM | None = None) -> SVM:
    if solver == "newton":
        near = start if isinstance(start, LinearSVMs) else None
        return fit_one_vs_rest(features, labels, C=cost, start=near, rotate=False)
    svm = LinearSVC(C=cost, dual="auto", max_iter=10_000, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # where C is far too large: scored all the same
        return svm.fit(features.cpu().numpy(), labels)


def _accuracy(svm: SVM, features: Tensor, labels: ndarray) -> float:
    return count_right(svm, features, labels) / len(labels)


def count_right(svm: SVM, features: Float[Tensor, "n dims"], labels: Int[ndarray, " n"]) -> int:
    """Number of images that an SVM of either solver classifies correctly."""
    predicted = svm.predict(features if isinstance(svm, LinearSVMs) else features.cpu().numpy())
    return int(np.count_nonzero(predicted == labels))
