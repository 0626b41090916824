"""Data sets of torchvision, by the names of their classes."""

import functools
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch
import torchvision.datasets
from torch import Tensor

from irevnet.data.images import DataSource
from irevnet.data.items import as_image, as_label, class_names, declared_classes
from irevnet.data.lazy_images import ImageFiles
from irevnet.data.own_code import list_items
from irevnet.data.sources import (
    Listing,
    LoadOptions,
    check_class_name,
    check_no_split,
    common_shape,
    sort_classes,
    source_of,
    source_of_files,
    usual_statistics,
)
from irevnet.data.splits import Split, train_then_test
from irevnet.data.transforms import Normalisation
from irevnet.utils import distributed
from irevnet.utils.lookup import find

TORCHVISION = "torchvision:"
"""Prefix of the names of data sets of that package."""

_WORDS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "trainval", "train-standard"),
    "test": ("test", "val", "valid"),
}
"""What constructors call the splits, in the order of preference; the images of some `test` have no labels."""

_TARGETS = {
    "CelebA": "attributes",
    "Cityscapes": "a map of classes",
    "CocoCaptions": "captions",
    "CocoDetection": "objects",
    "Flickr30k": "captions",
    "Flickr8k": "captions",
    "Kitti": "objects",
    "LFWPairs": "a second image",
    "SBU": "captions",
    "VOCDetection": "objects",
    "VOCSegmentation": "a map of classes",
    "WIDERFace": "faces",
}
"""What an image has in place of a class; data sets whose constructors take no `target_transform` have none either."""


_GENERAL = ("DatasetFolder", "FakeData", "ImageFolder", "VisionDataset")
"""Classes that are no data sets of their own."""


def named_set(name: str) -> Any:
    """The class of a name such as `torchvision:SVHN`.

    Raises `ValueError` for an unknown name, and for a data set whose images do not have one class each.
    """
    word = name.removeprefix(TORCHVISION)
    kinds = {each: getattr(torchvision.datasets, each) for each in torchvision.datasets.__all__}
    takes = {each: _parameters(kind) for each, kind in kinds.items() if inspect.isclass(kind) and each not in _GENERAL}
    known = {
        each: kinds[each]
        for each, parameters in takes.items()
        if "root" in parameters and {"target_transform", "kwargs"} & parameters.keys() and each not in _TARGETS
    }
    if word in takes and word not in known:
        has = _TARGETS.get(word, "something else")
        raise ValueError(f"the images of {name} have {has} in place of a class; name one with a class an image")
    return find("data set of torchvision", word, known)


def open_torchvision(
    name: str, kind: Any, options: LoadOptions, *, statistics: Normalisation | None = None
) -> DataSource:
    """A data set of torchvision: in one tensor where it holds an array, else read image by image.

    Its splits are those that its constructor takes, `test` rather than `val` where the images of both have labels; it
    gets a drawn one if it takes none.

    Args:
        name: name that it is opened by.
        kind: its class.
        options: where its files are, whether they are fetched, and how a split is drawn.
        statistics: mean and deviation of its images; by default ImageNet's, or 0.5 and 0.5 of grey images.

    Raises:
        ValueError: it takes other words for its splits, or has items that are no images with one class each.
        FileNotFoundError: its files are not there.
        ImportError: it needs a package that is not installed.
        OSError: its files cannot be fetched.
    """
    construct = functools.cache(functools.partial(_construct, name, kind, options))
    if not {"train", "split"} & _parameters(kind).keys():
        return _source(name, [construct(None)], [], options)

    @functools.cache
    def read(split: Split) -> tuple[Tensor, list[str]] | None:
        return _array(construct(split), name)

    array = read("test")
    if array is None:
        datasets = [construct("train"), construct("test")]
        return _source(name, datasets, train_then_test(*map(len, datasets)), options)
    check_no_split(name, options)
    declared = declared_classes(construct("test"))
    of_train = None if declared else read("train")
    classes = _classes(construct("test"), [*array[1], *(of_train[1] if of_train else [])], name)

    def load(split: Split) -> tuple[Tensor, list[int]]:
        found = read(split)
        assert found is not None
        return found[0], [classes.index(label) for label in found[1]]

    shape = common_shape({tuple(array[0].shape[1:])})
    usual = statistics or usual_statistics(shape[0])
    return DataSource(name=name, classes=classes, image_shape=shape, load=functools.cache(load), statistics=usual)


