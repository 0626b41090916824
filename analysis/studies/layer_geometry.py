"""What the study of geometry measures of one layer by itself: dimension, variance and neural collapse."""

from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from analysis.geometry.collapse import duality, nearest_means, simplex, variability
from analysis.geometry.dimension import TwoNN, default_halvings, two_nn_by_halving
from analysis.geometry.jackknife import deal, jackknife
from analysis.geometry.moments import Moments, grouped_moments, parts
from analysis.geometry.variance import (
    default_ranks,
    dims_holding,
    effective_rank,
    eigenvalues,
    fit_power_law,
    participation_ratio,
)
from analysis.probes.network_features import NetworkFeatures
from analysis.probes.probing import LayerProbes, ProbeOptions, TrainingSet
from analysis.results.base import finite_or_none
from analysis.results.geometry import MEASURES
from analysis.results.shares import wilson_interval

JACKKNIFE_DIMS = 1024
"""Most features of an image whose covariance is kept for each group of images: 160 MiB."""

COST = 0.01
"""C of the SVM of NC3, the same at every depth, so that depths differ in their features alone."""

SVM_IMAGES = 50_000
"""Most training images that the SVM of NC3 is fitted to, which it takes at once."""

BY_JACKKNIFE = tuple(code for code in MEASURES if code not in ("two_nn", "nc4"))
"""Measures that are functions of the moments."""

SEEN = 1e-3
"""Largest difference, over the largest logit, between a network's logits and its last linear layer's of features, for
these to be what it sees: far above the rounding of float32, and far below any other difference."""


class _Part(TypedDict):
    dimension: float
    error: float
    interval: list[float]
    points: int
    copies: int


class _Curve(TypedDict):
    curve: list[_Part | None]


class _Law(TypedDict):
    alpha: float
    scale: float
    r2: float
    ranks: list[int]


class _Moments(TypedDict):
    value: dict[str, float | None]
    interval: dict[str, list[float | None]]
    law: _Law | None


