"""How linearly separable, and how contracted, the features are at each depth (section 5.1, Fig. 6)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import numpy as np

from analysis.cache import Cache
from analysis.experiment import StudyOptions
from analysis.probes.class_distances import distance_ratio
from analysis.probes.cost_selection import num_folds
from analysis.probes.network_features import NetworkFeatures
from analysis.probes.probing import LayerProbes, ProbeOptions, SVMRow, svm_scores, training_sets
from analysis.probes.saved_probes import FittedLayer, SavedProbes
from analysis.probes.scores import tabulate
from analysis.results import DepthProbeResult
from analysis.subjects import FeatureSubject, network_features
from irevnet.utils.precision import true_float32
from irevnet.utils.progress import Track, no_progress


@dataclass(frozen=True, kw_only=True)
class DepthProbeOptions(ProbeOptions, StudyOptions):
    """Options of `depth_probe`.

    Attributes:
        depths: blocks whose features are probed, from 1 on; every block by default.
        layers: names of modules to probe in place of blocks.
        save_probes: whether the fitted linear probes are saved beside the result, in the files `probes_files`, see
            `analysis.probes.saved_probes`. They are then fitted anew, also where their scores are known.
    """

    MOST_CLASSES: ClassVar[int | None] = 100  # as the paper's probes (section 5.1)

    depths: Sequence[int] | None = None
    layers: Sequence[str] | None = None
    save_probes: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.save_probes and self.shots is not None:
            raise ValueError("`save_probes` saves the probes of one training set, `shots` makes several; leave one out")


@true_float32()
def depth_probe(
    experiments: Sequence[FeatureSubject], options: DepthProbeOptions = DepthProbeOptions()
) -> DepthProbeResult:
    """Test accuracy of a linear SVM, of a 1-nearest-neighbour classifier and of other probes on each depth's features.

    The paper's protocol: features, averaged over space, are standardised by the mean and standard deviation of the
    training set; the SVM's C is cross-validated on a small part of the training set, and here checked on all of it, see
    `analysis.probes.cost_selection.choose_cost`; both classifiers are fitted to the whole training set and scored on
    the test set. What may stand beside these, `ProbeOptions` says.

    Args:
        experiments: the networks to compare, all of the same images; or features of one's own
            (`analysis.own_features.open_features`).
        options: depths to probe, and which probes.

    Raises:
        ValueError: no such depth, features that are not finite, or too few training images.
    """
    first, fitted = experiments[0], None
    layers = [each.layers(options.depths, options.layers) for each in experiments]
    networks = network_features(experiments, layers, DepthProbeResult.STUDY, options)
    if options.save_probes:
        check_can_be_fitted(networks[0], options)
        networks = [replace(net, cache=Cache()) for net in networks]
        fitted = [{} for _ in networks]
    result = probe_networks(
        networks, options, seed=first.seed, device=first.device, track=first.progress.track, fitted=fitted
    )
    if fitted is not None:
        files = probes_files(first.results_folder(DepthProbeResult.STUDY), len(experiments))
        for each, net, found, file in zip(experiments, networks, fitted, files, strict=True):
            saved = SavedProbes(name=net.name, network=each.network_identity(), classes=each.classes, layers=found)
            saved.save(file)
    return result


def probes_files(folder: Path, count: int) -> list[Path]:
    """The files of the saved probes of so many networks in the folder of a result."""
    name = f"{DepthProbeResult.STUDY}.probes"
    numbers = [""] if count == 1 else [f"-{number}" for number in range(1, count + 1)]
    return [folder / f"{name}{number}.npz" for number in numbers]


def check_can_be_fitted(net: NetworkFeatures, options: ProbeOptions) -> None:
    """Raises `ValueError` where there is nothing to choose C by."""
    if len(options.costs) > 1 and num_folds(net.train_labels) < 2:
        raise ValueError(
            "a class has one training image, which leaves none to choose the C of probes to save by; give one value by "
            "`cost_grid`"
        )


def probe_networks(
    networks: Sequence[NetworkFeatures],
    options: ProbeOptions = ProbeOptions(),
    *,
    seed: int = 0,
    device: str = "cpu",
    track: Track = no_progress,
    fitted: Sequence[dict[str, FittedLayer]] | None = None,
) -> DepthProbeResult:
    """The same of features that have been extracted.

    Args:
        networks: features of each network, all of the same images.
        options: which probes there are, and how they are fitted.
        seed: seed of the choice of images for cross-validation, of the folds, of the SVM solver and of few training
            images.
        device: device to compute on.
        track: shows progress.
        fitted: a dictionary for each network, to which the fitted probes of each layer are added by its name; of
            networks without a cache, from which no probe would come, and of one training set.
    """
    sets = training_sets(networks[0].train_labels, options, seed=seed)
    positions = [(number, position) for number, net in enumerate(networks) for position in range(len(net.layers))]
    rows = []
    for number, position in track(positions, "probing"):
        net, layer = networks[number], networks[number].layers[position]
        probes = [LayerProbes(net, layer, chosen, options, seed=seed, device=device) for chosen in sets]
        rows.append((number, layer, [_probe(each) for each in probes]))
        if fitted is not None:
            fitted[number][layer] = probes[0].fitted()
    ratios = np.array([[one["distance_ratio"] for one in found] for _, _, found in rows], dtype=np.float64)
    return DepthProbeResult(
        **tabulate(networks, rows, options),
        depth=np.array([networks[number].depths[position] for number, position in positions]),
        relative_depth=np.array([networks[number].relative_depths[position] for number, position in positions]),
        distance_ratio=ratios.mean(axis=1),
    )


class _Row(TypedDict):
    dims: int
    nn_correct: int
    distance_ratio: float | None


def _probe(probes: LayerProbes) -> dict[str, Any]:
    """The scores at one layer, as plain values."""
    settings = probes.options.settings(probes.seed) | probes.set_settings
    row = probes.net.cache.get(probes.part, lambda: _paper_probes(probes), SVMRow, _Row, **settings)
    (votes,) = probes.votes()
    return {**row, "svm": svm_scores(row), "logistic": probes.logistic(probes.part), "votes": votes}


def _paper_probes(probes: LayerProbes) -> dict[str, Any]:
    """Those of the SVM and of 1-NN, and the distances between the test images."""
    train, test = probes.coordinates
    (nn_correct,) = probes.nearest()
    ratio = distance_ratio(test, probes.test_labels)
    return {
        "dims": train.shape[1],
        "nn_correct": nn_correct,
        "distance_ratio": ratio if np.isfinite(ratio) else None,
        **probes.svm_row(),
    }
