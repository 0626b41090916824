"""How saved probes do on other images."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from analysis.results.base import Result


@dataclass(frozen=True, eq=False)
class AppliedProbesResult(Result):
    """Accuracies of saved probes of one network on the test images of a data set: one row for each layer and probe.

    Attributes:
        network: name of the network, `()`.
        layer: name of the layer of each row, `(rows,)`.
        probe: code of the probe of each row, see `analysis.results.probes.probe_name`, `(rows,)`.
        accuracy: share of the images that the probe classifies right, of all classes that it tells apart, `(rows,)`.
        interval: 95% Wilson interval of `accuracy`, lower and upper end, `(rows, 2)`.
        num_test: number of images, `()`.
    """

    STUDY: ClassVar[str] = "apply-probes"

    network: Shaped[ndarray, ""]
    layer: Shaped[ndarray, " rows"]
    probe: Shaped[ndarray, " rows"]
    accuracy: Float[ndarray, " rows"]
    interval: Float[ndarray, "rows 2"]
    num_test: Int[ndarray, ""]

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "layer": self.layer,
                "probe": self.probe,
                "accuracy": self.accuracy,
                "accuracy_low": self.interval[:, 0],
                "accuracy_high": self.interval[:, 1],
            }
        )

    def summary(self) -> dict[str, Any]:
        return {
            "network": str(self.network),
            "num_test": int(self.num_test),
            "rows": self.table().to_dict(orient="records"),
        }
