"""From a list of images to a data set: which images are skipped, and which are trained on and tested on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from irevnet.data.choices import VAL_FRACTION, OnError
from irevnet.data.images import UNLABELLED, DataSource
from irevnet.data.lazy_images import EXTENSIONS, ImageFiles, LazyImages
from irevnet.data.splits import DrawnSplit, Split, draw_split, same_data, train_then_test
from irevnet.data.transforms import IMAGENET_STATISTICS, Normalisation
from irevnet.data.unreadable import find_unreadable
from irevnet.utils.progress import Track, no_progress

SPLIT_WORDS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("val", "valid", "validation", "test", "testing"),
}
"""Names of a split, of folders and in tables, in the order in which folders are preferred: ImageNet's `test/` has no
classes."""


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How a data set is opened; see `irevnet.data.datasets.load_dataset`, whose arguments these are."""

    root: Path = Path("data")
    download: bool = False
    on_error: OnError = "stop"
    skipped: Mapping[str, str] | None = None
    val_fraction: float | None = None
    split: DrawnSplit | None = None
    workers: int = 0
    track: Track = no_progress


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The images of a data set.

    Attributes:
        images: images `(c, h, w)`.
        names: name of each image within the data set.
        labels: class name of each image.
        splits: split of each image, `None` for those in neither; empty if the data have no split.
        classes: class names, in the order of their labels.
        image_shape: shape of the images, see `DataSource`; `None` if it is not known without reading them.
        remarks: sentences on choices that the data left open.
    """

    images: Tensor | LazyImages
    names: Sequence[str]
    labels: Sequence[str]
    splits: Sequence[Split | None]
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int] | tuple[int, None, None] | None = None
    remarks: tuple[str, ...] = field(default=())


def source_of_files(name: str, listing: Listing, options: LoadOptions) -> DataSource:
    """The data set of a list of files, without those that cannot be read if these are to be skipped."""
    assert isinstance(listing.images, ImageFiles)
    skipped = options.skipped
    if options.on_error == "skip":
        paths = dict(zip(listing.images.paths, listing.names, strict=True))
        unknown = [path for path, each in paths.items() if each not in (skipped or ())]
        found = find_unreadable(unknown, options.workers, options.track)
        skipped = {**(skipped or {}), **{paths[path]: why for path, why in found.items()}}
    return replace(source_of(name, listing, options, unwanted=(skipped or {}).keys()), skipped=skipped)


def source_of(name: str, listing: Listing, options: LoadOptions, *, unwanted: Iterable[str] = ()) -> DataSource:
    """The data set of a list of images, without the unwanted ones; its split is kept or drawn where it has none.

    Raises:
        ValueError: a share to test on, or a split, is given for data that have their own; or an image of the split is
            no longer there.
        FileNotFoundError: there are no images.
    """
    unwanted, drawn, remarks = set(unwanted), None, listing.remarks
    wanted = [row for row, each in enumerate(listing.names) if each not in unwanted]
    if not wanted:
        raise FileNotFoundError(
            f"{name} holds no images{' that can be read' if unwanted else ''}; expected some ({', '.join(EXTENSIONS)})"
        )
    if listing.splits:
        check_no_split(name, options)
        split_of: dict[str, Split | None] = dict(zip(listing.names, listing.splits, strict=True))
        if rest := [each for each, split in split_of.items() if split is None]:
            remarks += (f"{name} has a split val beside test: {_count(rest)} in it, not used",)
    else:
        names, labels = ([each[row] for row in wanted] for each in (listing.names, listing.labels))
        drawn, remark = _split(name, names, labels, unwanted, options)
        remarks += remark
        split_of = dict(zip((*drawn.train, *drawn.test), train_then_test(len(drawn.train), len(drawn.test))))
    number = {label: index for index, label in enumerate(listing.classes)}
    rows: dict[Split, list[int]] = {"train": [], "test": []}
    for row in wanted:
        split = split_of.get(listing.names[row])
        if split is not None:
            rows[split].append(row)
    labels_of = {split: [number[listing.labels[row]] for row in chosen] for split, chosen in rows.items()}
    images_of = {split: listing.images[chosen] for split, chosen in rows.items()}
    splits: tuple[Split, ...] = tuple(split for split, chosen in rows.items() if chosen)
    shape = listing.image_shape or _first_shape(images_of[splits[0]], labels_of[splits[0]], listing.classes)
    return DataSource(
        name=name,
        classes=listing.classes,
        image_shape=shape,
        load=lambda split: (images_of[split], labels_of[split]),
        statistics=usual_statistics(shape[0]),
        splits=splits,
        absent={each: frozenset({*listing.classes} - {listing.labels[row] for row in rows[each]}) for each in splits},
        split=drawn,
        remarks=remarks,
    )


def check_no_split(name: str, options: LoadOptions) -> None:
    """Raises `ValueError` if a split was asked for, of images that are divided already."""
    if options.val_fraction is not None:
        raise ValueError(f"it is known which images of {name} are tested on; leave `val_fraction` out")
    if options.split is not None:
        raise ValueError(
            f"it is now known which images of {name} are tested on, but the run had drawn some; start a new run, or "
            "take away what tells them apart"
        )


def _split(
    name: str, names: Sequence[str], labels: Sequence[str], unwanted: set[str], options: LoadOptions
) -> tuple[DrawnSplit, tuple[str, ...]]:
    """The split that was kept or, without one, a fresh one, with what there is to say of it."""
    kept = options.split
    if kept is None:
        fraction = VAL_FRACTION if options.val_fraction is None else options.val_fraction
        drawn = draw_split(name, names, labels, fraction)
        return drawn, (
            f"{name} has no training and test images of its own: {len(drawn.test):,} of {len(names):,} were drawn to "
            f"test on, {fraction:g} of each class (`val_fraction`), by their names, and so the same every time",
        )
    if not same_data(kept.data, name):
        raise ValueError(f"the split is one of {kept.data}, not of {name}; leave it out")
    if options.val_fraction not in (None, kept.val_fraction):
        raise ValueError(
            f"the run keeps a split of {name} with val_fraction={kept.val_fraction:g}, not {options.val_fraction:g}; "
            "leave `val_fraction` out"
        )
    known = {*kept.train, *kept.test}
    if missing := sorted(known - {*names} - unwanted):
        raise ValueError(
            f"{name} no longer has {missing[0]!r}, which is in the split that the run keeps ({_count(missing)} "
            "missing); put it back, or start a new run"
        )
    new = [each for each in names if each not in known]
    if not new:
        return kept, ()
    return kept, (f"{name} has {_count(new)} in neither split of the run, and not used, such as {new[0]}",)


def _count(names: Sequence[str]) -> str:
    return "1 image" if len(names) == 1 else f"{len(names):,} images"


_LOOKED_AT = 100
"""Number of images without labels that are looked at for their size."""


def _first_shape(
    images: Tensor | LazyImages, labels: Sequence[int], classes: tuple[str, ...]
) -> tuple[int, int, int] | tuple[int, None, None]:
    """The shape of the first image of each class or, without labels, of some images."""
    rows: Iterable[int] = {label: row for row, label in reversed(list(enumerate(labels)))}.values()
    if classes == UNLABELLED:
        rows = range(0, len(labels), max(1, len(labels) // _LOOKED_AT))
    return common_shape({tuple(images[row].shape) for row in rows})


def common_shape(shapes: set[tuple[int, ...]]) -> tuple[int, int, int] | tuple[int, None, None]:
    """The shape that describes images of these shapes: their size if that is the same for all, and square."""
    channels = max(shape[0] for shape in shapes)
    sizes = {shape[1:] for shape in shapes}
    height, width = sizes.pop() if len(sizes) == 1 else (0, 1)
    return (channels, height, width) if height == width else (channels, None, None)


def usual_statistics(channels: int) -> Normalisation:
    """ImageNet's statistics for images in colour, a half for grey ones."""
    return IMAGENET_STATISTICS if channels == 3 else ((0.5,), (0.5,))


def sort_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in order: of their values if all are integers, else of their letters.

    >>> sort_classes(["10", "9"]), sort_classes(["10", "9", "b"])
    (('9', '10'), ('10', '9', 'b'))
    """
    unique = set(names)
    if all(name.removeprefix("-").isdecimal() for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    return tuple(sorted(unique))


def check_class_name(name: str, place: str) -> str:
    """The name; raises `ValueError` for one that cannot stand in a line of its own."""
    if name.splitlines() != [name.strip()]:
        raise ValueError(f"{place} has a class {name!r}; rename it, without line breaks and spaces at the ends")
    return name
