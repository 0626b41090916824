"""Singular values of the Jacobians of several networks, at several layers and images (section 4.1, Fig. 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from analysis.results.base import Comparison, finite_or_none
from analysis.results.findings import Finding, FindingContext, verdict
from analysis.results.singular_values import CONFIDENCE, Spectrum

SHARES = (0.80, 0.97)
"""Shares of the energy that the first 10^3 and 10^4 singular values hold in the paper."""

PAPER_COUNTS = (1_000, 10_000)
PAPER_DIVISORS = (150, 15)
"""The paper's counts, of 150,528 singular values: as they are, and as divisors of the dimension."""

NEAR = 0.05
"""Largest difference of two shares of the energy that agree."""

MOST_VALUES = 10**8
"""Largest number of singular values of a map: that of images of 5,773 x 5,773."""


@dataclass(frozen=True, eq=False)
class SpectrumResult(Comparison):
    """Spectra of several networks, at several layers and images: one row for each.

    A row holds the fields of a `Spectrum`, of the Jacobian A of the layer's features with respect to the network's
    input, n numbers to m. Where rows differ in length, the shorter ones are padded with NaN.

    Attributes:
        networks: names of the networks, `(networks,)`.
        images: names of the images, `(images,)`.
        network: index into `networks` of each row, `(rows,)`.
        layer: name of the layer of each row, `(rows,)`.
        depth: block index of each row, `(rows,)`.
        image: index into `images` of each row, `(rows,)`.
        num_outputs: dimension m of the layer's features, `(rows,)`.
        num_inputs: dimension n of the network's input, `(rows,)`.
        method: `"dense"`, the matrix decomposed, or `"lanczos"`, products with vectors alone, `(rows,)`.
        largest: largest singular values s, in decreasing order, `(rows, k)`; all of them for the method `"dense"`.
        largest_residuals: ||A^T u - s v|| of each of `largest`, the distance within which a singular value lies,
            `(rows, k)`; NaN for the method `"dense"`.
        smallest: smallest singular values, in increasing order, from products with the inverse, `(rows, l)`; none
            without an inverse.
        smallest_residuals: residual of each of `smallest` as a singular value of the inverse, relative to that value,
            `(rows, l)`.
        num_converged: number of `largest` whose residual is within the tolerance, `(rows,)`.
        squared_norm: ||A||_F^2, the sum of the squares of all singular values, `(rows,)`.
        squared_norm_error: half the width of the 95% interval of `squared_norm`, `(rows,)`.
        nodes: nodes of the density of all other singular values, in decreasing order, `(rows, nodes)`.
        weights: number of singular values that each node stands for, by each probe vector, `(rows, probes, nodes)`.
        log_volume: log |det A| from products with A, which errs to the high side, and from products with its inverse,
            which errs to the low side, `(rows, 2)`; NaN without an inverse.
        log_volume_error: half the width of the 95% interval of `log_volume`, `(rows,)`.
        num_products: number of products with A, A^T and their inverses, `(rows,)`.
        loss_of_orthogonality: largest entry of |V V^T - 1| of the Lanczos vectors V, `(rows,)`.
    """

    STUDY: ClassVar[str] = "spectrum"
    INDICES: ClassVar[Mapping[str, str]] = {"network": "networks", "image": "images"}

    networks: Shaped[ndarray, " networks"]
    images: Shaped[ndarray, " images"]
    network: Int[ndarray, " rows"]
    layer: Shaped[ndarray, " rows"]
    depth: Int[ndarray, " rows"]
    image: Int[ndarray, " rows"]
    num_outputs: Int[ndarray, " rows"]
    num_inputs: Int[ndarray, " rows"]
    method: Shaped[ndarray, " rows"]
    largest: Float[ndarray, "rows k"]
    largest_residuals: Float[ndarray, "rows k"]
    smallest: Float[ndarray, "rows l"]
    smallest_residuals: Float[ndarray, "rows l"]
    num_converged: Int[ndarray, " rows"]
    squared_norm: Float[ndarray, " rows"]
    squared_norm_error: Float[ndarray, " rows"]
    nodes: Float[ndarray, "rows nodes"]
    weights: Float[ndarray, "rows probes nodes"]
    log_volume: Float[ndarray, "rows 2"]
    log_volume_error: Float[ndarray, " rows"]
    num_products: Int[ndarray, " rows"]
    loss_of_orthogonality: Float[ndarray, " rows"]

    @classmethod
    def of(
        cls,
        spectra: Sequence[Spectrum],
        *,
        networks: Sequence[str],
        images: Sequence[str],
        network: Sequence[int],
        layer: Sequence[str],
        depth: Sequence[int],
        image: Sequence[int],
    ):
        """A result of these spectra: the other arguments are its fields of those names, an entry a spectrum."""
        columns = {
            field.name: _stacked([np.asarray(getattr(each, field.name)) for each in spectra])
            for field in fields(Spectrum)
        }
        return cls(
            networks=np.array(networks),
            images=np.array(images),
            network=np.array(network),
            layer=np.array(layer),
            depth=np.array(depth),
            image=np.array(image),
            **columns,
        )

    @classmethod
    def join(cls, results: Sequence["SpectrumResult"], names: Sequence[str]):
        """See `Comparison.join`; rows of different lengths are padded anew."""
        images = list(dict.fromkeys(str(image) for each in results for image in each.images))
        starts = np.cumsum([0, *(len(each.networks) for each in results[:-1])]).tolist()
        rows = [(each, start, row) for each, start in zip(results, starts) for row in range(len(each.network))]
        return cls.of(
            [each.spectrum(row) for each, _, row in rows],
            networks=names,
            images=images,
            network=[start + int(each.network[row]) for each, start, row in rows],
            layer=[str(each.layer[row]) for each, _, row in rows],
            depth=[int(each.depth[row]) for each, _, row in rows],
            image=[images.index(str(each.images[each.image[row]])) for each, _, row in rows],
        )

    def check(self) -> None:
        super().check()
        for row in range(len(self.network)):
            each = self.spectrum(row)
            known = np.concatenate((each.largest, each.smallest, each.nodes, each.weights.ravel()))
            counts = each.weights.sum(axis=1)
            if not (
                len(each.largest) >= 1
                and len(each.largest) + len(each.smallest) <= each.count <= MOST_VALUES
                and np.isfinite(known).all()
                and (known >= 0).all()
                and (counts <= 2 * each.count).all()
            ):
                raise ValueError(
                    f"its row {row} is no spectrum of a map from {each.num_inputs} to {each.num_outputs} dimensions"
                )

    def spectrum(self, row: int) -> Spectrum:
        """The spectrum of a row."""
        columns = {field.name: getattr(self, field.name)[row] for field in fields(Spectrum)}
        for length, padded in _LENGTHS.items():
            count = int((~np.isnan(columns[length])).sum())
            columns |= {name: columns[name][..., :count] for name in padded}
        return Spectrum(**{name: value.item() if value.ndim == 0 else value for name, value in columns.items()})

    def groups(self) -> list[Int[ndarray, " group_rows"]]:
        """The rows of each network and layer: one for each image."""
        keys = list(zip(self.network.tolist(), self.layer.tolist()))
        return [np.array([row for row, other in enumerate(keys) if other == key]) for key in dict.fromkeys(keys)]

    def table(self) -> pd.DataFrame:
        """A row for each singular value that is known by itself."""
        return pd.concat([self._table(row) for row in range(len(self.network))], ignore_index=True)

    def _table(self, row: int) -> pd.DataFrame:
        spectrum = self.spectrum(row)
        k, l = len(spectrum.largest), len(spectrum.smallest)  # noqa: E741
        energy, low, high = np.concatenate((spectrum.energy(np.arange(1, k + 1)), np.full((l, 3), np.nan))).T
        smallest = spectrum.smallest[::-1]
        return pd.DataFrame(
            {
                "network": self.networks[self.network[row]],
                "layer": self.layer[row],
                "depth": self.depth[row],
                "image": self.images[self.image[row]],
                "rank": np.concatenate((np.arange(1, k + 1), spectrum.count - l + np.arange(1, l + 1))),
                "singular_value": np.concatenate((spectrum.largest, smallest)),
                "residual": np.concatenate((spectrum.largest_residuals, spectrum.smallest_residuals[::-1] * smallest)),
                "energy": energy,
                "energy_low": low,
                "energy_high": high,
            }
        )

    def summary(self) -> dict[str, Any]:
        return {"confidence": CONFIDENCE, "layers": [self._summary(rows) for rows in self.groups()]}

    def findings(self, context: FindingContext) -> list[Finding]:
        """How fast the singular values decay, at each network's last layer (section 4.1, Fig. 4)."""
        last = {layer["network"]: layer for layer in self.summary()["layers"]}
        findings = []
        for name, layer in last.items():
            energies = [layer["energy"][f"n/{divisor}"] for divisor in PAPER_DIVISORS]
            spreads = [
                f"E({each['d']:,}) = {each['median']:.2f}"
                + (f" ({each['q10']:.2f} to {each['q90']:.2f})" if layer["images"] > 1 else "")
                for each in energies
            ]
            near = all(abs(each["median"] - share) <= NEAR for each, share in zip(energies, SHARES))
            count = min(layer["inputs"], layer["outputs"])
            findings.append(
                Finding(
                    network=name,
                    paper="those of the i-RevNet decay fast: E(n/150) = 0.80 and E(n/15) = 0.97 of n = 150,528",
                    here=f"{' and '.join(spreads)} of {count:,}, the same parts, at {layer['layer']}",
                    verdict=verdict(near, applies=name in context.invertible),
                    rule=f"both are within {NEAR:g} of the paper's",
                )
            )
        return findings

    def _summary(self, rows: Int[ndarray, " group_rows"]) -> dict[str, Any]:
        spectra = [self.spectrum(row) for row in rows.tolist()]
        first = spectra[0]
        counts = {str(d): d for d in PAPER_COUNTS if d <= first.count}
        counts |= {f"n/{divisor}": max(1, round(first.count / divisor)) for divisor in PAPER_DIVISORS}
        each = [_numbers(spectrum, str(self.images[self.image[row]])) for spectrum, row in zip(spectra, rows)]
        dims = {name: [float(numbers["dims"][name]["d"]) for numbers in each] for name in each[0]["dims"]}
        return {
            "network": str(self.networks[self.network[rows[0]]]),
            "layer": str(self.layer[rows[0]]),
            "depth": int(self.depth[rows[0]]),
            "inputs": first.num_inputs,
            "outputs": first.num_outputs,
            "images": len(rows),
            "method": first.method,
            "largest": _quantiles([float(spectrum.largest[0]) for spectrum in spectra]),
            "condition": _quantiles([spectrum.condition for spectrum in spectra]),
            "dims": {name: _quantiles(values) for name, values in dims.items()},
            "energy": {
                name: {"d": d, **_quantiles([float(spectrum.energy(np.array([d]))[0, 0]) for spectrum in spectra])}
                for name, d in counts.items()
            },
            "each": each,
        }


