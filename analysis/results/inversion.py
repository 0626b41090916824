"""How exactly images come back from their features (section 4.2)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from analysis.results.base import Result, finite_or_none
from analysis.results.findings import Finding, FindingContext, verdict
from irevnet.utils.untrusted import brief

PAPER_ERRORS = {"images": 3e-6, "noise": 5e-6}
"""Mean relative errors of section 4.2, by the keys of the summary."""


@dataclass(frozen=True, eq=False)
class InversionResult(Result):
    """Relative reconstruction error ||x - Phi^-1 Phi x|| / ||x|| of network inputs x (section 4.2).

    Two sets, test images and uniform noise, are inverted from one depth in one arithmetic; a sample of the test images
    from several depths in several arithmetics. An error or an amplification is NaN for an image that is exactly zero,
    and an error is infinite where the arithmetic overflowed.

    Attributes:
        arithmetic: name of the arithmetic in which the two sets were inverted, `()`.
        depth: block index from which the two sets were inverted, `()`.
        image_errors: relative error of each test image, `(images,)`.
        noise_errors: relative error of each image of uniform noise, `(noises,)`.
        shown: indices of the images shown, those with the largest errors: first into `image_errors`, then into
            `noise_errors`, `(shown,)`.
        num_image_shown: number of test images among the images shown, `()`.
        originals: pixel values in [0, 1] of the images shown, `(shown, c, h, w)`.
        reconstructions: pixel values of the images shown, as rebuilt from their features, `(shown, c, h, w)`.
        depths: block indices from which the sample was inverted, `(depths,)`.
        arithmetics: names of the arithmetics in which the sample was inverted, `(arithmetics,)`.
        depth_errors: relative error of each image of the sample, `(arithmetics, depths, sample)`.
        amplification_random: ||dx|| / ||x|| over ||dphi|| / ||phi|| for small changes dphi of the features in random
            directions, root mean square, of each of some images of the sample, `(depths, amplified)`.
        amplification_largest: ||dx|| / ||x|| over ||dphi|| / ||phi|| in the direction that the inverse magnifies most,
            the inverse's largest singular value, `(depths, amplified)`.
        amplification_residual: distance from `amplification_largest` within which a singular value lies, relative to
            it, `(depths, amplified)`.
    """

    STUDY: ClassVar[str] = "invert"

    arithmetic: Shaped[ndarray, ""]
    depth: Int[ndarray, ""]
    image_errors: Float[ndarray, " images"]
    noise_errors: Float[ndarray, " noises"]
    shown: Int[ndarray, " shown"]
    num_image_shown: Int[ndarray, ""]
    originals: Float[ndarray, "shown c h w"]
    reconstructions: Float[ndarray, "shown c h w"]
    depths: Int[ndarray, " depths"]
    arithmetics: Shaped[ndarray, " arithmetics"]
    depth_errors: Float[ndarray, "arithmetics depths sample"]
    amplification_random: Float[ndarray, "depths amplified"]
    amplification_largest: Float[ndarray, "depths amplified"]
    amplification_residual: Float[ndarray, "depths amplified"]

    def check(self) -> None:
        super().check()
        first, (count, c, h, w) = int(self.num_image_shown), self.originals.shape
        if not 0 <= first <= count or (count and (c not in (1, 3) or min(h, w) < 1)):
            raise ValueError(f"its num_image_shown is {first}, and its originals are of shape {self.originals.shape}")
        for shown, errors in ((self.shown[:first], self.image_errors), (self.shown[first:], self.noise_errors)):
            if not all(0 <= index < len(errors) for index in shown.tolist()):
                raise ValueError(f"its shown has {brief(shown.tolist())}; expected indices of {len(errors)} images")
        if min(len(self.depths), len(self.arithmetics), *self.amplification_random.shape) < 1:
            raise ValueError("its depths, arithmetics or amplifications are empty")

    @property
    def shown_errors(self) -> Float[ndarray, " shown"]:
        """Relative errors of the images shown."""
        first = int(self.num_image_shown)
        return np.concatenate((self.image_errors[self.shown[:first]], self.noise_errors[self.shown[first:]]))

    def table(self) -> pd.DataFrame:
        """A row for each number: errors of both sets, errors of the sample by arithmetic and depth, amplifications."""
        sets = {"test images": self.image_errors, "uniform noise": self.noise_errors}
        here = self.arithmetic[None], self.depth[None]
        parts = [_rows(name, "relative error", *here, values[None, None]) for name, values in sets.items()]
        parts.append(_rows("sample", "relative error", self.arithmetics, self.depths, self.depth_errors))
        for name in ("random", "largest"):
            values = getattr(self, f"amplification_{name}")
            parts.append(_rows("sample", f"amplification, {name}", np.array(["float32"]), self.depths, values[None]))
        return pd.concat(parts, ignore_index=True)

    def summary(self) -> dict[str, Any]:
        return {
            "arithmetic": str(self.arithmetic),
            "depth": int(self.depth),
            "images": _statistics(self.image_errors),
            "noise": _statistics(self.noise_errors),
            "by_depth": [
                {
                    "depth": depth,
                    "mean_error": dict(zip(self.arithmetics.tolist(), map(finite_or_none, means))),
                    **{
                        f"amplification_{kind}": float(np.median(values[row])) if values.size else None
                        for kind, values in self.amplifications.items()
                    },
                }
                for row, (depth, means) in enumerate(zip(self.depths.tolist(), self.mean_depth_errors.T))
            ],
        }

    def findings(self, context: FindingContext) -> list[Finding]:
        """How exactly images come back from their features (section 4.2)."""
        summary = self.summary()
        means = {name: summary[name].get("mean") for name in PAPER_ERRORS}
        texts = {name: "not finite" if mean is None else f"{mean:.1e}" for name, mean in means.items()}
        counts = {name: f"{summary[name]['count']:,}" for name in PAPER_ERRORS}
        agrees = all(mean is not None and mean <= PAPER_ERRORS[name] for name, mean in means.items())
        defined = summary["images"]["count"] > 0
        if not defined:  # black throughout
            texts["images"] = "undefined"
        return [
            Finding(
                network=context.network,
                paper="the mean relative error is 3e-6 on the validation set and 5e-6 on uniform noise",
                here=f"{texts['images']} on {counts['images']} test images and {texts['noise']} on {counts['noise']} "
                f"of uniform noise, in {summary['arithmetic']}",
                verdict=verdict(agrees, applies=defined),
                rule="neither is above the paper's",
            )
        ]

    @property
    def amplifications(self) -> dict[str, Float[ndarray, "depths images"]]:
        """The two amplifications, of all images but those that are exactly zero."""
        return {
            kind: values[:, ~np.isnan(values).any(axis=0)]
            for kind, values in (("random", self.amplification_random), ("largest", self.amplification_largest))
        }

    @property
    def mean_depth_errors(self) -> Float[ndarray, "arithmetics depths"]:
        """The mean over all images of the sample but those that are exactly zero; NaN if all are."""
        defined = ~np.isnan(self.depth_errors)
        with np.errstate(invalid="ignore"):
            return np.where(defined, self.depth_errors, 0).sum(axis=2) / defined.sum(axis=2)


def _rows(
    images: str,
    quantity: str,
    arithmetics: Shaped[ndarray, " kinds"],
    depths: Int[ndarray, " depths"],
    values: Shaped[ndarray, "kinds depths images"],
) -> pd.DataFrame:
    kind, depth, index = (axis.ravel() for axis in np.indices(values.shape))
    return pd.DataFrame(
        {
            "set": images,
            "quantity": quantity,
            "arithmetic": arithmetics[kind],
            "depth": depths[depth],
            "index": index,
            "value": values.ravel(),
        }
    )


def _statistics(errors: Shaped[ndarray, " n"]) -> dict[str, float | int | None]:
    defined = errors[~np.isnan(errors)].astype(np.float64)
    if len(defined) == 0:
        return {"count": 0, "undefined": len(errors)}
    quantiles = {"median": 0.5, "q90": 0.9, "q99": 0.99, "max": 1.0}
    with np.errstate(invalid="ignore"):  # between two infinite ones
        found = {name: finite_or_none(np.quantile(defined, q)) for name, q in quantiles.items()}
    return {
        "count": len(defined),
        "undefined": len(errors) - len(defined),
        "mean": finite_or_none(defined.mean()),
        **found,
    }
