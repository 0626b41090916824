"""Features on disk: one memory map a layer and split, filled in any order, by any number of processes, once.

    FOLDER/manifest.json            what the features are of
    FOLDER/SPLIT/labels.npy         the class of each image, `(images,)`
    FOLDER/SPLIT/names.json         the name of each image
    FOLDER/SPLIT/LAYER.npy          float32, `(images, channels)`: row i is that of the image with index i
    FOLDER/SPLIT/LAYER.done.npy     whether row i is on the disk, `(images,)`

A row is marked as done after it has been flushed. So a process may be killed at any moment and nothing half written
is ever taken for a feature; and processes that fill different rows need not know of each other.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from numpy.lib.format import open_memmap

from irevnet.utils.files import (
    as_json,
    atomic_write,
    flush,
    is_unused,
    sweep,
    temporary_beside,
    write_json,
    write_text,
    writing,
)
from irevnet.utils.untrusted import brief, fits, map_array, parse_json

FORMAT = 2
"""Features of format 1 may be of a layer's output after a later one had changed it, or of other images."""

Manifest = Mapping[str, Any]
"""`"identity"`: what the features depend on; `"record"`: how they were made."""


class FeatureStore:
    """The features of one network on the splits of one data set.

    Attributes:
        folder: the folder of the store.
        identity: plain values that its features depend on.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, record: Mapping[str, Any] | None = None):
        """Opens the store of a folder, or begins one there.

        Args:
            folder: a folder that is new, empty, or holds such a store.
            identity: what the features depend on, as plain values: weights, transform, classes and images.
            record: further values for the manifest of a new store, such as versions and command.

        Raises:
            FileExistsError: the folder holds something else.
            ValueError: it holds features of something else; the message names the first key that differs.
        """
        self.folder = folder
        self.identity = json.loads(json.dumps({"format": FORMAT, "dtype": "float32", **identity}))
        path = folder / "manifest.json"
        if is_unused(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, {"identity": self.identity, "record": dict(record or {})})
        elif not path.is_file():
            raise FileExistsError(f"{folder} holds other files; name a folder for features that is new or empty")
        try:
            found = parse_json(path.read_bytes())["identity"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged: {error}; remove that folder, and its features are made again"
            ) from error
        difference = _difference(found, self.identity)
        if difference is not None:
            key, there, here = difference
            raise ValueError(
                f"{folder} holds features of something else: its {key} is {_brief(there)}, not {_brief(here)}; remove "
                "it, or choose another folder by `features_root`"
            )

    def begin(self, split: str, labels: Int[ndarray, " images"], names: Sequence[str]) -> None:
        """Keeps the labels of a split, which tell how many images it has, and the images' names."""
        path = self._path(split, "labels")
        if path.is_file():
            sweep(path.parent)  # where nothing more may have to be written
        else:
            path.parent.mkdir(exist_ok=True)
            with atomic_write(path) as temporary:
                np.save(temporary, labels)
        path, text = self._names_path(split), as_json(list(names))
        if not path.is_file() or path.read_bytes() != text.encode():  # stores of earlier versions have none
            write_text(path, text)

    def labels(self, split: str) -> Int[ndarray, " images"]:
        """The class of each image."""
        return np.array(self._map(split, "labels", np.int64, None))

    def names(self, split: str) -> list[str]:
        """The name of each image: of a file its path in the data's folder, else its number in the split."""
        path = self._names_path(split)
        try:
            names = parse_json(path.read_bytes())
            if not fits(names, list[str]):
                raise ValueError(f"found {brief(names)} where names are expected")
            if len(names) != len(self.labels(split)):
                raise ValueError(f"it has {len(names)} names of {len(self.labels(split))} images")
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}; extract its features again, which mends it") from error
        return names

    def to_pandas(self, split: str, layer: str) -> pd.DataFrame:
        """The features of a layer as a table, an image a row: `image`, its name; `split`; `label`, its class by name;
        and `f0`, `f1`, ..., its features.

        Raises `FileNotFoundError` if they have not been extracted to the end.
        """
        features = self.features(split, layer)
        labels = np.array(self.identity["classes"])[self.labels(split)]
        table = pd.DataFrame(np.array(features), columns=[f"f{number}" for number in range(features.shape[1])])
        for place, (column, values) in enumerate({"image": self.names(split), "split": split, "label": labels}.items()):
            table.insert(place, column, values)
        return table

    def done(self, split: str, layers: Sequence[str]) -> Bool[ndarray, " images"]:
        """Which images have features in all of these layers."""
        done = np.ones(len(self.labels(split)), dtype=bool)
        for layer in layers:
            there = self._path(split, f"{layer}.done").is_file()
            done &= self._map(split, f"{layer}.done", np.bool_, len(done)) if there else False
        return done

    def features(self, split: str, layer: str) -> Float[ndarray, "images channels"]:
        """The features of a layer, as a memory map that cannot be written to.

        Raises `FileNotFoundError` if they have not been extracted to the end.
        """
        if not self.done(split, [layer]).all():
            raise FileNotFoundError(f"{self.folder} holds no complete features of {layer} on the {split} images")
        return self._map(split, layer, np.float32, len(self.labels(split)), ndim=2)

    def writer(self, split: str, channels: Mapping[str, int]) -> "Writer":
        """Writes features of these layers, with so many channels each.

        Raises `OSError` if the disk has no room for them.
        """
        count = len(self.labels(split))
        missing = {layer: width for layer, width in channels.items() if not self._path(split, layer).is_file()}
        needed, free = 4 * count * sum(missing.values()), shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(
                f"the features of {count:,} images take {_gigabytes(needed)}, {self.folder} has room for "
                f"{_gigabytes(free)}; choose a folder on a larger disk by `features_root`, or fewer layers"
            )
        for layer, width in missing.items():
            _create(self._path(split, layer), (count, width), np.float32)
        for layer in channels:
            if not self._path(split, f"{layer}.done").is_file():
                _create(self._path(split, f"{layer}.done"), (count,), np.bool_)
        return Writer(
            {layer: open_memmap(self._path(split, layer), mode="r+") for layer in channels},
            [open_memmap(self._path(split, f"{layer}.done"), mode="r+") for layer in channels],
        )

    def _map(self, split: str, name: str, kind: type, images: int | None, *, ndim: int = 1) -> ndarray:
        """An array as a memory map; `ValueError` unless it is of that kind, and of so many images if that is known."""
        path = self._path(split, name)
        try:
            array = map_array(path)
            if array.dtype != kind or array.ndim != ndim:
                raise ValueError(f"it is {array.dtype} of the shape {array.shape}")
            if images is not None and len(array) != images:
                raise ValueError(f"it is of {len(array)} images, and there are {images}")
        except ValueError as error:
            raise ValueError(
                f"{path} is damaged: {error}; remove {self.folder}, its features are made again"
            ) from error
        return array

    def _names_path(self, split: str) -> Path:
        return self.folder / split / "names.json"

    def _path(self, split: str, name: str) -> Path:
        return self.folder / split / f"{name}.npy"


