"""What a full disk, a second process and a killed one do to work that takes long: nothing is lost."""

import contextlib
import errno
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import cli
from analysis.features import extract
from irevnet import read_checkpoint
from irevnet.utils import files
from irevnet.utils.files import exclusive

ROOT = Path(__file__).parents[1]


pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "blank_figures")


@pytest.fixture
def run(finished_run) -> Path:
    return Path(shutil.copytree(finished_run, Path("runs") / "first"))


def command(*words: str) -> Result:
    group = cli.analyze if words[0] in cli.analyze.commands else cli.main
    return CliRunner().invoke(group, words)


def snapshot(folder: Path = Path()) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_images() -> None:
    """One, and a few in a folder as a data set."""
    rng = np.random.default_rng(0)
    names = [f"photos/{split}/{name}/{n}.png" for split in ("train", "val") for name in "ab" for n in range(6)]
    for path in map(Path, ["image.png", *names]):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)


WORK: dict[str, tuple[str, ...]] = {
    "train": ("train", "--resume", "begun", "--max-steps", "1"),
    "features": ("features", "--data", "photos", "--depths", "12", "--features", "kept"),
    "depth-probe": ("depth-probe", "--data", "photos", "--depths", "12"),
    "interpolate": ("interpolate", "--num-pairs", "1", "--steps", "3"),
    "spectrum": ("spectrum", "--num-images", "1", "--num-values", "3"),
    "training-curves": ("training-curves",),
    "report": ("report",),
    "encode": ("encode", "image.png", "-o", "new.npz"),
    "decode": ("decode", "phi.npz", "-o", "decoded"),
}
"""Commands that write, each in a way of its own; the other studies save as these do."""


@pytest.fixture(scope="session")
def workplace(made_once, finished_run) -> Path:
    """A folder in which all of these have something to work on, and `begun` has been stopped."""

    def make(folder: Path) -> None:
        with contextlib.chdir(folder):
            shutil.copytree(finished_run, Path("runs") / "first")
            assert command("train", "--epochs", "1", "--max-steps", "1", "--out", "begun").exit_code == 0
            make_images()
            assert command("encode", "image.png", "-o", "phi.npz").exit_code == 0

    return made_once("faults", make)


@pytest.fixture
def prepared(workplace) -> None:
    """This folder is one of these."""
    copy(workplace, Path())


def copy(workplace: Path, place: Path) -> None:
    shutil.copytree(workplace, place, dirs_exist_ok=True)
    os.utime(place / "runs/first/last.pt")  # the newest


@contextmanager
def failing(step: int, function: str, error: OSError) -> Iterator[list[int]]:
    """Makes the n-th call of a function of `os` fail, from 0 on; yields the numbers of its calls."""
    original, calls = getattr(os, function), []

    def counted(*arguments, **options):
        calls.append(len(calls))
        if calls[-1] == step:
            raise error
        return original(*arguments, **options)

    setattr(os, function, counted)
    try:
        yield calls
    finally:
        setattr(os, function, original)


def assert_nothing_lost(result: Result, before: dict[Path, bytes], message: str) -> None:
    """It failed in one line with that message; what was there is there, and what is new is whole."""
    assert result.exit_code == 1, (result.exit_code, result.output)
    *_, line = result.stderr.splitlines()
    assert re.fullmatch(rf"Error: OSError: \S+: {message} \(--debug shows where\)", line), line
    assert "Traceback" not in result.output
    after = snapshot()
    lost = [str(path) for path in before if path not in after]
    assert lost in ([], [str(path) for path in before if path.suffix == ".json" and path not in after])
    for path, content in after.items():
        assert not path.name.startswith("."), f"{path} is left"
        if path.suffix == ".pt" and content != before.get(path):
            read_checkpoint(path)


@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["three", "every"])
def test_full_disk_is_answered_in_one_line_and_loses_nothing(workplace, tmp_path, monkeypatch, name, every):
    """The flush of the first, a middle and the last file or folder that a command writes fails, or of each in turn."""
    monkeypatch.setattr(extract, "FLUSH_SECONDS", math.inf)  # how often it flushes does not depend on the machine

    def attempt(step: int) -> tuple[Result, int, dict[Path, bytes]]:
        place = tmp_path / str(step)
        copy(workplace, place)
        os.chdir(place)
        files._swept.clear()
        before = snapshot()
        with failing(step, "fsync", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) as calls:
            return command(*WORK[name]), len(calls), before

    result, count, _ = attempt(-1)
    assert result.exit_code == 0, result.output
    assert count >= 2
    for step in range(count) if every else {0, count // 2, count - 1}:
        result, _, before = attempt(step)
        assert_nothing_lost(result, before, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["train", "features", "training-curves", "decode"])
def test_folder_that_may_not_be_written_to_is_named(prepared, name):
    before = snapshot()
    real = os.open

    def refuse(path, flags, *more):
        if flags & os.O_CREAT and Path(path).name.startswith("."):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, flags, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", refuse)
        result = command(*WORK[name])
    assert result.exit_code == 2
    assert re.fullmatch(r"(using .*\n)?Error: \S+: Permission denied\n", result.stderr), result.stderr
    assert snapshot() == before


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        *(("interpolate", limit) for limit in (300, 30_000, 100_000)),
        ("train", 3000),
        ("features", 3000),
        ("report", 3000),
    ],
)
def test_file_that_may_not_grow_is_named(prepared, name, limit):
    """The system's own limit, which each writer reports in its way."""
    before = snapshot()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        result = command(*WORK[name])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    if result.exit_code:
        assert_nothing_lost(result, before, "File too large")
    assert result.exit_code or limit >= 30_000


def test_second_process_waits_for_first_to_end(tmp_path):
    words = ["train", "--epochs", "2000", "--batch-size", "400", "--out", "run"]
    program = [sys.executable, "-c", "import cli; cli.main()"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*program, *words], env=environment)
    try:
        while not Path("run/last.pt").exists():
            assert process.poll() is None
            time.sleep(0.05)
        for again in (("--resume", "run"), tuple(words[1:])):
            before = Path("run/config.json").read_bytes()
            second = command("train", *again)
            assert second.exit_code == 2
            assert re.fullmatch(
                rf"Error: run is in use by process {process.pid} on \S+; wait until that has ended, or stop it\n",
                second.stderr,
            )
            assert Path("run/config.json").read_bytes() == before
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert Path("run/.lock").exists()
    resumed = command("train", "--resume", "run", "--max-steps", "1")
    assert resumed.exit_code == 0, resumed.output
    assert not Path("run/.lock").exists()


def test_study_being_made_is_not_made_twice(run):
    with exclusive(run / "analysis" / "invert"):
        other = os.fork()
        if other == 0:
            os._exit(command("invert").exit_code)
        assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 2


@pytest.mark.slow
def test_work_killed_repeatedly_ends_as_if_never_interrupted():
    """A few of what `benchmarks/faults.py` does; it exits with 1 if a file does not load, or is another."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "faults.py", "--kills", "5"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert sum(map(int, re.findall(r": (\d+) kills", done.stderr))) == 5
