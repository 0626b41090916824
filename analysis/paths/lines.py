"""Straight lines through feature space, mapped back to images (section 4.2, Fig. 5)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from analysis.results import InterpolationResult
from irevnet.data.transforms import InputTransform
from irevnet.models.irevnet import IRevNet
from irevnet.utils.progress import Track, no_progress


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Straight lines phi(t) = start + t delta in one of a network's feature spaces.

    At depth 0, where features are the image itself with its pixels moved, they are straight lines of pixel values.

    Attributes:
        start: `(lines, c, h, w)`.
        delta: `(lines, c, h, w)`.
        depth: of the features.
    """

    start: Float[Tensor, "lines c h w"]
    delta: Float[Tensor, "lines c h w"]
    depth: int

    def at(self, line: int, t: Sequence[float] | Float[ndarray, " steps"]) -> Float[Tensor, "steps c h w"]:
        """The features at these places of a line."""
        places = torch.as_tensor(np.asarray(t), dtype=self.start.dtype, device=self.start.device)
        return self.start[line] + places.reshape(-1, 1, 1, 1) * self.delta[line]


@torch.no_grad()
def between(model: IRevNet, first: Tensor, second: Tensor, depth: int) -> Lines:
    """phi(t) = t Phi x^0 + (1 - t) Phi x^1 for pairs of network inputs, the `first` at t = 1 and the `second` at 0."""
    start, end = model.features(second, depth), model.features(first, depth)
    return Lines(start=start, delta=end - start, depth=depth)


@torch.no_grad()
def grid(model: IRevNet, corners: Tensor, rows: int, depth: int) -> Lines:
    """The rows of a grid between four inputs: top left, top right, bottom left, bottom right; t = 1 is on the left."""
    top_left, top_right, bottom_left, bottom_right = model.features(corners, depth)
    down = torch.linspace(0, 1, rows).to(top_left).reshape(-1, 1, 1, 1)
    left, right = torch.lerp(top_left, bottom_left, down), torch.lerp(top_right, bottom_right, down)
    return Lines(start=right, delta=left - right, depth=depth)


@torch.no_grad()
def along(model: IRevNet, inputs: Tensor, step: Tensor, depth: int) -> Lines:
    """phi(t) = Phi x + t step for network inputs x."""
    start = model.features(inputs, depth)
    return Lines(start=start, delta=step.to(start).expand_as(start), depth=depth)


@torch.no_grad()
def follow(
    model: IRevNet,
    transform: InputTransform,
    lines_at: Callable[[int], Lines],
    *,
    depth: int,
    t: Sequence[float],
    names: Sequence[str],
    classes: Sequence[str],
    even: bool = False,
    middle: Float[Tensor, "lines c h w"] | None = None,
    rows_of_grid: bool = False,
    batch_size: int = 256,
    track: Track = no_progress,
) -> InterpolationResult:
    """The images along straight lines of features, and along those of pixels, and what the network makes of them.

    Args:
        model: an i-RevNet in eval mode.
        transform: of its inputs.
        lines_at: the lines at a depth: that of the features and then 0, where they are lines of pixels.
        depth: of the features.
        t: places on the lines.
        names: of the lines.
        classes: what the logits stand for.
        even: keep the first and the last of these places, and put those between such that neighbouring images are
            equally far apart.
        middle: inputs that are truly in the middle of each line; NaN for lines of which that is not known.
        rows_of_grid: the lines are the rows of a grid.
        batch_size: images a pass.
        track: shows progress.

    Raises `ValueError` for images or logits that are not finite.
    """
    found: dict[str, list[list[Any]]] = {}
    for at in (depth, 0):
        lines = lines_at(at)
        rows = [
            _look_along(model, transform, lines, line, t, even=even, batch_size=batch_size)
            | _compare_middle(model, transform, lines, line, None if middle is None else middle[line], depth)
            for line in track(range(len(names)), "lines of features" if at == depth else "lines of pixels")
        ]
        for name in rows[0]:
            found.setdefault(name, []).append([row[name] for row in rows])
    return InterpolationResult(
        depth=np.array(depth),
        bijective=np.array(model.config.bijective),
        rows_of_grid=np.array(rows_of_grid),
        names=np.array(names),
        classes=np.array(classes),
        **{name: np.array(values) for name, values in found.items()},
    )


