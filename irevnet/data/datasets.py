"""Data sets by name or folder, and subsets of their classes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from irevnet.data.choices import OnError
from irevnet.data.image_folder import open_folder
from irevnet.data.images import DataSource
from irevnet.data.own_code import is_code, open_own
from irevnet.data.sources import LoadOptions, check_no_split
from irevnet.data.splits import DrawnSplit, Split
from irevnet.data.tables import open_table
from irevnet.data.torchvision_sets import TORCHVISION, named_set, open_torchvision
from irevnet.data.transforms import CIFAR10_STATISTICS, CIFAR100_STATISTICS, Normalisation
from irevnet.utils.lookup import find
from irevnet.utils.progress import Track, no_progress


def _digits(options: LoadOptions) -> DataSource:
    """scikit-learn's 1,797 handwritten digits, 8 x 8, one fifth of each class held out for testing."""
    check_no_split("digits", options)
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


def _of_torchvision(name: str, kind: type, statistics: Normalisation) -> Callable[[LoadOptions], DataSource]:
    return lambda options: open_torchvision(name, kind, options, statistics=statistics)


_DATA: dict[str, Callable[[LoadOptions], DataSource]] = {
    "digits": _digits,
    "cifar10": _of_torchvision("cifar10", datasets.CIFAR10, CIFAR10_STATISTICS),
    "cifar100": _of_torchvision("cifar100", datasets.CIFAR100, CIFAR100_STATISTICS),
    "fashion-mnist": _of_torchvision("fashion-mnist", datasets.FashionMNIST, ((0.286,), (0.353,))),
}


def load_dataset(
    name: str,
    *,
    root: str | Path = "data",
    download: bool = False,
    on_error: OnError = "stop",
    skipped: Mapping[str, str] | None = None,
    val_fraction: float | None = None,
    split: DrawnSplit | None = None,
    workers: int = 0,
    track: Track = no_progress,
) -> DataSource:
    """A data set by name, of image files, of torchvision, or of one's own code.

    - `"digits"`, `"cifar10"`, `"cifar100"`, `"fashion-mnist"`.
    - A folder: with `train/` and `val/` and in each a folder of images per class; with a folder of images per class;
      or with images alone, see `irevnet.data.image_folder.open_folder`.
    - A table that names images and their classes, see `irevnet.data.tables.read_table`.
    - `"torchvision:SVHN"` and any other data set of torchvision whose images have one class each, see
      `irevnet.data.torchvision_sets.open_torchvision`.
    - `"FILE.py:NAME"` or `"package.module:NAME"`: one's own data set, see `irevnet.data.own_code.open_own`.

    Args:
        name: one of these.
        root: folder that holds the files of a data set by name, in torchvision's layout; the digits need none.
        download: whether to download the files if they are missing.
        on_error: what to do about unreadable image files; `"skip"` reads every image once, and skips those.
        skipped: image files to skip, by name within the data set, with the reasons that an earlier check found.
        val_fraction: share of each class's images that are tested on, of data that have no split, 0.2 by default.
        split: split of such data that a run keeps.
        workers: number of processes that read images for a check of all of them.
        track: wrapper of the loop of that check, to show its progress.

    Raises:
        ValueError: an unknown name that is no path; a folder, table, data set or split that is not as described there.
        FileNotFoundError: the files of that data set, or all images, are missing.
    """
    options = LoadOptions(
        root=Path(root),
        download=download,
        on_error=on_error,
        skipped=skipped,
        val_fraction=val_fraction,
        split=split,
        workers=workers,
        track=track,
    )
    path = Path(name)
    if name not in _DATA and path.is_dir():
        return open_folder(path, options)
    if name not in _DATA and path.is_file():
        return open_table(path, options)
    if name.startswith(TORCHVISION):
        return open_torchvision(name, named_set(name), options)
    if is_code(name):
        return open_own(name, options)
    if name not in _DATA and path.suffix:
        raise FileNotFoundError(f"there is no file {name}; expected a table of images, a folder, or a data set by name")
    return find("data set or folder", name, _DATA)(options)


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
