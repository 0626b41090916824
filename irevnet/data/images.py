"""Labelled images, and data sets of them: what every opener of one gives."""

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from irevnet.data.transforms import InputTransform, Normalisation, read_image
from irevnet.utils.lookup import find
from irevnet.utils.progress import Track, no_progress

Split = Literal["train", "test"]


class ImageFiles:
    """Images that are read when they are asked for, or with a list of rows another such collection."""

    def __init__(self, paths: list[str]):
        self.paths = paths

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return ImageFiles([self.paths[row] for row in index])
        path = self.paths[index]
        try:
            return read_image(path)
        except FileNotFoundError as error:
            raise ValueError(
                f"{path} cannot be read as an image: it is gone, or a link to nothing; replace or remove it{LEAVE_OUT}"
            ) from error
        except ValueError as error:
            raise ValueError(f"{error}{LEAVE_OUT}") from error


READERS = 8
"""Files that are read at a time."""

SETTLED = 2 * 10**9
"""Nanoseconds after which a file's times tell another writing from the last one, on any file system."""


def _file_sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


LEAVE_OUT = ", or skip all such files with `on_error`='skip'"


class LabelledImages(Dataset[tuple[Tensor, int]]):
    """Images as network inputs, with their labels, numbered in the order of `classes`.

    Args:
        images: images `(c, h, w)`, bytes or values in [0, 1].
        labels: of each image.
        classes: class names.
        transform: from an image to a network's input.

    Raises `ValueError`, with the number of the image, for values or a label that cannot be.
    """

    def __init__(
        self,
        images: Tensor | ImageFiles,
        labels: Sequence[int],
        classes: tuple[str, ...],
        transform: InputTransform,
    ):
        if isinstance(images, Tensor) and images.is_floating_point() and not images.isfinite().all():
            row = int((~images.flatten(1).isfinite().all(dim=1)).nonzero()[0, 0])
            raise ValueError(f"image {row} has values that are not finite; expected values in [0, 1]")
        if wrong := [row for row, label in enumerate(labels) if not 0 <= label < len(classes)]:
            raise ValueError(
                f"image {wrong[0]} has label {labels[wrong[0]]}; expected 0 to {len(classes) - 1}, of {len(classes)} "
                "classes"
            )
        self.images = images
        self.labels = labels
        self.classes = classes
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pixels(index)), self.labels[index]

    def relabelled(self, classes: tuple[str, ...]) -> "LabelledImages":
        """The same images, labelled in the order of these classes, which have to include their own."""
        labels = [classes.index(name) for name in self.classes]
        return LabelledImages(self.images, [labels[label] for label in self.labels], classes, self.transform)

    def sha256(self, track: Track = no_progress) -> str:
        """Identifies the images and their order: by their pixels or, of files, by class, name and content.

        Files are read once, several at a time; `track` shows how far that is.

        Raises `OSError`, naming it, for a file that cannot be read.
        """
        digest = hashlib.sha256()
        if isinstance(self.images, ImageFiles):
            with ThreadPoolExecutor(READERS) as readers:
                contents = track(readers.map(_file_sha256, self.images.paths), "reading every image")
                for path, label, content in zip(self.images.paths, self.labels, contents):
                    digest.update(os.fsencode(f"{self.classes[label]}/{Path(path).name} {content}\n"))
        else:
            digest.update(f"{tuple(self.images.shape)} {list(self.labels)}\n".encode())
            digest.update(self.images.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def signature(self) -> str | None:
        """What cannot stay the same where a file is written to: sizes, and the times and places that a file system
        keeps. `None` where there are no files, or some have been written to within the last seconds, so that they could
        be written to again without a trace.
        """
        if not isinstance(self.images, ImageFiles):
            return None
        digest, now = hashlib.sha256(), time.time_ns()
        for path, label in zip(self.images.paths, self.labels):
            found = os.stat(path)
            if max(found.st_ctime_ns, found.st_mtime_ns) > now - SETTLED:
                return None
            place = (
                f"{self.classes[label]} {path} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}\n"
            )
            digest.update(os.fsencode(place))
        return digest.hexdigest()

    def pixels(self, index: int) -> Tensor:
        """The image as it is, with values in [0, 1]."""
        image = self.images[index]
        return image / 255 if image.dtype == torch.uint8 else image


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A data set: its classes, its images, and how a network takes them.

    Attributes:
        name: by which it was opened.
        classes: class names, in the order of their labels.
        image_shape: channels, height and width of its images; the size is `None` where images differ in it.
        load: images `(c, h, w)` and labels of a split.
        statistics: what the authors' release normalises such images by.
        left_out: files of a folder that cannot be read as images and are left out, named from the folder, and why;
            `None` where that was not asked for.
    """

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int] | tuple[int, None, None]
    load: Callable[[Split], tuple[Tensor | ImageFiles, Sequence[int]]]
    statistics: Normalisation
    left_out: Mapping[str, str] | None = None

    def transform(self, *, image_size: int | tuple[int, int] | None = None, normalise: bool = False) -> InputTransform:
        """The transform of these images for a network of that input size; their own by default.

        Images that differ in size are resized to 8/7 of it on their shorter side and cropped (256 and 224 in the
        authors' release); others are resized whole. Values stay in [0, 1], as in the paper, unless `normalise` asks
        for the release's mean and standard deviation.
        """
        channels, height, width = self.image_shape
        match image_size:
            case None:
                size = (height, width) if height and width else IMAGENET_SIZE
            case int():
                size = (image_size, image_size)
            case _:
                size = image_size
        mean, std = self.statistics if normalise else ((0.0,), (1.0,))
        resize = None if height else round(min(size) * 8 / 7)
        return InputTransform(channels=channels, image_size=size, resize=resize, mean=mean, std=std)

    def label(self, name: str) -> int:
        """The label of a class; `ValueError`, with the nearest that exist, if there is none of that name."""
        return find(f"class of {self.name}", name, {known: label for label, known in enumerate(self.classes)})

    def images(
        self, split: Split, transform: InputTransform, *, classes: tuple[str, ...] | None = None
    ) -> LabelledImages:
        """A split as inputs for a network; of those classes alone, and labelled in their order, if they are given.

        Raises `ValueError`, with the nearest that exist, if a class is not among those of the data set.
        """
        images, labels = self.load(split)
        if classes is None or classes == self.classes:
            return LabelledImages(images, labels, self.classes, transform)
        number = {self.label(name): label for label, name in enumerate(classes)}
        rows = [row for row, label in enumerate(labels) if label in number]
        return LabelledImages(images[rows], [number[labels[row]] for row in rows], classes, transform)


IMAGENET_SIZE = (224, 224)
"""What images of various sizes are resized to unless another size is asked for."""

_IMAGENET_SYNSETS = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
"""SHA-256 of the 1,000 WordNet numbers of ILSVRC 2012, sorted, a line each: the order of the outputs of networks that
were trained on it."""


def is_imagenet(classes: Sequence[str]) -> bool:
    """Whether these are the names of the folders of ILSVRC 2012's classes."""
    return hashlib.sha256("\n".join(sorted(classes)).encode()).hexdigest() == _IMAGENET_SYNSETS
