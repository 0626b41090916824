"""How the headline numbers of a study change over the training of one network or several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from analysis.results.base import Comparison, Result, finite_or_none
from analysis.results.depth_probe import DepthProbeResult
from analysis.results.findings import Finding, FindingContext, verdict
from analysis.results.geometry import MEASURES as OF_GEOMETRY
from analysis.results.geometry import GeometryResult
from analysis.results.geometry_findings import COLLAPSE, DIMENSION, rises_and_falls, with_interval
from analysis.results.headlines import Headline
from analysis.results.spectrum import SpectrumResult

OVER_TRAINING = "-over-training"
"""What the name of a study over training has after that of the study at each step."""


@dataclass(frozen=True, eq=False)
class OverTrainingResult(Comparison):
    """The headline numbers of a study at every kept checkpoint of several runs: a row for each number.

    Attributes:
        networks: names of the networks, `(networks,)`.
        network: index into `networks` of each row, `(rows,)`.
        step: number of training steps that each row's network had done, `(rows,)`.
        layer: name of the layer of each row, `(rows,)`.
        depth: block index j of each row, `(rows,)`.
        relative_depth: j over the number of blocks of the network, `(rows,)`; NaN where the study does not record it.
        measure: code of what is measured, one of `MEASURES`, `(rows,)`.
        value: value of the measure, `(rows,)`; NaN where it is not defined or not known.
        low: lower end of the interval that `INTERVALS` describes, `(rows,)`; NaN where there is none.
        high: upper end of the interval, `(rows,)`.
    """

    OF: ClassVar[type[Result]]
    """Class of the results at single steps."""
    MEASURES: ClassVar[Mapping[str, str]]
    """What each measure is called, by its code."""
    INTERVALS: ClassVar[str]
    """What intervals are."""
    INDICES: ClassVar[Mapping[str, str]] = {"network": "networks"}

    networks: Shaped[ndarray, " networks"]
    network: Int[ndarray, " rows"]
    step: Int[ndarray, " rows"]
    layer: Shaped[ndarray, " rows"]
    depth: Int[ndarray, " rows"]
    relative_depth: Float[ndarray, " rows"]
    measure: Shaped[ndarray, " rows"]
    value: Float[ndarray, " rows"]
    low: Float[ndarray, " rows"]
    high: Float[ndarray, " rows"]

    @classmethod
    def of(cls, networks: Sequence[str], rows: Sequence[tuple[int, int, Headline]]):
        """The result of headlines, each with the index of its network and the number of steps."""
        headlines = [headline for _, _, headline in rows]
        columns = {
            name: np.array([getattr(each, name) for each in headlines])
            for name in ("layer", "depth", "relative_depth", "measure", "value", "low", "high")
        }
        return cls(
            networks=np.array(networks),
            network=np.array([number for number, _, _ in rows]),
            step=np.array([step for _, step, _ in rows]),
            **columns,
        )

    def check(self) -> None:
        super().check()
        if unknown := {*self.measure.tolist()} - {*self.MEASURES}:
            raise ValueError(f"its measures include {min(unknown)!r}; expected some of {', '.join(self.MEASURES)}")

    def layers(self, number: int) -> list[str]:
        """Names of the layers of a network, by depth."""
        rows = np.flatnonzero(self.network == number)
        ordered = rows[np.argsort(self.depth[rows], kind="stable")]
        return list(dict.fromkeys(self.layer[ordered].tolist()))

    def over_steps(self, number: int, layer: str, measure: str) -> Int[ndarray, " steps"]:
        """Rows of a measure at a layer of a network, by step."""
        found = (self.network == number) & (self.layer == layer) & (self.measure == measure)
        rows = np.flatnonzero(found)
        return rows[np.argsort(self.step[rows], kind="stable")]

    def table(self) -> pd.DataFrame:
        columns = ("step", "layer", "depth", "relative_depth", "measure", "value", "low", "high")
        named = {"network": self.networks[self.network]}
        return pd.DataFrame({**named, **{name: getattr(self, name) for name in columns}})

    def summary(self) -> dict[str, Any]:
        """The measures of each network's last layer at each step."""
        networks = []
        for number, name in enumerate(self.networks.tolist()):
            last = self.layers(number)[-1]
            steps: dict[int, dict[str, Any]] = {}
            for code in self.MEASURES:
                for row in self.over_steps(number, last, code):
                    found = steps.setdefault(int(self.step[row]), {"step": int(self.step[row])})
                    found |= {code: finite_or_none(float(self.value[row]))}
                    found |= {
                        f"{code}_{end}": finite_or_none(float(getattr(self, end)[row])) for end in ("low", "high")
                    }
            networks.append({"name": name, "layer": last, "steps": [steps[step] for step in sorted(steps)]})
        return {"intervals": self.INTERVALS, "networks": networks}


