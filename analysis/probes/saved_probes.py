"""Fitted linear probes of a network's layers, in a file, to be applied to other images of the same network.

A file is a NumPy archive without pickles: `header`, a JSON text with the names of classes and layers and what
identifies the network, and for the k-th layer, from 0 on, `k_mean` and `k_scale`, `(dims,)`, and for each probe
`k_svm_coef`, `(classes, dims)`, and `k_svm_intercept`, `(classes,)`. The decision function of features x is
coef . (x - mean) / scale + intercept. All are in float64. Nearest neighbours are not saved: they are the data.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray
from sklearn.svm import LinearSVC
from torch import Tensor

from analysis.probes.cost_selection import Probe
from analysis.probes.pca import PrincipalComponents
from irevnet.utils.files import atomic_write
from irevnet.utils.lookup import find
from irevnet.utils.untrusted import Arrays, fits, open_arrays, parse_json

CODES = ("svm", "logistic")
"""Codes of the probes that can be saved."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedLayer:
    """The standardisation of a layer's features, and the linear probes of them.

    Attributes:
        mean: mean of each feature, `(dims,)`.
        scale: standard deviation of each feature, `(dims,)`.
        weights: weights, `(classes, dims)`, and intercepts, `(classes,)`, of each probe by its code.
    """

    mean: Float[ndarray, " dims"]
    scale: Float[ndarray, " dims"]
    weights: Mapping[str, tuple[Float[ndarray, "classes dims"], Float[ndarray, " classes"]]]

    @classmethod
    def of(cls, components: PrincipalComponents, probes: Mapping[str, Probe]) -> "FittedLayer":
        """Probes of the coordinates along principal components, as those of the features."""
        axes = components.axes.cpu().numpy()
        weights = {}
        for code, probe in probes.items():
            coef, intercept = _per_class(probe)
            weights[code] = coef @ axes.T, intercept
        return cls(mean=components.mean.cpu().numpy(), scale=components.scale.cpu().numpy(), weights=weights)


def _per_class(probe: Probe) -> tuple[Float[ndarray, "classes dims"], Float[ndarray, " classes"]]:
    """Weights and intercepts of each class; of two classes scikit-learn has those of the second alone."""
    if not isinstance(probe, LinearSVC):
        return probe.coef, probe.intercept
    coef, intercept = np.asarray(probe.coef_, np.float64), np.asarray(probe.intercept_, np.float64)
    if len(coef) == 1:
        return np.concatenate((-coef, coef)), np.concatenate((-intercept, intercept))
    return coef, intercept


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedProbes:
    """Linear probes of some layers of a network, as `load_probes` reads them.

    Attributes:
        name: name of the network.
        network: what identifies it: weights, architecture, config and transform, as plain values.
        classes: names of the classes that the probes tell apart.
        layers: probes of each layer by its name.
    """

    name: str
    network: Mapping[str, Any]
    classes: Sequence[str]
    layers: Mapping[str, FittedLayer]

    @property
    def codes(self) -> list[str]:
        """Codes of the probes that there are: `svm`, and `logistic` where it was fitted."""
        return list(next(iter(self.layers.values())).weights)

    def decision_function(
        self, layer: str, features: Float[ndarray, "n dims"] | Float[Tensor, "n dims"], *, probe: str = "svm"
    ) -> Float[ndarray, "n classes"]:
        """Decision function of each class, in float64, of the averaged features of a layer as the network has them.

        Raises `ValueError` for a layer or probe that there is not, another number of features, or features that are not
        finite.
        """
        fitted = find("layer", layer, self.layers)
        coef, intercept = find("probe", probe, fitted.weights)
        points = np.asarray(features, dtype=np.float64)
        if points.shape[1] != len(fitted.mean):
            raise ValueError(f"there are {points.shape[1]} features; the probes of {layer} take {len(fitted.mean)}")
        if not np.isfinite(points).all():
            raise ValueError("the features are not finite; the network's weights or inputs are broken")
        return ((points - fitted.mean) / fitted.scale) @ coef.T + intercept

    def predict(
        self, layer: str, features: Float[ndarray, "n dims"] | Float[Tensor, "n dims"], *, probe: str = "svm"
    ) -> Shaped[ndarray, " n"]:
        """Name of the class with the largest decision function of each row, see `decision_function`."""
        return np.array(self.classes)[self.decision_function(layer, features, probe=probe).argmax(axis=1)]

    def save(self, path: Path) -> None:
        """Writes the probes to an `.npz` file."""
        header = {
            "name": self.name,
            "network": self.network,
            "classes": list(self.classes),
            "layers": list(self.layers),
        }
        header |= {"probes": self.codes}
        arrays: dict[str, Any] = {"header": np.array(json.dumps(header))}
        for number, fitted in enumerate(self.layers.values()):
            arrays |= {f"{number}_mean": fitted.mean, f"{number}_scale": fitted.scale}
            for code, (coef, intercept) in fitted.weights.items():
                arrays |= {f"{number}_{code}_coef": coef, f"{number}_{code}_intercept": intercept}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            np.savez(temporary, **arrays)


class _Header(TypedDict):
    name: str
    network: dict[str, Any]
    classes: list[str]
    layers: list[str]
    probes: list[str]


def load_probes(path: Path | str) -> SavedProbes:
    """Reads the probes that `irevnet-analyze depth-probe --save-probes` wrote.

    Raises `FileNotFoundError` if there is no such file, `ValueError` if it is damaged, or holds no probes.
    """
    try:
        with open_arrays(Path(path)) as arrays:
            header = parse_json(str(arrays["header"]))
            if not fits(header, _Header):
                raise ValueError("its header does not name classes, layers and probes")
            names, codes = header["layers"], header["probes"]
            if not names or not codes or not set(codes) <= set(CODES) or len(set(names)) < len(names):
                raise ValueError(f"it has probes {codes} of layers {names}; expected some of {', '.join(CODES)}")
            layers = {
                name: _read_layer(arrays, number, codes, len(header["classes"])) for number, name in enumerate(names)
            }
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or holds no probes: {error}") from error
    return SavedProbes(name=header["name"], network=header["network"], classes=tuple(header["classes"]), layers=layers)


def _read_layer(arrays: Arrays, number: int, codes: Sequence[str], num_classes: int) -> FittedLayer:
    mean = arrays[f"{number}_mean"]
    dims = mean.size
    expected = {f"{number}_mean": (dims,), f"{number}_scale": (dims,)}
    for code in codes:
        expected |= {f"{number}_{code}_coef": (num_classes, dims), f"{number}_{code}_intercept": (num_classes,)}
    found = {name: arrays[name] for name in expected}
    for name, array in found.items():
        if array.dtype != np.float64 or array.shape != expected[name] or not np.isfinite(array).all():
            raise ValueError(
                f"its {name} is {array.dtype} of shape {array.shape}; expected finite float64 of {expected[name]}"
            )
    weights = {code: (found[f"{number}_{code}_coef"], found[f"{number}_{code}_intercept"]) for code in codes}
    return FittedLayer(mean=mean, scale=found[f"{number}_scale"], weights=weights)