def _look_along(
    model: IRevNet,
    transform: InputTransform,
    lines: Lines,
    line: int,
    t: Sequence[float],
    *,
    even: bool,
    batch_size: int,
) -> dict[str, ndarray]:
    """What is recorded of each step of one line, by its name in the result."""

    def decode(phi: Tensor) -> Tensor:
        return torch.cat([model.inverse(part, lines.depth) for part in phi.split(batch_size)])

    def pixels_at(places: ndarray) -> Tensor:
        return transform.to_pixels(decode(lines.at(line, places))).double()

    places = _evenly(pixels_at, t) if even else np.array(t, dtype=float)
    phi = lines.at(line, places)
    inputs = decode(phi)
    pixels = transform.to_pixels(inputs).double()
    logits = torch.cat([model(part) for part in inputs.split(batch_size)])
    probability, top_class = logits.double().softmax(dim=1).max(dim=1)
    again = torch.cat([model.features(part, lines.depth) for part in inputs.split(batch_size)])
    if not (inputs.isfinite().all() and logits.isfinite().all() and again.isfinite().all()):
        raise ValueError(
            f"images along path {line + 1} from depth {lines.depth} are not finite; the network's weights are broken, "
            "or its features are too large for float32: choose another depth, or compute with --exact"
        )
    outside = (pixels < -ROUNDING) | (pixels > 1 + ROUNDING)
    values = {
        "t": torch.from_numpy(places),
        "images": pixels.float(),
        "top_class": top_class,
        "probability": probability,
        "travelled": torch.cat((pixels.new_zeros(1), _distances(pixels).cumsum(dim=0))),
        "outside": outside.double().mean(dim=(1, 2, 3)),
        "residual": _norms(again - phi) / _norms(phi).clamp(min=torch.finfo(torch.float64).tiny),
    }
    return {name: value.cpu().numpy() for name, value in values.items()}


def _compare_middle(
    model: IRevNet, transform: InputTransform, lines: Lines, line: int, middle: Tensor | None, depth: int
) -> dict[str, float]:
    """How far the middle of a line is from what is truly there: in pixels, and in the features of a depth."""
    if middle is None or not middle.isfinite().all():
        return {"middle_distance": math.nan, "middle_feature_distance": math.nan}
    first, half, second = model.inverse(lines.at(line, [1.0, 0.5, 0.0]), lines.depth)
    true = middle.to(half)
    images = torch.stack((half, true, first, second))
    phi = model.features(images, depth)
    apart, ends = _norms(phi[0:1] - phi[1:2]).item(), _norms(phi[2:3] - phi[3:4]).item()
    return {
        "middle_distance": _distances(transform.to_pixels(images[:2]).double()).item(),
        "middle_feature_distance": apart / ends if ends > 0 else math.nan,
    }


ROUNDING = 1e-4
"""By how much a pixel value may be below black or above white and still count as one of an image."""

EVEN_WITHIN = 1.05
"""Images are evenly apart when no two neighbours are this many times farther apart than any other two."""


def _evenly(pixels_at: Callable[[ndarray], Tensor], t: Sequence[float]) -> Float[ndarray, " steps"]:
    """Places from the first to the last of t at which neighbouring images are equally far apart.

    Places on a finer grid are moved to where, between them, equal parts of the distance have been travelled, until
    neighbours are evenly apart, or twenty times. (The authors "adapt the step size manually".)
    """
    places = np.linspace(t[0], t[-1], 8 * len(t))
    for _ in range(20):
        apart = _distances(pixels_at(places)).cpu().numpy()
        if len(places) == len(t) and apart.max() <= EVEN_WITHIN * apart.min():
            break
        travelled = np.concatenate(([0.0], np.cumsum(apart)))
        places = np.interp(np.linspace(0, travelled[-1], len(t)), travelled, places)
    return places


def _distances(pixels: Float[Tensor, "images c h w"]) -> Float[Tensor, " others"]:
    """Root mean square differences of pixel values of each image and the one before."""
    return (pixels[1:] - pixels[:-1]).square().mean(dim=(1, 2, 3)).sqrt()


def _norms(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.double(), dim=(1, 2, 3))
