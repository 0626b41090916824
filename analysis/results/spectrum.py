"""Singular values of the Jacobians of several networks, at several layers and images (section 4.1, Fig. 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from analysis.results.base import Comparison
from analysis.results.depth_trends import FEWEST_DEPTHS, DepthTrend, depth_trend
from analysis.results.directions import Directions
from analysis.results.findings import Finding, FindingContext, verdict
from analysis.results.headlines import Headline
from analysis.results.padding import stacked
from analysis.results.singular_values import CONFIDENCE, Spectrum
from analysis.results.spectrum_summary import HEADLINES, PAPER_DIVISORS, SHARES, headline_numbers, layer_summary

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
        vector_values: singular values at both ends whose vectors were asked for, `(rows, 2, vectors)`; this and all
            that follows is as in `Directions`, and empty where no vectors were asked for.
        right_vectors: right singular vectors, `(rows, 2, vectors, c, h, w)`.
        left_vectors: left singular vectors, `(rows, 2, vectors, m)`.
        vector_residuals: relative residuals of both, `(rows, 2, vectors, 2)`.
        pixels: pixel values of each row's image, `(rows, c, h, w)`.
        pixel_scale: pixel value of a unit of the network's input, by channel, `(rows, c)`.
        steps: steps along both directions of the right vectors, `(rows, 2, vectors, 2)`.
        feature_changes: changes of the features by these steps, `(rows, 2, vectors, 2)`.
    """

    STUDY: ClassVar[str] = "spectrum"
    INDICES: ClassVar[Mapping[str, str]] = {"network": "networks", "image": "images"}
    HEADLINES: ClassVar[Mapping[str, str]] = HEADLINES

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
    vector_values: Float[ndarray, "rows 2 vectors"]
    right_vectors: Float[ndarray, "rows 2 vectors c h w"]
    left_vectors: Float[ndarray, "rows 2 vectors m"]
    vector_residuals: Float[ndarray, "rows 2 vectors 2"]
    pixels: Float[ndarray, "rows c h w"]
    pixel_scale: Float[ndarray, "rows c"]
    steps: Float[ndarray, "rows 2 vectors 2"]
    feature_changes: Float[ndarray, "rows 2 vectors 2"]

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
        directions: Sequence[Directions | None] | None = None,
    ):
        """A result of these spectra: the other arguments are its fields of those names, an entry a spectrum, and the
        directions around each image where there are any."""
        found = [each or Directions.none() for each in directions or [None] * len(spectra)]
        columns = {name: stacked([np.asarray(getattr(each, name)) for each in spectra]) for name in _OF_SPECTRUM}
        columns |= {name: stacked([np.asarray(getattr(each, name)) for each in found]) for name in _OF_DIRECTIONS}
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
    def added(cls, arrays: Mapping[str, ndarray]) -> dict[str, ndarray]:
        """No directions of results that were saved before there were any."""
        return {name: stacked([getattr(Directions.none(), name)] * len(arrays["network"])) for name in _OF_DIRECTIONS}

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
            directions=[each.directions(row) for each, _, row in rows],
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
            directions = self.directions(row)
            if directions is not None and not directions.fits(each.num_inputs, each.num_outputs):
                raise ValueError(
                    f"its row {row} has no singular vectors of a map from {each.num_inputs} to {each.num_outputs} "
                    "dimensions, or no images"
                )

    def spectrum(self, row: int) -> Spectrum:
        """The spectrum of a row."""
        columns = {name: getattr(self, name)[row] for name in _OF_SPECTRUM}
        for length, padded in _LENGTHS.items():
            count = int((~np.isnan(columns[length])).sum())
            columns |= {name: columns[name][..., :count] for name in padded}
        return Spectrum(**{name: value.item() if value.ndim == 0 else value for name, value in columns.items()})

    def directions(self, row: int) -> Directions | None:
        """The directions around the image of a row, where they were asked for."""
        columns = {name: getattr(self, name)[row] for name in _OF_DIRECTIONS}
        count = int((~np.isnan(columns["vector_values"][0])).sum())
        if count == 0:
            return None
        known = ~np.isnan(columns["pixels"])
        c, h, w = (int(known.any(axis=axes).sum()) for axes in ((1, 2), (0, 2), (0, 1)))
        m = int((~np.isnan(columns["left_vectors"][0, 0])).sum())
        sizes = {
            "right_vectors": (2, count, c, h, w),
            "left_vectors": (2, count, m),
            "pixels": (c, h, w),
            "pixel_scale": (c,),
        }
        return Directions(
            **{name: value[tuple(map(slice, sizes.get(name, (2, count))))] for name, value in columns.items()}
        )

    def depth_trends(self) -> list[DepthTrend]:
        """The trend of each network that has spectra of enough depths at the same images."""
        trends = []
        for number, name in enumerate(self.networks.tolist()):
            groups = [rows for rows in self.groups() if self.network[rows[0]] == number]
            rows_of = {int(self.depth[rows[0]]): dict(zip(self.image[rows].tolist(), rows.tolist())) for rows in groups}
            depths = sorted(rows_of)
            images = [image for image in rows_of[depths[0]] if all(image in rows for rows in rows_of.values())]
            if len(depths) >= FEWEST_DEPTHS and images:
                chosen = [[rows_of[depth][image] for image in images] for depth in depths]
                spectra = [[self.spectrum(row) for row in rows] for rows in chosen]
                directions = [[self.directions(row) for row in rows] for rows in chosen]
                trends.append(depth_trend(name, depths, spectra, directions))
        return trends

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
        directions = (self.directions(row) or Directions.none()).by_rank(k + l) if self.vector_values.size else {}
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
                **directions,
            }
        )

    def summary(self) -> dict[str, Any]:
        trends = self.depth_trends()
        return {
            "confidence": CONFIDENCE,
            "layers": [
                {
                    "network": str(self.networks[self.network[rows[0]]]),
                    "layer": str(self.layer[rows[0]]),
                    "depth": int(self.depth[rows[0]]),
                    **layer_summary(
                        [self.spectrum(row) for row in rows.tolist()],
                        [self.directions(row) for row in rows.tolist()],
                        self.images[self.image[rows]].tolist(),
                    ),
                }
                for rows in self.groups()
            ],
            **({"depth_trends": [each.summary() for each in trends]} if trends else {}),
        }

    def headlines(self) -> list[Headline]:
        """Medians over the images at each layer, with their 10% and 90% quantiles (`headline_numbers`)."""
        return [
            Headline(
                network=int(self.network[rows[0]]),
                layer=str(self.layer[rows[0]]),
                depth=int(self.depth[rows[0]]),
                relative_depth=np.nan,
                measure=code,
                value=value,
                low=low,
                high=high,
            )
            for rows in self.groups()
            for code, (value, low, high) in headline_numbers([self.spectrum(row) for row in rows.tolist()]).items()
        ]

    def findings(self, context: FindingContext) -> list[Finding]:
        """How fast the singular values decay, at each network's last layer (section 4.1, Fig. 4), and of enough depths
        how they and their vectors change with depth."""
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
        return [*findings, *(finding for trend in self.depth_trends() for finding in trend.findings())]


_OF_SPECTRUM = [field.name for field in fields(Spectrum) if field.name != "vectors"]
_OF_DIRECTIONS = [field.name for field in fields(Directions)]
"""Fields of a row's spectrum, and of the directions around its image."""

_LENGTHS = {
    "largest": ("largest", "largest_residuals"),
    "smallest": ("smallest", "smallest_residuals"),
    "nodes": ("nodes", "weights"),
}
"""Fields whose length gives that of others without their padding."""
