"""The images between which paths lead: from files, from a table of files, or from a data set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from irevnet.data.images import UNLABELLED, LabelledImages
from irevnet.data.tables import path_in_folder, read_csv
from irevnet.data.transforms import InputTransform, read_image


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Network inputs at which paths begin and end, one or several for each path.

    Attributes:
        names: name of each path.
        inputs: network inputs at the ends of each path, `(paths, ends, c, h, w)`.
        middle: network input that is known to lie in the middle of each path, NaN where it is unknown,
            `(paths, c, h, w)`.
    """

    names: tuple[str, ...]
    inputs: Float[Tensor, "paths ends c h w"]
    middle: Float[Tensor, "paths c h w"] | None = None


def at_size(transform: InputTransform, size: int | None) -> InputTransform:
    """A transform that makes images of that height and width, or the same one for `None`."""
    return transform if size is None else replace(transform, image_size=(size, size), resize=size)


def read_files(paths: Sequence[Path], transform: InputTransform, *, resize: bool = False) -> Endpoints:
    """One path between, or through, image files.

    Args:
        paths: image files.
        transform: transform from images to network inputs.
        resize: whether images may differ in size, and are resized.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file cannot be read as an image, or images differ in size and `resize` is false.
    """
    inputs = _read(paths, transform, resize=resize)
    return Endpoints(names=(" to ".join(path.stem for path in paths),), inputs=inputs[None])


def read_pairs(table: Path, transform: InputTransform, *, resize: bool = False) -> Endpoints:
    """A path between each pair of images in a CSV table with the columns `a` and `b`.

    Files are named relative to the folder of the table. An optional column `middle` names a file that shows what is
    known to lie in the middle, an optional column `kind` describes the pair.

    Args:
        table: CSV file.
        transform: transform from images to network inputs.
        resize: whether images of a pair may differ in size, and are resized.

    Raises:
        FileNotFoundError: the table or an image is missing.
        ValueError: a column or a name is missing, a file is outside the folder, an image cannot be read, or the images
            of a pair differ in size and `resize` is false.
    """
    if not table.is_file():
        raise FileNotFoundError(f"there is no table of pairs {table}; give a CSV with the columns a and b")
    rows = read_csv(table)
    if not {"a", "b"} <= set(rows.columns) or rows.empty:
        raise ValueError(f"{table} has the columns {', '.join(rows.columns)}; expected a and b, and at least one row")
    names, inputs, middle = [], [], []
    for number, row in enumerate(rows.to_dict("records"), start=1):
        if not (row["a"] and row["b"]):
            raise ValueError(f"{table}: pair {number} is of {row['a']!r} and {row['b']!r}; expected two image files")
        pair = [path_in_folder(table, row[column]) for column in ("a", "b")]
        known = row.get("middle")
        images = _read([*pair, *([path_in_folder(table, known)] if known else [])], transform, resize=resize)
        inputs.append(images[:2])
        middle.append(images[2] if known else torch.full_like(images[0], torch.nan))
        kind = f"{row['kind']}: " if row.get("kind") else ""
        names.append(f"{kind}{pair[0].stem} to {pair[1].stem}")
    return Endpoints(names=tuple(names), inputs=torch.stack(inputs), middle=torch.stack(middle))


def draw_pairs(data: LabelledImages, count: int, generator: torch.Generator) -> Endpoints:
    """Random pairs of images of different classes or, without labels, of any; `count` or as many as there are.

    Raises `ValueError` if there are none.
    """
    labelled = data.classes != UNLABELLED
    order = torch.randperm(len(data), generator=generator).tolist()
    names, inputs = [], []
    while len(names) < count and len(order) > 1:
        first = order.pop()
        partner = next((row for row in order if not labelled or data.labels[row] != data.labels[first]), None)
        if partner is None:
            continue
        order.remove(partner)
        names.append(" to ".join(_describe(data, row) for row in (first, partner)))
        inputs.append(torch.stack([data[first][0], data[partner][0]]))
    if not names:
        of = "there is one test image" if not labelled else "all test images are of one class"
        raise ValueError(f"{of}, but a path connects two{' classes' * labelled}; name image files")
    return Endpoints(names=tuple(names), inputs=torch.stack(inputs))


def draw_images(data: LabelledImages, count: int, generator: torch.Generator, *, of: str | None = None) -> Endpoints:
    """Random images of the class `of`, or of all, `count` or as many as there are. Raises `ValueError` if none are."""
    order = torch.randperm(len(data), generator=generator).tolist()
    rows = [row for row in order if of is None or data.classes[data.labels[row]] == of][:count]
    if not rows:
        raise ValueError(f"there are no test images{f' of {of}' if of else ''} to draw from; name images")
    return Endpoints(
        names=tuple(_describe(data, row) for row in rows), inputs=torch.stack([data[row][0] for row in rows])[:, None]
    )


def _describe(data: LabelledImages, row: int) -> str:
    if data.classes == UNLABELLED:
        return f"test image {row}"
    return f"{data.classes[data.labels[row]]} (test image {row})"


def _read(paths: Sequence[Path], transform: InputTransform, *, resize: bool) -> Float[Tensor, "images c h w"]:
    images = [read_image(path) for path in paths]
    for path, image in zip(paths, images):
        if image.shape[1:] != images[0].shape[1:] and not resize:
            sizes = [" x ".join(map(str, reversed(each.shape[1:]))) for each in (images[0], image)]
            raise ValueError(
                f"{paths[0]} is {sizes[0]} pixels large, {path} is {sizes[1]}; give images of one size, or an "
                "`image_size` to resize both to"
            )
    return torch.stack([transform(image / 255) for image in images])
