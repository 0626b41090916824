"""Files that are written whole or not at all, and folders that one process uses alone."""

import fcntl
import json
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

LOCK = ".lock"
"""Name of the file that a process locks while it uses a folder alone."""

_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.part(\..*)?")
_swept: set[Path] = set()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, then renames it to `path`, so that a reader never sees half a file.

    The file is flushed to the disk before the rename and the folder after it. If writing fails, an earlier file of
    that name stays as it was. The temporary name keeps the suffix, by which some writers choose their format.

    Raises `OSError`, naming the file, if it cannot be written.
    """
    with temporary_beside(path) as temporary:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)


def write_together(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Writes files of one folder, each by a function that is given a path, such that the last exists only while all
    others belong to it.

    All are flushed to the disk before an earlier one is touched. If writing fails, all earlier files stay as they were.

    Raises `OSError`, naming the file, if one cannot be written.
    """
    *others, mark = writers
    with ExitStack() as stack:
        temporaries = {}
        for path, write in writers.items():
            temporaries[path] = stack.enter_context(temporary_beside(path))
            write(temporaries[path])
            flush(temporaries[path])
        mark.unlink(missing_ok=True)
        flush(mark.parent)
        for path in others:
            os.replace(temporaries[path], path)
        flush(mark.parent)
        os.replace(temporaries[mark], mark)
        flush(mark.parent)


def write_text(path: Path, text: str) -> None:
    """Writes text atomically, in UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically, indented for people."""
    write_text(path, as_json(content))


def as_json(content: Any) -> str:
    """JSON, indented for people."""
    return json.dumps(content, indent=2) + "\n"


def flush(path: Path) -> None:
    """Waits until a file, or the listing of a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yields an empty file in the same folder, with the same suffix, and removes it afterwards if it still exists.

    Such files of processes that were killed are removed when a process first writes to a folder.

    Raises `OSError`, naming `path`, where the temporary file cannot be written.
    """
    sweep(path.parent)
    temporary = path.with_name(f".{uuid.uuid4().hex}.part{path.suffix}")
    with writing(path, temporary):
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o666)
        try:
            _lock(descriptor)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)


@contextmanager
def writing(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Makes errors of writing a file name that file, instead of a temporary one or none."""
    try:
        yield
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise
        if error.errno is None:
            raise OSError(f"{path} cannot be written: {error}") from error
        raise OSError(error.errno, error.strerror, str(path)) from error


def sweep(folder: Path) -> None:
    """Removes temporary files that no process holds any more from a folder, the first time that it is called for it."""
    if folder in _swept:
        return
    _swept.add(folder)
    for left in folder.iterdir():
        if _TEMPORARY.fullmatch(left.name):
            with suppress(OSError):
                descriptor = os.open(left, os.O_RDONLY)
                try:
                    if _lock(descriptor):
                        left.unlink()
                finally:
                    os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Locks an open file until this process ends, and returns whether that succeeded."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def contents(folder: Path) -> list[Path]:
    """The files and folders in a folder, except for locks and temporary files."""
    return [entry for entry in folder.iterdir() if entry.name != LOCK and not _TEMPORARY.fullmatch(entry.name)]


def is_unused(folder: Path) -> bool:
    """Whether a path does not exist, or is an empty folder."""
    return not contents(folder) if folder.is_dir() else not folder.exists()


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Reserves a folder for this process within the block; creates it if needed, and removes it if it stays empty.

    The end of a process ends its reservation. Disks that cannot lock files give no protection.

    Raises `FileExistsError`, naming the process, if another one has reserved the folder.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    descriptor = _take(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        for each in made:
            with suppress(OSError):
                each.rmdir()


def _take(path: Path) -> int:
    """Opens and locks a file, and writes the name of this process into it."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not for its children, who may outlive it
        except (BlockingIOError, PermissionError):
            holder = os.read(descriptor, 1000).decode(errors="replace")
            os.close(descriptor)
            raise FileExistsError(
                f"{path.parent} is in use by {holder or 'another process'}; wait until that has ended, or stop it"
            ) from None
        except OSError:
            return descriptor  # a disk that cannot lock files
        if _is_at(path, descriptor):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return descriptor
        os.close(descriptor)  # its last holder has just removed it


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file still has that path; another process may remove it at any moment."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