_LENGTHS = {
    "largest": ("largest", "largest_residuals"),
    "smallest": ("smallest", "smallest_residuals"),
    "nodes": ("nodes", "weights"),
}
"""Fields whose length gives that of others without their padding."""


def _stacked(arrays: Sequence[ndarray]) -> ndarray:
    """Arrays in one, padded with NaN where they differ in size."""
    if arrays[0].dtype.kind != "f":
        return np.stack(arrays)
    sizes = np.max([array.shape for array in arrays], axis=0).astype(int)
    stacked = np.full((len(arrays), *sizes), np.nan)
    for row, array in enumerate(arrays):
        stacked[(row, *map(slice, array.shape))] = array
    return stacked


def _quantiles(values: Sequence[float]) -> dict[str, float | None]:
    """The median and the 10% and 90% quantiles; `None` if one is not known or infinite."""
    if not np.isfinite(values).all():
        return {"median": None, "q10": None, "q90": None}
    return {name: float(np.quantile(values, q)) for name, q in {"median": 0.5, "q10": 0.1, "q90": 0.9}.items()}


def _numbers(spectrum: Spectrum, image: str) -> dict[str, Any]:
    """The numbers of one image, with those that say how far they are to be trusted."""
    return {
        "image": image,
        "num_values": len(spectrum.largest),
        "num_converged": spectrum.num_converged,
        "worst_residual": finite_or_none(np.max(spectrum.largest_residuals) / spectrum.largest[0]),
        "loss_of_orthogonality": spectrum.loss_of_orthogonality,
        "num_products": spectrum.num_products,
        "squared_norm": spectrum.squared_norm,
        "squared_norm_error": spectrum.squared_norm_error,
        "largest": float(spectrum.largest[0]),
        "smallest": finite_or_none(spectrum.largest[0] / spectrum.condition),
        "condition": finite_or_none(spectrum.condition),
        "log_volume": [finite_or_none(each) for each in spectrum.log_volume],
        "log_volume_error": finite_or_none(spectrum.log_volume_error),
        "dims": {f"{share:.0%}": dict(zip(("d", "low", "high"), spectrum.dims_holding(share))) for share in SHARES},
    }
