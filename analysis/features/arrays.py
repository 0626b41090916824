"""Features of one's own as arrays, in memory or in files that may come from anyone, checked once.

Arrays are called `train/LAYER` and `test/LAYER`, a row an image, and `train/labels` and `test/labels`; without splits,
`LAYER` and `labels`. `classes` may name the classes, which labels then number or name, and `train/images` the images,
which nothing depends on. What `analysis.features.export` writes is of this form.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from sklearn.model_selection import train_test_split

from analysis.features.export import CLASSES, IMAGES, LABELS, SPLITS
from irevnet.utils.untrusted import brief, map_array, open_arrays

LAYER = "features"
"""Name of the layer of an array without a name."""

PARTS = 5
"""Number of parts of each class of which one is held out for testing."""

LONGEST_NAME = 200
"""Most bytes of a layer's name, of which names of files are made."""

MOST_COMPRESSED = 64
"""Most times that an array may be larger than what it was compressed to."""

ROWS = 1000
"""Number of rows that are looked at together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledFeatures:
    """Features of training and test images at some layers, with their labels, which number the classes.

    Attributes:
        train: features of the training images by layer, `(train, dims)`.
        test: features of the test images by layer, `(test, dims)`.
        train_labels: labels of the training images, `(train,)`.
        test_labels: labels of the test images, `(test,)`.
        classes: names of the classes.
        held_out: whether the test images were drawn from images that had no split.
    """

    train: Mapping[str, Float[ndarray, "train _"]]
    test: Mapping[str, Float[ndarray, "test _"]]
    train_labels: Int[ndarray, " train"]
    test_labels: Int[ndarray, " test"]
    classes: tuple[str, ...]
    held_out: bool


def read_arrays(path: Path) -> dict[str, ndarray]:
    """The arrays of an `.npz` file, compressed or not, or the one of an `.npy` file, called `LAYER`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind, is damaged, or holds Python objects.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give one of features, .npz or .npy")
    try:
        match path.suffix:
            case ".npy":
                return {LAYER: map_array(path)}
            case ".npz":
                with open_arrays(path, compressed=True) as arrays:
                    names = [name for name in arrays.names if name.rpartition("/")[2] != IMAGES]
                    _check_size(path, [arrays.declared(name) for name in names])
                    return {name: arrays[name] for name in names}
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    raise ValueError(f"{path} is neither .npz nor .npy, in which features are read")


def _check_size(path: Path, declared: Sequence[tuple[tuple[int, ...], np.dtype]]) -> None:
    """Raises `ValueError` for arrays of these shapes that take far more memory than their file, as features do not."""
    total = sum(math.prod(shape) * kind.itemsize for shape, kind in declared)
    if total > MOST_COMPRESSED * path.stat().st_size:
        raise ValueError(
            f"its arrays take {total:,} bytes, more than {MOST_COMPRESSED} times as many as the file; save them "
            "without compression"
        )


def labelled_features(arrays: Mapping[str, ndarray], *, seed: int = 0) -> LabelledFeatures:
    """The features among arrays that are called as above, in float32.

    Without a test split a fifth of each class is held out, drawn by the seed.

    Raises `ValueError` for arrays that are missing, of another kind or shape than the others, or not finite.
    """
    names = _by_split(arrays)
    values = {split: _labels(arrays, layers) for split, layers in names.items()}
    classes = _classes(values["train"], arrays.get(CLASSES))
    labels = {split: _numbered(names[split][LABELS], each, classes) for split, each in values.items()}
    features = {
        split: {
            layer: _features(name, arrays[name], len(labels[split]))
            for layer, name in layers.items()
            if layer != LABELS
        }
        for split, layers in names.items()
    }
    if not features["train"]:
        raise ValueError(f"there are no features beside the labels; expected an array train/{LAYER}, or {LAYER}")
    held_out = "test" not in names
    if held_out:
        parts = _hold_out(labels["train"], list(classes.values()), seed)
        labels = {split: labels["train"][rows] for split, rows in parts.items()}
        features = {
            split: {name: each[rows] for name, each in features["train"].items()} for split, rows in parts.items()
        }
    _check_alike(features["train"], features["test"])
    return LabelledFeatures(
        train=features["train"],
        test={layer: features["test"][layer] for layer in features["train"]},
        train_labels=labels["train"],
        test_labels=labels["test"],
        classes=tuple(classes.values()),
        held_out=held_out,
    )


