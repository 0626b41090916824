"""How few principal components the classes need (section 5.2, Fig. 7)."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import numpy as np

from analysis.experiment import StudyOptions
from analysis.probes.network_features import NetworkFeatures
from analysis.probes.probing import LayerProbes, ProbeOptions, SVMRow, TrainingSet, svm_scores, training_sets
from analysis.probes.scores import tabulate
from analysis.results import PCASweepResult
from analysis.subjects import FeatureSubject, network_features
from irevnet.utils.precision import true_float32
from irevnet.utils.progress import Track, no_progress


@dataclass(frozen=True, kw_only=True)
class PCASweepOptions(ProbeOptions, StudyOptions):
    """Options of `pca_sweep`.

    Attributes:
        dims: numbers of components, d; by default `default_dims`. All components are always among them.
        depth: the block whose features are looked at, from 1 on; the last by default.
        layer: name of a module to look at in place of a block.
    """

    MOST_CLASSES: ClassVar[int | None] = 100  # as the paper's probes (section 5.1)

    dims: Sequence[int] | None = None
    depth: int | None = None
    layer: str | None = None


def default_dims(total: int) -> list[int]:
    """Numbers of components to try: all powers of the square root of 2, rounded, up to `total`, and that.

    >>> default_dims(24)
    [1, 2, 3, 4, 6, 8, 11, 16, 23, 24]
    """
    return sorted({min(total, round(2 ** (k / 2))) for k in range(2 * total.bit_length() + 1)})


@true_float32()
def pca_sweep(experiments: Sequence[FeatureSubject], options: PCASweepOptions = PCASweepOptions()) -> PCASweepResult:
    """Test accuracy of a linear SVM, of 1-NN and of other probes on the first d principal components, against d.

    Features, averaged over space, are standardised on the training set, then rotated to their principal components, and
    never standardised again: the SVM on d components is the SVM on the first d columns. Its C is chosen anew for every
    d, see `analysis.probes.cost_selection.choose_cost`, so that no accuracy is lost to a C that was meant for another
    d. What may stand beside these, `ProbeOptions` says.

    Args:
        experiments: the networks to compare, all of the same images; or features of one's own
            (`analysis.own_features.open_features`).
        options: which layer and numbers of components, and which probes.

    Raises:
        ValueError: no such depth, a d that not all networks have, features that are not finite, or too few training
            images.
    """
    first = experiments[0]
    depths = None if options.depth is None else [options.depth]
    names = None if options.layer is None else [options.layer]
    layers = [each.layers(depths, names) for each in experiments]
    if several := next((each for each in layers if names and len(each) > 1), None):
        raise ValueError(f"{len(several)} layers fit `layer` {options.layer!r}; name one, such as {several[-1].name}")
    layers = [each[-1:] for each in layers]
    networks = network_features(experiments, layers, PCASweepResult.STUDY, options)
    return sweep_networks(networks, options, seed=first.seed, device=first.device, track=first.progress.track)


def sweep_networks(
    networks: Sequence[NetworkFeatures],
    options: PCASweepOptions = PCASweepOptions(),
    *,
    seed: int = 0,
    device: str = "cpu",
    track: Track = no_progress,
) -> PCASweepResult:
    """The same of features that have been extracted.

    Args:
        networks: features of each network at one layer, all of the same images.
        options: numbers of components, and probes that are shown them.
        seed: seed of the choice of images for cross-validation, of the folds, of the SVM solver and of few training
            images.
        device: device to compute on.
        track: shows progress.
    """
    sets = training_sets(networks[0].train_labels, options, seed=seed)
    sweeps = [[_Sweep(network, chosen, options, seed=seed, device=device) for chosen in sets] for network in networks]
    points = [(number, d) for number, (sweep, *_) in enumerate(sweeps) for d in sweep.dims]
    rows = [
        (number, networks[number].layers[0], [sweep.at(d) for sweep in sweeps[number]])
        for number, d in track(points, "probing")
    ]
    return PCASweepResult(
        **tabulate(networks, rows, options),
        explained=np.array([np.mean([one["explained"] for one in found]) for _, _, found in rows]),
    )


class _Row(TypedDict):
    explained: float


class _Nearest(TypedDict):
    nn_correct: list[int]


class _Sweep:
    """The probes of one network, fitted to one training set, on the components that are asked for."""

    def __init__(self, net: NetworkFeatures, chosen: TrainingSet, options: PCASweepOptions, *, seed: int, device: str):
        (layer,) = net.layers
        total, dims = net.train[layer].shape[1], options.dims
        if dims is not None and not all(1 <= d <= total for d in dims):
            raise ValueError(
                f"{min(dims)} to {max(dims)} components were asked for; {net.name} has 1 to {total} at {layer}"
            )
        self.dims = sorted({*dims, total}) if dims is not None else default_dims(total)
        self._probes = LayerProbes(net, layer, chosen, options, seed=seed, device=device)

    def at(self, d: int) -> dict[str, Any]:
        """The scores on the first d components, as plain values."""
        probes, part = self._probes, f"{self._probes.part}-{d}"
        settings = probes.options.settings(probes.seed) | probes.set_settings
        row = probes.net.cache.get(part, lambda: self._svm(d), SVMRow, _Row, **settings)
        return {
            "dims": d,
            "explained": row["explained"],
            "svm": svm_scores(row),
            "nn_correct": self._nearest[d],
            "logistic": probes.logistic(part, d),
            "votes": self._votes[d],
        }

    def _svm(self, d: int) -> dict[str, Any]:
        return {"explained": float(self._probes.components.explained[d - 1]), **self._probes.svm_row(d)}

    @functools.cached_property
    def _nearest(self) -> dict[int, int]:
        """The nearest neighbours of every d are found in one sweep."""
        probes = self._probes
        settings = {"dims": self.dims, **probes.set_settings}
        kept = probes.net.cache.get(
            f"{probes.part}-nearest", lambda: {"nn_correct": probes.nearest(self.dims)}, _Nearest, **settings
        )
        return dict(zip(self.dims, kept["nn_correct"], strict=True))

    @functools.cached_property
    def _votes(self) -> dict[int, list[int]]:
        return dict(zip(self.dims, self._probes.votes(self.dims), strict=True))
