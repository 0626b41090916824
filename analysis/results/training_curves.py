"""How fast networks learn, side by side (section 3.2, Fig. 3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from analysis.results.base import Comparison
from analysis.results.findings import Finding, FindingContext, Verdict, verdict

ALIKE = 1.1
"""Largest ratio of two training losses that are alike."""


@dataclass(frozen=True, eq=False)
class TrainingCurvesResult(Comparison):
    """Training loss against iterations, and test accuracy after each epoch, of several runs on the same data (Fig. 3).

    Attributes:
        names: names of the runs, `(runs,)`.
        curve_run: index into `names` of each point of the curves, `(points,)`.
        iteration: number of iterations done at each point, `(points,)`.
        loss: mean cross-entropy of the last `window` iterations at each point, in nats, `(points,)`.
        epoch_run: index into `names` of each epoch, `(epochs,)`.
        epoch_iteration: number of iterations done at the end of each epoch, `(epochs,)`.
        test_accuracy: top-1 accuracy on the test set at the end of each epoch, a share of 1, `(epochs,)`.
        window: number of iterations averaged, `()`.
    """

    STUDY: ClassVar[str] = "training-curves"
    NAMES: ClassVar[str] = "names"
    NUMBERS: ClassVar[tuple[str, ...]] = ("curve_run", "epoch_run")
    SHARED: ClassVar[tuple[str, ...]] = ("window",)
    INDICES: ClassVar[Mapping[str, str]] = {"curve_run": "names", "epoch_run": "names"}

    names: Shaped[ndarray, " runs"]
    curve_run: Int[ndarray, " points"]
    iteration: Int[ndarray, " points"]
    loss: Float[ndarray, " points"]
    epoch_run: Int[ndarray, " epochs"]
    epoch_iteration: Int[ndarray, " epochs"]
    test_accuracy: Float[ndarray, " epochs"]
    window: Int[ndarray, ""]

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(
            {"run": self.names[self.curve_run], "iteration": self.iteration, f"loss_mean_{self.window}": self.loss}
        )

    def summary(self) -> dict[str, Any]:
        return {"window": int(self.window), "runs": [self._summary_of(run) for run in range(len(self.names))]}

    def findings(self, context: FindingContext) -> list[Finding]:
        """Whether training losses decrease alike (section 3.2, Fig. 3)."""
        first, *others = self.summary()["runs"]
        if not others:
            loss = first["loss_at_quarters"][-1]
            here = f"the loss ends at {loss:.3g}; there is no other run here to compare it with"
            return [_finding(first["name"], here, "open")]
        findings = []
        for run in others:
            tiny = np.finfo(np.float64).tiny  # two losses that are zero are alike
            ratios = np.array(first["loss_at_quarters"]).clip(tiny) / np.array(run["loss_at_quarters"]).clip(tiny)
            factors = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            here = f"at the quarters of the run its loss is {factors} times that of {run['name']}"
            agrees = bool((np.maximum(ratios, 1 / ratios) <= ALIKE).all())
            findings.append(_finding(first["name"], here, verdict(agrees)))
        return findings

    def _summary_of(self, run: int) -> dict[str, Any]:
        """The loss at each quarter of the run, and the last test accuracy; `None` before the end of the first epoch."""
        loss = self.loss[self.curve_run == run]
        quarters = [round(part * len(loss)) - 1 for part in (0.25, 0.5, 0.75, 1)]
        accuracy = self.test_accuracy[self.epoch_run == run]
        return {
            "name": str(self.names[run]),
            "iterations": int(self.iteration[self.curve_run == run][-1]),
            "loss_at_quarters": [float(loss[max(0, at)]) for at in quarters],
            "test_accuracy": float(accuracy[-1]) if len(accuracy) else None,
        }


def _finding(network: str, here: str, verdict: Verdict) -> Finding:
    return Finding(
        network=network,
        paper="the training losses of i-RevNet and ResNet decrease alike",
        here=here,
        verdict=verdict,
        rule=f"at each quarter of the run the losses differ by a factor of at most {ALIKE:g}",
    )
