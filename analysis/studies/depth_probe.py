"""How linearly separable, and how contracted, the features are at each depth (section 5.1, Fig. 6)."""

import functools
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

from analysis.probes.class_distances import distance_ratio
from analysis.probes.network_features import NetworkFeatures, SVMRow, probe_nearest, probe_svm, tabulate
from analysis.probes.pca import principal_components
from analysis.probes.svm_selection import COST_GRID, CV_IMAGES, Solver
from analysis.results import DepthProbeResult
from irevnet.utils.progress import Track, no_progress


def depth_probe(
    networks: Sequence[NetworkFeatures],
    *,
    cost_grid: Sequence[float] = COST_GRID,
    cv_images: int = CV_IMAGES,
    solver: Solver = "newton",
    seed: int = 0,
    device: str = "cpu",
    track: Track = no_progress,
) -> DepthProbeResult:
    """Test accuracy of a linear SVM and of a 1-nearest-neighbour classifier on the features of each depth.

    The paper's protocol: features are standardised by the mean and standard deviation of the training set; the SVM's C
    is cross-validated on a small part of the training set, and here checked on all of it, see
    `analysis.probes.svm_selection.choose_svm`; both classifiers are fitted to the whole training set and scored on the
    test set. They are shown the coordinates along the principal components, which changes nothing but the time that
    they take.

    Args:
        networks: their features, all of the same images.
        cost_grid: values of C to choose from.
        cv_images: training images used for cross-validation.
        solver: of the SVMs' problem.
        seed: of the choice of those images, of the folds and of the SVM solver.
        device: where to compute.
        track: shows progress.

    Raises:
        ValueError: features that are not finite, or too few images of a class to cross-validate.
    """
    options = {"cost_grid": sorted(cost_grid), "cv_images": cv_images, "solver": solver, "seed": seed}
    places = [(number, position) for number, net in enumerate(networks) for position in range(len(net.layers))]
    rows = []
    for number, position in track(places, "probing"):
        net, layer = networks[number], networks[number].layers[position]
        probe = functools.partial(_probe, net, layer, device, **options)
        result = net.cache.get(layer, probe, SVMRow, _Row, **options)
        rows.append((number, layer, result))
    return DepthProbeResult(
        **tabulate(networks, rows, options["cost_grid"]),
        depth=np.array([networks[number].depths[position] for number, position in places]),
        relative_depth=np.array([networks[number].relative_depths[position] for number, position in places]),
        distance_ratio=np.array([row["distance_ratio"] for _, _, row in rows], dtype=np.float64),
    )


class _Row(TypedDict):
    dims: int
    nn_correct: int
    distance_ratio: float | None


def _probe(net: NetworkFeatures, layer: str, device: str, **options: Any) -> dict[str, Any]:
    """What the probes make of one layer, as plain values."""
    components = principal_components(net.train[layer], device=device)
    train, test = (components.transform(features[layer]) for features in (net.train, net.test))
    (nn_correct,) = probe_nearest(train, net.train_labels, test, net.test_labels)
    ratio = distance_ratio(test, net.test_labels)
    return {
        "dims": train.shape[1],
        "nn_correct": nn_correct,
        "distance_ratio": ratio if np.isfinite(ratio) else None,
        **probe_svm(train, net.train_labels, test, net.test_labels, **options),
    }
