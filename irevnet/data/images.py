"""Labelled images, and the data sets that they come from."""

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
    """Image files that are read when indexed; a list of rows as index gives another such collection.

    Args:
        paths: path of each file.
        folder: folder that they are all in, and below which they have their names.
    """

    def __init__(self, paths: list[str], folder: str = ""):
        self.paths = paths
        self.folder = folder

    @property
    def names(self) -> list[str]:
        """The path of each file below the folder."""
        return [path.removeprefix(f"{self.folder}{os.sep}") for path in self.paths]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return ImageFiles([self.paths[row] for row in index], self.folder)
        path = self.paths[index]
        try:
            return read_image(path)
        except FileNotFoundError as error:
            raise ValueError(
                f"{path} cannot be read as an image: it is missing, or a broken link; replace or remove it{LEAVE_OUT}"
            ) from error
        except ValueError as error:
            raise ValueError(f"{error}{LEAVE_OUT}") from error


READERS = 8
"""Number of files that are read at the same time."""

SETTLED = 2 * 10**9
"""Nanoseconds after which another write changes the times of a file, on any file system."""


def _file_sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


LEAVE_OUT = ", or skip all such files with `on_error`='skip'"


class LabelledImages(Dataset[tuple[Tensor, int]]):
    """Images as network inputs, with their labels, numbered in the order of `classes`.

    Args:
        images: images `(c, h, w)`, of bytes or of values in [0, 1].
        labels: label of each image.
        classes: class names, in the order of their labels.
        transform: transform from an image to a network's input.
        names: name of each image; by default the path of a file below its data set's folder, and of other images their
            number, from 0 on.

    Raises `ValueError`, with the number of the image, for values that are not finite, and for unknown labels.
    """

    def __init__(
        self,
        images: Tensor | ImageFiles,
        labels: Sequence[int],
        classes: tuple[str, ...],
        transform: InputTransform,
        names: Sequence[str] | None = None,
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
        self._names = names

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> Sequence[str]:
        """The name of each image."""
        if self._names is not None:
            return self._names
        return self.images.names if isinstance(self.images, ImageFiles) else [str(row) for row in range(len(self))]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pixels(index)), self.labels[index]

    def relabelled(self, classes: tuple[str, ...]) -> "LabelledImages":
        """The same images, labelled in the order of these classes, which have to include their own."""
        labels = [classes.index(name) for name in self.classes]
        return LabelledImages(
            self.images, [labels[label] for label in self.labels], classes, self.transform, self._names
        )

    def sha256(self, track: Track = no_progress) -> str:
        """Digest of the images and their order: of their pixels or, for files, of class, name and content.

        Files are read once, several at a time; `track` wraps the loop over them.

        Raises `OSError`, naming the file, for one that cannot be read.
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
        """Digest that changes with every write to a file: of paths, sizes, times and inodes.

        `None` without files, and for files written to within the last seconds, where another write might leave the same
        times.
        """
        if not isinstance(self.images, ImageFiles):
            return None
        digest, now = hashlib.sha256(), time.time_ns()
        for path, label in zip(self.images.paths, self.labels):
            found = os.stat(path)
            if max(found.st_ctime_ns, found.st_mtime_ns) > now - SETTLED:
                return None
            entry = (
                f"{self.classes[label]} {path} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}\n"
            )
            digest.update(os.fsencode(entry))
        return digest.hexdigest()

    def pixels(self, index: int) -> Tensor:
        """The image before the transform, with values in [0, 1]."""
        image = self.images[index]
        return image / 255 if image.dtype == torch.uint8 else image


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A data set: its classes, its images, and their transform for a network.

    Attributes:
        name: name or folder that the data set was opened by.
        classes: class names, in the order of their labels.
        image_shape: channels, height and width of the images; height and width are `None` where images differ in size.
        load: function that returns the images `(c, h, w)` and the labels of a split.
        statistics: mean and standard deviation by which the authors' release normalises such images.
        skipped: skipped files of a folder, which cannot be read as images, by path within the folder, and why; `None`
            if unreadable files are not skipped.
    """

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int] | tuple[int, None, None]
    load: Callable[[Split], tuple[Tensor | ImageFiles, Sequence[int]]]
    statistics: Normalisation
    skipped: Mapping[str, str] | None = None

    def transform(self, *, image_size: int | tuple[int, int] | None = None, normalise: bool = False) -> InputTransform:
        """The transform of these images for a network of that input size, by default the size of the images.

        Images that differ in size are resized to 8/7 of it on their shorter side and cropped (256 and 224 in the
        authors' release); others are resized as a whole. Values stay in [0, 1], as in the paper, unless `normalise`
        applies the release's mean and standard deviation.
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
        """The label of a class. Raises `ValueError`, with the nearest names, for an unknown one."""
        return find(f"class of {self.name}", name, {known: label for label, known in enumerate(self.classes)})

    def images(
        self, split: Split, transform: InputTransform, *, classes: tuple[str, ...] | None = None
    ) -> LabelledImages:
        """A split as inputs of a network; with `classes`, only their images, labelled in their order. They keep their
        names.

        Raises `ValueError`, with the nearest names, for an unknown class.
        """
        images, labels = self.load(split)
        if classes is None or classes == self.classes:
            return LabelledImages(images, labels, self.classes, transform)
        number = {self.label(name): label for label, name in enumerate(classes)}
        rows = [row for row, label in enumerate(labels) if label in number]
        names = None if isinstance(images, ImageFiles) else list(map(str, rows))
        return LabelledImages(images[rows], [number[labels[row]] for row in rows], classes, transform, names)


IMAGENET_SIZE = (224, 224)
"""Default height and width that images of different sizes are resized to."""

_IMAGENET_SYNSETS = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
"""SHA-256 of the 1,000 WordNet numbers of ILSVRC 2012, sorted, one per line: the order of the outputs of networks that
are trained on it."""


def is_imagenet(classes: Sequence[str]) -> bool:
    """Whether these are the folder names of the classes of ILSVRC 2012."""
    return hashlib.sha256("\n".join(sorted(classes)).encode()).hexdigest() == _IMAGENET_SYNSETS
