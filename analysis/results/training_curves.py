"""How fast networks learn, side by side (section 3.2, Fig. 3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from analysis.results.base import Comparison


@dataclass(frozen=True, eq=False)
class TrainingCurvesResult(Comparison):
    """Training loss against iterations, and test accuracy after each epoch, of several runs on the same data (Fig. 3).

    Attributes:
        names: of the runs, `(runs,)`.
        curve_run: to which run each point of the curves belongs, `(points,)`.
        iteration: the iterations done at that point, `(points,)`.
        loss: mean cross-entropy of the last `window` iterations up to it, in nats, `(points,)`.
        epoch_run: to which run each epoch belongs, `(epochs,)`.
        epoch_iteration: the iterations done at its end, `(epochs,)`.
        test_accuracy: top-1 on the test set then, `(epochs,)`.
        window: iterations that are averaged, `()`.
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