@dataclass(frozen=True, eq=False)
class GeometryOverTraining(OverTrainingResult):
    """The geometry of features over training."""

    STUDY: ClassVar[str] = GeometryResult.STUDY + OVER_TRAINING
    SPLITS: ClassVar[tuple[Literal["train", "test"], ...]] = GeometryResult.SPLITS
    OF: ClassVar[type[Result]] = GeometryResult
    MEASURES: ClassVar[Mapping[str, str]] = {code: OF_GEOMETRY[code] for code in GeometryResult.HEADLINES}
    INTERVALS: ClassVar[str] = "95% intervals over the choice of images"

    def findings(self, context: FindingContext) -> list[Finding]:
        """What Papyan et al. (2020) found of training, and Ansuini et al. (2019) of untrained networks."""
        parts = [
            (name, part)
            for number, name in enumerate(self.networks.tolist())
            for part in (*self._find_collapse(number), *self._find_flat(number))
        ]
        return [Finding(network=name, **part) for name, part in parts]

    def _find_collapse(self, number: int) -> list[dict[str, Any]]:
        last = self.layers(number)[-1]
        rows = self.over_steps(number, last, "nc1")
        if len(rows) < 2:
            return []
        first, end = ((float(self.value[row]), np.array([self.low[row], self.high[row]])) for row in rows[[0, -1]])
        known = bool(np.isfinite([first[1], end[1]]).all())
        return [
            {
                "source": COLLAPSE,
                "paper": "variation within classes falls during training (NC1)",
                "here": f"NC1 at {last} is {with_interval(*first)} after {self.step[rows[0]]:,} steps, "
                f"{with_interval(*end)} after {self.step[rows[-1]]:,}",
                "verdict": verdict(bool(end[1][1] < first[1][0]), applies=known),
                "rule": "the interval at the last kept step lies below that at the first",
            }
        ]

    def _find_flat(self, number: int) -> list[dict[str, Any]]:
        layers = self.layers(number)
        at = [self.over_steps(number, layer, "two_nn") for layer in layers]
        rows = np.array([each[0] for each in at if len(each) and self.step[each[0]] == 0], dtype=np.int64)
        if len(rows) < 3:
            return []
        dimension, interval = self.value[rows], np.stack((self.low[rows], self.high[rows]), axis=1)
        top = int(dimension.argmax())
        return [
            {
                "source": DIMENSION,
                "paper": "of an untrained network the intrinsic dimension does not rise and fall over the layers",
                "here": f"before the first step it is {with_interval(dimension[0], interval[0])} at {layers[0]}, most "
                f"at {self.layer[rows[top]]} with {with_interval(dimension[top], interval[top])}, "
                f"{with_interval(dimension[-1], interval[-1])} at {layers[-1]}",
                "verdict": verdict(not rises_and_falls(dimension, interval)),
                "rule": "unless the largest is neither at the first nor the last layer, its interval above those of "
                "both",
            }
        ]


@dataclass(frozen=True, eq=False)
class DepthProbeOverTraining(OverTrainingResult):
    """The separation of classes over training."""

    STUDY: ClassVar[str] = DepthProbeResult.STUDY + OVER_TRAINING
    SPLITS: ClassVar[tuple[Literal["train", "test"], ...]] = DepthProbeResult.SPLITS
    OF: ClassVar[type[Result]] = DepthProbeResult
    MEASURES: ClassVar[Mapping[str, str]] = DepthProbeResult.HEADLINES
    INTERVALS: ClassVar[str] = "95% intervals of accuracies over the test images"


@dataclass(frozen=True, eq=False)
class SpectrumOverTraining(OverTrainingResult):
    """The singular values of Jacobians over training."""

    STUDY: ClassVar[str] = SpectrumResult.STUDY + OVER_TRAINING
    SPLITS: ClassVar[tuple[Literal["train", "test"], ...]] = SpectrumResult.SPLITS
    OF: ClassVar[type[Result]] = SpectrumResult
    MEASURES: ClassVar[Mapping[str, str]] = SpectrumResult.HEADLINES
    INTERVALS: ClassVar[str] = "medians over the images, with their 10% and 90% quantiles"