def _source(name: str, datasets: list[Any], splits: list[Split | None], options: LoadOptions) -> DataSource:
    array = _array(datasets[0], name) if len(datasets) == 1 else None
    if array is not None:
        images, labels = array
        names = list(map(str, range(len(labels))))
        classes = _classes(datasets[0], labels, name)
        shape = common_shape({tuple(images.shape[1:])})
        listing = Listing(images=images, names=names, labels=labels, splits=(), classes=classes, image_shape=shape)
        return source_of(name, listing, options)
    listing = _files(datasets, splits, name)
    if listing is not None:
        return source_of_files(name, listing, options)
    return source_of(name, list_items(name, datasets, splits, options), options)


def _array(dataset: Any, name: str) -> tuple[Tensor, list[str]] | None:
    """The images and class names of a data set that holds them in an array; `None` of one that does not."""
    data = getattr(dataset, "data", None)
    if not isinstance(data, np.ndarray | Tensor):
        return None
    labels = np.asarray(getattr(dataset, "targets", getattr(dataset, "labels", None)))
    images = torch.as_tensor(data)
    if labels.shape != (len(dataset),) or len(images) != len(dataset) or images.dtype != torch.uint8:
        return None
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[1] not in (1, 3):
        images = images.permute(0, 3, 1, 2).contiguous()
    for row in {0, len(labels) // 2, len(labels) - 1}:  # its items are what counts
        image, label = dataset[row]
        if not torch.equal(as_image(image), images[row]) or label != labels[row]:
            return None
    return images, class_names(declared_classes(dataset), labels.tolist(), name)


def _files(datasets: list[Any], splits: list[Split | None], name: str) -> Listing | None:
    """The files of data sets whose items are paths, since their loader returns those; `None` of others."""
    if not all(isinstance(dataset[0][0], str) for dataset in datasets):
        return None
    paths, labels = [], []
    for dataset in datasets:
        items = [dataset[row] for row in range(len(dataset))]
        paths += [path for path, _ in items]
        labels += class_names(declared_classes(dataset), [as_label(label) for _, label in items], name)
    classes = _classes(datasets[0], labels, name)
    images = ImageFiles(paths, os.path.commonpath(paths))
    return Listing(images=images, names=images.names, labels=labels, splits=splits, classes=classes)


def _classes(dataset: Any, labels: list[str], name: str) -> tuple[str, ...]:
    return tuple(check_class_name(each, name) for each in declared_classes(dataset) or sort_classes(labels))


def _construct(name: str, kind: Any, options: LoadOptions, split: Split | None) -> Any:
    """The data set of a split, by the first word that its constructor takes and whose images have labels."""
    reason: object = "its images have no labels"
    for words in _words(kind, split):
        try:
            dataset = _open(name, kind, words, options)
            as_label(dataset[0][1])
            return dataset
        except ValueError as error:
            reason = error
    raise ValueError(
        f"{name} has no images with one class each ({' '.join(str(reason).split())}); if it takes other arguments, "
        "return it from a function of your own, and name that as FILE.py:NAME"
    )


def _words(kind: Any, split: Split | None) -> Iterator[dict[str, Any]]:
    """The arguments that may name a split."""
    if split is None:
        yield {}
    elif "train" in _parameters(kind):
        yield {"train": split == "train"}
    else:
        yield from ({"split": word} for word in _WORDS[split])


def _open(name: str, kind: Any, words: dict[str, Any], options: LoadOptions) -> Any:
    parameters = _parameters(kind)
    given = dict(words)
    if "loader" in parameters:
        given["loader"] = os.fspath  # files are read as those of a folder
    fetched = "download" in parameters

    def fetch() -> None:
        with redirect_stdout(sys.stderr):
            kind(options.root, **given, download=True)

    try:
        if options.download and fetched:
            distributed.from_first(fetch)
        dataset = kind(options.root, **given, **({"download": False} if fetched else {}))
    except (ImportError, RuntimeError, OSError) as error:
        if isinstance(error, ImportError) or isinstance(error.__context__, ImportError):
            raise ImportError(f"{name} needs a package that is not installed: {error}") from error
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise OSError(f"{name} cannot be fetched, or read ({error}); put its files under {options.root}") from error
        way = ", or set `download` to fetch them" if fetched else ""
        raise FileNotFoundError(
            f"{name} is not under {options.root}, or is damaged there; name the folder that holds its files{way}"
        ) from error
    if isinstance(dataset, torchvision.datasets.DatasetFolder):
        dataset.loader = os.fspath  # not every constructor takes one
    return dataset


@functools.cache
def _parameters(kind: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(kind).parameters
