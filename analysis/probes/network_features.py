"""The two probes of section 5, a linear SVM and the nearest neighbour, and the sets of features that they are shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.stats import binomtest
from torch import Tensor

from analysis.cache import Cache
from analysis.probes.nearest_neighbour import nearest_neighbours
from analysis.probes.svm_selection import COST_GRID, CV_IMAGES, ChosenSVM, Solver, choose_svm, count_right


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkFeatures:
    """The averaged features of a network on the training and the test images of a study.

    Attributes:
        name: name of the network.
        layers: names of the layers.
        depths: number of each layer among the network's blocks.
        relative_depths: that number over the number of blocks.
        train: features of the training images by layer, `(train, channels)`; read a part at a time.
        test: the same of the test images.
        train_labels: classes of the training images, `(train,)`.
        test_labels: classes of the test images, `(test,)`.
        test_logits: the network's outputs for the test images, `(test, outputs)`.
        columns: columns of the logits that belong to the classes 0, 1, ... of the labels, `(classes,)`; `None` where
            the network does not know these classes.
        cache: finished parts of the study of these features.
    """

    name: str
    layers: Sequence[str]
    depths: Sequence[int]
    relative_depths: Sequence[float]
    train: Mapping[str, Float[ndarray, "train _"]]
    test: Mapping[str, Float[ndarray, "test _"]]
    train_labels: Int[ndarray, " train"]
    test_labels: Int[ndarray, " test"]
    test_logits: Float[ndarray, "test outputs"]
    columns: Int[ndarray, " classes"] | None
    cache: Cache

    def accuracy(self) -> float:
        """Share of test images whose class has the largest of all logits; NaN where the classes are not known."""
        if self.columns is None:
            return float("nan")
        return float(np.mean(self.test_logits.argmax(axis=1) == self.columns[self.test_labels]))

    def restricted_accuracy(self) -> float:
        """Share of test images whose class has the largest logit of the classes studied."""
        if self.columns is None:
            return float("nan")
        return float(np.mean(self.test_logits[:, self.columns].argmax(axis=1) == self.test_labels))


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """How the linear SVM is fitted and its C chosen, see `analysis.probes.svm_selection.choose_svm`.

    Attributes:
        cost_grid: values of C to choose from.
        cv_images: number of training images used for cross-validation.
        solver: solver of the SVM's problem.
    """

    cost_grid: Sequence[float] = COST_GRID
    cv_images: int = CV_IMAGES
    solver: Solver = "newton"

    def settings(self, seed: int) -> dict[str, Any]:
        """What a probe depends on beside its features, as plain values."""
        return {
            "cost_grid": sorted(self.cost_grid),
            "cv_images": self.cv_images,
            "solver": self.solver,
            "seed": seed,
        }


class SVMRow(TypedDict):
    """What `probe_svm` returns."""

    svm_correct: int
    svm_cost: float
    svm_gap: float
    at_edge: bool
    cv_accuracy: list[float]
    held_out_accuracy: list[float | None]


def probe_svm(
    train: Float[Tensor, "train dims"],
    train_labels: Int[ndarray, " train"],
    test: Float[Tensor, "test dims"],
    test_labels: Int[ndarray, " test"],
    options: ProbeOptions,
    *,
    seed: int,
) -> dict[str, Any]:
    """The number of test images that the linear SVM classifies right, and how its C was chosen, as plain values."""
    chosen: ChosenSVM = choose_svm(
        train,
        train_labels,
        cost_grid=sorted(options.cost_grid),
        cv_images=options.cv_images,
        solver=options.solver,
        seed=seed,
    )
    return {
        "svm_correct": count_right(chosen.svm, test, test_labels),
        "svm_cost": chosen.cost,
        "svm_gap": chosen.gap,
        "at_edge": chosen.at_edge,
        "cv_accuracy": chosen.cv_accuracy.tolist(),
        "held_out_accuracy": [None if np.isnan(value) else value for value in chosen.held_out_accuracy.tolist()],
    }


def probe_nearest(
    train: Float[Tensor, "train dims"],
    train_labels: Int[ndarray, " train"],
    test: Float[Tensor, "test dims"],
    test_labels: Int[ndarray, " test"],
    *,
    dims: Sequence[int] | None = None,
) -> list[int]:
    """How many test images have the class of their nearest training image, for each number of leading columns."""
    nearest = nearest_neighbours(train, test, dims=dims)
    return np.count_nonzero(train_labels[nearest] == test_labels, axis=1).tolist()


def tabulate(
    networks: Sequence[NetworkFeatures],
    rows: Sequence[tuple[int, str, Mapping[str, Any]]],
    cost_grid: Sequence[float],
) -> dict[str, ndarray]:
    """The fields of a `ProbeResult`, from rows of network, layer and what the probes returned there."""
    num_test = len(networks[0].test_labels)
    own, restricted = (
        np.array([accuracy(network) for network in networks])
        for accuracy in (NetworkFeatures.accuracy, NetworkFeatures.restricted_accuracy)
    )
    correct = {name: [row[f"{name}_correct"] for _, _, row in rows] for name in ("svm", "nn")}

    def of(key: str) -> list[Any]:
        return [row[key] for _, _, row in rows]

    return {
        "networks": np.array([network.name for network in networks]),
        "network_accuracy": own,
        "network_interval": _wilson(num_test * own, num_test),
        "restricted_accuracy": restricted,
        "restricted_interval": _wilson(num_test * restricted, num_test),
        "network": np.array([number for number, _, _ in rows]),
        "layer": np.array([layer for _, layer, _ in rows]),
        "dims": np.array(of("dims")),
        **{f"{name}_accuracy": np.array(counts) / num_test for name, counts in correct.items()},
        **{f"{name}_interval": _wilson(np.array(counts), num_test) for name, counts in correct.items()},
        "svm_cost": np.array(of("svm_cost")),
        "svm_gap": np.array(of("svm_gap"), dtype=np.float64),
        "at_edge": np.array(of("at_edge")),
        "cost_grid": np.array(cost_grid, dtype=np.float64),
        "cv_accuracy": np.array(of("cv_accuracy")),
        "held_out_accuracy": np.array(of("held_out_accuracy"), dtype=np.float64),
        "num_train": np.array(len(networks[0].train_labels)),
        "num_test": np.array(num_test),
    }


def _wilson(correct: ndarray, total: int) -> Float[ndarray, "n 2"]:
    """Lower and upper ends of the 95% Wilson intervals of correct / total; NaN where that is."""
    ends = np.full((len(correct), 2), np.nan)
    for row in np.flatnonzero(~np.isnan(correct)):
        interval = binomtest(round(correct[row]), total).proportion_ci(0.95, method="wilson")
        ends[row] = interval.low, interval.high
    return ends
