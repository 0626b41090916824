"""What is recorded of metamers: how exactly they are such, how far from both images, and how others judge them."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from analysis.invariances.find import MetamerFinder, Metamers, relative_difference
from analysis.invariances.nearest import norms
from irevnet.data.transforms import InputTransform
from irevnet.utils.modules import as_input

ROUNDING = 1e-4
"""Largest distance below black or above white at which a pixel value counts as inside the range of images."""


def record_metamers(
    finder: MetamerFinder,
    transform: InputTransform,
    source: Tensor,
    target: Tensor,
    wanted: Tensor,
    *,
    kinds: Sequence[str],
    bounded: bool = False,
) -> dict[str, ndarray]:
    """Metamers of pairs of images, and what the fields of `MetamersResult` of these names say of them.

    Args:
        finder: what finds them, for a network and what is to be kept.
        transform: transform of the network's inputs.
        source: images A, `(pairs, c, h, w)`.
        target: images B, `(pairs, c, h, w)`.
        wanted: what is kept, of A or as asked for, `(pairs, values)`.
        kinds: kinds of metamers.
        bounded: whether images with pixel values in [0, 1] are found as well.

    Returns a row for each pair and kind, pair by pair. Raises `ValueError` where none was found that is finite.
    """
    with torch.no_grad():
        of_both = _of_both(finder, transform, source, target, wanted)
        of_target = finder.features(target)
    of_kinds = []
    for kind in kinds:
        found = _find(finder, kind, source, target, of_target, wanted)
        if not found.images.isfinite().all():
            raise ValueError(
                f"{kind} images are not finite: the network's weights are broken, or its features too large for float32"
            )
        row = of_both | _of_metamer(finder, transform, found, (source, target), of_target, wanted)
        of_kinds.append(row | _of_bounded(finder, transform, kind, found, target, wanted, bounded=bounded))
    return {name: _interleaved([row[name] for row in of_kinds]) for name in of_kinds[0]}


def judge(
    model: nn.Module, transform: InputTransform, names: Sequence[str], pixels: Tensor, *, batch_size: int
) -> ndarray:
    """The class that a network gives each image of pixel values, clipped to [0, 1], `(images,)`.

    Args:
        model: network in eval mode.
        transform: transform of its inputs.
        names: names of its outputs.
        pixels: pixel values, `(images, c, h, w)`.
        batch_size: number of images in a forward pass.
    """
    answers = []
    with torch.no_grad():
        for part in pixels.clamp(0, 1).split(batch_size):
            inputs = torch.stack([transform(image) for image in part])
            answers.append(model(as_input(inputs, model)).argmax(dim=1).cpu())
    return np.array(names)[torch.cat(answers).numpy()]


def _find(
    finder: MetamerFinder, kind: str, source: Tensor, target: Tensor, of_target: Tensor, wanted: Tensor
) -> Metamers:
    match kind:
        case "nearest-image":
            return finder.nearest_image(target, wanted)
        case "nearest-features":
            return finder.nearest_features(of_target, wanted)
    with torch.no_grad():
        of_source = finder.features(source)
    return finder.rearranged(of_source, of_target) if kind == "rearranged" else finder.reversed(of_source)


def _of_both(
    finder: MetamerFinder, transform: InputTransform, source: Tensor, target: Tensor, wanted: Tensor
) -> dict[str, ndarray]:
    logits = {f"{name}_logits": finder.model(images).double() for name, images in _named(source, target)}
    unknown = torch.full_like(logits["source_logits"], torch.nan)
    return {
        **{name: _storable(images).cpu().numpy() for name, images in _named(source, target)},
        **{name: values.cpu().numpy() for name, values in logits.items()},
        "wanted_logits": (wanted if finder.keep == "logits" else unknown).cpu().numpy(),
        "pair_distance": _distances(transform, source, target),
    }


def _named(source: Tensor, target: Tensor) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
    return ("source", source), ("target", target)


@torch.no_grad()
def _of_metamer(
    finder: MetamerFinder,
    transform: InputTransform,
    found: Metamers,
    pair: tuple[Tensor, Tensor],
    of_target: Tensor,
    wanted: Tensor,
) -> dict[str, ndarray]:
    images, of_target = found.images, of_target.double()
    kept, pixels = finder.kept(images), transform.to_pixels(images).double()
    clipped = transform.normalise(pixels.clamp(0, 1)).to(images)
    size = norms(of_target).clamp(min=torch.finfo(torch.float64).tiny)
    values = {
        "metamer": _storable(images),
        "metamer_logits": kept if finder.keep == "logits" else finder.model(images).double(),
        "difference": relative_difference(kept, wanted),
        "identical": (kept == wanted).all(dim=1),
        "clipped_difference": relative_difference(finder.kept(clipped), wanted),
        "lowest": pixels.amin(dim=(1, 2, 3)),
        "highest": pixels.amax(dim=(1, 2, 3)),
        "outside": ((pixels < -ROUNDING) | (pixels > 1 + ROUNDING)).double().mean(dim=(1, 2, 3)),
        "target_feature_distance": norms(finder.features(images).double() - of_target) / size,
        "feature_bound": found.bound.double() / size,
    }
    return {name: value.cpu().numpy() for name, value in values.items()} | {
        "source_distance": _distances(transform, images, pair[0]),
        "target_distance": _distances(transform, images, pair[1]),
    }


def _of_bounded(
    finder: MetamerFinder,
    transform: InputTransform,
    kind: str,
    found: Metamers,
    target: Tensor,
    wanted: Tensor,
    *,
    bounded: bool,
) -> dict[str, ndarray]:
    if not bounded:
        unknown = np.full(len(wanted), np.nan)
        nothing = np.empty((len(wanted), 0))
        return {"bounded": nothing, "bounded_difference": unknown, "bounded_distance": unknown}
    black, white = (transform.normalise(torch.full_like(target[0], value)) for value in (0.0, 1.0))
    start = target if kind == "nearest-image" else found.images
    images = finder.nearest_image(start, wanted, bounds=(black, white)).images
    with torch.no_grad():
        difference = relative_difference(finder.kept(images), wanted)
    return {
        "bounded": _storable(images).cpu().numpy(),
        "bounded_difference": difference.cpu().numpy(),
        "bounded_distance": _distances(transform, images, target),
    }


def _storable(images: Tensor) -> Tensor:
    """Those of a network in half precision in single precision, as NumPy knows no bfloat16."""
    return images.to(torch.promote_types(images.dtype, torch.float32))


def _distances(transform: InputTransform, first: Tensor, second: Tensor) -> ndarray:
    """Root mean square difference of pixel values of each image and its counterpart."""
    pixels = transform.to_pixels(first).double() - transform.to_pixels(second).double()
    return pixels.square().mean(dim=(1, 2, 3)).sqrt().cpu().numpy()


def _interleaved(arrays: Sequence[ndarray]) -> ndarray:
    """Rows of several arrays, the first of each, then the second of each, and so on."""
    stacked = np.stack(arrays, axis=1)
    return stacked.reshape(stacked.shape[0] * stacked.shape[1], *stacked.shape[2:])
