"""The items of other people's data sets: pairs of an image and a label, as PIL images, arrays or tensors."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from irevnet.data.lazy_images import ItemImages
from irevnet.data.loaders import batches
from irevnet.data.transforms import to_pixels
from irevnet.utils import distributed
from irevnet.utils.progress import Track
from irevnet.utils.untrusted import brief


@dataclass(frozen=True, kw_only=True)
class Items:
    """The items of a data set.

    Attributes:
        images: images, which are read when they are indexed.
        labels: label of each, an integer or text.
        shapes: shapes of the images that occur.
    """

    images: ItemImages
    labels: list[int | str]
    shapes: set[tuple[int, ...]]


def read_items(dataset: Any, name: str, *, workers: int, track: Track) -> Items:
    """All items of a data set, which are read once, for their labels and the digests of their images.

    Args:
        dataset: a data set with a length, whose items are pairs of an image (a PIL image; bytes or values in [0, 1] of
            the shape `(c, h, w)`, `(h, w, c)` or `(h, w)`) and a label (an integer or text).
        name: name of the data set, for errors.
        workers: number of processes that read.
        track: shows the progress.

    Raises `ValueError`, with the number of the item, for other items, and for those that differ each time.
    """
    descriptions = _Descriptions(dataset, name)
    loader = batches(descriptions, 64, part=distributed.part(), workers=workers)
    own = [text for batch in track(loader, "reading every image") for text in batch]
    found = [json.loads(text) for part in distributed.gather(own) for text in part]
    for row in range(min(len(found), _READ_TWICE)):
        if json.loads(descriptions[row]) != found[row]:
            raise ValueError(f"item {row} of {name} differs each time it is read; leave random changes of images out")
    labels = [each["label"] for each in found]
    if len({type(label) for label in labels}) > 1:
        raise ValueError(f"{name} has labels that are integers and labels that are text; expected one of the two")
    images = ItemImages(descriptions.read, range(len(found)), [each["sha256"] for each in found])
    return Items(images=images, labels=labels, shapes={tuple(each["shape"]) for each in found})


_READ_TWICE = 16
"""Number of items that are read twice, to see random changes; each is missed with a chance of 1/2 at most."""


class _Descriptions(Dataset[str]):
    """Label, digest and shape of each item, as JSON."""

    def __init__(self, dataset: Any, name: str):
        self.dataset = dataset
        self.name = name

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> str:
        image, label = self._item(index)
        digest = hashlib.sha256(f"{tuple(image.shape)} {image.dtype}\n".encode())
        digest.update(image.contiguous().flatten().view(torch.uint8).numpy().data)
        return json.dumps({"label": label, "sha256": digest.hexdigest(), "shape": list(image.shape)})

    def read(self, index: int) -> Tensor:
        """The image of an item."""
        return self._item(index)[0]

    def _item(self, index: int) -> tuple[Tensor, int | str]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about what is dropped of an image
                item = self.dataset[index]
        except Exception as error:  # anybody's code raises anything
            raise ValueError(
                f"item {index} of {self.name} cannot be read ({type(error).__name__}: {error}); mend the data set"
            ) from error
        try:
            if not isinstance(item, tuple | list) or len(item) != 2:
                size = f" of {len(item)}" if isinstance(item, tuple | list) else ""
                raise ValueError(f"it is a {type(item).__name__}{size}; expected a pair of an image and its label")
            return as_image(item[0]), as_label(item[1])
        except ValueError as error:
            raise ValueError(f"item {index} of {self.name} is unknown: {error}") from error


def as_image(image: Any) -> Tensor:
    """An image as a tensor `(c, h, w)` of bytes, or of values in [0, 1], with one channel or three.

    Raises `ValueError` for what is no image, of which the channels cannot be told, or whose values are others.
    """
    if isinstance(image, Image.Image):
        if image.mode == "I" and image.format is None:
            raise ValueError("the white level of its image of 32-bit integers is unknown; convert it to 8 or 16 bits")
        return to_pixels(image)
    if not isinstance(image, Tensor | np.ndarray):
        raise ValueError(f"its image is a {type(image).__name__}; expected a PIL image, an array or a tensor")
    values = torch.as_tensor(image.detach().cpu() if isinstance(image, Tensor) else np.ascontiguousarray(image))
    if not values.is_floating_point() and values.dtype != torch.uint8:
        raise ValueError(f"its image is of {values.dtype}; expected uint8, or floating-point values in [0, 1]")
    values = _channels_first(values.as_subclass(Tensor))
    if values.is_floating_point():
        values = values.float()
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(
                f"its image has values from {values.min():g} to {values.max():g}; expected them in [0, 1], or uint8, "
                "before any normalisation"
            )
    return values


def _channels_first(image: Tensor) -> Tensor:
    shape = tuple(image.shape)
    if image.ndim == 2:
        return image[None]
    first, last = (image.ndim == 3 and shape[axis] in (1, 3, 4) for axis in (0, -1))
    if first == last or 0 in shape:
        reason = "in which the channels may be either end" if first else "which is no image"
        raise ValueError(f"its image has the shape {shape}, {reason}; expected (c, h, w), (h, w, c) or (h, w)")
    image = image if first else image.permute(2, 0, 1)
    return image[:3].contiguous() if len(image) == 4 else image.contiguous()  # without transparency


def as_label(label: Any) -> int | str:
    """A label as an integer or text. Raises `ValueError` for anything else."""
    if isinstance(label, Tensor | np.ndarray | np.generic) and getattr(label, "size", 0) and np.ndim(label) == 0:
        label = label.item()
    if type(label) is int or isinstance(label, str):
        return label
    raise ValueError(f"its label is {brief(label)}; expected the number of one class, or its name")


def class_names(names: Sequence[str] | None, labels: Sequence[int | str], place: str) -> list[str]:
    """The class name of each label: the label as text or, of integers, that of `names` where these are known.

    Raises `ValueError` for a label for which there is no name.
    """
    if names is None or any(isinstance(label, str) for label in labels):
        return [str(label) for label in labels]
    for row, label in enumerate(labels):
        if not 0 <= int(label) < len(names):
            raise ValueError(
                f"item {row} of {place} has label {label}; expected 0 to {len(names) - 1}, as it has names"
            )
    return [names[int(label)] for label in labels]


def declared_classes(dataset: Any) -> tuple[str, ...] | None:
    """The names of the classes that a data set, or what it is a part of, declares; `None` without different ones."""
    while dataset is not None:
        for attribute in ("wnids", "classes", "categories"):
            names = getattr(dataset, attribute, None)
            if (
                isinstance(names, list | tuple)
                and names
                and all(isinstance(name, str) for name in names)
                and len({*names}) == len(names)
            ):
                return tuple(names)
        dataset = getattr(dataset, "dataset", None)
    return None
