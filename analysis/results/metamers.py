"""Images that a network cannot tell from others by its logits or its averaged features (Jacobsen et al., 2019)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from analysis.results.base import Result, finite_or_none
from analysis.results.findings import Finding, FindingContext, verdict
from analysis.results.shares import Share, share_of

SOURCE = "arXiv:1811.00401"
"""Jacobsen, Behrmann, Zemel, Bethge: Excessive invariance causes adversarial vulnerability, ICLR 2019."""

KINDS = ("nearest-features", "nearest-image", "rearranged", "reversed")
"""Kinds of metamers: see `analysis.studies.metamers.MetamerOptions`."""

CERTIFIED = 1e-5
"""Largest relative difference of what is kept, computed anew from the image, at which an image counts as a metamer."""


@dataclass(frozen=True, eq=False)
class MetamersResult(Result):
    """Metamers of pairs of images, source A and target B: a row for each pair and kind, pair by pair.

    Images are network inputs. Those of the first rows are kept, `(images,)` of `(rows,)`. Distances between images are
    root mean squares of differences of pixel values, which go from 0 to 1.

    Attributes:
        depth: block index of the features, `()`.
        keep: what a metamer shares with its source, `"logits"` or `"averages"`, `()`.
        exact: whether the network is in exact arithmetic, `()`.
        kinds: names of the kinds, `(kinds,)`.
        kind: index into `kinds` of each row, `(rows,)`.
        names: names of the pairs, `(pairs,)`.
        pair: index into `names` of each row, `(rows,)`.
        classes: names of the network's outputs, `(classes,)`.
        source: image A, `(images, c, h, w)`.
        target: image B, `(images, c, h, w)`.
        metamer: image with what is kept of A, and otherwise the features of B, `(images, c, h, w)`.
        bounded: image near the metamer or, of the kind `nearest-image`, near B, with what is kept of A and pixel values
            in [0, 1], `(bounded, c, h, w)`; no images where these were not asked for.
        pixel_mean: mean that inputs were normalised by, of each channel, `(c,)`.
        pixel_std: deviation that inputs were normalised by, of each channel, `(c,)`.
        source_logits: logits of A, `(rows, classes)`.
        target_logits: logits of B, `(rows, classes)`.
        wanted_logits: logits asked for, those of A unless others were named, `(rows, classes)`; NaN where averages are
            kept.
        metamer_logits: logits of the metamer, computed anew from the image, `(rows, classes)`.
        difference: norm of the difference between what is wanted and what the metamer has of it, over the norm of the
            first, computed anew from the image, `(rows,)`.
        identical: whether these are equal to the last bit, `(rows,)`.
        clipped_difference: that difference of the metamer with its pixel values clipped to [0, 1], `(rows,)`.
        bounded_difference: that difference of `bounded`, NaN where that was not asked for, `(rows,)`.
        lowest: smallest pixel value of the metamer, `(rows,)`.
        highest: largest pixel value of the metamer, `(rows,)`.
        outside: share of its pixel values below 0 or above 1, `(rows,)`.
        source_distance: distance of the metamer from A, `(rows,)`.
        target_distance: distance of the metamer from B, `(rows,)`.
        bounded_distance: distance of `bounded` from B, NaN where that was not asked for, `(rows,)`.
        pair_distance: distance of A from B, `(rows,)`.
        target_feature_distance: distance of the metamer's features from those of B, over the norm of these, `(rows,)`.
        feature_bound: lower bound of that distance for any features with these logits, NaN where none is known,
            `(rows,)`.
        judges: names of the networks that judged, `(judges,)`.
        judged_source: class that each judge gives A, `(judges, rows)`.
        judged_target: class that each judge gives B, `(judges, rows)`.
        judged_metamer: class that each judge gives the metamer, clipped to [0, 1] as an image file holds it,
            `(judges, rows)`.
    """

    STUDY: ClassVar[str] = "metamers"
    INDICES: ClassVar[Mapping[str, str]] = {"kind": "kinds", "pair": "names"}

    depth: Int[ndarray, ""]
    keep: Shaped[ndarray, ""]
    exact: Bool[ndarray, ""]
    kinds: Shaped[ndarray, " kinds"]
    kind: Int[ndarray, " rows"]
    names: Shaped[ndarray, " pairs"]
    pair: Int[ndarray, " rows"]
    classes: Shaped[ndarray, " classes"]
    source: Float[ndarray, "images c h w"]
    target: Float[ndarray, "images c h w"]
    metamer: Float[ndarray, "images c h w"]
    bounded: Float[ndarray, "bounded c h w"]
    pixel_mean: Float[ndarray, " c"]
    pixel_std: Float[ndarray, " c"]
    source_logits: Float[ndarray, "rows classes"]
    target_logits: Float[ndarray, "rows classes"]
    wanted_logits: Float[ndarray, "rows classes"]
    metamer_logits: Float[ndarray, "rows classes"]
    difference: Float[ndarray, " rows"]
    identical: Bool[ndarray, " rows"]
    clipped_difference: Float[ndarray, " rows"]
    bounded_difference: Float[ndarray, " rows"]
    lowest: Float[ndarray, " rows"]
    highest: Float[ndarray, " rows"]
    outside: Float[ndarray, " rows"]
    source_distance: Float[ndarray, " rows"]
    target_distance: Float[ndarray, " rows"]
    bounded_distance: Float[ndarray, " rows"]
    pair_distance: Float[ndarray, " rows"]
    target_feature_distance: Float[ndarray, " rows"]
    feature_bound: Float[ndarray, " rows"]
    judges: Shaped[ndarray, " judges"]
    judged_source: Shaped[ndarray, "judges rows"]
    judged_target: Shaped[ndarray, "judges rows"]
    judged_metamer: Shaped[ndarray, "judges rows"]

    def check(self) -> None:
        super().check()
        images, channels, *size = self.metamer.shape
        if channels not in (1, 3) or min(size) < 1 or images > len(self.kind) or len(self.bounded) not in (0, images):
            raise ValueError(
                f"its metamers are of shape {self.metamer.shape}; expected images of {len(self.kind)} rows"
            )
        pair, kind = np.divmod(np.arange(len(self.names) * len(self.kinds)), max(1, len(self.kinds)))
        if not (len(pair) and np.array_equal(self.pair, pair) and np.array_equal(self.kind, kind)):
            raise ValueError(
                f"its {len(self.kind)} rows are not those of {len(self.kinds)} kinds for each of {len(self.names)} "
                "pairs"
            )

    def pixels(self, inputs: Float[ndarray, "images c h w"]) -> Float[ndarray, "images c h w"]:
        """Pixel values of network inputs, which may leave [0, 1]."""
        return inputs * self.pixel_std[:, None, None] + self.pixel_mean[:, None, None]

    def rows_of(self, kind: int) -> Int[ndarray, " kind_rows"]:
        """The rows of a kind."""
        return np.flatnonzero(self.kind == kind)

    def certified(self, rows: Int[ndarray, " some"]) -> int:
        """Number of metamers among these rows: to the last bit in exact arithmetic, else to `CERTIFIED`."""
        return int((self.identical[rows] if self.exact else self.difference[rows] <= CERTIFIED).sum())

    def answer(self, logits: Float[ndarray, "rows classes"], row: int) -> str:
        """The class that logits of a row are largest for."""
        return str(self.classes[logits[row].argmax()])

    def judged_as(self, judge: int, kind: int) -> dict[str, Share]:
        """How often a judge gives a metamer the class that it gives A, and the one that it gives B.

        Over the pairs that it tells apart. By chance it does so as often as it gives the metamer of one pair the class
        of A, or of B, of another.
        """
        rows = self.rows_of(kind)
        a, b, metamer = (each[judge, rows] for each in (self.judged_source, self.judged_target, self.judged_metamer))
        apart = a != b
        return {"A": share_of(metamer[apart], a[apart]), "B": share_of(metamer[apart], b[apart])}

    def table(self) -> pd.DataFrame:
        columns = {
            "pair": self.names[self.pair],
            "kind": self.kinds[self.kind],
            "source_class": self.classes[self.source_logits.argmax(axis=1)],
            "target_class": self.classes[self.target_logits.argmax(axis=1)],
            "metamer_class": self.classes[self.metamer_logits.argmax(axis=1)],
        }
        numbers = (
            *("difference", "identical", "clipped_difference", "bounded_difference", "lowest", "highest", "outside"),
            *("source_distance", "target_distance", "bounded_distance", "pair_distance"),
            *("target_feature_distance", "feature_bound"),
        )
        columns |= {name: getattr(self, name) for name in numbers}
        for judge, name in enumerate(self.judges):
            for what in ("source", "target", "metamer"):
                columns[f"{name}: {what}"] = getattr(self, f"judged_{what}")[judge]
        return pd.DataFrame(columns)

    def summary(self) -> dict[str, Any]:
        return {
            "depth": int(self.depth),
            "keep": str(self.keep),
            "exact": bool(self.exact),
            "pairs": len(self.names),
            "kinds": {str(name): self._summary(kind) for kind, name in enumerate(self.kinds)},
        }

    def _summary(self, kind: int) -> dict[str, Any]:
        rows = self.rows_of(kind)
        medians = (
            *("clipped_difference", "bounded_difference", "outside", "source_distance", "target_distance"),
            *("bounded_distance", "pair_distance", "target_feature_distance", "feature_bound"),
        )
        return {
            "certified": self.certified(rows),
            "identical": int(self.identical[rows].sum()),
            "largest_difference": float(self.difference[rows].max()),
            "lowest_pixel": float(self.lowest[rows].min()),
            "highest_pixel": float(self.highest[rows].max()),
            "median": {name: finite_or_none(np.median(getattr(self, name)[rows])) for name in medians},
            "judges": {
                str(name): {
                    f"class of {of}": {
                        "count": share.count,
                        "of": share.total,
                        "share": finite_or_none(share.value),
                        "interval": list(map(finite_or_none, share.interval)),
                        "by_chance": finite_or_none(share.chance),
                    }
                    for of, share in self.judged_as(judge, kind).items()
                }
                for judge, name in enumerate(self.judges)
            },
        }

    def findings(self, context: FindingContext) -> list[Finding]:
        """What Jacobsen et al. (2019, arXiv:1811.00401) found, beside what metamers are here."""
        if self.keep != "logits":
            return []
        findings = []
        for kind, name in enumerate(self.kinds):
            rows = self.rows_of(kind)
            certified = self.certified(rows)
            exactly = "to the last bit" if self.exact else f"to {CERTIFIED:.0e}"
            median = np.median(self.target_distance[rows] / self.pair_distance[rows].clip(min=1e-12))
            outside = np.mean(self.outside[rows] > 0)
            findings.append(
                Finding(
                    network=context.network,
                    source=SOURCE,
                    paper="one can manipulate the class-specific content of almost any image without changing the "
                    "hidden activations",
                    here=f"{name}: {certified:,} of {len(rows):,} images have A's logits {exactly}; their distance "
                    f"from B is {median:.2g} times that of A from B (median), and {outside:.0%} of them leave [0, 1]",
                    verdict=verdict(2 * certified > len(rows)),
                    rule="more than half of the pairs have such an image",
                )
            )
            for judge, other in enumerate(self.judges):
                shares = self.judged_as(judge, kind)
                low, high = shares["B"].interval
                findings.append(
                    Finding(
                        network=context.network,
                        source=SOURCE,
                        paper="deep networks are too invariant to a wide range of task-relevant changes",
                        here=f"{name}: {other} gives {shares['B'].value:.0%} ({low:.0%} to {high:.0%}) of them the "
                        f"class of B ({shares['B'].chance:.0%} by chance) and {shares['A'].value:.0%} that of A "
                        f"({shares['A'].chance:.0%}), whose logits they have",
                        verdict=verdict(bool(low > shares["B"].chance), applies=shares["B"].total > 0),
                        rule="the judge names B's class more often than by chance, its interval apart",
                    )
                )
        return findings
