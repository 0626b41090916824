"""How linearly separable, and how contracted, the features are at each depth (section 5.1, Fig. 6)."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import numpy as np

from analysis.experiment import FeatureSubject, StudyOptions, network_features
from analysis.probes.class_distances import distance_ratio
from analysis.probes.network_features import (
    NetworkFeatures,
    ProbeOptions,
    SVMRow,
    probe_nearest,
    probe_svm,
    tabulate,
)
from analysis.probes.pca import principal_components
from analysis.results import DepthProbeResult
from irevnet.utils.progress import Track, no_progress


@dataclass(frozen=True, kw_only=True)
class DepthProbeOptions(ProbeOptions, StudyOptions):
    """Options of `depth_probe`.

    Attributes:
        depths: blocks whose features are probed, from 1 on; every block by default.
        layers: names of modules to probe in place of blocks.
    """

    MOST_CLASSES: ClassVar[int | None] = 100  # as the paper's probes (section 5.1)

    depths: Sequence[int] | None = None
    layers: Sequence[str] | None = None


def depth_probe(
    experiments: Sequence[FeatureSubject], options: DepthProbeOptions = DepthProbeOptions()
) -> DepthProbeResult:
    """Test accuracy of a linear SVM and of a 1-nearest-neighbour classifier on the features of each depth.

    The paper's protocol: features, averaged over space, are standardised by the mean and standard deviation of the
    training set; the SVM's C is cross-validated on a small part of the training set, and here checked on all of it, see
    `analysis.probes.svm_selection.choose_svm`; both classifiers are fitted to the whole training set and scored on the
    test set.

    Args:
        experiments: the networks to compare, all of the same images; or features of one's own
            (`analysis.own_features.open_features`).
        options: depths to probe, and settings of the SVM.

    Raises:
        ValueError: no such depth, features that are not finite, or too few images of a class to cross-validate.
    """
    first = experiments[0]
    layers = [each.layers(options.depths, options.layers) for each in experiments]
    networks = network_features(experiments, layers, DepthProbeResult.STUDY)
    return probe_networks(networks, options, seed=first.seed, device=first.device, track=first.progress.track)


def probe_networks(
    networks: Sequence[NetworkFeatures],
    options: ProbeOptions = ProbeOptions(),
    *,
    seed: int = 0,
    device: str = "cpu",
    track: Track = no_progress,
) -> DepthProbeResult:
    """The same of features that have been extracted.

    Both classifiers are shown the coordinates along the principal components, which changes nothing but the time that
    they take.

    Args:
        networks: features of each network, all of the same images.
        options: how the SVM is fitted.
        seed: seed of the choice of images for cross-validation, of the folds and of the SVM solver.
        device: device to compute on.
        track: shows progress.
    """
    settings = options.settings(seed)
    positions = [(number, position) for number, net in enumerate(networks) for position in range(len(net.layers))]
    rows = []
    for number, position in track(positions, "probing"):
        net, layer = networks[number], networks[number].layers[position]
        probe = functools.partial(_probe, net, layer, options, seed=seed, device=device)
        rows.append((number, layer, net.cache.get(layer, probe, SVMRow, _Row, **settings)))
    return DepthProbeResult(
        **tabulate(networks, rows, settings["cost_grid"]),
        depth=np.array([networks[number].depths[position] for number, position in positions]),
        relative_depth=np.array([networks[number].relative_depths[position] for number, position in positions]),
        distance_ratio=np.array([row["distance_ratio"] for _, _, row in rows], dtype=np.float64),
    )


class _Row(TypedDict):
    dims: int
    nn_correct: int
    distance_ratio: float | None


def _probe(net: NetworkFeatures, layer: str, options: ProbeOptions, *, seed: int, device: str) -> dict[str, Any]:
    """The probes' scores at one layer, as plain values."""
    components = principal_components(net.train[layer], device=device)
    train, test = (components.transform(features[layer]) for features in (net.train, net.test))
    (nn_correct,) = probe_nearest(train, net.train_labels, test, net.test_labels)
    ratio = distance_ratio(test, net.test_labels)
    return {
        "dims": train.shape[1],
        "nn_correct": nn_correct,
        "distance_ratio": ratio if np.isfinite(ratio) else None,
        **probe_svm(train, net.train_labels, test, net.test_labels, options, seed=seed),
    }
