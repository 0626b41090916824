"""Directions in feature space that have a meaning: principal components, SVM normals, differences of class means."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Subset

from analysis.probes.cost_selection import choose_svm
from analysis.probes.pca import dual_components
from analysis.probes.svm import fit_one_vs_rest
from irevnet.data.images import LabelledImages
from irevnet.data.loaders import batches
from irevnet.models.invertible import Invertible
from irevnet.utils.modules import as_input, device_of
from irevnet.utils.progress import Track, no_progress

SAMPLE_IMAGES, SAMPLE_BYTES = 1000, 2**30
"""Largest number of training images from which a direction is found, and most memory that their features may take."""

COSTS = tuple(10.0**k for k in range(-7, 2))
"""Values of the SVM's C to choose from by cross-validation, for features scaled to a mean square of 1."""

NORMAL_TOLERANCE = 1e-8
"""Relative distance of the SVM's objective f from its minimum f*. As f is strongly convex with modulus 1, the normal is
then within sqrt(2 (f - f*)) <= sqrt(2e-8 f*) of its optimum."""


@dataclass(frozen=True)
class PrincipalComponent:
    """A principal component of the features.

    Attributes:
        number: number of the component, from 1 on, in decreasing order of variance.
    """

    number: int


@dataclass(frozen=True)
class BetweenClasses:
    """From one class to another.

    Attributes:
        kind: `"svm"` along the normal of the linear SVM between the classes, `"mean"` from mean to mean.
        first: name of the class where the direction begins.
        second: name of the class where it ends.
    """

    kind: Literal["svm", "mean"]
    first: str
    second: str


Direction = PrincipalComponent | BetweenClasses


def parse_direction(text: str, classes: Sequence[str]) -> Direction:
    """A direction from text such as `pc:3`, `svm:4-9` or `mean:cat-dog`.

    Raises `ValueError` if the text does not describe a direction, or names a class that is not among `classes`.

    >>> parse_direction("svm:4-9", "0123456789")
    BetweenClasses(kind='svm', first='4', second='9')
    """
    kind, _, what = text.partition(":")
    if kind == "pc" and what.isdecimal() and int(what) > 0:
        return PrincipalComponent(int(what))
    if kind not in ("svm", "mean") or "-" not in what:
        raise ValueError(f"{text!r} is no direction; expected pc:NUMBER, svm:CLASS-CLASS or mean:CLASS-CLASS")
    parts = what.split("-")  # names of classes may have hyphens themselves
    for cut in range(1, len(parts)):
        first, second = "-".join(parts[:cut]), "-".join(parts[cut:])
        if first in classes and second in classes and first != second:
            return BetweenClasses("svm" if kind == "svm" else "mean", first, second)
    known = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
    raise ValueError(f"{text!r} does not name two classes; there are {known}")


