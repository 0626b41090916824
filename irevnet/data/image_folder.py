"""Folders of images as data sets: with a folder for each split, for each class, or neither."""

import os
from dataclasses import replace
from pathlib import Path

from irevnet.data.images import UNLABELLED, DataSource
from irevnet.data.lazy_images import EXTENSIONS, ImageFiles
from irevnet.data.sources import SPLIT_WORDS, Listing, LoadOptions, check_class_name, source_of_files
from irevnet.data.splits import Split, train_then_test
from irevnet.data.tables import find_table, read_table


def open_folder(folder: Path, options: LoadOptions) -> DataSource:
    """A folder of images as a data set, by what it holds.

    - `train/` and `val/`, or as others call them, and in each a folder of images per class: ImageNet's layout. The
      latter may be flat, with a table beside its images, as ImageNet's is at first; and it may be the only one.
    - A folder of images per class: a split is drawn.
    - Images alone, with a table of their labels (`irevnet.data.tables`).
    - Images alone: they have no labels, and all are test images.
    """
    found: dict[Split, Path | None] = {split: _split_folder(folder, split) for split in SPLIT_WORDS}
    if found["train"] or found["test"]:
        return source_of_files(str(folder), _with_splits(folder, found), options)
    if _subfolders(folder):
        if beside := _images_in(folder):
            raise ValueError(
                f"{folder} holds folders and images, such as {beside[0]}; expected a folder of images for each class, "
                "or images alone"
            )
        return source_of_files(str(folder), _class_folders(folder), options)
    table = find_table(folder)
    return source_of_files(str(folder), _flat(folder) if table is None else read_table(table), options)


def _split_folder(folder: Path, split: Split) -> Path | None:
    return next((folder / name for name in SPLIT_WORDS[split] if (folder / name).is_dir()), None)


def _with_splits(folder: Path, found: dict[Split, Path | None]) -> Listing:
    test = found["test"]
    if test is None or (found["train"] is None and len(_subfolders(folder)) > 1):
        missing: Split = "test" if test is None else "train"
        raise FileNotFoundError(
            f"{folder} has no folder {SPLIT_WORDS[missing][0]}/; expected train/ and val/, or training/ and "
            "validation/ or test/, and in both a folder of images for each class"
        )
    parts: dict[Split, Listing] = {}
    for split, place in found.items():
        if place is None:
            continue
        table = None if _subfolders(place) else find_table(place)
        if not _subfolders(place) and table is None:
            raise ValueError(f"{place} holds no class folders; expected a folder of images for each class")
        listing = _class_folders(place) if table is None else read_table(table)
        names = [os.path.join(place.name, name) for name in listing.names]
        parts[split] = replace(listing, names=names, splits=[split] * len(names))
    listings = parts.values()
    return Listing(
        images=ImageFiles([path for each in listings for path in each.images.paths], str(folder)),  # type: ignore[union-attr]
        names=[name for each in listings for name in each.names],
        labels=[label for each in listings for label in each.labels],
        splits=[split for each in listings for split in each.splits],
        classes=tuple(sorted({name for each in listings for name in each.classes})),
        remarks=tuple(remark for each in listings for remark in each.remarks),
    )


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _class_folders(folder: Path) -> Listing:
    """The images of a folder of images for each class."""
    classes = tuple(check_class_name(name, str(folder)) for name in _subfolders(folder))
    found = {name: _image_files(folder / name) for name in classes}
    images = ImageFiles([path for of_class in found.values() for path in of_class], str(folder))
    return Listing(
        images=images,
        names=images.names,
        labels=[name for name, of_class in found.items() for _ in of_class],
        splits=(),
        classes=classes,
    )


def _flat(folder: Path) -> Listing:
    """The images of a folder, without labels."""
    images = ImageFiles([os.path.join(folder, name) for name in _images_in(folder)], str(folder))
    return Listing(
        images=images,
        names=images.names,
        labels=UNLABELLED * len(images.names),
        splits=train_then_test(0, len(images.names)),
        classes=UNLABELLED,
        remarks=(f"{folder} has images without labels, all of them test images",),
    )


def _images_in(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir() if not entry.is_dir())
    return [name for name in names if not name.startswith(".") and name.lower().endswith(EXTENSIONS)]


def _image_files(folder: Path) -> list[str]:
    """All files below a folder with an extension of images, except for hidden ones, which macOS puts beside others."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            target = Path(parent, name)
            if target.is_symlink() and Path(parent).resolve().is_relative_to(target.resolve()):
                raise ValueError(f"{target} is a link to a folder that contains it; remove it")
        found.append((parent, sorted(name for name in names if not name.startswith("."))))
    return [
        os.path.join(parent, name)
        for parent, names in sorted(found)
        for name in names
        if name.lower().endswith(EXTENSIONS)
    ]
