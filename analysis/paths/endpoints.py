"""The images that paths begin and end at: of files, of a table of files, or of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from irevnet.data.images import LabelledImages
from irevnet.data.transforms import InputTransform, read_image
from irevnet.utils.untrusted import brief


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Inputs of a network, one or several a path.

    Attributes:
        names: of the paths.
        inputs: `(paths, ends, c, h, w)`.
        middle: what is truly in the middle of a path, NaN where that is not known, `(paths, c, h, w)`.
    """

    names: tuple[str, ...]
    inputs: Float[Tensor, "paths ends c h w"]
    middle: Float[Tensor, "paths c h w"] | None = None


def read_files(paths: Sequence[Path], transform: InputTransform, *, resize: bool = False) -> Endpoints:
    """One path between, or through, image files.

    Args:
        paths: the files.
        transform: of the network's inputs.
        resize: images may differ in size.

    Raises:
        FileNotFoundError: an image is missing.
        ValueError: one cannot be read, or they differ in size and are not to be resized.
    """
    inputs = _read(paths, transform, resize=resize)
    return Endpoints(names=(" to ".join(path.stem for path in paths),), inputs=inputs[None])


def read_pairs(table: Path, transform: InputTransform, *, resize: bool = False) -> Endpoints:
    """The pairs of a CSV with the columns `a` and `b`, files named from the folder of the table, which they are in.

    A column `middle` names a file that shows what is truly between the two, a column `kind` what the pair is of; both
    may be left out.

    Raises:
        FileNotFoundError: the table or an image is missing.
        ValueError: a column or a name is missing, a name leads out of the folder, or an image cannot be read or differs
            in size from the other.
    """
    if not table.is_file():
        raise FileNotFoundError(f"there is no table of pairs {table}; give a CSV with the columns a and b")
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False, index_col=False).fillna("")
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{table} cannot be read as CSV: {error}") from error
    if not {"a", "b"} <= set(rows.columns) or rows.empty:
        raise ValueError(f"{table} has the columns {', '.join(rows.columns)}; expected a and b, and at least one row")
    names, inputs, middle = [], [], []
    for number, row in enumerate(rows.to_dict("records"), start=1):
        if not (row["a"] and row["b"]):
            raise ValueError(f"{table}: pair {number} is of {row['a']!r} and {row['b']!r}; expected two image files")
        pair = [_beside(table, row[column]) for column in ("a", "b")]
        known = row.get("middle")
        images = _read([*pair, *([_beside(table, known)] if known else [])], transform, resize=resize)
        inputs.append(images[:2])
        middle.append(images[2] if known else torch.full_like(images[0], torch.nan))
        kind = f"{row['kind']}: " if row.get("kind") else ""
        names.append(f"{kind}{pair[0].stem} to {pair[1].stem}")
    return Endpoints(names=tuple(names), inputs=torch.stack(inputs), middle=torch.stack(middle))


def _beside(table: Path, name: str) -> Path:
    """The file that a table names, which is in its folder or below it: a table may come from a stranger, and what it
    names ends up in results that are shown to others. Links are followed."""
    path = PurePath(name)
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(
            f"{table} names the file {brief(name)}; expected one in the table's folder or below it, as named from there"
        )
    return table.parent / path


def draw_pairs(data: LabelledImages, count: int, generator: torch.Generator) -> Endpoints:
    """Pairs of images of different classes, drawn at random; `ValueError` where there are none."""
    order = torch.randperm(len(data), generator=generator).tolist()
    names, inputs = [], []
    while len(names) < count and len(order) > 1:
        first = order.pop()
        partner = next((row for row in order if data.labels[row] != data.labels[first]), None)
        if partner is None:
            continue
        order.remove(partner)
        names.append(" to ".join(_describe(data, row) for row in (first, partner)))
        inputs.append(torch.stack([data[first][0], data[partner][0]]))
    if not names:
        raise ValueError("all test images are of one class, and a path leads from one to another; name image files")
    return Endpoints(names=tuple(names), inputs=torch.stack(inputs))


def draw_images(data: LabelledImages, count: int, generator: torch.Generator, *, of: str | None = None) -> Endpoints:
    """Images drawn at random, of a class or of all; `ValueError` where there are none."""
    order = torch.randperm(len(data), generator=generator).tolist()
    rows = [row for row in order if of is None or data.classes[data.labels[row]] == of][:count]
    if not rows:
        raise ValueError(f"there are no test images{f' of {of}' if of else ''} to draw from; name images")
    return Endpoints(
        names=tuple(_describe(data, row) for row in rows), inputs=torch.stack([data[row][0] for row in rows])[:, None]
    )


def _describe(data: LabelledImages, row: int) -> str:
    return f"{data.classes[data.labels[row]]} (test image {row})"


def _read(paths: Sequence[Path], transform: InputTransform, *, resize: bool) -> Float[Tensor, "images c h w"]:
    images = [read_image(path) for path in paths]
    for path, image in zip(paths, images):
        if image.shape[1:] != images[0].shape[1:] and not resize:
            sizes = [" x ".join(map(str, reversed(each.shape[1:]))) for each in (images[0], image)]
            raise ValueError(
                f"{paths[0]} is {sizes[0]} pixels large, {path} is {sizes[1]}; give images of one size, or an "
                "--image-size to resize both to"
            )
    return torch.stack([transform(image / 255) for image in images])
