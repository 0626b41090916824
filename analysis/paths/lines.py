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
from irevnet.models.invertible import Invertible
from irevnet.utils.progress import Track, no_progress


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Straight lines phi(t) = start + t delta in one of a network's feature spaces.

    At depth 0, where features are the pixels of the image in some order, they are straight lines of pixel values.

    Attributes:
        start: features of each line at t = 0, `(lines, ...)`.
        delta: change of the features of each line from t = 0 to 1, `(lines, ...)`.
        depth: number of the block whose features these are.
    """

    start: Float[Tensor, "lines *shape"]
    delta: Float[Tensor, "lines *shape"]
    depth: int

    def at(self, line: int, t: Sequence[float] | Float[ndarray, " steps"]) -> Float[Tensor, "steps *shape"]:
        """The features of a line at each t."""
        positions = torch.as_tensor(np.asarray(t), dtype=self.start.dtype, device=self.start.device)
        return self.start[line] + _against(positions, self.start[line]) * self.delta[line]


@torch.no_grad()
def between(model: Invertible, first: Tensor, second: Tensor, depth: int) -> Lines:
    """phi(t) = t Phi x^0 + (1 - t) Phi x^1 for pairs of network inputs: x^0 of `first`, x^1 of `second`."""
    start, end = model.features(second, depth), model.features(first, depth)
    return Lines(start=start, delta=end - start, depth=depth)


@torch.no_grad()
def grid(model: Invertible, corners: Tensor, rows: int, depth: int) -> Lines:
    """The rows of a grid between four inputs: top left, top right, bottom left, bottom right; t = 1 is on the left."""
    top_left, top_right, bottom_left, bottom_right = model.features(corners, depth)
    down = _against(torch.linspace(0, 1, rows).to(top_left), top_left)
    left, right = torch.lerp(top_left, bottom_left, down), torch.lerp(top_right, bottom_right, down)
    return Lines(start=right, delta=left - right, depth=depth)


@torch.no_grad()
def along(model: Invertible, inputs: Tensor, step: Tensor, depth: int) -> Lines:
    """phi(t) = Phi x + t step for network inputs x."""
    start = model.features(inputs, depth)
    return Lines(start=start, delta=step.to(start).expand_as(start), depth=depth)


@torch.no_grad()
def follow(
    model: Invertible,
    transform: InputTransform,
    lines_at: Callable[[int], Lines],
    *,
    depth: int,
    t: Sequence[float],
    names: Sequence[str],
    classes: Sequence[str] | None,
    even: bool = False,
    middle: Float[Tensor, "lines c h w"] | None = None,
    rows_of_grid: bool = False,
    batch_size: int = 256,
    track: Track = no_progress,
) -> InterpolationResult:
    """The images along straight lines of features, and along those of pixels, and the network's outputs for them.

    Args:
        model: network in eval mode.
        transform: transform of its inputs.
        lines_at: function that returns the lines at a depth; called with `depth`, and with 0 for lines of pixels.
        depth: number of the block in whose features lines are straight.
        t: positions of the steps on each line.
        names: name of each line.
        classes: name of the class of each logit; `None` if the outputs are no logits.
        even: whether to keep only the first and the last of `t`, and to choose the positions between them such that
            neighbouring images are equally far apart.
        middle: network input that is known to lie in the middle of each line, `(lines, c, h, w)`; NaN where it is
            unknown.
        rows_of_grid: whether the lines are the rows of a grid.
        batch_size: number of images in a batch.
        track: function that shows progress.

    Raises:
        ValueError: images or logits are not finite.
    """
    # The same record for lines of features and for lines of pixels, which are lines of the features of depth 0; fields
    # of the result are (2, lines, ...), features first.
    found: dict[str, list[list[Any]]] = {}
    bijective = True
    for at in (depth, 0):
        lines = lines_at(at)
        bijective &= lines.start[0].numel() == transform.channels * math.prod(transform.image_size)
        rows = [
            _record(model, transform, lines, line, t, even=even, batch_size=batch_size)
            | _compare_middle(model, transform, lines, line, None if middle is None else middle[line], depth)
            for line in track(range(len(names)), "lines of features" if at == depth else "lines of pixels")
        ]
        for name in rows[0]:
            found.setdefault(name, []).append([row[name] for row in rows])
    if classes is None:
        found["top_class"] = np.zeros_like(found["top_class"]).tolist()
        found["probability"] = np.full_like(found["probability"], np.nan).tolist()
    return InterpolationResult(
        depth=np.array(depth),
        bijective=np.array(bijective),
        rows_of_grid=np.array(rows_of_grid),
        names=np.array(names),
        classes=np.array(["no logits"] if classes is None else classes),
        **{name: np.array(values) for name, values in found.items()},
    )


def _record(
    model: Invertible,
    transform: InputTransform,
    lines: Lines,
    line: int,
    t: Sequence[float],
    *,
    even: bool,
    batch_size: int,
) -> dict[str, ndarray]:
    """What the result records of each step of a line, by field."""

    def decode(phi: Tensor) -> Tensor:
        return torch.cat([model.inverse(part, lines.depth) for part in phi.split(batch_size)])

    def pixels_at(positions: ndarray) -> Tensor:
        return transform.to_pixels(decode(lines.at(line, positions))).double()

    # Features on the line, (steps, c, h, w), the images that the inverse maps them to, the network's logits for these
    # images, and their features once more: they differ from the former where those are not in the network's range.
    positions = _evenly(pixels_at, t) if even else np.array(t, dtype=float)
    phi = lines.at(line, positions)
    inputs = decode(phi)
    pixels = transform.to_pixels(inputs).double()
    logits = torch.cat([model(part) for part in inputs.split(batch_size)])
    probability, top_class = logits.double().softmax(dim=1).max(dim=1)
    again = torch.cat([model.features(part, lines.depth) for part in inputs.split(batch_size)])
    if not (inputs.isfinite().all() and logits.isfinite().all() and again.isfinite().all()):
        raise ValueError(
            f"images along path {line + 1} from depth {lines.depth} are not finite; the network's weights are broken, "
            "or its features are too large for float32: choose another depth, or compute with `exact`"
        )
    outside = (pixels < -ROUNDING) | (pixels > 1 + ROUNDING)
    values = {
        "t": torch.from_numpy(positions),
        "images": pixels.float(),
        "top_class": top_class,
        "probability": probability,
        "travelled": torch.cat((pixels.new_zeros(1), _distances(pixels).cumsum(dim=0))),
        "outside": outside.double().mean(dim=(1, 2, 3)),
        "residual": _norms(again - phi) / _norms(phi).clamp(min=torch.finfo(torch.float64).tiny),
    }
    return {name: value.cpu().numpy() for name, value in values.items()}


def _compare_middle(
    model: Invertible, transform: InputTransform, lines: Lines, line: int, middle: Tensor | None, depth: int
) -> dict[str, float]:
    """Distances between the middle of a line and the input known to lie there, NaN where it is unknown.

    One is in pixels, the other in the features of a depth, relative to the distance between the ends of the line.
    """
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
"""Largest distance below black or above white at which a pixel value counts as inside the range of images."""

EVEN_WITHIN = 1.05
"""Largest ratio of distances between neighbouring images at which these count as equal."""


def _evenly(pixels_at: Callable[[ndarray], Tensor], t: Sequence[float]) -> Float[ndarray, " steps"]:
    """Positions from the first to the last of t at which neighbouring images are equally far apart.

    The authors "adapt the step size manually".
    """
    # The length of the path of images, as a function of t, is known at some positions, at first those of a fine grid,
    # and interpolated between them. The positions at which it has grown by equal parts are evaluated next: a
    # fixed-point iteration, which ends when neighbours are equally far apart, or after twenty steps.
    positions = np.linspace(t[0], t[-1], 8 * len(t))
    for _ in range(20):
        distances = _distances(pixels_at(positions)).cpu().numpy()
        if len(positions) == len(t) and distances.max() <= EVEN_WITHIN * distances.min():
            break
        length = np.concatenate(([0.0], np.cumsum(distances)))
        positions = np.interp(np.linspace(0, length[-1], len(t)), length, positions)
    return positions


def _distances(pixels: Float[Tensor, "images c h w"]) -> Float[Tensor, " others"]:
    """Root mean square difference between the pixel values of each image and of the one before."""
    return (pixels[1:] - pixels[:-1]).square().mean(dim=(1, 2, 3)).sqrt()


def _norms(x: Float[Tensor, "n *shape"]) -> Float[Tensor, " n"]:
    return torch.linalg.vector_norm(x.double().flatten(1), dim=1)


def _against(t: Float[Tensor, " steps"], phi: Tensor) -> Tensor:
    """Positions, such that their product with features has features for each of them."""
    return t.reshape(-1, *(1 for _ in phi.shape))
