"""Directions in feature space that mean something: principal components, SVM normals, differences of class means."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.svm import LinearSVC
from torch import Tensor
from torch.utils.data import Subset

from irevnet.data.images import LabelledImages
from irevnet.data.loaders import batches
from irevnet.models.irevnet import IRevNet
from irevnet.utils.modules import as_input, device_of
from irevnet.utils.progress import Track, no_progress

SAMPLE_IMAGES, SAMPLE_BYTES = 1000, 2**30
"""Of how many training images a direction is found, and how much memory their features may take."""

COSTS = tuple(10.0**k for k in range(-7, 2))
"""Of which the SVM's C is cross-validated; features are scaled to a mean square of 1."""


@dataclass(frozen=True)
class PrincipalComponent:
    """A principal component of the features, numbered from 1 on."""

    number: int


@dataclass(frozen=True)
class BetweenClasses:
    """From one class to another: along the normal of the linear SVM between them, or from mean to mean."""

    kind: Literal["svm", "mean"]
    first: str
    second: str


Direction = PrincipalComponent | BetweenClasses


def parse_direction(text: str, classes: Sequence[str]) -> Direction:
    """Reads `pc:3`, `svm:4-9` or `mean:cat-dog`.

    Raises `ValueError` if the text is no direction, or names a class that is not among these.

    >>> parse_direction("svm:4-9", "0123456789")
    BetweenClasses(kind='svm', first='4', second='9')
    """
    kind, _, what = text.partition(":")
    if kind == "pc" and what.isdecimal() and int(what) > 0:
        return PrincipalComponent(int(what))
    if kind not in ("svm", "mean") or "-" not in what:
        raise ValueError(f"{text!r} is no direction; expected pc:NUMBER, svm:CLASS-CLASS or mean:CLASS-CLASS")
    parts = what.split("-")  # there may be some in the names themselves
    for cut in range(1, len(parts)):
        first, second = "-".join(parts[:cut]), "-".join(parts[cut:])
        if first in classes and second in classes and first != second:
            return BetweenClasses("svm" if kind == "svm" else "mean", first, second)
    known = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
    raise ValueError(f"{text!r} does not name two classes; there are {known}")


@torch.no_grad()
def find_direction(
    direction: Direction,
    model: IRevNet,
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
    or from mean to mean, it leads as far as from the mean of the first class to that of the second.

    Args:
        direction: which.
        model: an i-RevNet in eval mode.
        data: training images.
        depth: of the features.
        generator: draws the images.
        batch_size: images a pass.
        workers: processes that load images.
        track: shows progress.

    Raises:
        ValueError: there are too few images for that component, or for an SVM, or features are not finite.
    """
    size = model.config.feature_shape(depth, data.transform.image_size)
    rows = torch.randperm(len(data), generator=generator).tolist()
    first = second = -1
    if isinstance(direction, BetweenClasses):
        first, second = data.classes.index(direction.first), data.classes.index(direction.second)
        rows = [row for row in rows if data.labels[row] in (first, second)]
    rows = rows[: min(SAMPLE_IMAGES, SAMPLE_BYTES // (4 * int(np.prod(size))))]
    device = device_of(model)
    points, labels = [], []
    for images, each in track(batches(Subset(data, rows), batch_size, workers=workers), "images for the direction"):
        points.append(model.features(as_input(images, model), depth).flatten(1).float().cpu().numpy())
        labels.append(each.numpy())
    features = np.concatenate(points)
    if not np.isfinite(features).all():
        raise ValueError(
            f"features at depth {depth} are not finite; the network's weights are broken, or too large for float32"
        )
    if isinstance(direction, PrincipalComponent):
        step = _component(features, direction.number)
    else:
        step = _between(features, np.concatenate(labels) == second, direction)
    return torch.from_numpy(step.astype(np.float32).reshape(size)).to(device)


def _check_differ(first: ndarray, second: ndarray, what: str) -> None:
    """Raises `ValueError` unless two sets of features differ by more than the rounding of a float32."""
    size = max(np.abs(first).max(), np.abs(second).max())
    if np.abs(first - second).max() <= 4 * np.finfo(np.float32).eps * size:
        raise ValueError(
            f"{what} are the same at this depth, and no direction leads from one to the other; choose others, or "
            "another depth"
        )


def _component(features: Float[ndarray, "n dims"], number: int) -> Float[ndarray, " dims"]:
    images, dims = features.shape
    most = min(images - 1, dims)
    if number > most:
        raise ValueError(f"component {number} was asked for; {images} images of {dims} numbers each have 1 to {most}")
    _check_differ(features, features[:1], f"the features of all {images} images")
    found = PCA(n_components=number, random_state=0)
    deviation = found.fit_transform(features)[:, -1].std()
    if deviation <= 4 * np.finfo(np.float32).eps * np.abs(features).max():
        raise ValueError(f"features do not vary along component {number} at this depth; choose a lower one")
    return np.asarray(found.components_)[-1] * deviation


def _between(
    features: Float[ndarray, "n dims"], second: Bool[ndarray, " n"], direction: BetweenClasses
) -> Float[ndarray, " dims"]:
    counts = int((~second).sum()), int(second.sum())
    if min(counts) < 3:
        raise ValueError(
            f"{direction.first} has {counts[0]} training images, {direction.second} {counts[1]}; a direction between "
            "them needs at least 3 of each"
        )
    means = features[~second].mean(axis=0), features[second].mean(axis=0)
    _check_differ(*means, f"the mean features of {direction.first} and {direction.second}")
    way = means[1] - means[0]
    if direction.kind == "mean":
        return way
    scaled = (features - features.mean(axis=0)) / features.std()
    search = GridSearchCV(LinearSVC(random_state=0), {"C": COSTS}, cv=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at a C that is too large to be chosen
        normal = search.fit(scaled, second).best_estimator_.coef_[0]
    return normal * (normal @ way) / (normal @ normal)
