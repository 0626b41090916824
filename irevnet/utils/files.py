"""Files that are either whole or not there, and folders that one process has to itself."""

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
"""The file that a process holds while a folder is its own."""

_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.part(\..*)?")
_swept: set[Path] = set()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, then renames it to `path`, so that a reader never sees half a file.

    The file is flushed to the disk before the rename and the folder after it. If writing fails, an earlier file of
    that name stays as it was. The temporary name keeps the ending, which some writers choose their format by.

    Raises `OSError`, naming the file, if it cannot be written.
    """
    with temporary_beside(path) as temporary:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)


def write_together(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Writes files of one folder, each by what writes to a path, of which the last stands for all: it is there only
    while the others belong to it.

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
    """Waits until a file, or what a folder lists, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """An empty file in the same folder, with the same ending, which is removed in the end if it is still there.

    Those that were left by processes that were killed are removed when a process first writes to a folder.

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
    """Names a file in errors of writing it, which may be known under a temporary name, or not at all."""
    try:
        yield
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise
        if error.errno is None:
            raise OSError(f"{path} cannot be written: {error}") from error
        raise OSError(error.errno, error.strerror, str(path)) from error


def sweep(folder: Path) -> None:
    """Removes the temporary files of a folder that no process holds any more; once in the life of this one."""
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
    """Locks an open file for this process; whether it could. The system unlocks what a process that has ended held."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def contents(folder: Path) -> list[Path]:
    """What a folder holds, but locks and temporary files, such as processes that were killed leave there."""
    return [entry for entry in folder.iterdir() if entry.name != LOCK and not _TEMPORARY.fullmatch(entry.name)]


def is_unused(folder: Path) -> bool:
    """Whether there is no such folder or file, or nothing in it."""
    return not contents(folder) if folder.is_dir() else not folder.exists()


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Has a folder, which is made if need be, for this process alone. One that stays empty is removed again.

    A process that was killed no longer has it. On disks that cannot lock files there is no protection.

    Raises `FileExistsError`, naming the process, if another has it.
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
    """Opens and locks a file, with the name of this process in it."""
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
    """Whether an open file is the one of that name, which another process may remove at any moment."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
