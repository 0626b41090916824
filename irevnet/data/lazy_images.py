"""Collections of images that are read when they are indexed: of files, and of other people's data sets."""

import hashlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from irevnet.data.transforms import read_image
from irevnet.utils.progress import Track

EXTENSIONS = (*IMG_EXTENSIONS, ".gif")
"""Endings of the names of image files, in small letters."""

READERS = 8
"""Number of files that are read at the same time."""

SETTLED = 2 * 10**9
"""Nanoseconds after which another write changes the times of a file, on any file system."""

LEAVE_OUT = ", or skip all such files with `on_error`='skip'"


class LazyImages(ABC):
    """Images `(c, h, w)` that are read when indexed; a list of rows as index gives another such collection."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: Any) -> Any: ...

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """The name of each image within its data set."""

    @abstractmethod
    def identities(self, track: Track) -> Iterator[str]:
        """What tells the contents of each image, in their order; `track` wraps the loop in which they are read."""

    def signatures(self) -> Iterator[str] | None:
        """What changes with every write to each image; `None` where that cannot be told without reading them."""
        return None


class ImageFiles(LazyImages):
    """Image files.

    Args:
        paths: path of each file.
        folder: folder that they are all in, and below which they have their names.
    """

    def __init__(self, paths: list[str], folder: str = ""):
        self.paths = paths
        self.folder = folder

    @property
    def names(self) -> list[str]:
        """The path of each file below the folder."""
        return [path.removeprefix(os.path.join(self.folder, "")) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return ImageFiles([self.paths[row] for row in index], self.folder)
        path = self.paths[index]
        try:
            return read_image(path)
        except FileNotFoundError as error:
            raise ValueError(
                f"{path} cannot be read as an image: it is missing, or a broken link; replace or remove it{LEAVE_OUT}"
            ) from error
        except ValueError as error:
            raise ValueError(f"{error}{LEAVE_OUT}") from error

    def identities(self, track: Track) -> Iterator[str]:
        """Name and SHA-256 of each file; several are read at a time. Raises `OSError`, naming it, for one that cannot
        be read."""
        with ThreadPoolExecutor(READERS) as readers:
            contents = track(readers.map(_file_sha256, self.paths), "reading every image")
            for path, content in zip(self.paths, contents):
                yield f"{Path(path).name} {content}"

    def signatures(self) -> Iterator[str] | None:
        """Path, size, times and inode of each file; `None` if one was written to within the last seconds, where another
        write might leave the same times."""
        now, found = time.time_ns(), []
        for path in self.paths:
            of_file = os.stat(path)
            if max(of_file.st_ctime_ns, of_file.st_mtime_ns) > now - SETTLED:
                return None
            found.append(f"{path} {of_file.st_size} {of_file.st_mtime_ns} {of_file.st_ctime_ns} {of_file.st_ino}")
        return iter(found)


def _file_sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ItemImages(LazyImages):
    """Images that a function reads by their number, such as the items of a data set of other people's code.

    Args:
        read: returns the image of a number.
        numbers: numbers of the images.
        digests: SHA-256 of the contents of each image.
    """

    def __init__(self, read: Callable[[int], Tensor], numbers: Sequence[int], digests: list[str]):
        self.read = read
        self.numbers = numbers
        self.digests = digests

    @property
    def names(self) -> list[str]:
        """The number of each image."""
        return list(map(str, self.numbers))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return ItemImages(self.read, [self.numbers[row] for row in index], [self.digests[row] for row in index])
        return self.read(self.numbers[index])

    def identities(self, track: Track) -> Iterator[str]:
        """The digests."""
        return iter(self.digests)
