"""Folders of images as data sets, and the files in them that cannot be read."""

import functools
import os
from collections.abc import Mapping
from pathlib import Path

from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS

from irevnet.data.choices import OnError
from irevnet.data.images import LEAVE_OUT, DataSource, ImageFiles, Split
from irevnet.data.loaders import batches
from irevnet.data.transforms import IMAGENET_STATISTICS
from irevnet.utils import distributed
from irevnet.utils.files import write_json
from irevnet.utils.progress import Track
from irevnet.utils.untrusted import brief, fits, parse_json

_SPLITS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("val", "valid", "validation", "test", "testing"),
}
"""Names of the folders of a split, in the order in which they are preferred: ImageNet's `test/` has no classes."""


def _split_folder(folder: Path, split: Split) -> Path:
    found = next((folder / name for name in _SPLITS[split] if (folder / name).is_dir()), None)
    if found is None:
        raise FileNotFoundError(
            f"{folder} has no folder {_SPLITS[split][0]}/; expected train/ and val/, or training/ and validation/ or "
            "test/, and in both a folder of images for each class"
        )
    return found


def open_folder(
    folder: Path, on_error: OnError, skipped: Mapping[str, str] | None, workers: int, track: Track
) -> DataSource:
    """A folder with `train/` and `val/`, or as others call them, and in each a folder of images per class: ImageNet."""
    split_folder = {split: _split_folder(folder, split) for split in _SPLITS}
    classes = _class_folders(split_folder["train"])
    if not classes:
        raise ValueError(f"{split_folder['train']} holds no class folders; expected a folder of images for each class")
    if missing := sorted(set(_class_folders(split_folder["test"])) ^ set(classes)):
        where = split_folder["test" if missing[0] in classes else "train"]
        raise ValueError(f"{where} has no folder for class {missing[0]!r}; both splits need the same classes")

    @functools.cache
    def files(split: Split) -> list[tuple[str, int]]:
        """All images of a split, with their labels."""
        found = (_image_files(split_folder[split] / name) for name in classes)
        return [(path, label) for label, paths in enumerate(found) for path in paths]

    unwanted = {os.path.join(folder, name) for name in skipped or ()}
    if on_error == "skip":
        paths = [path for split in ("train", "test") for path, _ in files(split) if path not in unwanted]
        found = _unreadable(paths, workers, track)
        skipped = {**(skipped or {}), **{os.path.relpath(path, folder): why for path, why in found.items()}}
        unwanted |= found.keys()

    @functools.cache
    def load(split: Split) -> tuple[ImageFiles, list[int]]:
        wanted = [(path, label) for path, label in files(split) if path not in unwanted]
        labels = [label for _, label in wanted]
        if empty := sorted(set(range(len(classes))) - set(labels)):
            raise FileNotFoundError(
                f"{split_folder[split] / classes[empty[0]]} holds no images{' that can be read' if unwanted else ''}; "
                f"add some ({', '.join(IMG_EXTENSIONS)}), or remove the class from both splits"
            )
        return ImageFiles([path for path, _ in wanted], str(folder)), labels

    images, labels = load("train")
    first = {label: row for row, label in reversed(list(enumerate(labels)))}
    shapes = {tuple(images[row].shape) for row in first.values()}
    channels = max(shape[0] for shape in shapes)
    sizes = {shape[1:] for shape in shapes}
    height, width = sizes.pop() if len(sizes) == 1 else (0, 1)
    return DataSource(
        name=str(folder),
        classes=classes,
        image_shape=(channels, height, width) if height == width else (channels, None, None),
        load=load,
        statistics=IMAGENET_STATISTICS if channels == 3 else ((0.5,), (0.5,)),
        skipped=skipped,
    )


def _class_folders(folder: Path) -> tuple[str, ...]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if wrong := [name for name in names if name.splitlines() != [name.strip()]]:
        raise ValueError(f"{folder} has a class {wrong[0]!r}; rename it, without line breaks and spaces at the ends")
    return tuple(names)


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
        if name.lower().endswith(IMG_EXTENSIONS)
    ]


def _unreadable(paths: list[str], workers: int, track: Track) -> dict[str, str]:
    """The files that cannot be read as images, and why. The processes of a group share the reading."""
    loader = batches(_Reasons(paths), 64, part=distributed.part(), workers=workers)
    own = [reason for batch in track(loader, "reading every image") for reason in batch]
    reasons = [reason for part in distributed.gather(own) for reason in part]
    return {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}


class _Reasons(Dataset[str]):
    """The reason why each file cannot be read as an image; empty if it can."""

    def __init__(self, paths: list[str]):
        self.images = ImageFiles(paths)

    def __len__(self) -> int:
        return len(self.images.paths)

    def __getitem__(self, index: int) -> str:
        try:
            self.images[index]
        except ValueError as error:
            return str(error).removeprefix(f"{self.images.paths[index]} ").removesuffix(LEAVE_OUT)
        return ""


_SKIPPED = "left-out.json"


def save_skipped(folder: Path, skipped: Mapping[str, str] | None) -> None:
    """Writes the skipped images, and why, to `left-out.json` in a folder; `None` removes an earlier file."""
    if skipped is None:
        (folder / _SKIPPED).unlink(missing_ok=True)
    else:
        write_json(folder / _SKIPPED, dict(skipped))


def read_skipped(folder: Path) -> dict[str, str] | None:
    """The content that `save_skipped` wrote; `None` without a file. Raises `ValueError` for a damaged file."""
    path = folder / _SKIPPED
    if not path.is_file():
        return None
    try:
        content = parse_json(path.read_bytes())
        if not fits(content, dict[str, str]):
            raise ValueError(f"found {brief(content)} where names of files and reasons are expected")
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return content
