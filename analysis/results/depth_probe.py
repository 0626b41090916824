"""How well classes are separated at each block (section 5.1, Fig. 6)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.stats import spearmanr

from analysis.results.findings import Finding, FindingContext, verdict
from analysis.results.headlines import Headline, of_each_row
from analysis.results.probes import ProbeResult

RISES = 0.9
"""Spearman coefficient from which on accuracy rises with depth."""


@dataclass(frozen=True, eq=False)
class DepthProbeResult(ProbeResult):
    """Accuracies on spatially averaged features against depth (section 5.1, Fig. 6).

    Attributes:
        depth: block index j of each row, `(rows,)`.
        relative_depth: j over the number of blocks of the network, `(rows,)`.
        distance_ratio: root mean square distance between test images of one class over that between test images of
            different classes, see `analysis.probes.class_distances`, `(rows,)`.
    """

    STUDY: ClassVar[str] = "depth-probe"
    HEADLINES: ClassVar[Mapping[str, str]] = {
        "svm_accuracy": "accuracy of the linear SVM",
        "nn_accuracy": "accuracy of 1-NN",
        "distance_ratio": "distance within classes over that between them",
    }
    """What each measure that is followed over training is called, by its code, which is the name of its field."""

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

    def headlines(self) -> list[Headline]:
        """Accuracies of the linear SVM and of 1-NN at each layer, with their intervals, and the ratio of distances."""
        none = np.full((len(self.layer), 2), np.nan)
        intervals = {"svm_accuracy": self.svm_interval, "nn_accuracy": self.nn_interval, "distance_ratio": none}
        return of_each_row(self, {code: (getattr(self, code), interval) for code, interval in intervals.items()})

    def findings(self, context: FindingContext) -> list[Finding]:
        """How accuracy changes with depth (section 5.1, Fig. 6); nothing where the SVM's is unknown."""
        findings = []
        if np.isnan(self.svm_accuracy).any():
            return findings
        for number, name in enumerate(self.networks.tolist()):
            rows = np.flatnonzero(self.network == number)
            rows = rows[np.argsort(self.depth[rows], kind="stable")]
            parts = (
                *self._find_progress(rows),
                self._find_better_probe(rows),
                *self._find_jump(rows, applies=name in context.invertible),
                *self._find_own(number, rows, applies=name in context.invertible),
            )
            findings += [Finding(network=name, **part) for part in parts]
        return findings

    def _find_progress(self, rows: ndarray) -> list[dict[str, Any]]:
        if len(rows) <= 2:
            return []
        svm = self.svm_accuracy[rows]
        ranks = [_spearman(self.depth[rows], accuracy) for accuracy in (svm, self.nn_accuracy[rows])]
        return [
            {
                "paper": "linear SVM and 1-NN improve progressively with depth",
                "here": f"accuracy rises from {svm[0]:.1%} to {svm[-1]:.1%} over {len(rows)} layers: Spearman "
                f"{ranks[0]:.2f} (linear SVM), {ranks[1]:.2f} (1-NN)",
                "verdict": verdict(min(ranks) >= RISES),
                "rule": f"Spearman's coefficient with depth is at least {RISES:g} for both",
            }
        ]

    def _find_better_probe(self, rows: ndarray) -> dict[str, Any]:
        svm, nearest = self.svm_accuracy[rows], self.nn_accuracy[rows]
        better = int((svm > nearest).sum())
        return {
            "paper": "the linear SVM is slightly better than 1-NN",
            "here": f"it is better at {better} of {len(rows)} layers, at the last one by "
            f"{100 * (svm[-1] - nearest[-1]):.1f} points",
            "verdict": verdict(bool(2 * better > len(rows) and svm[-1] > nearest[-1])),
            "rule": "better at more than half of the layers, the last one included",
        }

    def _find_jump(self, rows: ndarray, *, applies: bool) -> list[dict[str, Any]]:
        svm, depth = self.svm_accuracy[rows], self.depth[rows]
        if len(rows) <= 6 or depth[-1] - depth[-7] != 6:
            return []
        jumps = 100 * (svm[-1] - svm[-4]), 100 * (svm[-4] - svm[-7])
        return [
            {
                "paper": "there is a more intense jump on the 3 last layers of the i-RevNet",
                "here": f"the last three blocks add {jumps[0]:.1f} points to the linear SVM, the three before them "
                f"{jumps[1]:.1f}",
                "verdict": verdict(bool(jumps[0] > jumps[1]), applies=applies),
                "rule": "the last three blocks add more than the three before them",
            }
        ]

    def _find_own(self, number: int, rows: ndarray, *, applies: bool) -> list[dict[str, Any]]:
        own, high = float(self.network_accuracy[number]), float(self.svm_interval[rows[-1], 1])
        if not np.isfinite(own):
            return []
        return [
            {
                "paper": "on the i-RevNet's last features the linear SVM does slightly better than its own 77%",
                "here": f"it has {self.svm_accuracy[rows[-1]]:.1%} (up to {high:.1%}), the network {own:.1%}",
                "verdict": verdict(high >= own, applies=applies),
                "rule": "the SVM's 95% interval reaches the network's accuracy, or lies above it",
            }
        ]


def _spearman(x: ndarray, y: ndarray) -> float:
    if len(np.unique(y)) == 1:
        return 0.0  # not defined, and it does not rise
    result: Any = spearmanr(x, y)
    return float(result.statistic)
