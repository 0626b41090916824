"""Splits into training and test images: drawn where the data have none, and kept with a run."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from irevnet.utils.files import write_json
from irevnet.utils.untrusted import build, parse_json

Split = Literal["train", "test"]

_FILE = "split.json"


@dataclass(frozen=True, kw_only=True)
class DrawnSplit:
    """Which images of a data set are trained on, and which are tested on.

    Attributes:
        data: name or path of the data set.
        val_fraction: share of each class's images that are tested on.
        train: names of the training images within the data set.
        test: names of the test images.
    """

    data: str
    val_fraction: float
    train: tuple[str, ...]
    test: tuple[str, ...]


def draw_split(data: str, names: Sequence[str], labels: Sequence[str], val_fraction: float) -> DrawnSplit:
    """Draws test images from each class: of n images `val_fraction * n`, rounded, but at least one, and not all.

    The draw is by the SHA-256 of an image's name. It is the same in every run, in any order of the images and wherever
    their folder lies; a larger fraction's test images include those of a smaller one; and where images were added,
    most of the others stay in their split. The image of a class that has only one is trained on.

    Args:
        data: name or path of the data set.
        names: name of each image, unique.
        labels: class of each image.
        val_fraction: share to test on, between 0 and 1.

    Raises `ValueError` for another share.

    >>> draw_split("photos", ["a/1", "a/2", "a/3", "b/1", "b/2"], list("aaabb"), 0.4).test
    ('a/2', 'b/2')
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"`val_fraction` is {val_fraction:g}; expected a share between 0 and 1, such as 0.2")
    of_class: dict[str, list[str]] = {}
    for name, label in zip(names, labels, strict=True):
        of_class.setdefault(label, []).append(name)
    test: set[str] = set()
    for members in of_class.values():
        count = min(max(round(val_fraction * len(members)), 1), len(members) - 1)
        test.update(sorted(members, key=_rank)[:count])
    return DrawnSplit(
        data=data,
        val_fraction=val_fraction,
        train=tuple(name for name in names if name not in test),
        test=tuple(name for name in names if name in test),
    )


def train_then_test(num_train: int, num_test: int) -> list[Split | None]:
    """The splits of so many training images, followed by so many test images."""
    train: list[Split | None] = ["train"]
    test: list[Split | None] = ["test"]
    return train * num_train + test * num_test


def _rank(name: str) -> bytes:
    return hashlib.sha256(os.fsencode(name)).digest()


def same_data(one: str, other: str) -> bool:
    """Whether two names are of one data set: the same word, or paths of the same file or folder."""
    return one == other or (os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other))


def save_split(folder: Path, split: DrawnSplit | None) -> None:
    """Writes a split to `split.json` in a folder; `None` removes an earlier file."""
    if split is None:
        (folder / _FILE).unlink(missing_ok=True)
    else:
        write_json(folder / _FILE, vars(split))


def read_split(folder: Path) -> DrawnSplit | None:
    """The split that `save_split` wrote; `None` without a file. Raises `ValueError` for a damaged file."""
    path = folder / _FILE
    if not path.is_file():
        return None
    try:
        return build(DrawnSplit, parse_json(path.read_bytes()))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
