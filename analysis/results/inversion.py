"""How exactly images come back from their features (section 4.2)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from analysis.results.base import Result


@dataclass(frozen=True, eq=False)
class InversionResult(Result):
    """Relative reconstruction error ||x - Phi^-1 Phi x|| / ||x|| of network inputs x (section 4.2).

    Attributes:
        image_errors: of each test image, `(images,)`; NaN for an image that is exactly zero, which has no relative
            error.
        noise_errors: of each image of uniform noise, `(noises,)`.
        originals: pixel values in [0, 1] of the images pictured, test images first, `(shown, c, h, w)`.
        reconstructions: of the same images, from their features, `(shown, c, h, w)`.
        shown_errors: relative errors of the images pictured, `(shown,)`.
        num_image_shown: how many of them are test images, the others being noise, `()`.
        depth: the depth inverted from, `()`.
    """

    STUDY: ClassVar[str] = "invert"

    image_errors: Float[ndarray, " images"]
    noise_errors: Float[ndarray, " noises"]
    originals: Float[ndarray, "shown c h w"]
    reconstructions: Float[ndarray, "shown c h w"]
    shown_errors: Float[ndarray, " shown"]
    num_image_shown: Int[ndarray, ""]
    depth: Int[ndarray, ""]

    def table(self) -> pd.DataFrame:
        errors = {"test images": self.image_errors, "uniform noise": self.noise_errors}
        return pd.concat(
            [
                pd.DataFrame({"set": name, "index": np.arange(len(values)), "relative_error": values})
                for name, values in errors.items()
            ],
            ignore_index=True,
        )

    def summary(self) -> dict[str, Any]:
        return {
            "depth": int(self.depth),
            "images": _statistics(self.image_errors),
            "noise": _statistics(self.noise_errors),
        }


def _statistics(errors: Shaped[ndarray, " n"]) -> dict[str, float | int]:
    defined = errors[~np.isnan(errors)].astype(np.float64)
    if len(defined) == 0:
        return {"count": 0, "undefined": len(errors)}
    return {
        "count": len(defined),
        "undefined": len(errors) - len(defined),
        "mean": float(defined.mean()),
        "median": float(np.median(defined)),
        "max": float(defined.max()),
    }
