"""The probes of section 5, a linear SVM and the nearest neighbour, and those that may stand beside them; how they are
fitted and scored at one layer, and what becomes of their scores."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from analysis.probes.cost_selection import (
    COST_GRID,
    CV_IMAGES,
    ChosenProbe,
    Probe,
    Solver,
    choose_logistic,
    choose_svm,
    count_right,
    num_folds,
)
from analysis.probes.nearest_neighbour import nearest_neighbours
from analysis.probes.neighbour_votes import Metric, classify
from analysis.probes.network_features import NetworkFeatures
from analysis.probes.pca import principal_components
from analysis.probes.saved_probes import FittedLayer

DRAWS = 5
"""Number of sets of few training images, over which accuracies are averaged."""


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """Which probes there are, how they are fitted, and to which training images.

    A linear SVM and the nearest training image in Euclidean distance, 1-NN, are always there.

    Attributes:
        cost_grid: values of C to choose from, see `analysis.probes.cost_selection.choose_cost`; a single one is used as
            it is.
        cv_images: number of training images used for cross-validation.
        solver: solver of the SVM's problem.
        logistic: whether there is a logistic regression, too.
        neighbours: numbers of nearest neighbours k that vote, see `analysis.probes.neighbour_votes`.
        metric: measure by which these are nearest.
        shots: number of training images of each class in the sets that probes are fitted to; `None` for all images.
        draws: number of such sets, each drawn at random; `None` for `DRAWS`.
    """

    cost_grid: Sequence[float] = COST_GRID
    cv_images: int = CV_IMAGES
    solver: Solver = "newton"
    logistic: bool = False
    neighbours: Sequence[int] = (1,)
    metric: Metric = "euclidean"
    shots: int | None = None
    draws: int | None = None

    def __post_init__(self) -> None:
        if len(self.cost_grid) == 0 or not all(0 < cost < float("inf") for cost in self.cost_grid):
            raise ValueError(f"`cost_grid` is {list(self.cost_grid)}; expected one or several positive numbers")
        if len(self.neighbours) == 0 or min(self.neighbours) < 1:
            raise ValueError(f"`neighbours` is {list(self.neighbours)}; expected one or several numbers from 1 on")
        if self.shots is not None and self.shots < 1:
            raise ValueError(f"`shots` is {self.shots}; expected a number of images from 1 on")
        if self.draws is not None and self.shots is None:
            raise ValueError(f"`draws` is {self.draws}, and there are no sets to draw; give `shots`, or leave it out")
        if self.draws is not None and self.draws < 2:
            raise ValueError(f"`draws` is {self.draws}; expected at least 2, whose spread gives the interval")

    @property
    def num_draws(self) -> int:
        """Number of sets of few training images; 0 if there are none."""
        return 0 if self.shots is None else self.draws or DRAWS

    @property
    def costs(self) -> list[float]:
        """Values of C in increasing order."""
        return sorted({float(cost) for cost in self.cost_grid})

    @property
    def votes(self) -> list[int]:
        """Numbers of neighbours in increasing order, without 1-NN, which is always there."""
        return sorted({k for k in self.neighbours if (k, self.metric) != (1, "euclidean")})

    @property
    def further(self) -> list[str]:
        """Codes of the probes beside the SVM and 1-NN, see `analysis.results.probes.probe_name`."""
        suffix = "_cosine" if self.metric == "cosine" else ""
        return ["logistic"] * self.logistic + [f"{k}nn{suffix}" for k in self.votes]

    def settings(self, seed: int) -> dict[str, Any]:
        """What the SVM depends on beside its features, as plain values."""
        return {"cost_grid": self.costs, "cv_images": self.cv_images, "solver": self.solver, "seed": seed}


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingSet:
    """Training images that probes are fitted to.

    Attributes:
        rows: rows of the training images; `None` for all.
        name: what it is called in the names of finished parts; `""` for all images.
        settings: what it depends on, as plain values; nothing for all images.
    """

    rows: Int[ndarray, " images"] | None = None
    name: str = ""
    settings: Mapping[str, Any]


def training_sets(labels: Int[ndarray, " n"], options: ProbeOptions, *, seed: int) -> list[TrainingSet]:
    """The whole training set or, with `shots`, so many sets of N images of each class as there are `draws`.

    Sets are drawn one by one from the seed and their number, so that more draws leave the first as they are, and are
    the same for every network.

    Raises `ValueError` for a class with fewer than N images, or fewer images in a set than neighbours that vote.
    """
    classes, counts = np.unique(labels, return_counts=True)
    check_neighbours(counts, options)
    if options.shots is None:
        return [TrainingSet(settings={})]
    if counts.min() < options.shots:
        raise ValueError(
            f"a class has {counts.min()} training images; `shots` asks for {options.shots} of each; lower it"
        )
    return [
        TrainingSet(
            rows=_draw(labels, classes, options.shots, np.random.default_rng([seed, number])),
            name=f"-{options.shots}-shots-{number}",
            settings={"shots": options.shots, "draw": number},
        )
        for number in range(options.num_draws)
    ]


def check_neighbours(counts: Int[ndarray, " classes"], options: ProbeOptions) -> None:
    """Raises `ValueError` if more neighbours are to vote than a training set has images; `counts` are those of each
    class."""
    images = options.shots * len(counts) if options.shots else int(counts.sum())
    if max(options.neighbours) > images:
        raise ValueError(
            f"`neighbours` asks for {max(options.neighbours)} nearest neighbours, but probes are fitted to {images} "
            "training images; lower it"
        )


def _draw(labels: ndarray, classes: ndarray, shots: int, rng: np.random.Generator) -> Int[ndarray, " images"]:
    rows = [rng.choice(np.flatnonzero(labels == label), shots, replace=False) for label in classes]
    return np.sort(np.concatenate(rows))


class Scores(TypedDict):
    """How a linear probe does on the test images, and how its C was chosen; all `None` where it could not be."""

    correct: int | None
    cost: float | None
    gap: float | None
    at_edge: bool
    cv_accuracy: list[float | None]
    held_out_accuracy: list[float | None]


class SVMRow(TypedDict):
    """Those of the SVM, as finished parts have them."""

    svm_correct: int | None
    svm_cost: float | None
    svm_gap: float | None
    at_edge: bool
    cv_accuracy: list[float | None]
    held_out_accuracy: list[float | None]


SVM_KEYS = {"correct": "svm_correct", "cost": "svm_cost", "gap": "svm_gap"}
"""Names of scores that are other ones in the finished parts of the SVM."""


def svm_scores(row: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of the SVM from a finished part."""
    return {key: row[SVM_KEYS.get(key, key)] for key in Scores.__annotations__}


