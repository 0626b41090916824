"""Data sets by name or folder, subsets of their classes, and batches of them."""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets
from torchvision.datasets.folder import IMG_EXTENSIONS

from irevnet import distributed
from irevnet.files import write_json
from irevnet.lookup import find
from irevnet.progress import Track, no_progress
from irevnet.transforms import (
    CIFAR10_STATISTICS,
    CIFAR100_STATISTICS,
    IMAGENET_STATISTICS,
    Augmentation,
    InputTransform,
    Normalisation,
    read_image,
)

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


LEAVE_OUT = ", or leave all such out with --on-error skip"


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

    def sha256(self) -> str:
        """Identifies the images and their order: by their pixels or, of files, by class, name and size."""
        digest = hashlib.sha256()
        if isinstance(self.images, ImageFiles):
            for path, label in zip(self.images.paths, self.labels):
                digest.update(os.fsencode(f"{self.classes[label]}/{Path(path).name} {os.path.getsize(path)}\n"))
        else:
            digest.update(f"{tuple(self.images.shape)} {list(self.labels)}\n".encode())
            digest.update(self.images.contiguous().flatten().view(torch.uint8).numpy().data)
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


def _digits(root: Path, download: bool) -> DataSource:
    """scikit-learn's 1,797 handwritten digits, 8 x 8, one fifth of each class held out for testing."""
    from sklearn.datasets import load_digits  # here, as it takes a second that other data sets need not wait for
    from sklearn.model_selection import train_test_split

    def load(split: Split) -> tuple[Tensor, list[int]]:
        digits = load_digits()
        images = torch.as_tensor(digits.images / 16, dtype=torch.float32)[:, None]  # type: ignore[union-attr]
        labels = torch.as_tensor(digits.target)  # type: ignore[union-attr]
        rows = train_test_split(torch.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
        chosen = torch.as_tensor(rows[0] if split == "train" else rows[1])
        return images[chosen], labels[chosen].tolist()

    return DataSource(
        name="digits",
        classes=tuple("0123456789"),
        image_shape=(1, 8, 8),
        load=load,
        statistics=((0.3053,), (0.3761,)),
    )


def _from_torchvision(
    name: str, kind: Any, image_shape: tuple[int, int, int], statistics: Normalisation
) -> Callable[[Path, bool], DataSource]:
    """The opener of a data set whose files torchvision downloads, checks and reads."""

    def open_set(root: Path, download: bool) -> DataSource:
        def fetch() -> None:
            kind(root, download=True)

        @functools.cache
        def read(split: Split) -> Any:
            try:
                if download:
                    distributed.from_first(fetch)  # the others find what it fetched
                return kind(root, train=split == "train")
            except RuntimeError as error:
                raise FileNotFoundError(
                    f"{name} is not under {root}, or is damaged there; name its folder with --data-root, or fetch it "
                    "with --download"
                ) from error

        def load(split: Split) -> tuple[Tensor, list[int]]:
            data = read(split)
            images = torch.as_tensor(data.data)
            images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
            return images, list(map(int, data.targets))

        classes = tuple(read("test").classes)
        return DataSource(name=name, classes=classes, image_shape=image_shape, load=load, statistics=statistics)

    return open_set


OnError = Literal["stop", "skip"]
"""What to do about files of a folder that cannot be read as images: stop at the first, or leave all of them out."""


def _open_folder(
    folder: Path, on_error: OnError, left_out: Mapping[str, str] | None, workers: int, track: Track
) -> DataSource:
    """A folder with `train/` and `val/`, and in both a folder of images a class: ImageNet's layout."""

    def split_folder(split: Split) -> Path:
        return folder / ("train" if split == "train" else "val")

    for split in ("train", "test"):
        if not split_folder(split).is_dir():
            raise FileNotFoundError(
                f"{folder} has no folder {split_folder(split).name}/; expected train/ and val/, and in both a folder "
                "of images for each class"
            )
    classes = _class_folders(split_folder("train"))
    if not classes:
        raise ValueError(f"{split_folder('train')} holds no class folders; expected a folder of images for each class")
    if missing := sorted(set(_class_folders(split_folder("test"))) ^ set(classes)):
        where = "val" if missing[0] in classes else "train"
        raise ValueError(f"{folder / where} has no folder for class {missing[0]!r}; both splits need the same classes")

    @functools.cache
    def files(split: Split) -> list[tuple[str, int]]:
        """All, with their labels."""
        found = (_image_files(split_folder(split) / name) for name in classes)
        return [(path, label) for label, paths in enumerate(found) for path in paths]

    unwanted = {os.path.join(folder, name) for name in left_out or ()}
    if on_error == "skip":
        paths = [path for split in ("train", "test") for path, _ in files(split) if path not in unwanted]
        found = _unreadable(paths, workers, track)
        left_out = {**(left_out or {}), **{os.path.relpath(path, folder): why for path, why in found.items()}}
        unwanted |= found.keys()

    @functools.cache
    def load(split: Split) -> tuple[ImageFiles, list[int]]:
        wanted = [(path, label) for path, label in files(split) if path not in unwanted]
        labels = [label for _, label in wanted]
        if empty := sorted(set(range(len(classes))) - set(labels)):
            raise FileNotFoundError(
                f"{split_folder(split) / classes[empty[0]]} holds no images{' that can be read' if unwanted else ''}; "
                f"add some ({', '.join(IMG_EXTENSIONS)}), or remove the class from train/ and val/"
            )
        return ImageFiles([path for path, _ in wanted]), labels

    images, labels = load("train")
    first = {label: row for row, label in reversed(list(enumerate(labels)))}
    shapes = {tuple(images[row].shape) for row in first.values()}
    channels = max(shape[0] for shape in shapes)
    sizes = {shape[1:] for shape in shapes}
    height, width = sizes.pop() if len(sizes) == 1 else (0, 1)
    return DataSource(
        name=str(folder),
        classes=classes,
        image_shape=(channels, height, width) if height == width else (channels, None, None),
        load=load,
        statistics=IMAGENET_STATISTICS if channels == 3 else ((0.5,), (0.5,)),
        left_out=left_out,
    )


def _class_folders(folder: Path) -> tuple[str, ...]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if odd := [name for name in names if name.splitlines() != [name.strip()]]:
        raise ValueError(f"{folder} has a class {odd[0]!r}; rename it, without line breaks and spaces at the ends")
    return tuple(names)


def _image_files(folder: Path) -> list[str]:
    """All below a folder that end as images do; hidden ones, such as macOS leaves beside others, are none."""
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found.append((place, sorted(name for name in names if not name.startswith("."))))
    return [
        os.path.join(place, name)
        for place, names in sorted(found)
        for name in names
        if name.lower().endswith(IMG_EXTENSIONS)
    ]


def _unreadable(paths: list[str], workers: int, track: Track) -> dict[str, str]:
    """The files that cannot be read as images, and why; each is read."""
    loader = _loader(_Reasons(paths), 64, workers=workers)
    reasons = [reason for batch in track(loader, "reading every image") for reason in batch]
    return {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}


class _Reasons(Dataset[str]):
    """Why each file cannot be read as an image; nothing if it can."""

    def __init__(self, paths: list[str]):
        self.images = ImageFiles(paths)

    def __len__(self) -> int:
        return len(self.images.paths)

    def __getitem__(self, index: int) -> str:
        try:
            self.images[index]
        except ValueError as error:
            return str(error).removeprefix(f"{self.images.paths[index]} ").removesuffix(LEAVE_OUT)
        return ""


_LEFT_OUT = "left-out.json"


def save_left_out(folder: Path, left_out: Mapping[str, str] | None) -> None:
    """Writes what was left out, and why, to `left-out.json` in a folder; `None` removes an earlier one."""
    if left_out is None:
        (folder / _LEFT_OUT).unlink(missing_ok=True)
    else:
        write_json(folder / _LEFT_OUT, dict(left_out))


def read_left_out(folder: Path) -> dict[str, str] | None:
    """What `save_left_out` wrote; `None` if it wrote nothing."""
    path = folder / _LEFT_OUT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


_DATA: dict[str, Callable[[Path, bool], DataSource]] = {
    "digits": _digits,
    "cifar10": _from_torchvision("cifar10", datasets.CIFAR10, (3, 32, 32), CIFAR10_STATISTICS),
    "cifar100": _from_torchvision("cifar100", datasets.CIFAR100, (3, 32, 32), CIFAR100_STATISTICS),
    "fashion-mnist": _from_torchvision("fashion-mnist", datasets.FashionMNIST, (1, 28, 28), ((0.286,), (0.353,))),
}


def open_data(
    name: str,
    *,
    root: str | Path = "data",
    download: bool = False,
    on_error: OnError = "stop",
    left_out: Mapping[str, str] | None = None,
    workers: int = 0,
    track: Track = no_progress,
) -> DataSource:
    """A data set by name, or a folder with `train/` and `val/`.

    Args:
        name: `"digits"`, `"cifar10"`, `"cifar100"`, `"fashion-mnist"` or the path of a folder.
        root: where the files of a data set by name are, in torchvision's layout; the digits need none.
        download: fetch them if they are not there.
        on_error: `"skip"` reads every image of a folder once, and leaves out those that cannot be read.
        left_out: of a folder, images that are left out unread, and why: what an earlier check found.
        workers: processes that read the images for that check.
        track: shows its progress.

    Raises:
        ValueError: no such name, nor a folder; or a folder whose splits have no classes, or not the same.
        FileNotFoundError: the files of that data set, a split of that folder, or the images of a class are missing.
    """
    if name not in _DATA and Path(name).is_dir():
        return _open_folder(Path(name), on_error, left_out, workers, track)
    return find("data set or folder", name, _DATA)(Path(root), download)


def choose_classes(
    source: DataSource, which: int | Sequence[str], *, seed: int = 0, among: Sequence[str] | None = None
) -> tuple[str, ...]:
    """A subset of the classes, in the data set's order: a number of them drawn at random, or those of these names.

    Args:
        source: the data set.
        which: how many, or which.
        seed: of the draw.
        among: what to draw from; all classes by default.

    Raises:
        ValueError: a class that the data set does not have, more than there are, or fewer than two.
    """
    names = which if not isinstance(which, int) else _draw(which, among or source.classes, source.name, seed)
    chosen = {source.label(name) for name in names}
    if len(chosen) < 2:
        raise ValueError(f"{len(chosen)} class of {source.name} was named; expected at least 2")
    return tuple(name for label, name in enumerate(source.classes) if label in chosen)


def _draw(count: int, available: Sequence[str], name: str, seed: int) -> list[str]:
    if not 2 <= count <= len(available):
        raise ValueError(f"{count} classes were asked for; expected 2 to {len(available)}, of {name}")
    return np.random.default_rng(seed).choice(np.array(available), count, replace=False).tolist()


def batches(
    data: Dataset[tuple[Tensor, int]], batch_size: int, *, part: tuple[int, int] = (1, 1), workers: int = 0
) -> DataLoader[Any]:
    """Batches of inputs `(n, c, h, w)` and labels `(n,)`: all images once, in order; of `part` (k, n), the k-th of n
    nearly equal parts of them.
    """
    number, parts = part
    count = len(data)  # type: ignore[arg-type]
    rows = range(count * (number - 1) // parts, count * number // parts)
    return _loader(data, batch_size, sampler=rows, workers=workers)


def training_batches(
    data: Dataset[tuple[Tensor, int]],
    batch_size: int,
    *,
    augmentation: Augmentation = "none",
    seed: int = 0,
    epoch: int = 1,
    start: int = 0,
    part: tuple[int, int] = (1, 1),
    workers: int = 0,
) -> DataLoader[Any]:
    """The batches of an epoch from the one numbered `start` on, in random order and randomly changed.

    All is drawn by seed, epoch and image alone. So the batches of an epoch are the same whenever they are asked for,
    from whichever start and by however many workers. The few images that do not fill a batch are left out (batch
    normalisation would weigh them too much). With `part` (k, n), the k-th of n equal parts of each batch; n has to
    divide the batch size.
    """
    number, parts = part
    order = np.random.default_rng([seed, epoch]).permutation(len(data))  # type: ignore[arg-type]
    order = order[start * batch_size : len(order) // batch_size * batch_size]
    batch_size //= parts
    order = order.reshape(-1, parts, batch_size)[:, number - 1].flatten()
    if augmentation != "none":
        assert isinstance(data, LabelledImages)
        data = _Augmented(data, augmentation, (seed, epoch))
    return _loader(data, batch_size, sampler=order.tolist(), workers=workers)


class _Augmented(Dataset[tuple[Tensor, int]]):
    def __init__(self, data: LabelledImages, kind: Augmentation, seed: tuple[int, int]):
        self.data = data
        self.kind: Augmentation = kind
        self.seed = seed

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.data.transform.augmented(self.data.pixels(index), self.kind, (*self.seed, index))
        return image, self.data.labels[index]


def _loader(data: Dataset, batch_size: int, *, sampler: Sequence[int] | None = None, workers: int) -> DataLoader[Any]:
    return DataLoader(
        data,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        generator=torch.Generator(),  # of seeds that nothing uses; by default they are drawn from the global generator
        worker_init_fn=_leave_interrupts_to_the_parent,
        pin_memory=torch.cuda.is_available(),
    )


def _leave_interrupts_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; one that loads images goes on until the step is finished."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
