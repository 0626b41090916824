"""What a linear SVM and a nearest neighbour make of features (section 5, Figs. 6 and 7), and other probes with them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from analysis.results.base import Comparison, finite_or_none


def probe_name(code: str) -> str:
    """The name of a probe by its code: `svm`, `nn`, `logistic`, or `20nn` and `20nn_cosine` for so many neighbours.

    >>> probe_name("20nn_cosine")
    '20-NN (cosine)'
    """
    if code in _NAMES:
        return _NAMES[code]
    match = re.fullmatch(r"(\d+)nn(_cosine)?", code)
    if match is None:
        raise ValueError(f"{code!r} is no probe; expected svm, nn, logistic, or numbers of neighbours such as 20nn")
    return f"{match[1]}-NN (cosine)" if match[2] else f"{match[1]}-NN"


_NAMES = {"svm": "linear SVM", "nn": "1-NN", "logistic": "logistic regression"}


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeAccuracy:
    """The test accuracies of one probe.

    Attributes:
        code: code of the probe.
        accuracy: share of the test images that it classifies right, `(rows,)`; NaN where that is unknown.
        interval: interval of `accuracy`, `(rows, 2)`.
    """

    code: str
    accuracy: Float[ndarray, " rows"]
    interval: Float[ndarray, "rows 2"]

    @property
    def name(self) -> str:
        """Name of the probe."""
        return probe_name(self.code)


@dataclass(frozen=True, eq=False)
class ProbeResult(Comparison):
    """Test accuracies of a linear SVM, of 1-NN, and of probes that were asked for beside them, on features of several
    networks: one row for each set of features.

    Accuracies are shares of 1, and intervals have 95%, lower and upper end: Wilson's or, of probes that were fitted to
    several draws of few training images, those of the mean over draws, see `analysis.probes.scores`. Of such probes all
    accuracies are means over the draws, and each C is the median.

    Attributes:
        networks: names of the networks, `(networks,)`.
        network_accuracy: top-1 accuracy of each network itself on the test images, by its logits for all classes that
            it knows, `(networks,)`; NaN for a network that does not know the classes studied.
        network_interval: interval of `network_accuracy`, `(networks, 2)`.
        restricted_accuracy: top-1 accuracy of each network itself, by its logits for the classes studied alone,
            `(networks,)`.
        restricted_interval: interval of `restricted_accuracy`, `(networks, 2)`.
        network: index into `networks` of each row, `(rows,)`.
        layer: name of the layer of each row, `(rows,)`.
        dims: dimension of the features of each row, `(rows,)`.
        svm_accuracy: share of the test images that the linear SVM classifies right, `(rows,)`; NaN where there are too
            few training images to choose C by.
        svm_interval: interval of `svm_accuracy`, `(rows, 2)`.
        nn_accuracy: share of the test images that the nearest neighbour classifies right, `(rows,)`.
        nn_interval: interval of `nn_accuracy`, `(rows, 2)`.
        svm_cost: C of the SVM, see `analysis.probes.cost_selection.choose_cost`, `(rows,)`.
        svm_gap: upper bound on the SVM's objective above its minimum, relative to the minimum, of the class where it
            is largest, `(rows,)`; NaN where the solver gives none.
        at_edge: whether `svm_cost` is an end of `cost_grid` and better than all other values tried, `(rows,)`.
        cost_grid: values of C tried, in increasing order, `(costs,)`.
        cv_accuracy: cross-validated accuracy on a small part of the training set for each C, `(rows, costs)`.
        held_out_accuracy: accuracy on a fifth of the training set of SVMs fitted to the rest for each C,
            `(rows, costs)`; NaN for values of C that were not tried there.
        logistic_cost: C of the logistic regression, `(rows,)`; NaN where none was asked for, as in what follows.
        logistic_gap: upper bound on the regression's objective above its minimum, relative to the minimum, `(rows,)`.
        logistic_at_edge: whether `logistic_cost` is an end of `cost_grid`, as `at_edge`, `(rows,)`.
        logistic_cv_accuracy: cross-validated accuracy of the regression, as `cv_accuracy`, `(rows, costs)`.
        logistic_held_out_accuracy: accuracy of the regression on a fifth of the training set, as `held_out_accuracy`,
            `(rows, costs)`.
        further: codes of the probes beside the SVM and 1-NN, see `probe_name`, `(further,)`.
        further_accuracy: share of the test images that each of them classifies right, `(rows, further)`.
        further_interval: interval of `further_accuracy`, `(rows, further, 2)`.
        shots: number of training images of each class in a draw, `()`; 0 for all training images, without draws.
        draws: number of draws, `()`.
        draw_accuracy: accuracy of the SVM, of 1-NN and of the further probes for each draw, `(rows, probes, draws)`.
        num_train: number of training images that a probe is fitted to, `()`.
        num_test: number of test images, `()`.
    """

    SPLITS: ClassVar[tuple[Literal["train", "test"], ...]] = ("train", "test")
    SHARED: ClassVar[tuple[str, ...]] = ("cost_grid", "further", "shots", "draws", "num_train", "num_test")

    networks: Shaped[ndarray, " networks"]
    network_accuracy: Float[ndarray, " networks"]
    network_interval: Float[ndarray, "networks 2"]
    restricted_accuracy: Float[ndarray, " networks"]
    restricted_interval: Float[ndarray, "networks 2"]
    network: Int[ndarray, " rows"]
    layer: Shaped[ndarray, " rows"]
    dims: Int[ndarray, " rows"]
    svm_accuracy: Float[ndarray, " rows"]
    svm_interval: Float[ndarray, "rows 2"]
    nn_accuracy: Float[ndarray, " rows"]
    nn_interval: Float[ndarray, "rows 2"]
    svm_cost: Float[ndarray, " rows"]
    svm_gap: Float[ndarray, " rows"]
    at_edge: Bool[ndarray, " rows"]
    cost_grid: Float[ndarray, " costs"]
    cv_accuracy: Float[ndarray, "rows costs"]
    held_out_accuracy: Float[ndarray, "rows costs"]
    logistic_cost: Float[ndarray, " rows"]
    logistic_gap: Float[ndarray, " rows"]
    logistic_at_edge: Bool[ndarray, " rows"]
    logistic_cv_accuracy: Float[ndarray, "rows costs"]
    logistic_held_out_accuracy: Float[ndarray, "rows costs"]
    further: Shaped[ndarray, " further"]
    further_accuracy: Float[ndarray, "rows further"]
    further_interval: Float[ndarray, "rows further 2"]
    shots: Int[ndarray, ""]
    draws: Int[ndarray, ""]
    draw_accuracy: Float[ndarray, "rows probes draws"]
    num_train: Int[ndarray, ""]
    num_test: Int[ndarray, ""]

    @classmethod
    def added(cls, arrays: Mapping[str, ndarray]) -> dict[str, ndarray]:
        """The SVM and 1-NN alone, fitted to all training images."""
        rows, costs = (np.size(arrays.get(name, ())) for name in ("network", "cost_grid"))
        return {
            **{f"logistic_{name}": np.full(rows, np.nan) for name in ("cost", "gap")},
            "logistic_at_edge": np.zeros(rows, dtype=bool),
            **{f"logistic_{name}_accuracy": np.full((rows, costs), np.nan) for name in ("cv", "held_out")},
            "further": np.array([], dtype=np.str_),
            "further_accuracy": np.empty((rows, 0)),
            "further_interval": np.empty((rows, 0, 2)),
            "shots": np.array(0),
            "draws": np.array(0),
            "draw_accuracy": np.empty((rows, 2, 0)),
        }

    def check(self) -> None:
        super().check()
        for code in self.further.tolist():
            probe_name(code)

    @property
    def accuracies(self) -> Sequence[ProbeAccuracy]:
        """The accuracies of all probes: the SVM, 1-NN, and those beside them."""
        return [
            ProbeAccuracy(code="svm", accuracy=self.svm_accuracy, interval=self.svm_interval),
            ProbeAccuracy(code="nn", accuracy=self.nn_accuracy, interval=self.nn_interval),
            *(
                ProbeAccuracy(code=code, accuracy=self.further_accuracy[:, n], interval=self.further_interval[:, n])
                for n, code in enumerate(self.further.tolist())
            ),
        ]

    @property
    def has_logistic(self) -> bool:
        """Whether a logistic regression was asked for."""
        return "logistic" in self.further

    def table(self) -> pd.DataFrame:
        columns: dict[str, Any] = {"network": self.networks[self.network], "layer": self.layer, **self._columns()}
        for probe in self.accuracies:
            columns[f"{probe.code}_accuracy"] = probe.accuracy
            columns[f"{probe.code}_accuracy_low"] = probe.interval[:, 0]
            columns[f"{probe.code}_accuracy_high"] = probe.interval[:, 1]
        columns |= {"svm_cost": self.svm_cost, "svm_gap": self.svm_gap, "cost_at_edge": self.at_edge}
        if self.has_logistic:
            columns |= {"logistic_cost": self.logistic_cost, "logistic_gap": self.logistic_gap}
            columns |= {"logistic_cost_at_edge": self.logistic_at_edge}
        return pd.DataFrame(columns)

    @property
    def own_accuracy(self) -> float | None:
        return finite_or_none(self.network_accuracy[0]) if len(self.networks) == 1 else None

    def _columns(self) -> dict[str, ndarray]:
        """Columns of the table that not all probes have."""
        return {"dims": self.dims}

    def summary(self) -> dict[str, Any]:
        table = self.table()
        networks = [
            {
                "name": str(name),
                "accuracy": finite_or_none(self.network_accuracy[number]),
                "accuracy_interval": [finite_or_none(end) for end in self.network_interval[number]],
                "restricted_accuracy": finite_or_none(self.restricted_accuracy[number]),
                "restricted_accuracy_interval": [finite_or_none(end) for end in self.restricted_interval[number]],
                **self._headline(number),
                "rows": [
                    {key: None if value != value else value for key, value in row.items() if key != "network"}
                    for row in table.loc[self.network == number].to_dict(orient="records")
                ],
            }
            for number, name in enumerate(self.networks)
        ]
        return {
            "num_train": int(self.num_train),
            "num_test": int(self.num_test),
            **({"shots": int(self.shots), "draws": int(self.draws)} if self.shots else {}),
            "cost_grid": self.cost_grid.tolist(),
            "networks": networks,
        }

    def _headline(self, network: int) -> dict[str, Any]:
        """Headline numbers of a network that not all probes have."""
        return {}
