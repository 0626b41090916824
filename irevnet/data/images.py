"""Labelled images, and the data sets that they come from."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import Dataset

from irevnet.data.lazy_images import LazyImages
from irevnet.data.splits import DrawnSplit, Split
from irevnet.data.transforms import InputTransform, Normalisation
from irevnet.utils.lookup import find
from irevnet.utils.progress import Track, no_progress


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
        images: Tensor | LazyImages,
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
        return self.images.names if isinstance(self.images, LazyImages) else [str(row) for row in range(len(self))]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pixels(index)), self.labels[index]

    def inputs(self, rows: Sequence[int], change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The network's inputs for some images, `(n, c, h, w)`, of which `change` may first make others of that shape,
        with values in [0, 1]."""
        transform = self.transform
        if isinstance(self.images, Tensor) and tuple(self.images.shape[1:]) == (
            transform.channels,
            *transform.image_size,
        ):
            pixels = _as_values(self.images[torch.as_tensor(rows, dtype=torch.int64)])
        else:
            pixels = torch.stack([transform.frame(transform.to_channels(self.pixels(row))) for row in rows])
        return transform.normalise(pixels if change is None else change(pixels))

    def relabelled(self, classes: tuple[str, ...]) -> "LabelledImages":
        """The same images, labelled in the order of these classes, which have to include their own."""
        labels = [classes.index(name) for name in self.classes]
        return LabelledImages(
            self.images, [labels[label] for label in self.labels], classes, self.transform, self._names
        )

    def sha256(self, track: Track = no_progress) -> str:
        """Digest of the images and their order: of their pixels and labels or, for files, of class, name and content.

        `track` wraps the loop over files, which are read once. Raises `OSError`, with its name, for one that cannot be.
        """
        digest = hashlib.sha256()
        if isinstance(self.images, LazyImages):
            for label, identity in zip(self.labels, self.images.identities(track)):
                digest.update(os.fsencode(f"{self.classes[label]}/{identity}\n"))
        else:
            digest.update(f"{tuple(self.images.shape)} {list(self.labels)}\n".encode())
            digest.update(self.images.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def signature(self) -> str | None:
        """Digest that changes with every write to a file: of paths, sizes, times and inodes.

        `None` without files, and for files written to within the last seconds.
        """
        found = self.images.signatures() if isinstance(self.images, LazyImages) else None
        if found is None:
            return None
        digest = hashlib.sha256()
        for label, signature in zip(self.labels, found):
            digest.update(os.fsencode(f"{self.classes[label]} {signature}\n"))
        return digest.hexdigest()

    def pixels(self, index: int) -> Tensor:
        """The image before the transform, with values in [0, 1]."""
        return _as_values(self.images[index])


def _as_values(pixels: Tensor) -> Tensor:
    return pixels / 255 if pixels.dtype == torch.uint8 else pixels


UNLABELLED = ("(no label)",)
"""Classes of a data set whose images have no labels."""


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A data set: its classes, its images, and their transform for a network.

    Attributes:
        name: name or path that the data set was opened by.
        classes: class names, in the order of their labels; `UNLABELLED` where images have no labels.
        image_shape: channels, height and width of the images; height and width are `None` where images differ in size.
        load: function that returns the images `(c, h, w)` and the labels of a split.
        statistics: mean and standard deviation by which the authors' release normalises such images.
        splits: splits that have images.
        absent: classes without images in a split.
        skipped: skipped files of a folder, which cannot be read as images, by path within the folder, and why; `None`
            if unreadable files are not skipped.
        split: split that was drawn, now or for a run that keeps it; `None` for data that come with one.
        remarks: what was chosen where the data do not say it, a line each.
    """

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int] | tuple[int, None, None]
    load: Callable[[Split], tuple[Tensor | LazyImages, Sequence[int]]]
    statistics: Normalisation
    splits: tuple[Split, ...] = ("train", "test")
    absent: Mapping[Split, frozenset[str]] = field(default_factory=dict)
    skipped: Mapping[str, str] | None = None
    split: DrawnSplit | None = None
    remarks: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether the images have labels."""
        return self.classes != UNLABELLED

    def check_labelled(self, purpose: str) -> None:
        """Raises `ValueError` if the images have no labels, which that purpose needs."""
        if not self.labelled:
            raise ValueError(
                f"the images of {self.name} have no labels, but {purpose}; put them into a folder for each class, or "
                "give a CSV with the columns path and label"
            )

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

        Raises `ValueError` for a split without images, for a class without images in it, and, with the nearest names,
        for an unknown class.
        """
        if split not in self.splits:
            raise ValueError(
                f"{self.name} has {_WORDS[self.splits[0]]} images alone, but {_WORDS[split]} images are needed here; "
                "give data with both, such as a folder with train/ and val/"
            )
        self._check_present(split, self.classes if classes is None else classes)
        images, labels = self.load(split)
        if classes is None or classes == self.classes:
            return LabelledImages(images, labels, self.classes, transform)
        number = {self.label(name): label for label, name in enumerate(classes)}
        rows = [row for row, label in enumerate(labels) if label in number]
        names = None if isinstance(images, LazyImages) else list(map(str, rows))
        return LabelledImages(images[rows], [number[labels[row]] for row in rows], classes, transform, names)

    def _check_present(self, split: Split, classes: Sequence[str]) -> None:
        """Raises `ValueError` if one of the classes has no images in a split, with how many the other has of it."""
        names = sorted(self.absent.get(split, frozenset()).intersection(classes))
        if not names:
            return
        other: Split = "test" if split == "train" else "train"
        labels = self.load(other)[1] if other in self.splits else ()
        count = sum(label == self.label(names[0]) for label in labels)
        more = f" (nor have {len(names) - 1} other classes)" if len(names) > 1 else ""
        drawn = ", too few for both" if self.split and count == 1 else ""
        readable = " that can be read" if self.skipped else ""
        raise ValueError(
            f"class {names[0]!r} of {self.name} has no {_WORDS[split]} images{readable}{more}, and {count} "
            f"{_WORDS[other]} images{drawn}; add some, or give the names of the other classes by `classes`"
        )


_WORDS: dict[Split, str] = {"train": "training", "test": "test"}

IMAGENET_SIZE = (224, 224)
"""Default height and width that images of different sizes are resized to."""
