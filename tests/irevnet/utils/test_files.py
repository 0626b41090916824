import errno
import fcntl
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from irevnet.utils import files
from irevnet.utils.files import (
    atomic_write,
    contents,
    exclusive,
    is_unused,
    write_json,
    write_text,
    write_together,
    writing,
)


@pytest.fixture
def steps(monkeypatch) -> list[str]:
    """Flushes, renames and removals in order, with temporary files by their suffixes."""
    found: list[str] = []

    def name(path: str | Path) -> str:
        path = Path(path)
        return f"temporary {path.suffix}" if path.name.startswith(".") else path.name

    def note(owner: Any, function: str, describe: Callable[..., list[str]]) -> None:
        original = getattr(owner, function)

        def noted(*arguments: Any, **options: Any) -> Any:
            found.extend(describe(*arguments))
            return original(*arguments, **options)

        monkeypatch.setattr(owner, function, noted)

    note(os, "fsync", lambda descriptor: [f"flush {name(os.readlink(f'/proc/self/fd/{descriptor}'))}"])
    note(os, "replace", lambda source, target: [f"rename {name(source)} to {name(target)}"])
    note(Path, "unlink", lambda path: [f"remove {name(path)}"] if path.exists() else [])
    return found


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "notes.txt"
    with atomic_write(path) as temporary:
        assert temporary.suffix == ".txt"
        temporary.write_text("whole")
        assert not path.exists()
    with suppress(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("no space")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


THREE = ("a.csv", "b.txt", "mark.json")


def write_three(folder: Path, text: str) -> None:
    write_together({folder / name: lambda to: to.write_text(text) for name in THREE})


def test_files_written_together_are_flushed_before_replacement(tmp_path, steps):
    folder = f"flush {tmp_path.name}"
    write_json(tmp_path / "mark.json", {"a": 1})
    assert steps == ["flush temporary .json", "rename temporary .json to mark.json", folder]
    del steps[:]
    write_three(tmp_path, "second")
    assert steps == [
        *(f"flush temporary {ending}" for ending in (".csv", ".txt", ".json")),
        "remove mark.json",
        folder,
        "rename temporary .csv to a.csv",
        "rename temporary .txt to b.txt",
        folder,
        "rename temporary .json to mark.json",
        folder,
    ]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(THREE, "second")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("moment", range(9))
def test_kill_while_files_are_written_together_mixes_none(tmp_path, moment):
    """In a process that is killed before its n-th flush or rename."""
    write_three(tmp_path, "first")
    child = os.fork()
    if child == 0:
        left = iter(range(moment))

        def or_die(function):
            def counted(*arguments):
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments)

            return counted

        os.fsync, os.replace = or_die(os.fsync), or_die(os.replace)
        write_three(tmp_path, "second")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    found = {path.name: path.read_text() for path in contents(tmp_path)}
    assert set(found.values()) <= {"first", "second"}
    assert len(set(found.values())) == 1 or "mark.json" not in found
    assert ("mark.json" in found) == (moment in (0, 1, 2, 8))  # absent from the fourth step to the last but one
    files._swept.clear()  # as in a new process
    write_three(tmp_path, "third")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(THREE, "third")


def test_temporary_files_in_use_and_others_like_them_are_kept(tmp_path):
    other = tmp_path / ".notes.part.txt"
    other.touch()
    with atomic_write(tmp_path / "a.txt") as temporary:
        files._swept.clear()  # as in another process
        write_text(tmp_path / "b.txt", "b")
        assert temporary.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "a.txt", "b.txt"]


def test_errors_name_the_file_and_not_its_temporary_name(tmp_path):
    notes = tmp_path / "notes.txt"

    def named_by(error: OSError) -> str:
        try:
            with atomic_write(notes) as temporary:
                if error.filename == "temporary":
                    error.filename = str(temporary)
                raise error
        except OSError as raised:
            return raised.filename or str(raised)

    assert named_by(OSError(errno.ENOSPC, "no space")) == str(notes)
    assert named_by(OSError(errno.ENOSPC, "no space", "temporary")) == str(notes)
    assert named_by(FileNotFoundError(errno.ENOENT, "no such file", "elsewhere")) == "elsewhere"
    assert named_by(OSError("4 requested and 2 written")) == f"{notes} cannot be written: 4 requested and 2 written"
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / "absent" / "notes.txt", "text")
    assert caught.value.filename == str(tmp_path / "absent")
    with pytest.raises(OSError, match="no space") as caught, writing(tmp_path / "basis"):
        raise OSError(errno.ENOSPC, "no space")
    assert caught.value.filename == str(tmp_path / "basis")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_folder_in_use_is_refused_until_its_process_ends(tmp_path):
    folder = tmp_path / "new" / "run"
    reading, writing_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with exclusive(folder):
                os.write(writing_end, b"held")
                time.sleep(60)
        finally:
            os._exit(1)
    assert os.read(reading, 4) == b"held"
    in_use = re.escape(f"{folder} is in use by process {child} on ") + ".+; wait until that has ended, or stop"
    with pytest.raises(FileExistsError, match=in_use), exclusive(folder):
        pass
    assert is_unused(folder)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert (folder / ".lock").exists()
    with exclusive(folder):
        assert f"process {os.getpid()} on" in (folder / ".lock").read_text()
    assert list(folder.iterdir()) == []


def test_reserved_folder_that_stays_empty_is_removed(tmp_path):
    with exclusive(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
    with exclusive(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "file"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_one_process_at_a_time_has_the_folder(tmp_path):
    """Each process slowly adds one to a number; those that are refused try again."""
    number = tmp_path / "number"
    number.write_text("0")
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            done = 0
            try:
                while done < 25:
                    with suppress(FileExistsError), exclusive(tmp_path):
                        value = int(number.read_text())
                        time.sleep(0.0005)
                        number.write_text(str(value + 1))
                        done += 1
            finally:
                os._exit(0 if done == 25 else 1)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    assert number.read_text() == "100"


def test_disk_without_locks_is_accepted(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(fcntl, "flock", refuse)
    left = tmp_path / f".{'0' * 32}.part.txt"
    left.touch()
    with exclusive(tmp_path):
        write_text(tmp_path / "a.txt", "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [left.name, "a.txt"]  # perhaps still being written


def test_what_holds_nothing_is_unused(tmp_path):
    assert is_unused(tmp_path / "absent")
    assert is_unused(tmp_path)
    (tmp_path / ".lock").touch()
    (tmp_path / f".{'0' * 32}.part.pt").touch()
    assert is_unused(tmp_path)
    (tmp_path / "file").touch()
    assert not is_unused(tmp_path)
    assert not is_unused(tmp_path / "file")