@torch.no_grad()
def find_direction(
    direction: Direction,
    model: Invertible,
    data: LabelledImages,
    *,
    depth: int,
    generator: torch.Generator,
    batch_size: int = 256,
    workers: int = 0,
    track: Track = no_progress,
) -> Float[Tensor, "c h w"]:
    """A step along a direction in the features of a depth, found from at most `SAMPLE_IMAGES` training images.

    Along a principal component a step is one standard deviation of the features along it. Along the normal of an SVM,
    and from mean to mean, a step has the length of the difference of the class means along the direction.

    Args:
        direction: direction to find.
        model: network in eval mode.
        data: training images.
        depth: number of the block whose features are used.
        generator: random number generator that draws the images.
        batch_size: number of images in a batch.
        workers: number of processes that load images.
        track: function that shows progress.

    Raises:
        ValueError: there are too few images for that component or for an SVM, features are not finite, or they do not
            vary along the direction.
    """
    size = model.features(as_input(data[0][0][None], model), depth).shape[1:]
    rows = torch.randperm(len(data), generator=generator).tolist()
    first = second = -1
    if isinstance(direction, BetweenClasses):
        first, second = data.classes.index(direction.first), data.classes.index(direction.second)
        rows = [row for row in rows if data.labels[row] in (first, second)]
    rows = rows[: min(SAMPLE_IMAGES, SAMPLE_BYTES // (4 * size.numel()))]
    points, labels = [], []
    for images, each in track(batches(Subset(data, rows), batch_size, workers=workers), "images for the direction"):
        points.append(model.features(as_input(images, model), depth).flatten(1).float().cpu())
        labels.append(each)
    features = torch.cat(points)
    if not features.isfinite().all():
        raise ValueError(
            f"features at depth {depth} are not finite; the network's weights are broken, or too large for float32"
        )
    if isinstance(direction, PrincipalComponent):
        step = _component(features, direction.number)
    else:
        step = _between(features, torch.cat(labels) == second, direction)
    return step.float().reshape(size).to(device_of(model))


def _check_differ(first: Tensor, second: Tensor, what: str) -> None:
    """Raises `ValueError` unless two sets of features differ by more than the rounding of a float32."""
    size = max(first.abs().max(), second.abs().max())
    if (first - second).abs().max() <= 4 * torch.finfo(torch.float32).eps * size:
        raise ValueError(
            f"{what} are the same at this depth, and no direction leads from one to the other; choose others, or "
            "another depth"
        )


def _component(features: Float[Tensor, "images dims"], number: int) -> Float[Tensor, " dims"]:
    """One standard deviation along a principal component, with the sign that makes its largest entry positive."""
    images, dims = features.shape
    most = min(images - 1, dims)
    if number > most:
        raise ValueError(f"component {number} was asked for; {images} images of {dims} numbers each have 1 to {most}")
    _check_differ(features, features[:1], f"the features of all {images} images")
    components = dual_components(features)
    deviation = components.deviation
    rounding = 4 * torch.finfo(torch.float32).eps * features.abs().max()
    if number > len(deviation) or deviation[number - 1] <= rounding:
        raise ValueError(f"features do not vary along component {number} at this depth; choose a lower one")
    only = torch.arange(1, len(deviation) + 1) == number
    step = components.combine(torch.where(only, deviation, 0))
    return step * step[step.abs().argmax()].sign()


def _between(
    features: Float[Tensor, "images dims"], second: Bool[Tensor, " images"], direction: BetweenClasses
) -> Float[Tensor, " dims"]:
    """The difference of the class means, or its projection on the normal of the SVM between the classes."""
    counts = int((~second).sum()), int(second.sum())
    if min(counts) < 3:
        raise ValueError(
            f"{direction.first} has {counts[0]} training images, {direction.second} {counts[1]}; a direction between "
            "them needs at least 3 of each"
        )
    means = features[~second].mean(dim=0, dtype=torch.float64), features[second].mean(dim=0, dtype=torch.float64)
    _check_differ(*means, f"the mean features of {direction.first} and {direction.second}")
    difference = means[1] - means[0]
    if direction.kind == "mean":
        return difference
    normal = _svm_normal(features, second)
    return normal * (normal @ difference) / (normal @ normal)


def _svm_normal(features: Float[Tensor, "images dims"], second: Bool[Tensor, " images"]) -> Float[Tensor, " dims"]:
    """The normal of the linear SVM between two classes, towards the second."""
    # The SVM is the same in any orthonormal basis, and its normal is a linear combination of the images: it is found in
    # coordinates along their principal components, (images, components), and then mapped back to all features.
    components = dual_components(features)
    scale = components.coordinates.square().sum().div(features.numel()).sqrt()
    coordinates, labels = (components.coordinates / scale).float(), second.long().numpy()
    cost = choose_svm(coordinates, labels, cost_grid=COSTS).cost
    fitted = fit_one_vs_rest(coordinates, labels, C=cost, tolerance=NORMAL_TOLERANCE, rotate=False)
    return components.combine(torch.from_numpy(fitted.coef[1]))