def _by_split(arrays: Collection[str]) -> dict[str, dict[str, str]]:
    """The names of the arrays by split and layer, `labels` among them; without splits all are for training."""
    has_splits = any(name.startswith(tuple(f"{split}/" for split in SPLITS)) for name in arrays)
    found: dict[str, dict[str, str]] = {}
    for name in arrays:
        split, _, layer = name.partition("/") if has_splits else ("train", "", name)
        if name == CLASSES or layer == IMAGES:
            continue
        if split not in SPLITS or not _names_a_layer(layer):
            raise ValueError(
                f"an array is called {brief(name)}; expected train/LAYER and test/LAYER, or LAYER for all, with layers "
                f"whose names have at most {LONGEST_NAME} bytes, no / and no dot at the beginning"
            )
        found.setdefault(split, {})[layer] = name
    for split in ["train", *found]:
        if LABELS not in found.get(split, {}):
            name = f"{split}/{LABELS}" if has_splits else LABELS
            raise ValueError(f"there is no array {name}; expected the class of each image, there or by `labels`")
    return found


def _names_a_layer(name: str) -> bool:
    """Whether files can be called by that name."""
    return name.isprintable() and "/" not in name and name[:1] not in ("", ".") and len(name.encode()) <= LONGEST_NAME


def _labels(arrays: Mapping[str, ndarray], names: Mapping[str, str]) -> list[Any]:
    labels = arrays[names[LABELS]]
    if labels.dtype.kind not in "iuU" or labels.ndim != 1 or len(labels) == 0:
        raise ValueError(
            f"{names[LABELS]} is {labels.dtype} of the shape {labels.shape}; expected a whole number or a name for "
            "each image, (images,)"
        )
    return labels.tolist()


def _classes(labels: list[Any], names: ndarray | None) -> dict[Any, str]:
    """The name of the class of each label, in the order of the classes."""
    if names is None:
        classes = {label: str(label) for label in sorted(set(labels))}
    elif names.dtype.kind != "U" or names.ndim != 1 or len(set(names.tolist())) < len(names):
        raise ValueError(
            f"{CLASSES} is {names.dtype} of the shape {names.shape}; expected names that differ, one for each class"
        )
    else:
        classes = {name if isinstance(labels[0], str) else label: name for label, name in enumerate(names.tolist())}
    if wrong := [name for name in classes.values() if not name.isprintable() or name != name.strip() or not name]:
        raise ValueError(f"a class is called {brief(wrong[0])}; expected a line of text, without spaces at its ends")
    return classes


def _numbered(name: str, labels: list[Any], classes: Mapping[Any, str]) -> Int[ndarray, " _"]:
    number = {label: number for number, label in enumerate(classes)}
    if unknown := [label for label in labels if label not in number]:
        raise ValueError(
            f"{name} has the label {brief(unknown[0])}, which belongs to no class; expected one of the {len(classes)} "
            f"of {CLASSES} or, without these, of the training images"
        )
    return np.array([number[label] for label in labels])


def _features(name: str, array: ndarray, images: int) -> Float[ndarray, "images dims"]:
    if array.dtype.kind not in "fiu" or array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{name} is {array.dtype} of the shape {array.shape}; expected numbers, a row for each image: (images, "
            "dims)"
        )
    if len(array) != images:
        raise ValueError(f"{name} has {len(array):,} rows, and there are {images:,} labels; expected one for each")
    with np.errstate(over="ignore"):
        array = np.asarray(array, dtype=np.float32)
    for start in range(0, images, ROWS):
        finite = np.isfinite(array[start : start + ROWS]).all(axis=1)
        if not finite.all():
            raise ValueError(f"{name} is not finite in float32, at first in row {start + int(finite.argmin())}")
    return array


def _hold_out(labels: Int[ndarray, " images"], classes: Sequence[str], seed: int) -> dict[str, Int[ndarray, " rows"]]:
    """The rows of each split, in increasing order."""
    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() < PARTS:
        raise ValueError(
            f"class {classes[int(counts.argmin())]!r} has {counts.min()} images, and one of {PARTS} is to be held out "
            f"for testing; expected at least {PARTS} of each class, or a test split"
        )
    rows = train_test_split(np.arange(len(labels)), test_size=1 / PARTS, stratify=labels, random_state=seed)
    return {split: np.sort(part) for split, part in zip(SPLITS, rows)}


def _check_alike(train: Mapping[str, ndarray], test: Mapping[str, ndarray]) -> None:
    if apart := sorted(train.keys() ^ test.keys()):
        raise ValueError(f"there are features {apart[0]} of one split alone; expected the same layers of both")
    for layer, array in train.items():
        if array.shape[1] != test[layer].shape[1]:
            raise ValueError(
                f"train/{layer} has {array.shape[1]:,} features an image, test/{layer} {test[layer].shape[1]:,}; "
                "expected as many in both"
            )
