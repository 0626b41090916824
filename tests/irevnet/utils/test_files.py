import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

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
    flush, rename, remove = os.fsync, os.replace, Path.unlink

    def name(path: str | Path) -> str:
        path = Path(path)
        return f"temporary {path.suffix}" if path.name.startswith(".") else path.name

    def noted_flush(descriptor: int) -> None:
        found.append(f"flush {name(os.readlink(f'/proc/self/fd/{descriptor}'))}")
        flush(descriptor)

    def noted_rename(source: Path, target: Path) -> None:
        found.append(f"rename {name(source)} to {name(target)}")
        rename(source, target)

    def noted_remove(path: Path, *, missing_ok: bool = False) -> None:
        if path.exists():
            found.append(f"remove {name(path)}")
        remove(path, missing_ok=missing_ok)

    monkeypatch.setattr(os, "fsync", noted_flush)
    monkeypatch.setattr(os, "replace", noted_rename)
    monkeypatch.setattr(Path, "unlink", noted_remove)
    return found


def test_a_file_appears_whole_under_its_name(tmp_path):
    path = tmp_path / "notes.txt"
    with atomic_write(path) as temporary:
        assert temporary.suffix == ".txt"
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_the_earlier_file_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("earlier")

    def fail():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("no space")

    with pytest.raises(RuntimeError, match="no space"):
        fail()
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_file_is_flushed_before_and_folder_after_the_rename(tmp_path, steps):
    write_json(tmp_path / "x.json", {"a": 1})
    assert steps == ["flush temporary .json", "rename temporary .json to x.json", f"flush {tmp_path.name}"]


def write_three(folder: Path, text: str) -> None:
    paths = [folder / name for name in ("a.csv", "b.txt", "mark.json")]
    write_together({path: lambda to: to.write_text(text) for path in paths})


def test_files_written_together_are_flushed_before_replacement(tmp_path, steps):
    write_three(tmp_path, "first")
    del steps[:]
    write_three(tmp_path, "second")
    folder = f"flush {tmp_path.name}"
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
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("a.csv", "b.txt", "mark.json"), "second"
    )


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
    killed = os.WIFSIGNALED(status)
    assert killed == (moment < 9)
    found = {path.name: path.read_text() for path in contents(tmp_path)}
    assert set(found.values()) <= {"first", "second"}
    assert len(set(found.values())) == 1 or "mark.json" not in found
    assert ("mark.json" in found) == (moment in (0, 1, 2, 8))  # absent from the fourth step to the last but one
    files._swept.clear()  # as in a new process
    write_three(tmp_path, "third")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("a.csv", "b.txt", "mark.json"), "third"
    )


def test_temporary_files_of_running_processes_are_kept(tmp_path):
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        held = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from pathlib import Path; from irevnet.utils.files import write_text;"
                "write_text(Path(sys.argv[1]) / 'b.txt', 'b')",
                str(tmp_path),
            ],
            env={**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[2])},
        )
        assert held.returncode == 0
        assert temporary.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_files_that_only_look_temporary_are_kept(tmp_path):
    other = tmp_path / ".notes.part.txt"
    other.touch()
    write_text(tmp_path / "a.txt", "a")
    assert other.exists()


def test_errors_name_the_file_and_not_its_temporary_name(tmp_path):
    def write(error: OSError) -> None:
        with atomic_write(tmp_path / "notes.txt") as temporary:
            if error.filename == "temporary":
                error.filename = str(temporary)
            raise error

    for given in (OSError(errno.ENOSPC, "no space"), OSError(errno.ENOSPC, "no space", "temporary")):
        with pytest.raises(OSError, match="no space") as caught:
            write(given)
        assert caught.value.filename == str(tmp_path / "notes.txt")
    with pytest.raises(OSError, match=r"notes\.txt cannot be written: 4 requested and 2 written"):
        write(OSError("4 requested and 2 written"))
    with pytest.raises(FileNotFoundError) as caught:
        write(FileNotFoundError(errno.ENOENT, "no such file", "elsewhere"))
    assert caught.value.filename == "elsewhere"
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / "absent" / "notes.txt", "text")
    assert caught.value.filename == str(tmp_path / "absent")
    with pytest.raises(OSError, match="no space") as caught, writing(tmp_path / "basis"):
        raise OSError(errno.ENOSPC, "no space")
    assert caught.value.filename == str(tmp_path / "basis")


HOLD = """
import sys, time
from pathlib import Path
from irevnet.utils.files import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """A process that has reserved the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_folder_in_use_is_refused_until_its_process_ends(tmp_path):
    folder = tmp_path / "new" / "run"
    with hold(folder) as process:
        in_use = (
            re.escape(f"{folder} is in use by process {process.pid} on ") + ".+; wait until that has ended, or stop"
        )
        with pytest.raises(FileExistsError, match=in_use), exclusive(folder):
            pass
        assert is_unused(folder)
        process.kill()
        process.wait()
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

    for name in ("lockf", "flock"):
        monkeypatch.setattr(fcntl, name, refuse)
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
