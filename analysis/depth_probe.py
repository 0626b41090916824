"""How linearly separable, and how contracted, the features are at each depth (section 5.1, Fig. 6)."""

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.stats import binomtest
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from analysis.results import DepthProbeResult
from analysis.svm import LinearSVMs, fit_one_vs_rest
from irevnet.train import Track, no_progress

COST_GRID = tuple(10.0**exponent for exponent in range(-5, 2))
"""Values of the SVM's C that are cross-validated; the paper names none. Features are standardised, so the scale of C
is set by their number and that of the images alone."""


Solver = Literal["newton", "sklearn"]
"""`"newton"`: `analysis.svm`, all classes at once and certified; `"sklearn"`: LinearSVC, the reference."""


def depth_probe(
    train_features: Sequence[Float[ndarray, "train _"]],
    train_labels: Int[ndarray, " train"],
    test_features: Sequence[Float[ndarray, "test _"]],
    test_labels: Int[ndarray, " test"],
    *,
    depths: Sequence[int],
    network_accuracy: float | None = None,
    cost_grid: Sequence[float] = COST_GRID,
    cv_images: int = 2000,
    solver: Solver = "newton",
    seed: int = 0,
    track: Track = no_progress,
) -> DepthProbeResult:
    """Test accuracy of a linear SVM and of a 1-nearest-neighbour classifier on the features of each depth.

    The paper's protocol: features are standardised by the mean and standard deviation of the training set; the SVM's C
    is chosen by cross-validation on a small part of the training set (three folds of at most `cv_images` images, the
    same at every depth); both classifiers are fitted to the whole training set and scored on the test set.

    Args:
        train_features: for each depth, spatially averaged features `(train, channels)`.
        train_labels: their classes.
        test_features: the same of the test set.
        test_labels: their classes.
        depths: the depths, for the record.
        network_accuracy: the network's own top-1 on the test set, for the record; `None` where it has other classes.
        cost_grid: values of C to choose from.
        cv_images: training images used to choose C.
        solver: of the SVMs' problem.
        seed: of the choice of those images, of the folds and of the SVM solver.
        track: shows progress.

    Raises:
        ValueError: features that are not finite, or too few images of a class to cross-validate.
    """
    counts = np.bincount(train_labels)
    if len(counts) < 2 or counts[counts > 0].min() < 3:
        raise ValueError(
            f"the rarest of the classes has {counts[counts > 0].min()} training images; three-fold cross-validation "
            "needs at least two classes and 3 images of each"
        )
    subset = _subset(train_labels, cv_images, seed)
    cost_grid = sorted(cost_grid)
    svm_correct, nn_correct, costs, gaps, cv_accuracy = [], [], [], [], []
    for depth, train, test in track(list(zip(depths, train_features, test_features, strict=True)), "probing"):
        if not (np.isfinite(train).all() and np.isfinite(test).all()):
            raise ValueError(
                f"the features at depth {depth} are not finite; the network's weights or inputs are broken"
            )
        scaler = StandardScaler().fit(train)
        train, test = np.asarray(scaler.transform(train)), np.asarray(scaler.transform(test))
        svm, cost, scores = _fit_svm(train, train_labels, subset, cost_grid, solver, seed)
        nearest = KNeighborsClassifier(n_neighbors=1, algorithm="brute").fit(train, train_labels)
        costs.append(cost)
        gaps.append(svm.gap.max() if isinstance(svm, LinearSVMs) else np.nan)
        cv_accuracy.append(scores)
        svm_correct.append(int(np.count_nonzero(svm.predict(test) == test_labels)))
        nn_correct.append(int(np.count_nonzero(nearest.predict(test) == test_labels)))
    num_test = len(test_labels)
    return DepthProbeResult(
        depths=np.array(depths),
        svm_accuracy=np.array(svm_correct) / num_test,
        svm_interval=np.array([_wilson(correct, num_test) for correct in svm_correct]),
        nn_accuracy=np.array(nn_correct) / num_test,
        nn_interval=np.array([_wilson(correct, num_test) for correct in nn_correct]),
        svm_cost=np.array(costs),
        svm_gap=np.array(gaps),
        cost_grid=np.array(cost_grid, dtype=np.float64),
        cv_accuracy=np.array(cv_accuracy),
        channels=np.array([features.shape[1] for features in train_features]),
        network_accuracy=np.array(np.nan if network_accuracy is None else network_accuracy),
        num_train=np.array(len(train_labels)),
        num_test=np.array(num_test),
    )


def _subset(labels: ndarray, size: int, seed: int) -> ndarray:
    """Rows of a stratified part of the training set, all of it if it is no larger than `size`."""
    if len(labels) <= size:
        return np.arange(len(labels))
    splitter = StratifiedShuffleSplit(1, train_size=size, random_state=seed)
    return next(splitter.split(labels, labels))[0]


def _fit_svm(
    features: ndarray, labels: ndarray, subset: ndarray, cost_grid: Sequence[float], solver: Solver, seed: int
) -> tuple[LinearSVMs | LinearSVC, float, ndarray]:
    """The SVM on all training features, its C, cross-validated on the subset, and the accuracies found there."""
    folds = StratifiedKFold(3, shuffle=True, random_state=seed).split(subset, labels[subset])
    features_here, labels_here = features[subset], labels[subset]
    scores = [
        _scores(features_here, labels_here, train, held, cost_grid=cost_grid, solver=solver, seed=seed)
        for train, held in folds
    ]
    accuracies = np.mean(scores, axis=0)
    cost = float(cost_grid[int(accuracies.argmax())])
    return _fit(features, labels, cost, solver, seed), cost, accuracies


def _scores(
    features: ndarray,
    labels: ndarray,
    train: ndarray,
    held: ndarray,
    *,
    cost_grid: Sequence[float],
    solver: Solver,
    seed: int,
) -> list[float]:
    """The accuracy on the rows held out for each C, in increasing order, after training on others."""
    accuracies, fitted = [], None
    for cost in cost_grid:
        fitted = _fit(features[train], labels[train], cost, solver, seed, start=fitted)
        accuracies.append(float(np.mean(fitted.predict(features[held]) == labels[held])))
    return accuracies


def _fit(
    features: ndarray,
    labels: ndarray,
    cost: float,
    solver: Solver,
    seed: int,
    start: LinearSVMs | LinearSVC | None = None,
) -> LinearSVMs | LinearSVC:
    if solver == "newton":
        return fit_one_vs_rest(features, labels, C=cost, start=start if isinstance(start, LinearSVMs) else None)
    svm = LinearSVC(C=cost, dual=len(features) < features.shape[1], max_iter=10_000, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of far too large a C: scored by what it has
        return svm.fit(features, labels)


def _wilson(correct: int, total: int) -> tuple[float, float]:
    interval = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    return interval.low, interval.high
