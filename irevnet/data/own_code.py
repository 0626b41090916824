"""Data sets of one's own Python code, named as `FILE.py:NAME` or `package.module:NAME`."""

import inspect
from pathlib import Path
from typing import Any

from torch.utils.data import ConcatDataset, IterableDataset

from irevnet.data.images import DataSource
from irevnet.data.items import class_names, declared_classes, read_items
from irevnet.data.sources import Listing, LoadOptions, check_class_name, common_shape, sort_classes, source_of
from irevnet.data.splits import Split, train_then_test
from irevnet.utils.code import named_object

EXPECTED = (
    "expected a torch.utils.data.Dataset with a length, a pair of them to train and to test on, or a function that "
    "returns these without arguments or, of 'train' and of 'test', one of them"
)


def is_code(name: str) -> bool:
    """Whether a data set of this name is one of somebody's own code, which is run to open it."""
    return ":" in name and not name.startswith("torchvision:") and not Path(name).exists()


def open_own(name: str, options: LoadOptions) -> DataSource:
    """A data set of one's own code; a split is drawn of one that has none.

    Raises `ValueError` for other objects, code that fails, and items that are no images with labels.
    """
    datasets = _datasets(name, named_object(name))
    for dataset in datasets:
        if isinstance(dataset, IterableDataset) or not (
            hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
        ):
            raise ValueError(f"{name} is, or returns, a {type(dataset).__name__}; {EXPECTED}")
        if len(dataset) == 0:
            raise ValueError(f"{name} is, or returns, a data set without items; give it some")
    splits = train_then_test(*map(len, datasets)) if len(datasets) == 2 else []
    return source_of(name, list_items(name, datasets, splits, options), options)


def list_items(name: str, datasets: list[Any], splits: list[Split | None], options: LoadOptions) -> Listing:
    """The items of one data set, or of one to train on and one to test on."""
    items = read_items(ConcatDataset(datasets), name, workers=options.workers, track=options.track)
    first = len(datasets[0])
    digests = items.images.digests
    if splits and sorted(digests[:first]) == sorted(digests[first:]):
        raise ValueError(f"{name} gives the same images to train and to test on; have it tell 'train' from 'test'")
    declared = [declared_classes(dataset) for dataset in datasets]
    labels = [
        label
        for names, part in zip(declared, (items.labels[:first], items.labels[first:]))
        for label in class_names(names, part, name)
    ]
    classes = next((names for names in declared if names and {*labels} <= {*names}), None) or sort_classes(labels)
    return Listing(
        images=items.images,
        names=list(map(str, range(len(labels)))),
        labels=labels,
        splits=splits,
        classes=tuple(check_class_name(each, name) for each in classes),
        image_shape=common_shape(items.shapes),
    )


def _datasets(name: str, found: Any) -> list[Any]:
    """One data set, or one to train on and one to test on."""
    if callable(found) and not _is_dataset(found):
        found = _call(name, found)
    if isinstance(found, tuple | list) and len(found) == 2 and all(map(_is_dataset, found)):
        return list(found)
    return [found]


def _is_dataset(found: Any) -> bool:
    return not isinstance(found, type) and hasattr(found, "__getitem__")


def _call(name: str, function: Any) -> Any:
    """What a function returns: without arguments or, where it takes the split, for both."""
    try:
        parameters = inspect.signature(function).parameters.values()
        needed = [each for each in parameters if each.default is each.empty and each.kind not in _COLLECTING]
        if len(needed) > 1:
            raise TypeError(f"it takes {len(needed)} arguments")
        if needed and needed[0].kind is not inspect.Parameter.KEYWORD_ONLY:
            return [function(split) for split in ("train", "test")]
        if needed or any(each.name == "split" for each in parameters):
            argument = needed[0].name if needed else "split"
            return [function(**{argument: split}) for split in ("train", "test")]
        return function()
    except Exception as error:  # anybody's code raises anything
        raise ValueError(f"{name} returned no data set ({type(error).__name__}: {error}); {EXPECTED}") from error


_COLLECTING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
