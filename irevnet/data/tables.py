"""Tables that name images and their classes: one's own as CSV, and the two that ImageNet's validation images come with.

Files are named relative to the folder of the table.
"""

import os
import re
from pathlib import Path, PurePath

import pandas as pd

from irevnet.data.imagenet import synsets
from irevnet.data.images import DataSource
from irevnet.data.lazy_images import EXTENSIONS, ImageFiles
from irevnet.data.sources import SPLIT_WORDS, Listing, LoadOptions, check_class_name, sort_classes, source_of_files
from irevnet.data.splits import Split, train_then_test
from irevnet.utils.untrusted import brief

EXPECTED = (
    "expected a CSV with the columns path and label, and perhaps split; or ImageNet's LOC_val_solution.csv (ImageId, "
    "PredictionString) or val.txt (ILSVRC2012_val_... and a number from 0 to 999)"
)

_OF_KAGGLE = {"ImageId", "PredictionString"}
_OF_CAFFE = re.compile(r"(ILSVRC2012_val_\d+\.\w+) (\d{1,3})")


def open_table(table: Path, options: LoadOptions) -> DataSource:
    """The images that a table names as a data set, see `read_table`."""
    return source_of_files(str(table), read_table(table), options)


def find_table(folder: Path) -> Path | None:
    """The table beside the images of a folder: one that `read_table` reads; `None` if there is none.

    Raises `ValueError` if there are several.
    """
    found = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".csv", ".txt") and _is_table(path)]
    if len(found) > 1:
        raise ValueError(f"{folder} has two tables of its images, {found[0].name} and {found[1].name}; give one itself")
    return found[0] if found else None


def _is_table(path: Path) -> bool:
    if path.name.startswith(".") or not path.is_file():
        return False
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        first = file.readline(2**16).strip()
    columns = {name.strip('"') for name in first.split(",")}
    return {"path", "label"} <= columns or columns >= _OF_KAGGLE or bool(_OF_CAFFE.fullmatch(first))


def read_table(table: Path) -> Listing:
    """The images that a table names, with their classes.

    - A CSV with the columns `path` and `label`. Classes are the labels as they stand, in the order of their values if
      all are integers. A column `split` has words such as train, val and test for each image; without it, the images
      have no split. Where there are rows of both val and test, the latter are the test images.
    - `LOC_val_solution.csv` of ImageNet: an image's name without ending, and the WordNet number of its class as the
      first word of `PredictionString`. All are test images.
    - `val.txt` of Caffe: an image's name and the number of its class, which counts ImageNet's WordNet numbers in
      alphabetical order from 0. All are test images.

    Raises:
        ValueError: another table, a missing name, a name that leads out of the table's folder or comes twice, or an
            unknown split.
    """
    if table.suffix.lower() == ".txt":
        return _read_caffe(table)
    if table.suffix.lower() != ".csv":
        raise ValueError(f"{table} is no table of images; {EXPECTED}")
    rows = read_csv(table)
    if rows.empty or not ({"path", "label"} <= {*rows.columns} or {*rows.columns} >= _OF_KAGGLE):
        raise ValueError(f"{table} has {len(rows)} rows of {', '.join(map(str, rows.columns))}; {EXPECTED}")
    if {"path", "label"} <= {*rows.columns}:
        labels = rows["label"].tolist()
        splits = _splits(table, rows["split"].tolist()) if "split" in rows else []
        return _listing(table, rows["path"].tolist(), labels, splits)
    labels = [text.partition(" ")[0] for text in rows["PredictionString"]]
    if unknown := [label for label in labels if label not in synsets()]:
        raise ValueError(f"{table} has {brief(unknown[0])}; expected the WordNet number of one of ImageNet's classes")
    return _listing(table, _with_endings(table, rows["ImageId"].tolist()), labels, train_then_test(0, len(labels)))


def read_csv(table: Path) -> pd.DataFrame:
    """A CSV as text. Raises `ValueError` for a file that is none."""
    try:
        return pd.read_csv(table, dtype=str, keep_default_na=False, index_col=False).fillna("")
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{table} cannot be read as CSV: {error}") from error


def path_in_folder(table: Path, name: str) -> Path:
    """The path of a file named in a table. Raises `ValueError` if it is outside the table's folder.

    A table may come from a stranger, and the images it names end up in results that are shown to others. Symbolic links
    are followed.
    """
    path = PurePath(name)
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(
            f"{table} names the file {brief(name)}; expected one in the table's folder or below it, as named from there"
        )
    return table.parent / path


def _read_caffe(table: Path) -> Listing:
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} cannot be read as text: {error}") from error
    found = [_OF_CAFFE.fullmatch(line.strip()) for line in lines]
    for number, match in enumerate(found, start=1):
        if match is None:
            raise ValueError(f"{table} has {brief(lines[number - 1])} in line {number}; {EXPECTED}")
    if not found:
        raise ValueError(f"{table} is empty; {EXPECTED}")
    pairs = [(match[1], synsets()[int(match[2])]) for match in found if match]
    remark = f"{table} numbers its classes, as Caffe does: taken for ImageNet's WordNet numbers in alphabetical order"
    return _listing(
        table, [name for name, _ in pairs], [label for _, label in pairs], train_then_test(0, len(pairs)), remark
    )


def _listing(table: Path, names: list[str], labels: list[str], splits: list[Split | None], *remarks: str) -> Listing:
    paths = [os.fspath(path_in_folder(table, name)) for name in names]
    seen: set[str] = set()
    for number, (path, label) in enumerate(zip(paths, labels), start=1):
        if path in seen:
            raise ValueError(f"{table} names {path} twice, again in row {number}; name each image once")
        seen.add(path)
        if not label:
            raise ValueError(f"{table} has no label in row {number}; give the class of each image")
    classes = tuple(check_class_name(name, str(table)) for name in sort_classes(labels))
    return Listing(
        images=ImageFiles(paths, str(table.parent)),
        names=names,
        labels=labels,
        splits=splits,
        classes=classes,
        remarks=tuple(remarks),
    )


def _splits(table: Path, words: list[str]) -> list[Split | None]:
    """The split of each row. Of val and test rows, the first are in neither where there are both."""
    known: dict[str, Split] = {word: split for split, names in SPLIT_WORDS.items() for word in names}
    splits: list[Split | None] = []
    with_test = any(word.strip().lower().startswith("test") for word in words)
    for number, word in enumerate(words, start=1):
        word = word.strip().lower()
        if word not in known:
            raise ValueError(f"{table} has the split {word!r} in row {number}; expected one of {', '.join(known)}")
        splits.append(None if with_test and word.startswith("val") else known[word])
    return splits


def _with_endings(table: Path, names: list[str]) -> list[str]:
    """Names of files with the ending that each has in the folder of the table."""
    endings = {
        path.stem: path.name for path in sorted(table.parent.iterdir()) if path.name.lower().endswith(EXTENSIONS)
    }
    if missing := [name for name in names if name not in endings]:
        raise FileNotFoundError(
            f"{table.parent} has no image {brief(missing[0])}, which {table.name} names ({len(missing):,} of "
            f"{len(names):,} are missing); put the table beside the images"
        )
    return [endings[name] for name in names]
