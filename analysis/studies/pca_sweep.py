"""How few principal components the classes need (section 5.2, Fig. 7)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from analysis.experiment import FeatureSubject, StudyOptions, network_features
from analysis.probes.network_features import (
    NetworkFeatures,
    ProbeOptions,
    SVMRow,
    probe_nearest,
    probe_svm,
    tabulate,
)
from analysis.probes.pca import principal_components
from analysis.results import PCASweepResult
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


def pca_sweep(experiments: Sequence[FeatureSubject], options: PCASweepOptions = PCASweepOptions()) -> PCASweepResult:
    """Test accuracy of a linear SVM and of 1-NN on the first d principal components, against d.

    Features, averaged over space, are standardised on the training set, then rotated to their principal components, and
    never standardised again: the SVM on d components is the SVM on the first d columns. Its C is chosen anew for every
    d, see `analysis.probes.svm_selection.choose_svm`, so that no accuracy is lost to a C that was meant for another d.

    Args:
        experiments: the networks to compare, all of the same images; or features of one's own
            (`analysis.own_features.open_features`).
        options: which layer and numbers of components, and how the SVM is fitted.

    Raises:
        ValueError: no such depth, a d that not all networks have, features that are not finite, or too few images of a
            class to cross-validate.
    """
    first = experiments[0]
    depths = None if options.depth is None else [options.depth]
    names = None if options.layer is None else [options.layer]
    layers = [each.layers(depths, names) for each in experiments]
    if several := next((each for each in layers if names and len(each) > 1), None):
        raise ValueError(f"{len(several)} layers fit `layer` {options.layer!r}; name one, such as {several[-1].name}")
    layers = [each[-1:] for each in layers]
    networks = network_features(experiments, layers, PCASweepResult.STUDY)
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
        options: which numbers of components, and how the SVM is fitted.
        seed: seed of the choice of images for cross-validation, of the folds and of the SVM solver.
        device: device to compute on.
        track: shows progress.
    """
    sweeps = [_Sweep(network, options, seed=seed, device=device) for network in networks]
    points = [(number, d) for number, sweep in enumerate(sweeps) for d in sweep.dims]
    rows = [(number, networks[number].layers[0], sweeps[number].at(d)) for number, d in track(points, "probing")]
    return PCASweepResult(
        **tabulate(networks, rows, sorted(options.cost_grid)),
        explained=np.array([row["explained"] for _, _, row in rows]),
    )


class _Row(TypedDict):
    explained: float


class _Nearest(TypedDict):
    nn_correct: list[int]


class _Sweep:
    """The probes of one network; its components are found when a score is not in the cache."""

    def __init__(self, net: NetworkFeatures, options: PCASweepOptions, *, seed: int, device: str):
        (self._layer,) = net.layers
        total, dims = net.train[self._layer].shape[1], options.dims
        if dims is not None and not all(1 <= d <= total for d in dims):
            raise ValueError(
                f"{min(dims)} to {max(dims)} components were asked for; {net.name} has 1 to {total} at {self._layer}"
            )
        self.dims = sorted({*dims, total}) if dims is not None else default_dims(total)
        self._net = net
        self._options = options
        self._seed = seed
        self._device = device
        self._points: tuple[Tensor, Tensor, Float[ndarray, " dims"]] | None = None
        self._nn_correct: dict[int, int] | None = None

    def at(self, d: int) -> dict[str, Any]:
        """The probes' scores on the first d components, as plain values."""
        settings = self._options.settings(self._seed)
        svm = self._net.cache.get(f"{self._layer}-{d}", lambda: self._svm(d), SVMRow, _Row, **settings)
        return {"dims": d, **svm, "nn_correct": self._nearest()[d]}

    def _svm(self, d: int) -> dict[str, Any]:
        train, test, explained = self._coordinates()
        labels = self._net.train_labels, self._net.test_labels
        result = probe_svm(train[:, :d], labels[0], test[:, :d], labels[1], self._options, seed=self._seed)
        return {"explained": float(explained[d - 1]), **result}

    def _nearest(self) -> dict[int, int]:
        """The nearest neighbours of every d are found in one sweep."""
        if self._nn_correct is None:
            kept = self._net.cache.get(f"{self._layer}-nearest", self._search, _Nearest, dims=self.dims)
            self._nn_correct = dict(zip(self.dims, kept["nn_correct"], strict=True))
        return self._nn_correct

    def _search(self) -> dict[str, Any]:
        train, test, _ = self._coordinates()
        labels = self._net.train_labels, self._net.test_labels
        return {"nn_correct": probe_nearest(train, labels[0], test, labels[1], dims=self.dims)}

    def _coordinates(self) -> tuple[Tensor, Tensor, Float[ndarray, " dims"]]:
        if self._points is None:
            components = principal_components(self._net.train[self._layer], device=self._device)
            train, test = (components.transform(part[self._layer]) for part in (self._net.train, self._net.test))
            self._points = train, test, components.explained
        return self._points
