"""The geometry of features at each depth: dimension, variance, neural collapse, similarity and the tunnel."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from analysis.experiment import StudyOptions
from analysis.geometry.jackknife import deal
from analysis.geometry.moments import parts
from analysis.geometry.similarity import Similarity, cka, unbiased_hsic
from analysis.probes.network_features import NetworkFeatures
from analysis.results import DepthProbeResult
from analysis.results.geometry import MEASURES, GeometryResult, no_tunnels
from analysis.studies.layer_geometry import LayerGeometry
from analysis.studies.tunnels import find_tunnels
from analysis.subjects import FeatureSubject, network_features
from irevnet.utils.precision import true_float32
from irevnet.utils.progress import Track, no_progress


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


@true_float32()
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
    layers = [
        LayerGeometry(networks[number], networks[number].layers[at], options.num_images, seed, device)
        for number, at in positions
    ]
    rows = [each.measure() for each in track(layers, "measuring")]
    pairs = _compare(layers, seed, track)
    curves = [each["curve"] for each in rows]
    laws = [each["law"] for each in rows]
    tunnels = find_tunnels(probed, seed, device, track) if probed else no_tunnels(len(layers), len(networks))
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
        **tunnels,
    )


def _compare(layers: Sequence[LayerGeometry], seed: int, track: Track) -> list[tuple[int, int, Similarity]]:
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
    layer: LayerGeometry,
    others: Sequence[LayerGeometry],
    groups: Int[ndarray, " images"],
    digests: Sequence[str],
    seed: int,
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


def _digest(features: Float[ndarray, "n dims"]) -> str:
    digest = hashlib.sha256(str((features.shape, features.dtype)).encode())
    for rows in parts(*features.shape):
        digest.update(np.ascontiguousarray(features[rows]).tobytes())
    return digest.hexdigest()
