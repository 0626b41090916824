"""The geometry of features at each depth: dimension, variance, neural collapse, similarity and the tunnel."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from analysis.experiment import StudyOptions
from analysis.geometry.collapse import duality, nearest_means, simplex, variability
from analysis.geometry.dimension import TwoNN, default_halvings, two_nn_by_halving
from analysis.geometry.jackknife import deal, jackknife
from analysis.geometry.moments import Moments, grouped_moments, parts
from analysis.geometry.similarity import Similarity, cka, unbiased_hsic
from analysis.geometry.tunnel import find_tunnel
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
from analysis.results import DepthProbeResult
from analysis.results.base import finite_or_none
from analysis.results.geometry import MEASURES, GeometryResult, no_tunnels
from analysis.results.shares import wilson_interval
from analysis.studies.depth_probe import check_can_be_fitted, probe_networks
from analysis.subjects import FeatureSubject, network_features
from irevnet.utils.lookup import names_apart
from irevnet.utils.progress import Track, no_progress

JACKKNIFE_DIMS = 1024
"""Most features of an image whose covariance is kept for each group of images: 160 MiB."""

COST = 0.01
"""C of the SVM of NC3, the same at every depth, so that depths differ in their features alone."""

SVM_IMAGES = 50_000
"""Most training images that the SVM of NC3 is fitted to, which it takes at once."""

BY_JACKKNIFE = tuple(code for code in MEASURES if code not in ("two_nn", "nc4"))
"""Measures that are functions of the moments."""


@dataclass(frozen=True, kw_only=True)
class GeometryOptions(StudyOptions):
    """Options of `measure_geometry`.

    Attributes:
        depths: blocks whose features are measured, from 1 on; every block by default.
        layers: names of modules to measure in place of blocks.
        num_images: number of training images, drawn at random, among which neighbours are found for the intrinsic
            dimension; all where there are fewer.
    """

    MOST_CLASSES: ClassVar[int | None] = 100  # as the probes, whose features these are

    depths: Sequence[int] | None = None
    layers: Sequence[str] | None = None
    num_images: int = 10_000

    def __post_init__(self) -> None:
        if self.num_images < 3:
            raise ValueError(f"`num_images` is {self.num_images}; expected 3 or more, for two neighbours")


def measure_geometry(
    experiments: Sequence[FeatureSubject], options: GeometryOptions = GeometryOptions()
) -> GeometryResult:
    """Dimension, spectrum, neural collapse and similarity of the features of each depth, as the network has them.

    Unlike those of the probes, features are not standardised. What each measure is, the functions of
    `analysis.geometry` say.

    Args:
        experiments: the networks to compare, all of the same images; or features of one's own
            (`analysis.own_features.open_features`). The same networks with other data may follow, for the tunnel: its
            linear probes are those of `depth_probe`, with which finished parts are shared.
        options: depths to measure, and how many images have neighbours.

    Raises:
        ValueError: no such depth, features that are not finite or the same of all images, or other networks with other
            data.
    """
    first, by_data = experiments[0], _by_data(experiments)
    networks = _features(by_data[first.data_name], options, GeometryResult.STUDY)
    probed = {}
    if len(by_data) > 1:  # finished parts of linear probes are those of that study
        probed = {data: _features(each, options, DepthProbeResult.STUDY) for data, each in by_data.items()}
    return measure_networks(
        networks, options, probed=probed, seed=first.seed, device=first.device, track=first.progress.track
    )


def _by_data(experiments: Sequence[FeatureSubject]) -> dict[str, list[FeatureSubject]]:
    """The networks by the name of their data, all with the same; raises `ValueError` where one has others."""
    found: dict[str, list[FeatureSubject]] = {}
    for each in experiments:
        found.setdefault(each.data_name, []).append(each)
    own = experiments[0].data_name
    for data, others in found.items():
        if [each.network_identity() for each in others] != [each.network_identity() for each in found[own]]:
            raise ValueError(f"the networks with {data} are not those with {own}; give the same, in the same order")
    return found


def _features(experiments: Sequence[FeatureSubject], options: GeometryOptions, parts: str) -> list[NetworkFeatures]:
    """Features of the layers asked for; the finished parts that are kept with them are those of the study `parts`."""
    layers = [each.layers(options.depths, options.layers) for each in experiments]
    return network_features(experiments, layers, GeometryResult.STUDY, parts=parts)


def measure_networks(
    networks: Sequence[NetworkFeatures],
    options: GeometryOptions = GeometryOptions(),
    *,
    probed: Mapping[str, Sequence[NetworkFeatures]] | None = None,
    seed: int = 0,
    device: str = "cpu",
    track: Track = no_progress,
) -> GeometryResult:
    """The same of features that have been extracted.

    Args:
        networks: features of each network, all of the same images.
        options: how many images have neighbours.
        probed: by the name of the data, features of each network for linear probes, of its own data first, then of
            other data, at the same layers; without any, no tunnel is looked for.
        seed: seed of the choice of images, of groups, of the bootstrap and of the SVM.
        device: device to find neighbours and fit the SVM on.
        track: shows progress.
    """
    positions = [(number, layer) for number, net in enumerate(networks) for layer in range(len(net.layers))]
    layers = [_Layer(networks[number], networks[number].layers[at], options, seed, device) for number, at in positions]
    rows = [each.measure() for each in track(layers, "measuring")]
    pairs = _compare(layers, seed, track)
    curves = [each["curve"] for each in rows]
    laws = [each["law"] for each in rows]
    tunnels = _find_tunnels(probed or {}, seed, device, track)
    return GeometryResult(
        networks=np.array([net.name for net in networks]),
        network=np.array([number for number, _ in positions]),
        layer=np.array([each.name for each in layers]),
        depth=np.array([networks[number].depths[at] for number, at in positions]),
        relative_depth=np.array([networks[number].relative_depths[at] for number, at in positions], dtype=np.float64),
        dims=np.array([each.train.shape[1] for each in layers]),
        measures=np.array(list(MEASURES)),
        value=np.array([[each["value"][code] for code in MEASURES] for each in rows], dtype=np.float64),
        interval=np.array([[each["interval"][code] for code in MEASURES] for each in rows], dtype=np.float64),
        two_nn_error=np.array([curve[0]["error"] for curve in curves]),
        copies=np.array([curve[0]["copies"] for curve in curves]),
        part_images=np.array([[curve[0]["points"] // 2**at for at in range(len(curve))] for curve in curves]),
        part_dimension=np.array([[part["dimension"] if part else np.nan for part in curve] for curve in curves]),
        part_interval=np.array([[part["interval"] if part else [np.nan] * 2 for part in curve] for curve in curves]),
        fit_ranks=np.array([law["ranks"] if law else [0, 0] for law in laws]),
        fit_scale=np.array([law["scale"] if law else np.nan for law in laws]),
        fit_r2=np.array([law["r2"] if law else np.nan for law in laws]),
        eigenvalue=np.concatenate([each["variance"] for each in rows]),
        eigenvalue_row=np.repeat(np.arange(len(rows)), [len(each["variance"]) for each in rows]),
        first=np.array([first for first, _, _ in pairs]),
        second=np.array([second for _, second, _ in pairs]),
        cka=np.array([found.value for *_, found in pairs]),
        cka_interval=np.array([found.interval for *_, found in pairs]),
        num_images=np.array(min(options.num_images, len(networks[0].train_labels))),
        num_train=np.array(len(networks[0].train_labels)),
        num_test=np.array(len(networks[0].test_labels)),
        **(tunnels or no_tunnels(len(positions), len(networks))),
    )


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


class _Layer:
    """The features of one layer of a network, and the parts of the study that are of it alone."""

    def __init__(self, net: NetworkFeatures, name: str, options: GeometryOptions, seed: int, device: str):
        self.net = net
        self.name = name
        self.train, self.test = net.train[name], net.test[name]
        self._options = options
        self._seed = seed
        self._device = device

    def measure(self) -> dict[str, Any]:
        """All measures with their intervals, the curve of the dimension, the power law and the eigenvalues.

        Raises `ValueError`, with the name of the layer, where one is not defined.
        """
        get, seed = self.net.cache.get, self._seed
        try:
            count = min(self._options.num_images, len(self.train))
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


SEEN = 1e-3
"""Largest difference, over the largest logit, between a network's logits and its last linear layer's of features, for
these to be what it sees: far above the rounding of float32, and far below any other difference."""


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


def _compare(layers: Sequence[_Layer], seed: int, track: Track) -> list[tuple[int, int, Similarity]]:
    """CKA of any two layers on the test images, by the numbers of both, the first at most the second."""
    groups = deal(layers[0].net.test_labels, seed=seed)
    digests = [_digest(each.test) for each in layers]
    found = [
        _compare_with(layers[row], layers[row:], groups, digests[row:], seed)
        for row in track(range(len(layers)), "comparing")
    ]
    return [
        (row, row + after, cka(both, found[row][0], found[row + after][0]))
        for row in range(len(layers))
        for after, both in enumerate(found[row])
    ]


def _compare_with(
    layer: _Layer, others: Sequence[_Layer], groups: Int[ndarray, " images"], digests: Sequence[str], seed: int
) -> Float[ndarray, "others subsets"]:
    """HSIC of a layer with itself and those after it; a finished part, by the contents of their features."""
    part = layer.net.cache.get(
        f"{layer.name}-similarity",
        lambda: {"hsic": np.array([unbiased_hsic(layer.test, each.test, groups) for each in others])},
        arrays=["hsic"],
        features_sha256=list(digests),
        seed=seed,
    )
    return part["hsic"]


def _find_tunnels(
    probed: Mapping[str, Sequence[NetworkFeatures]], seed: int, device: str, track: Track
) -> dict[str, ndarray]:
    """The fields of a result that say how linear probes do on each of the data, and where tunnels are."""
    if not probed:
        return {}
    for networks in probed.values():
        check_can_be_fitted(networks[0], ProbeOptions())
    found = [probe_networks(networks, seed=seed, device=device, track=track) for networks in probed.values()]
    totals = np.array([len(networks[0].test_labels) for networks in probed.values()])
    right = np.rint(np.array([each.svm_accuracy for each in found]) * totals[:, None]).astype(np.int64)
    network, depth = found[0].network, found[0].depth.astype(np.float64)
    tunnels = []
    for number in np.unique(network):
        rows = np.flatnonzero(network == number)
        rows = rows[np.argsort(depth[rows], kind="stable")]
        tunnel = find_tunnel(right[0, rows], int(totals[0]), right[1:, rows], totals[1:], seed=seed)
        tunnels.append((depth[rows][tunnel.start], depth[rows][tunnel.peak], tunnel.change))
    start, peak, change = map(np.array, zip(*tunnels))
    return {
        "probe_data": np.array(names_apart([Path(name).name for name in probed], list(probed))),
        "probe_accuracy": np.stack([each.svm_accuracy for each in found], axis=1),
        "probe_interval": np.stack([each.svm_interval for each in found], axis=1),
        "tunnel_start": start,
        "other_peak": peak,
        "other_change": change,
    }


def _digest(features: Float[ndarray, "n dims"]) -> str:
    digest = hashlib.sha256(str((features.shape, features.dtype)).encode())
    for rows in parts(*features.shape):
        digest.update(np.ascontiguousarray(features[rows]).tobytes())
    return digest.hexdigest()


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
