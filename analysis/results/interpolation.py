"""What lies between images in feature space (section 4.2, Fig. 5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from analysis.results.base import Result

PATHS = ("features", "pixels")
"""Straight lines in these spaces are compared."""


@dataclass(frozen=True, eq=False)
class InterpolationResult(Result):
    """Images along straight lines in feature space, and along straight lines of pixel values for comparison.

    Distances are root mean squares of differences of pixel values, which go from 0 to 1. The first axis of arrays by
    path is `PATHS`.

    Attributes:
        depth: of the features, `()`.
        bijective: whether every point of a line has an image that it is the feature of, `()`.
        rows_of_grid: whether the lines are the rows of a grid between four images, `()`.
        names: of the lines, `(lines,)`.
        classes: what the network tells apart, `(classes,)`.
        t: places on the lines, 1 at the first image of a pair and 0 at the second; on a line along a direction, 0 at
            the image, `(paths, lines, steps)`.
        images: pixel values, which may leave [0, 1], `(paths, lines, steps, c, h, w)`.
        top_class: the network's answer, `(paths, lines, steps)`.
        probability: which it gives to it, `(paths, lines, steps)`.
        travelled: distance from image to image, summed up from the first on, `(paths, lines, steps)`.
        outside: share of pixel values below 0 or above 1, `(paths, lines, steps)`.
        residual: ||Phi Phi^-1 phi - phi|| / ||phi||, how far from the network's range the line is,
            `(paths, lines, steps)`.
        middle_distance: of the image at t = 1/2 to what is truly in the middle; NaN where that is not known,
            `(paths, lines)`.
        middle_feature_distance: of their features, over the distance of the features of both ends; 0 where what is
            between the two has been linearised, `(paths, lines)`.
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
            raise ValueError(f"its images are of the shape {self.images.shape}")

    def changes(self, path: int, line: int) -> list[int]:
        """The steps at which the network's answer is another than at the step before, from 1 on."""
        answers = self.top_class[path, line]
        return [step for step in range(1, len(answers)) if answers[step] != answers[step - 1]]

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
