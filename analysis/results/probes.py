"""What a linear SVM and a nearest neighbour make of features (section 5, Figs. 6 and 7)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from analysis.results.base import Comparison, finite_or_none


@dataclass(frozen=True, eq=False)
class ProbeResult(Comparison):
    """Test accuracies of a linear SVM and of 1-NN on features of several networks: one row for each set of features.

    Accuracies are shares of 1, and intervals are 95% Wilson intervals, lower and upper end.

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
        svm_accuracy: share of the test images that the linear SVM classifies right, `(rows,)`.
        svm_interval: interval of `svm_accuracy`, `(rows, 2)`.
        nn_accuracy: share of the test images that the nearest neighbour classifies right, `(rows,)`.
        nn_interval: interval of `nn_accuracy`, `(rows, 2)`.
        svm_cost: C of the SVM, see `analysis.probes.svm_selection.choose_svm`, `(rows,)`.
        svm_gap: upper bound on the SVM's objective above its minimum, relative to the minimum, of the class where it
            is largest, `(rows,)`; NaN where the solver gives none.
        at_edge: whether `svm_cost` is an end of `cost_grid` and better than all other values tried, `(rows,)`.
        cost_grid: values of C tried, in increasing order, `(costs,)`.
        cv_accuracy: cross-validated accuracy on a small part of the training set for each C, `(rows, costs)`.
        held_out_accuracy: accuracy on a fifth of the training set of SVMs fitted to the rest for each C,
            `(rows, costs)`; NaN for values of C that were not tried there.
        num_train: number of training images, `()`.
        num_test: number of test images, `()`.
    """

    SPLITS: ClassVar[tuple[Literal["train", "test"], ...]] = ("train", "test")
    SHARED: ClassVar[tuple[str, ...]] = ("cost_grid", "num_train", "num_test")

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
    num_train: Int[ndarray, ""]
    num_test: Int[ndarray, ""]

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "network": self.networks[self.network],
                "layer": self.layer,
                **self._columns(),
                "svm_accuracy": self.svm_accuracy,
                "svm_accuracy_low": self.svm_interval[:, 0],
                "svm_accuracy_high": self.svm_interval[:, 1],
                "nn_accuracy": self.nn_accuracy,
                "nn_accuracy_low": self.nn_interval[:, 0],
                "nn_accuracy_high": self.nn_interval[:, 1],
                "svm_cost": self.svm_cost,
                "svm_gap": self.svm_gap,
                "cost_at_edge": self.at_edge,
            }
        )

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
            "cost_grid": self.cost_grid.tolist(),
            "networks": networks,
        }

    def _headline(self, network: int) -> dict[str, Any]:
        """Headline numbers of a network that not all probes have."""
        return {}