class Writer:
    """Writes rows into the memory maps of several layers; what marks them as done is `flush`, in the background.

    Closed, as by a `with` statement, it has flushed everything.
    """

    def __init__(self, features: Mapping[str, Any], done: Sequence[Any]):
        self._features = features
        self._done = done
        self._unmarked: list[Int[ndarray, " rows"]] = []
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._flushing: Future[None] | None = None
        self.unflushed = 0
        """Bytes written since the last flush began."""

    def write(self, rows: Int[ndarray, " rows"], features: Mapping[str, Float[ndarray, "rows _"]]) -> None:
        """Writes the features of the images with these indices."""
        for layer, values in features.items():
            self._features[layer][rows] = values
            self.unflushed += values.nbytes
        self._unmarked.append(rows)

    def flush(self) -> None:
        """Begins to put on the disk what was written, and to mark those rows as done; an earlier flush has ended then.

        Raises `OSError` if that earlier one has failed.
        """
        self._wait()
        rows, self._unmarked, self.unflushed = self._unmarked, [], 0
        self._flushing = self._thread.submit(self._flush, rows)

    def close(self) -> None:
        """Flushes what was written, waits for it, and raises `OSError` if it fails."""
        try:
            self.flush()
            self._wait()
        finally:
            self._thread.shutdown()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self) -> None:
        if self._flushing is not None:
            self._flushing.result()

    def _flush(self, unmarked: Sequence[Int[ndarray, " _"]]) -> None:
        for features in self._features.values():
            _put_on_disk(features)
        for done in self._done:
            for rows in unmarked:
                done[rows] = True
            _put_on_disk(done)


def _put_on_disk(array: np.memmap) -> None:
    """Waits until an array is on the disk. A map's own flush would do so too, but holds up all other threads while it
    waits; after `fsync` it has nothing left to wait for."""
    path = Path(array.filename)  # pyright: ignore[reportArgumentType]
    with writing(path):
        flush(path)
        array.flush()


def _create(path: Path, shape: tuple[int, ...], dtype: type) -> None:
    """An array of zeros with all its blocks on the disk, so that none can be wanting later; another process's if that
    was quicker."""
    with temporary_beside(path) as temporary:
        open_memmap(temporary, mode="w+", dtype=dtype, shape=shape).flush()
        if hasattr(os, "posix_fallocate"):  # not on every system
            with open(temporary, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.path.getsize(temporary))
        flush(temporary)
        with suppress(FileExistsError):
            os.link(temporary, path)
        flush(path.parent)


def _difference(there: Any, here: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """The first key, with dots between levels, at which two nested mappings differ, and what they hold."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted(there.keys() | here.keys()):
            found = _difference(there.get(name), here.get(name), f"{key}.{name}" if key else name)
            if found is not None:
                return found
        return None
    return None if there == here else (key, there, here)


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