class LayerGeometry:
    """The features of one layer of a network, and the parts of the study that are of it alone."""

    def __init__(self, net: NetworkFeatures, name: str, num_images: int, seed: int, device: str):
        self.net = net
        self.name = name
        self.train, self.test = net.train[name], net.test[name]
        self._num_images = num_images
        self._seed = seed
        self._device = device

    def measure(self) -> dict[str, Any]:
        """All measures with their intervals, the curve of the dimension, the power law and the eigenvalues.

        Raises `ValueError`, with the name of the layer, where one is not defined.
        """
        get, seed = self.net.cache.get, self._seed
        try:
            count = min(self._num_images, len(self.train))
            curve = get(f"{self.name}-dimension", lambda: self._curve(count), _Curve, seed=seed, num_images=count)
            # Parts without the version may have an NC1 of rounding alone, of features far from 0.
            settings = {"seed": seed, "version": 2}
            moments = get(f"{self.name}-moments", self._moments, _Moments, arrays=["variance"], **settings)
        except ValueError as error:
            raise ValueError(
                f"{self.name} of {self.net.name}: {error}; leave it out by `depths` or `layers`"
            ) from error
        whole = curve["curve"][0]
        return {
            **curve,
            **moments,
            "value": {"two_nn": whole["dimension"], **moments["value"]},
            "interval": {"two_nn": whole["interval"], **moments["interval"]},
        }

    def _curve(self, count: int) -> dict[str, Any]:
        """The intrinsic dimension of images that are drawn, of halves of them, and so on."""
        rng = np.random.default_rng(self._seed)
        rows = np.sort(rng.choice(len(self.train), count, replace=False))
        halvings = default_halvings(count)
        found = two_nn_by_halving(self.train[rows], halvings=halvings, seed=self._seed, device=self._device)
        return {"curve": [None if each is None else _plain(each) for each in found]}

    def _moments(self) -> dict[str, Any]:
        """Everything else: one pass over the training features, one over those of the test images, and the SVM."""
        labels = self.net.train_labels
        counts = np.bincount(labels)
        grouped = self.train.shape[1] <= JACKKNIFE_DIMS and counts.min() > 1
        groups = deal(labels, seed=self._seed) if grouped else np.zeros(len(labels), dtype=np.int64)
        each = grouped_moments(self.train, labels, groups)
        whole = sum(each[1:], each[0])
        variance = eigenvalues(whole.covariance)
        ranks = default_ranks(variance)
        weights = {"nc3": self._own_weights(), "nc3_svm": self._svm_weights()}
        values = [_statistics(whole, ranks, weights)]
        if grouped:
            values += [_statistics(whole - one, ranks, weights) for one in each]
            least = np.array([-np.inf if code == "alpha" else 0.0 for code in BY_JACKKNIFE])
            ends = np.maximum(jackknife(np.array(values)), least[:, None])
        else:
            ends = np.full((len(BY_JACKKNIFE), 2), np.nan)
        disagreeing, of_disagreeing = self._disagreeing(whole.means)
        law = fit_power_law(variance, ranks) if ranks else None
        return {
            "value": {**dict(zip(BY_JACKKNIFE, map(finite_or_none, values[0]))), "nc4": disagreeing},
            "interval": {**dict(zip(BY_JACKKNIFE, map(_ends, ends))), "nc4": of_disagreeing},
            "law": None if law is None else {**vars(law), "ranks": list(law.ranks)},
            "variance": variance,
        }

    def _own_weights(self) -> Float[ndarray, "classes dims"] | None:
        """Those of the network's last linear layer, if the features of this layer are what it sees."""
        if self.net.classifier is None or self.net.columns is None:
            return None
        weights, bias = self.net.classifier
        logits = self.net.test_logits
        if weights.shape != (logits.shape[1], self.test.shape[1]):
            return None
        most = SEEN * float(np.abs(logits).max())
        for rows in parts(*self.test.shape):
            if np.abs(self.test[rows].astype(np.float64) @ weights.T + bias - logits[rows]).max() > most:
                return None
        return weights[self.net.columns]

    def _svm_weights(self) -> Float[ndarray, "classes dims"]:
        """Those of the probes' SVM with C = `COST`, for features as they are."""
        options = ProbeOptions(cost_grid=(COST,))
        rows = draw_of_each_class(self.net.train_labels, SVM_IMAGES, seed=self._seed)
        chosen = TrainingSet(rows=rows, settings={})
        probes = LayerProbes(self.net, self.name, chosen, options, seed=self._seed, device=self._device)
        probes.chosen_svm()
        fitted = probes.fitted()
        coef, _ = fitted.weights["svm"]
        return coef / fitted.scale

    def _disagreeing(self, means: Float[ndarray, "classes dims"]) -> tuple[float | None, list[float | None]]:
        """The share of the test images whose nearest class mean is not the network's answer, with Wilson's interval."""
        if self.net.columns is None:
            return None, [None, None]
        answers = self.net.test_logits[:, self.net.columns].argmax(axis=1)
        count = int(np.count_nonzero(nearest_means(self.test, means) != answers))
        return count / len(answers), list(wilson_interval(count, len(answers)))


def _statistics(
    found: Moments, ranks: tuple[int, int] | None, weights: dict[str, Float[ndarray, "classes dims"] | None]
) -> Float[ndarray, " measures"]:
    """The measures `BY_JACKKNIFE`; NaN where one is not known."""
    variance, means = eigenvalues(found.covariance), found.means
    values = {"participation_ratio": participation_ratio(variance), "effective_rank": effective_rank(variance)}
    values |= {f"dims_{share}": float(dims_holding(variance, share / 100)) for share in (90, 95, 99)}
    values["alpha"] = fit_power_law(variance, ranks).alpha if ranks else np.nan
    values["nc1"] = variability(found.within, means) if found.counts.max() > 1 else np.nan
    values |= zip(("nc2_norms", "nc2_cosines", "nc2_angles"), simplex(means))
    values |= {code: np.nan if each is None else duality(each, means) for code, each in weights.items()}
    return np.array([values[code] for code in BY_JACKKNIFE])


def draw_of_each_class(labels: Int[ndarray, " n"], most: int, *, seed: int) -> Int[ndarray, " rows"] | None:
    """Rows of so many images drawn at random, of each class at least one; `None` for all where there are no more.

    >>> draw_of_each_class(np.array([0, 0, 0, 0, 1]), 2, seed=0)[1]
    np.int64(4)
    """
    if len(labels) <= most:
        return None
    order = np.random.default_rng(seed).permutation(len(labels))
    first = np.unique(labels[order], return_index=True)[1]
    others = np.delete(order, first)
    return np.sort(np.concatenate([order[first], others[: max(0, most - len(first))]]))


def _plain(found: TwoNN) -> dict[str, Any]:
    return {**vars(found), "interval": list(found.interval)}


def _ends(interval: Float[ndarray, " 2"]) -> list[float | None]:
    return [finite_or_none(end) for end in interval]
