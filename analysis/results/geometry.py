"""The geometry of features at every layer: their dimension, their variance, how classes collapse, and how alike layers
are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from analysis.results.base import Comparison, finite_or_none
from analysis.results.findings import Finding, FindingContext
from analysis.results.geometry_findings import find_in_layers, find_in_tunnel
from analysis.results.headlines import Headline, of_each_row

MEASURES = {
    "two_nn": "intrinsic dimension (TwoNN)",
    "participation_ratio": "participation ratio",
    "effective_rank": "effective rank",
    "dims_90": "d with 90% of the variance",
    "dims_95": "d with 95% of the variance",
    "dims_99": "d with 99% of the variance",
    "alpha": "power law's alpha",
    "nc1": "NC1, within over between",
    "nc2_norms": "NC2, spread of norms",
    "nc2_cosines": "NC2, spread of cosines",
    "nc2_angles": "NC2, distance from largest angles",
    "nc3": "NC3, classifier from means",
    "nc3_svm": "NC3, SVM from means",
    "nc4": "NC4, nearest mean is not the answer",
}
"""What each measure is called, by its code."""


@dataclass(frozen=True, eq=False)
class GeometryResult(Comparison):
    """The geometry of the features of several networks: a row for each layer.

    Dimensions, variances and neural collapse are of the training images, NC4 and similarity of the test images.
    Intervals have 95%, lower and upper end, and are for the choice of images: by bootstrap of `two_nn`, Wilson's of
    `nc4`, by the jackknife of all others (`analysis.geometry.jackknife`). They are NaN where there is none: of the
    measures by the jackknife where a class has one training image, or images have more features than
    `analysis.studies.layer_geometry.JACKKNIFE_DIMS`. For NC3 and NC4 classifiers and means are taken as given.

    Attributes:
        networks: names of the networks, `(networks,)`.
        network: index into `networks` of each row, `(rows,)`.
        layer: name of the layer of each row, `(rows,)`.
        depth: block index j of each row, `(rows,)`.
        relative_depth: j over the number of blocks of the network, `(rows,)`.
        dims: number of features of an image, `(rows,)`.
        measures: codes of the measures, those of `MEASURES`, `(measures,)`.
        value: value of each measure, `(rows, measures)`; NaN where it is not defined or not known.
        interval: interval of each measure, `(rows, measures, 2)`.
        two_nn_error: standard error of `two_nn` by maximum likelihood, `(rows,)`.
        copies: number of images without neighbours in `two_nn`, as their features are those of others, `(rows,)`.
        part_images: number of images among which neighbours are found: of all drawn, of halves, of quarters and so on,
            `(rows, halvings)`.
        part_dimension: intrinsic dimension from neighbours among so many images, `(rows, halvings)`; NaN where these
            are fewer than three.
        part_interval: interval of `part_dimension`, `(rows, halvings, 2)`.
        fit_ranks: first and last rank that the power law is fitted to, `(rows, 2)`; 0 where there is none.
        fit_scale: eigenvalue of rank 1 by the power law, `(rows,)`.
        fit_r2: share of the variance of the logarithms of the eigenvalues that the power law explains, `(rows,)`.
        eigenvalue: eigenvalues of the covariance of each row, in decreasing order, row by row, `(values,)`.
        eigenvalue_row: row of each eigenvalue, `(values,)`.
        first: row of the first layer of each pair of layers that are compared, `(pairs,)`.
        second: row of the second layer of each pair, `(pairs,)`.
        cka: debiased linear CKA of each pair, `(pairs,)`.
        cka_interval: interval of `cka`, `(pairs, 2)`.
        num_images: number of training images drawn for `two_nn`, `()`.
        num_train: number of training images, `()`.
        num_test: number of test images, `()`.
        probe_data: names of the data whose classes linear probes tell apart, the network's own and then others,
            `(data,)`; none where no tunnel was looked for.
        probe_accuracy: test accuracy of the linear SVM on these data, `(rows, data)`.
        probe_interval: interval of `probe_accuracy`, Wilson's, `(rows, data, 2)`.
        tunnel_start: depth of each network at which its tunnel starts (`analysis.geometry.tunnel`), with both ends of
            the interval, `(networks, 3)`; NaN where none was looked for.
        other_peak: depth at which the accuracy on other data is highest, with both ends, `(networks, others, 3)`.
        other_change: accuracy on other data at the last depth less that at the start of the tunnel, with both ends,
            `(networks, others, 3)`.
    """

    STUDY: ClassVar[str] = "geometry"
    SPLITS: ClassVar[tuple[Literal["train", "test"], ...]] = ("train", "test")
    SHARED: ClassVar[tuple[str, ...]] = ("measures", "num_images", "num_train", "num_test", "probe_data")
    ROWS: ClassVar[tuple[str, ...]] = ("eigenvalue_row", "first", "second")
    """Names of the fields that hold rows."""
    INDICES: ClassVar[Mapping[str, str]] = {"network": "networks", **dict.fromkeys(ROWS, "layer")}
    HEADLINES: ClassVar[tuple[str, ...]] = (
        *("two_nn", "participation_ratio", "effective_rank", "alpha"),
        *("nc1", "nc2_norms", "nc2_angles", "nc3_svm", "nc4"),
    )
    """Codes of the measures that are followed over training."""

    networks: Shaped[ndarray, " networks"]
    network: Int[ndarray, " rows"]
    layer: Shaped[ndarray, " rows"]
    depth: Int[ndarray, " rows"]
    relative_depth: Float[ndarray, " rows"]
    dims: Int[ndarray, " rows"]
    measures: Shaped[ndarray, " measures"]
    value: Float[ndarray, "rows measures"]
    interval: Float[ndarray, "rows measures 2"]
    two_nn_error: Float[ndarray, " rows"]
    copies: Int[ndarray, " rows"]
    part_images: Int[ndarray, "rows halvings"]
    part_dimension: Float[ndarray, "rows halvings"]
    part_interval: Float[ndarray, "rows halvings 2"]
    fit_ranks: Int[ndarray, "rows 2"]
    fit_scale: Float[ndarray, " rows"]
    fit_r2: Float[ndarray, " rows"]
    eigenvalue: Float[ndarray, " values"]
    eigenvalue_row: Int[ndarray, " values"]
    first: Int[ndarray, " pairs"]
    second: Int[ndarray, " pairs"]
    cka: Float[ndarray, " pairs"]
    cka_interval: Float[ndarray, "pairs 2"]
    num_images: Int[ndarray, ""]
    num_train: Int[ndarray, ""]
    num_test: Int[ndarray, ""]
    probe_data: Shaped[ndarray, " data"]
    probe_accuracy: Float[ndarray, "rows data"]
    probe_interval: Float[ndarray, "rows data 2"]
    tunnel_start: Float[ndarray, "networks 3"]
    other_peak: Float[ndarray, "networks others 3"]
    other_change: Float[ndarray, "networks others 3"]

    @classmethod
    def added(cls, arrays: Mapping[str, ndarray]) -> dict[str, ndarray]:
        """No tunnels in results that were saved before they were looked for."""
        return no_tunnels(len(arrays["layer"]), len(arrays["networks"]))

    def check(self) -> None:
        super().check()
        if self.measures.tolist() != list(MEASURES):
            raise ValueError(f"its measures are {', '.join(self.measures.tolist())}; expected {', '.join(MEASURES)}")
        if not np.array_equal(np.unique(self.eigenvalue_row), np.arange(len(self.layer))):
            raise ValueError(f"its eigenvalues are expected to be of each of its {len(self.layer)} rows")
        others = self.other_peak.shape[1]
        if others != max(0, len(self.probe_data) - 1):
            raise ValueError(f"it has {others} others for {len(self.probe_data)} probe_data; expected one less")
        for number, (start, *_) in enumerate(self.tunnel_start.tolist()):
            if np.isfinite(start) and start not in self.depth[self.network == number]:
                raise ValueError(f"its tunnel_start is {start:g}; expected a depth of {self.networks[number]}")

    @classmethod
    def join(cls, results: Sequence[Any], names: Sequence[str]):
        """See `Comparison.join`; layers of networks of different results are not compared, and tunnels are left out
        where they were not looked for with the same data."""
        if any(each.probe_data.tolist() != results[0].probe_data.tolist() for each in results):
            results = [replace(each, **no_tunnels(len(each.layer), len(each.networks))) for each in results]
        starts = np.cumsum([0, *(len(each.layer) for each in results[:-1])])
        moved = [
            replace(each, **{name: getattr(each, name) + start for name in cls.ROWS})
            for each, start in zip(results, starts)
        ]
        return super().join(moved, names)

    def of(self, code: str) -> tuple[Float[ndarray, " rows"], Float[ndarray, "rows 2"]]:
        """The values of a measure by its code, and their intervals."""
        at = list(MEASURES).index(code)
        return self.value[:, at], self.interval[:, at]

    def variance(self, row: int) -> Float[ndarray, " _"]:
        """The eigenvalues of the covariance of a row."""
        return self.eigenvalue[self.eigenvalue_row == row]

    def similarity(self) -> Float[ndarray, "rows rows"]:
        """CKA of any two rows; NaN where they are not compared."""
        matrix = np.full((len(self.layer), len(self.layer)), np.nan)
        matrix[self.first, self.second] = matrix[self.second, self.first] = self.cka
        return matrix

    def headlines(self) -> list[Headline]:
        """The measures of `HEADLINES` at each layer, with their 95% intervals."""
        return of_each_row(self, {code: self.of(code) for code in self.HEADLINES})

    def table(self) -> pd.DataFrame:
        columns: dict[str, Any] = {"network": self.networks[self.network]}
        columns |= {name: getattr(self, name) for name in ("layer", "depth", "relative_depth", "dims")}
        for code in MEASURES:
            value, interval = self.of(code)
            columns |= {code: value, f"{code}_low": interval[:, 0], f"{code}_high": interval[:, 1]}
        columns |= {"two_nn_error": self.two_nn_error, "copies": self.copies, "alpha_r2": self.fit_r2}
        columns |= {"alpha_first_rank": self.fit_ranks[:, 0], "alpha_last_rank": self.fit_ranks[:, 1]}
        for at, data in enumerate(self.probe_data):
            columns[f"svm_{data}"] = self.probe_accuracy[:, at]
            columns |= {f"svm_{data}_{end}": self.probe_interval[:, at, k] for k, end in enumerate(("low", "high"))}
        return pd.DataFrame(columns)

    def summary(self) -> dict[str, Any]:
        table = self.table()
        rows = [
            {key: None if value != value else value for key, value in row.items() if key != "network"}
            for row in table.to_dict(orient="records")
        ]
        return {
            "num_images": int(self.num_images),
            "num_train": int(self.num_train),
            "num_test": int(self.num_test),
            "networks": [
                {
                    "name": str(name),
                    "rows": [rows[row] for row in np.flatnonzero(self.network == number)],
                    **self._tunnel(number),
                }
                for number, name in enumerate(self.networks)
            ],
            "cka": [[finite_or_none(value) for value in row] for row in self.similarity()],
        }

    def _tunnel(self, network: int) -> dict[str, Any]:
        """The tunnel of a network, each number with both ends of its interval; nothing where none was looked for."""
        if not len(self.probe_data):
            return {}
        others = zip(
            self.probe_data[1:].tolist(), self.other_peak[network].tolist(), self.other_change[network].tolist()
        )
        return {
            "tunnel": {
                "start": self.tunnel_start[network].tolist(),
                "other_data": [{"name": name, "peak": peak, "change": change} for name, peak, change in others],
            }
        }

    def findings(self, context: FindingContext) -> list[Finding]:
        """What Ansuini et al. (2019), Papyan et al. (2020), Ghosh et al. (2022) and Masarczyk et al. (2023) found,
        beside what is found here."""
        findings = []
        for number, name in enumerate(self.networks.tolist()):
            rows = np.flatnonzero(self.network == number)
            rows = rows[np.argsort(self.depth[rows], kind="stable")]
            values = {code: self.of(code)[0][rows] for code in MEASURES}
            intervals = {code: self.of(code)[1][rows] for code in MEASURES}
            findings += find_in_layers(
                name, self.depth[rows], self.dims[rows], values, intervals, self.fit_r2[rows], context.num_classes
            )
            if len(self.probe_data):
                findings += find_in_tunnel(
                    name,
                    int(self.depth[rows[-1]]),
                    self.tunnel_start[number],
                    self.probe_data[1:].tolist(),
                    self.other_peak[number],
                    self.other_change[number],
                )
        return findings


def no_tunnels(rows: int, networks: int) -> dict[str, ndarray]:
    """The fields that say how linear probes do on other data, where none were given."""
    return {
        "probe_data": np.array([], dtype=np.str_),
        "probe_accuracy": np.empty((rows, 0)),
        "probe_interval": np.empty((rows, 0, 2)),
        "tunnel_start": np.full((networks, 3), np.nan),
        "other_peak": np.empty((networks, 0, 3)),
        "other_change": np.empty((networks, 0, 3)),
    }
