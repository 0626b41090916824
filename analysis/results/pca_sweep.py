"""How few principal components of the features the classes need (section 5.2, Fig. 7)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from analysis.results.probes import ProbeResult


@dataclass(frozen=True, eq=False)
class PCASweepResult(ProbeResult):
    """Accuracies on the first d principal components of standardised features, against d (section 5.2, Fig. 7).

    The last row of a network has all components.

    Attributes:
        explained: share of the variance that the first d components hold, `(rows,)`.
    """

    STUDY: ClassVar[str] = "pca"

    explained: Float[ndarray, " rows"]

    def _columns(self) -> dict[str, ndarray]:
        return {"dims": self.dims, "explained_variance": self.explained}

    def _headline(self, network: int) -> dict[str, Any]:
        return {f"{probe}_knee": self.knee(network, probe) for probe in ("svm", "nn")}

    def knee(self, network: int, probe: str) -> int:
        """The smallest d tried from which on accuracy stays within one point of that of all components."""
        rows = self.network == network
        accuracy = getattr(self, f"{probe}_accuracy")[rows]
        below = np.flatnonzero(accuracy < accuracy[-1] - 0.01)
        return int(self.dims[rows][below[-1] + 1 if len(below) else 0])
