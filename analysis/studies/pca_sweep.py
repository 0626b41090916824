"""How few principal components the classes need (section 5.2, Fig. 7)."""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from analysis.probes.network_features import NetworkFeatures, SVMRow, probe_nearest, probe_svm, tabulate
from analysis.probes.pca import principal_components
from analysis.probes.svm_selection import COST_GRID, CV_IMAGES, Solver
from analysis.results import PCASweepResult
from irevnet.utils.progress import Track, no_progress


def default_dims(total: int) -> list[int]:
    """Numbers of components to try: all powers of the square root of 2, rounded, up to `total`, and that.

    >>> default_dims(24)
    [1, 2, 3, 4, 6, 8, 11, 16, 23, 24]
    """
    return sorted({min(total, round(2 ** (k / 2))) for k in range(2 * total.bit_length() + 1)})


def pca_sweep(
    networks: Sequence[NetworkFeatures],
    *,
    dims: Sequence[int] | None = None,
    cost_grid: Sequence[float] = COST_GRID,
    cv_images: int = CV_IMAGES,
    solver: Solver = "newton",
    seed: int = 0,
    device: str = "cpu",
    track: Track = no_progress,
) -> PCASweepResult:
    """Test accuracy of a linear SVM and of 1-NN on the first d principal components, against d.

    Features are standardised on the training set, then rotated to their principal components, and never standardised
    again: the SVM on d components is the SVM on the first d columns. Its C is chosen anew for every d, see
    `analysis.probes.svm_selection.choose_svm`, so that no accuracy is lost to a C that was meant for another d.

    Args:
        networks: their features, all of the same images and at one layer each.
        dims: values of d; by default `default_dims`. All components are always among them.
        cost_grid: values of C to choose from.
        cv_images: training images used for cross-validation.
        solver: of the SVMs' problem.
        seed: of the choice of those images, of the folds and of the SVM solver.
        device: where to compute.
        track: shows progress.

    Raises:
        ValueError: a d that there is not in all networks, features that are not finite, or too few images of a class.
    """
    options = {"cost_grid": sorted(cost_grid), "cv_images": cv_images, "solver": solver, "seed": seed}
    sweeps = [_Sweep(network, dims, device, options) for network in networks]
    places = [(number, d) for number, sweep in enumerate(sweeps) for d in sweep.dims]
    rows = [(number, networks[number].layers[0], sweeps[number].at(d)) for number, d in track(places, "probing")]
    return PCASweepResult(
        **tabulate(networks, rows, options["cost_grid"]),
        explained=np.array([row["explained"] for _, _, row in rows]),
    )


class _Row(TypedDict):
    explained: float


class _Nearest(TypedDict):
    nn_correct: list[int]


class _Sweep:
    """The probes of one network; its components are looked for when a result is not there already."""

    def __init__(self, net: NetworkFeatures, dims: Sequence[int] | None, device: str, options: dict[str, Any]):
        (self._layer,) = net.layers
        total = net.train[self._layer].shape[1]
        if dims is not None and not all(1 <= d <= total for d in dims):
            raise ValueError(
                f"{min(dims)} to {max(dims)} components were asked for; {net.name} has 1 to {total} at {self._layer}"
            )
        self.dims = sorted({*dims, total}) if dims is not None else default_dims(total)
        self._net = net
        self._device = device
        self._options = options
        self._points: tuple[Tensor, Tensor, Float[ndarray, " dims"]] | None = None
        self._nn_correct: dict[int, int] | None = None

    def at(self, d: int) -> dict[str, Any]:
        svm = self._net.cache.get(f"{self._layer}-{d}", lambda: self._svm(d), SVMRow, _Row, **self._options)
        return {"dims": d, **svm, "nn_correct": self._nearest()[d]}

    def _svm(self, d: int) -> dict[str, Any]:
        train, test, explained = self._coordinates()
        labels = self._net.train_labels, self._net.test_labels
        result = probe_svm(train[:, :d], labels[0], test[:, :d], labels[1], **self._options)
        return {"explained": float(explained[d - 1]), **result}

    def _nearest(self) -> dict[int, int]:
        """The nearest neighbours of every d are found in one sweep."""
        if self._nn_correct is None:
            kept = self._net.cache.get(f"{self._layer}-nearest", self._search, _Nearest, dims=self.dims)
            self._nn_correct = dict(zip(self.dims, kept["nn_correct"], strict=True))
        return self._nn_correct

    def _search(self) -> dict[str, Any]:
        train, test, _ = self._coordinates()
        labels: tuple[Int[ndarray, " train"], Int[ndarray, " test"]] = self._net.train_labels, self._net.test_labels
        return {"nn_correct": probe_nearest(train, labels[0], test, labels[1], dims=self.dims)}

    def _coordinates(self) -> tuple[Tensor, Tensor, Float[ndarray, " dims"]]:
        if self._points is None:
            components = principal_components(self._net.train[self._layer], device=self._device)
            train, test = (components.transform(part[self._layer]) for part in (self._net.train, self._net.test))
            self._points = train, test, components.explained
        return self._points
