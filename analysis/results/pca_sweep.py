"""How few principal components of the features the classes need (section 5.2, Fig. 7)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from analysis.results.findings import Finding, FindingContext, verdict
from analysis.results.probes import ProbeResult

PAPER_COMPONENTS = 200 / 3072
"""Share of the principal components below which accuracy falls (Fig. 7)."""


@dataclass(frozen=True, eq=False)
class PCASweepResult(ProbeResult):
    """Accuracies on the first d principal components of standardised features, against d (section 5.2, Fig. 7).

    The last row of a network has all components.

    Attributes:
        explained: share of the variance in the first d components, `(rows,)`.
    """

    STUDY: ClassVar[str] = "pca"

    explained: Float[ndarray, " rows"]

    def _columns(self) -> dict[str, ndarray]:
        return {"dims": self.dims, "explained_variance": self.explained}

    def _headline(self, network: int) -> dict[str, Any]:
        return {f"{probe}_knee": self.knee(network, probe) for probe in ("svm", "nn")}

    def findings(self, context: FindingContext) -> list[Finding]:
        """How few principal components the classes need (section 5.2, Fig. 7); nothing where the SVM cannot say it."""
        findings = []
        for number, name in enumerate(self.networks.tolist()):
            count = int(self.dims[self.network == number][-1])
            knee, nearest = self.knee(number, "svm"), self.knee(number, "nn")
            if knee is None:
                continue
            findings.append(
                Finding(
                    network=name,
                    paper="accuracy falls only below about 200 of the i-RevNet's 3,072 components: a fifteenth, and 2 "
                    "a class",
                    here=f"the linear SVM is within one point of all {count:,} components from d = {knee:,} on, 1-NN "
                    f"from {nearest:,}: 1 in {count / knee:.1f}, and {knee / context.num_classes:.1f} a class",
                    verdict=verdict(knee <= PAPER_COMPONENTS * count, applies=name in context.invertible),
                    rule="at most a fifteenth of the components",
                )
            )
        return findings

    def knee(self, network: int, probe: str) -> int | None:
        """The smallest d tried from which on accuracy stays within one point of that of all components; `None` where
        accuracies are unknown."""
        rows = self.network == network
        accuracy = getattr(self, f"{probe}_accuracy")[rows]
        if np.isnan(accuracy).any():
            return None
        below = np.flatnonzero(accuracy < accuracy[-1] - 0.01)
        return int(self.dims[rows][below[-1] + 1 if len(below) else 0])
