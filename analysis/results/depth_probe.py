"""How well classes are separated at each block (section 5.1, Fig. 6)."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from numpy import ndarray

from analysis.results.probes import ProbeResult


@dataclass(frozen=True, eq=False)
class DepthProbeResult(ProbeResult):
    """Accuracies on spatially averaged features against depth (section 5.1, Fig. 6).

    Attributes:
        depth: the block j, `(rows,)`.
        relative_depth: j over the number of blocks of its network, `(rows,)`.
        distance_ratio: root mean square distance of test images of one class over that of test images of different
            classes, see `analysis.probes.class_distances`, `(rows,)`.
    """

    STUDY: ClassVar[str] = "depth-probe"

    depth: Int[ndarray, " rows"]
    relative_depth: Float[ndarray, " rows"]
    distance_ratio: Float[ndarray, " rows"]

    def _columns(self) -> dict[str, ndarray]:
        return {
            "depth": self.depth,
            "relative_depth": self.relative_depth,
            "dims": self.dims,
            "distance_ratio": self.distance_ratio,
        }
