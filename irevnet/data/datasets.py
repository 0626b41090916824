"""Data sets by name or folder, and subsets of their classes."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from irevnet.data.choices import OnError
from irevnet.data.image_folder import open_folder
from irevnet.data.images import DataSource, Split
from irevnet.data.transforms import CIFAR10_STATISTICS, CIFAR100_STATISTICS, Normalisation
from irevnet.utils import distributed
from irevnet.utils.lookup import find
from irevnet.utils.progress import Track, no_progress


def _digits(root: Path, download: bool) -> DataSource:
    """scikit-learn's 1,797 handwritten digits, 8 x 8, one fifth of each class held out for testing."""
    from sklearn.datasets import load_digits  # here, since it takes a second
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
    """The function that opens a data set whose files torchvision downloads, checks and reads."""

    def open_set(root: Path, download: bool) -> DataSource:
        def fetch() -> None:
            kind(root, download=True)

        @functools.cache
        def read(split: Split) -> Any:
            try:
                if download:
                    distributed.from_first(fetch)
                return kind(root, train=split == "train")
            except RuntimeError as error:
                raise FileNotFoundError(
                    f"{name} is not under {root}, or is damaged there; name the folder that holds its files, "
                    "or set `download` to fetch them"
                ) from error

        def load(split: Split) -> tuple[Tensor, list[int]]:
            data = read(split)
            images = torch.as_tensor(data.data)
            images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
            return images, list(map(int, data.targets))

        classes = tuple(read("test").classes)
        return DataSource(name=name, classes=classes, image_shape=image_shape, load=load, statistics=statistics)

    return open_set


_DATA: dict[str, Callable[[Path, bool], DataSource]] = {
    "digits": _digits,
    "cifar10": _from_torchvision("cifar10", datasets.CIFAR10, (3, 32, 32), CIFAR10_STATISTICS),
    "cifar100": _from_torchvision("cifar100", datasets.CIFAR100, (3, 32, 32), CIFAR100_STATISTICS),
    "fashion-mnist": _from_torchvision("fashion-mnist", datasets.FashionMNIST, (1, 28, 28), ((0.286,), (0.353,))),
}


def load_dataset(
    name: str,
    *,
    root: str | Path = "data",
    download: bool = False,
    on_error: OnError = "stop",
    skipped: Mapping[str, str] | None = None,
    workers: int = 0,
    track: Track = no_progress,
) -> DataSource:
    """A data set by name, or a folder with `train/` and `val/`.

    Args:
        name: `"digits"`, `"cifar10"`, `"cifar100"`, `"fashion-mnist"` or the path of a folder.
        root: folder that holds the files of a data set by name, in torchvision's layout; the digits need none.
        download: whether to download the files if they are missing.
        on_error: what to do about unreadable images of a folder; `"skip"` reads every image once, and skips those.
        skipped: images of a folder to skip, by path, with the reasons that an earlier check found.
        workers: number of processes that read the images for that check.
        track: wrapper of the loop of that check, to show its progress.

    Raises:
        ValueError: an unknown name that is no folder; or a folder whose splits have no classes, or different ones.
        FileNotFoundError: the files of that data set, a split of that folder, or the images of a class are missing.
    """
    if name not in _DATA and Path(name).is_dir():
        return open_folder(Path(name), on_error, skipped, workers, track)
    return find("data set or folder", name, _DATA)(Path(root), download)


def choose_classes(
    source: DataSource, which: int | Sequence[str], *, seed: int = 0, among: Sequence[str] | None = None
) -> tuple[str, ...]:
    """A subset of the classes, in the data set's order: a number of them drawn at random, or those with these names.

    Args:
        source: data set.
        which: number of classes to draw, or class names.
        seed: seed of the draw.
        among: class names to draw from; all classes by default.

    Raises:
        ValueError: a class that the data set does not have, more classes than there are, or fewer than two.
    """
    names = which if not isinstance(which, int) else _draw(which, among or source.classes, source.name, seed)
    chosen = {source.label(name) for name in names}
    if len(chosen) < 2:
        raise ValueError(f"expected at least 2 classes of {source.name}, got {len(chosen)}")
    return tuple(name for label, name in enumerate(source.classes) if label in chosen)


def _draw(count: int, available: Sequence[str], name: str, seed: int) -> list[str]:
    if not 2 <= count <= len(available):
        raise ValueError(f"expected 2 to {len(available)} classes of {name}, got {count}")
    return np.random.default_rng(seed).choice(np.array(available), count, replace=False).tolist()