class Votes(TypedDict):
    """How many test images the neighbours classify right, for each number of components and each k."""

    correct: list[list[int]]


class LayerProbes:
    """The probes of one layer, fitted to one training set; features are read and rotated when they are first needed.

    They are shown the coordinates along the principal components of their own training set, which changes nothing but
    the time that they take.

    Args:
        net: features of the network.
        layer: name of the layer.
        chosen: training images that the probes are fitted to.
        options: which probes there are, and how they are fitted.
        seed: seed of the choice of images for cross-validation, of the folds and of the SVM solver.
        device: device to compute on.
    """

    def __init__(
        self, net: NetworkFeatures, layer: str, chosen: TrainingSet, options: ProbeOptions, *, seed: int, device: str
    ):
        self.net = net
        self.layer = layer
        self.options = options
        self.part = f"{layer}{chosen.name}"  # of the names of finished parts
        self.seed = seed
        self.set_settings = {**chosen.settings, "seed": seed} if chosen.settings else {}
        self._rows = slice(None) if chosen.rows is None else chosen.rows
        self._device = device
        self._fitted: dict[str, Probe] = {}
        self.labels = net.train_labels[self._rows]
        self.test_labels = net.test_labels

    @functools.cached_property
    def components(self):
        """The standardisation and the principal axes of the training set."""
        return principal_components(self._train, device=self._device)

    @functools.cached_property
    def coordinates(self) -> tuple[Tensor, Tensor]:
        """Coordinates of the training and of the test images."""
        return self.components.transform(self._train), self.components.transform(self.net.test[self.layer])

    @property
    def _train(self) -> ndarray:
        return self.net.train[self.layer][self._rows]

    def chosen_svm(self, d: int | None = None) -> ChosenProbe | None:
        """The SVM on the first d components, or on all; `None` where there is nothing to choose its C by."""
        return self._choose("svm", choose_svm, d, solver=self.options.solver)

    def chosen_logistic(self, d: int | None = None) -> ChosenProbe | None:
        """The same of the logistic regression."""
        return self._choose("logistic", choose_logistic, d)

    def _choose(self, code: str, choose: Any, d: int | None, **options: Any) -> ChosenProbe | None:
        costs = self.options.costs
        if len(costs) > 1 and num_folds(self.labels) < 2:
            return None
        train, _ = self.coordinates
        options |= {"cost_grid": costs, "cv_images": self.options.cv_images, "seed": self.seed}
        chosen: ChosenProbe = choose(train[:, :d], self.labels, **options)
        self._fitted[code] = chosen.probe
        return chosen

    def fitted(self) -> FittedLayer:
        """The linear probes that were fitted last, as those of the layer's features."""
        return FittedLayer.of(self.components, self._fitted)

    def scores(self, chosen: ChosenProbe | None, d: int | None = None) -> Scores:
        """How a probe on the first d components does on the test images, as plain values."""
        if chosen is None:
            unknown: list[float | None] = [None] * len(self.options.costs)
            return Scores(
                correct=None, cost=None, gap=None, at_edge=False, cv_accuracy=unknown, held_out_accuracy=unknown
            )
        _, test = self.coordinates
        return Scores(
            correct=count_right(chosen.probe, test[:, :d], self.test_labels),
            cost=chosen.cost,
            gap=chosen.gap,
            at_edge=chosen.at_edge,
            cv_accuracy=_without_nan(chosen.cv_accuracy),
            held_out_accuracy=_without_nan(chosen.held_out_accuracy),
        )

    def svm_row(self, d: int | None = None) -> dict[str, Any]:
        """The scores of the SVM on the first d components, as finished parts have them."""
        return {SVM_KEYS.get(key, key): value for key, value in self.scores(self.chosen_svm(d), d).items()}

    def nearest(self, dims: Sequence[int] | None = None) -> list[int]:
        """How many test images have the class of their nearest training image, for each number of components."""
        train, test = self.coordinates
        found = nearest_neighbours(train, test, dims=dims)
        return np.count_nonzero(self.labels[found] == self.test_labels, axis=1).tolist()

    def logistic(self, part: str, d: int | None = None) -> dict[str, Any] | None:
        """The scores of the logistic regression, if there is one; a finished part of that name."""
        if not self.options.logistic:
            return None
        settings = {key: value for key, value in self.options.settings(self.seed).items() if key != "solver"}
        return self.net.cache.get(
            f"{part}-logistic",
            lambda: dict(self.scores(self.chosen_logistic(d), d)),
            Scores,
            probe="logistic",
            **settings | self.set_settings,
        )

    def votes(self, dims: Sequence[int] | None = None) -> list[list[int]]:
        """How many test images the neighbours classify right, for each number of components and each k; a finished
        part."""
        if not self.options.votes:
            return [[] for _ in dims or [0]]
        settings = {"neighbours": self.options.votes, "metric": self.options.metric, "dims": dims and list(dims)}
        settings |= self.set_settings
        return self.net.cache.get(f"{self.part}-neighbours", lambda: self._count_votes(dims), Votes, **settings)[
            "correct"
        ]

    def _count_votes(self, dims: Sequence[int] | None) -> dict[str, Any]:
        train, test = self.coordinates
        options: dict[str, Any] = {"neighbours": self.options.votes, "metric": self.options.metric, "dims": dims}
        found = classify(train, self.labels, test, **options)
        return {"correct": np.count_nonzero(found == self.test_labels, axis=2).tolist()}


def _without_nan(values: ndarray) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]
