"""What lies between images in feature space (section 4.2, Fig. 5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from analysis.results.base import Result
from analysis.results.findings import Finding, FindingContext, verdict

PATHS = ("features", "pixels")
"""The spaces in which straight lines are compared."""


@dataclass(frozen=True, eq=False)
class InterpolationResult(Result):
    """Images along straight lines in feature space, and along straight lines of pixel values for comparison.

    Distances are root mean squares of differences of pixel values, which go from 0 to 1. The axis `paths` has an entry
    for each of `PATHS`.

    Attributes:
        depth: block index of the features, `()`.
        bijective: whether every point of a line is the feature of an image, `()`.
        rows_of_grid: whether the lines are the rows of a grid between four images, `()`.
        names: names of the lines, `(lines,)`.
        classes: names of the network's outputs, `(classes,)`.
        t: parameter of each step, 1 at the first image of a pair and 0 at the second; on a line along a direction 0 at
            the image, `(paths, lines, steps)`.
        images: pixel values of each step, which may leave [0, 1], `(paths, lines, steps, c, h, w)`.
        top_class: index into `classes` of the most probable class, `(paths, lines, steps)`.
        probability: probability that the network gives to `top_class`, NaN if its outputs are no logits,
            `(paths, lines, steps)`.
        travelled: sum of the distances from image to image up to each step, `(paths, lines, steps)`.
        outside: share of the pixel values below 0 or above 1, `(paths, lines, steps)`.
        residual: distance of the line's point phi from the network's range, ||Phi Phi^-1 phi - phi|| / ||phi||,
            `(paths, lines, steps)`.
        middle_distance: distance of the image at t = 1/2 from the true middle, `(paths, lines)`; NaN where that is not
            known.
        middle_feature_distance: distance of their features, over the distance of the features of both ends,
            `(paths, lines)`; 0 where the transformation between both ends has been linearised.
    """

    STUDY: ClassVar[str] = "interpolate"
    INDICES: ClassVar[Mapping[str, str]] = {"top_class": "classes"}

    depth: Int[ndarray, ""]
    bijective: Bool[ndarray, ""]
    rows_of_grid: Bool[ndarray, ""]
    names: Shaped[ndarray, " lines"]
    classes: Shaped[ndarray, " classes"]
    t: Float[ndarray, "paths lines steps"]
    images: Float[ndarray, "paths lines steps c h w"]
    top_class: Int[ndarray, "paths lines steps"]
    probability: Float[ndarray, "paths lines steps"]
    travelled: Float[ndarray, "paths lines steps"]
    outside: Float[ndarray, "paths lines steps"]
    residual: Float[ndarray, "paths lines steps"]
    middle_distance: Float[ndarray, "paths lines"]
    middle_feature_distance: Float[ndarray, "paths lines"]

    def check(self) -> None:
        super().check()
        paths, lines, steps, c, h, w = self.images.shape
        if paths != len(PATHS) or c not in (1, 3) or min(lines, steps, h, w) < 1:
            expected = f"({len(PATHS)}, lines, steps, 1 or 3, height, width)"
            raise ValueError(f"its images are of shape {self.images.shape}; expected {expected}")

    def changes(self, path: int, line: int) -> list[int]:
        """The steps, from 1 on, whose top class differs from that of the step before."""
        top = self.top_class[path, line]
        return [step for step in range(1, len(top)) if top[step] != top[step - 1]]

    def answer(self, path: int, line: int, step: int, *, letters: int | None = None) -> str:
        """The top class at a step, or so many of its letters, with its probability; empty where there are no logits."""
        name, probability = str(self.classes[self.top_class[path, line, step]]), self.probability[path, line, step]
        short = name if letters is None or len(name) <= letters else f"{name[: letters - 1]}…"
        return "" if np.isnan(probability) else f"{short} {probability:.0%}"

    def table(self) -> pd.DataFrame:
        path, line, step = (axis.ravel() for axis in np.indices(self.top_class.shape))
        columns = {name: getattr(self, name).ravel() for name in ("probability", "travelled", "outside", "residual")}
        return pd.DataFrame(
            {
                "line": self.names[line],
                "path": np.array(PATHS)[path],
                "step": step,
                "t": self.t.ravel(),
                "answer": self.classes[self.top_class.ravel()],
                **columns,
            }
        )

    def summary(self) -> dict[str, Any]:
        return {
            "depth": int(self.depth),
            "lines": [self._summary(line) for line in range(len(self.names))],
        }

    def findings(self, context: FindingContext) -> list[Finding]:
        """What the images between two images are like (section 4.2, Fig. 5)."""
        lines = len(self.names)
        outside = self.outside.max(axis=2).mean(axis=1)
        lengths = self.travelled[:, :, -1].mean(axis=1)
        way = (
            f"is {lengths[0] / lengths[1]:.1f} times as long" if lengths[1] > 0 else "has no length: they are the same"
        )
        here = (
            f"over {lines} lines, {outside[0]:.0%} of the pixel values leave [0, 1] where that is worst (on lines of "
            f"pixels {outside[1]:.0%}), and the way from image to image {way}"
        )
        findings = [
            Finding(
                network=context.network,
                paper="intermediary images are noisy, and mostly remain recognizable",
                here=here,
                verdict="open",
                rule="left to the eye",
            )
        ]
        known = np.isfinite(self.middle_distance).all(axis=0)
        if known.any():
            nearer = self.middle_feature_distance[0, known] < self.middle_feature_distance[1, known]
            findings.append(
                Finding(
                    network=context.network,
                    paper="some geometric transformations seem to have been linearized",
                    here=f"the middle of a line of {PATHS[0]} is nearer, in features, to what is truly in the middle "
                    f"than that of a line of {PATHS[1]} in {nearer.sum()} of {len(nearer)} cases",
                    verdict=verdict(bool(2 * nearer.sum() > len(nearer))),
                    rule="in more than half of the cases",
                )
            )
        return findings

    def _summary(self, line: int) -> dict[str, Any]:
        middle = {name: getattr(self, name)[:, line] for name in ("middle_distance", "middle_feature_distance")}
        return {
            "name": str(self.names[line]),
            "paths": {
                path: {
                    "answers": self.classes[self.top_class[number, line]].tolist(),
                    "changes_at_t": self.t[number, line, self.changes(number, line)].tolist(),
                    "length": float(self.travelled[number, line, -1]),
                    "largest_share_outside": float(self.outside[number, line].max()),
                    "largest_residual": float(self.residual[number, line].max()),
                    **{name: float(d[number]) if np.isfinite(d[number]) else None for name, d in middle.items()},
                }
                for number, path in enumerate(PATHS)
            },
        }
