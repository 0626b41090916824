"""Ctrl-C and SIGTERM end every command in time, whatever it is busy with, and say how to go on where that can be."""

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import cli
from analysis.linalg.linear_operator import LinearOperator
from analysis.results import SpectrumResult
from irevnet import IRevNet
from irevnet.commandline.terminal import Command

ROOT = Path(__file__).parents[1]
BUSY = re.escape(
    "Error: one long computation did not stop within 0.5 s, and was ended. Everything saved before is kept; later work "
    "is lost\n"
)

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Ctrl-C interrupts, here and in processes that are started; a shell lets its background jobs ignore it."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


def interrupted(
    program: str, *words: str, number: int = signal.SIGINT, ready: Callable[[], bool] | None = None
) -> tuple[int, str, float]:
    """Runs a program and, when it prints "busy" or `ready` holds, sends it a signal.

    Returns:
        its exit code, what it wrote to standard error, and the seconds from the signal to its end.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if ready is None:
            assert process.stdout is not None
            assert process.stdout.readline() == "busy\n"
        else:
            while not ready():
                assert process.poll() is None
                time.sleep(0.05)
        process.send_signal(number)
        sent = time.monotonic()
        _, errors = process.communicate(timeout=100)  # what it is busy with takes longer
        return process.returncode, errors, time.monotonic() - sent
    finally:
        process.kill()


STUCK = """
import hashlib, os, signal, sys, threading, time, warnings
import click
from irevnet.commandline import interruption
from irevnet.commandline import terminal

interruption.GRACE = 0.5
terminal._require_torch = lambda: None  # nor is torch imported

def busy():
    clock = time.pthread_getcpuclockid(threading.get_ident())
    begun = time.clock_gettime(clock)

    def say():
        while time.clock_gettime(clock) < begun + 0.1:  # this thread is not in the native code yet
            time.sleep(0.01)
        print("busy", flush=True)

    threading.Thread(target=say, daemon=True).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes, in C, without the interpreter

def run(work):
    command = terminal.Command("work", callback=work)
    terminal._among_processes = lambda command, context: __import__("contextlib").nullcontext()
    command.main(sys.argv[1:], prog_name="work")
"""
"""What begins a program with a command of its own."""


def test_stuck_command_ends_after_grace():
    code, errors, seconds = interrupted(STUCK + "run(busy)")
    assert code == 1
    assert re.fullmatch(BUSY, errors)
    assert seconds > 0.4


def test_stuck_step_ends_after_grace():
    program = """
    def work():
        with terminal.stop_on_signals() as stopped:
            busy()

    run(work)
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        code, errors, seconds = interrupted(STUCK + textwrap.dedent(program), number=number)
        assert code == 1
        assert re.fullmatch(BUSY, errors)
        assert seconds > 0.4


def test_sigterm_without_handler_ends_at_once():
    code, errors, _ = interrupted(STUCK + "run(busy)", number=signal.SIGTERM)
    assert (code, errors) == (-signal.SIGTERM, "")


def test_saving_may_take_longer_until_second_signal():
    program = """
    def work():
        with terminal.stop_on_signals() as stopped:
            os.kill(os.getpid(), signal.SIGINT)
            assert stopped()
            time.sleep(1.5)
            click.echo("saved", err=True)
            busy()

    run(work)
    """
    code, errors, _ = interrupted(STUCK + textwrap.dedent(program))
    assert code == 1
    assert re.fullmatch(rf"finishing this step, .*\nsaved\n{BUSY}", errors)


def test_swallowed_interrupt_ends_after_grace():
    program = """
    def work():
        try:
            print("busy", flush=True)
            time.sleep(600)
        except KeyboardInterrupt:
            time.sleep(600)

    run(work)
    """
    code, errors, _ = interrupted(STUCK + textwrap.dedent(program))
    assert code == 1
    assert re.fullmatch(BUSY, errors)


def test_blocked_standard_error_does_not_keep_process():
    program = """
    def work():
        read, write = os.pipe()
        os.dup2(write, 2)
        os.set_blocking(2, False)
        try:
            while True:
                os.write(2, b"." * 4096)
        except BlockingIOError:
            os.set_blocking(2, True)
        busy()

    run(work)
    """
    code, errors, _ = interrupted(STUCK + textwrap.dedent(program))
    assert (code, errors) == (1, "")


def test_signal_of_forked_process_leaves_parent_alone():
    program = """
    warnings.simplefilter("ignore")  # Python warns of forks beside threads since 3.12

    def work():
        with terminal.stop_on_signals() as stopped:
            child = os.fork()
            if child == 0:
                time.sleep(0.2)
                os.kill(os.getpid(), signal.SIGTERM)
                os._exit(0)
            os.waitpid(child, 0)
            time.sleep(1)
            assert not stopped()
        busy()

    run(work)
    """
    code, errors, _ = interrupted(STUCK + textwrap.dedent(program))
    assert code == 1
    assert re.fullmatch(rf"finishing this step, .*\n{BUSY}", errors)  # the first line is of the child


def test_finished_command_leaves_process_as_it_was():
    descriptors = Path("/dev/fd")

    def state() -> tuple:
        wakeup = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakeup)
        return wakeup, threading.active_count()

    def fail(how: str) -> None:
        if how == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        if how == "error":
            raise ValueError("no")
        seen.append(state())

    inner = Command("inner", callback=fail, params=[click.Argument(["how"])])
    outer = Command(
        "outer", callback=lambda how: inner.main([how], standalone_mode=False), params=[click.Argument(["how"])]
    )
    seen: list[tuple] = []
    CliRunner().invoke(inner, ["nothing"])  # imports what it takes
    read, write = os.pipe()
    os.set_blocking(write, False)
    earlier = signal.set_wakeup_fd(write)
    try:
        before, opened = state(), {*os.listdir(descriptors)}
        seen.clear()
        for command in (inner, outer):
            for how, code in {"nothing": 0, "error": 2, "interrupt": 1}.items():
                assert CliRunner().invoke(command, [how]).exit_code == code
                assert state() == before
                assert {*os.listdir(descriptors)} <= opened  # what earlier tests left open may be closed meanwhile
    finally:
        assert signal.set_wakeup_fd(earlier) == write
        os.close(read)
        os.close(write)
    assert [each[1] - before[1] for each in seen] == [1, 1]  # one thread, of the outermost command
    assert all(each[0] != write for each in seen)


def test_command_in_another_thread_is_not_watched():
    codes = []
    command = Command("work", callback=lambda: codes.append(threading.active_count()))
    before = threading.active_count()
    thread = threading.Thread(target=CliRunner().invoke, args=(command, []))
    thread.start()
    thread.join()
    assert codes == [before + 1]


@pytest.fixture
def run(finished_run) -> Path:
    return Path(shutil.copytree(finished_run, Path("runs") / "first"))


DENSE = ("spectrum", "--method", "dense", "--num-images", "2", "--out", "out")


@pytest.mark.slow
def test_stuck_spectrum_ends_and_can_be_repeated(run):
    program = """
    import threading, torch, cli
    from irevnet.commandline import interruption
    interruption.GRACE = 0.5
    large = torch.rand(6000, 6000, dtype=torch.float64)
    svdvals = torch.linalg.svdvals
    def slow(matrix):
        threading.Timer(1, print, ["busy"], {"flush": True}).start()
        return svdvals(large)
    torch.linalg.svdvals = slow
    cli.analyze()
    """
    code, errors, _ = interrupted(program, *DENSE)
    assert code == 1
    assert re.fullmatch(rf"using .*\n{BUSY}", errors)
    again = CliRunner().invoke(cli.analyze, DENSE)
    assert again.exit_code == 0, again.output


def test_dense_spectrum_stops_between_products_and_goes_on(run, monkeypatch):
    expected = CliRunner().invoke(cli.analyze, [*DENSE[:-1], "expected"])
    assert expected.exit_code == 0, expected.output
    dense, products = LinearOperator.dense, []
    matvec = LinearOperator.matvec

    def interrupt(operator: LinearOperator, vectors: torch.Tensor) -> torch.Tensor:
        products.append(len(vectors))
        if len(products) == interrupt.at:
            os.kill(os.getpid(), signal.SIGINT)
        return matvec(operator, vectors)

    svdvals = torch.linalg.svdvals

    def interrupted_svdvals(matrix: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return svdvals(matrix)

    def assert_stopped(result: Result) -> None:
        assert result.exit_code == 1
        assert result.stdout == ""
        assert re.search(r"\nstopped; the same command goes on \(its work is in .*out.*\)\n$", result.stderr)

    monkeypatch.setattr(LinearOperator, "dense", lambda operator, **options: dense(operator, width=16, **options))
    with monkeypatch.context() as patch:
        patch.setattr(LinearOperator, "matvec", interrupt)
        # In the products of the first image, then twice in those of the second.
        for at, resume, done in ((2, (), 2), (6, ("--resume",), 6), (2, ("--resume",), 2)):
            products.clear()
            interrupt.at = at
            stopped = CliRunner().invoke(cli.analyze, [*DENSE, *resume])
            assert_stopped(stopped)
            assert len(products) == done
        interrupt.at = 0
        products.clear()
        patch.setattr(torch.linalg, "svdvals", interrupted_svdvals)
        assert_stopped(CliRunner().invoke(cli.analyze, [*DENSE, "--resume"]))
        assert len(products) == 4
    with monkeypatch.context() as patch:
        patch.setattr(LinearOperator, "matvec", None)  # both are kept
        resumed = CliRunner().invoke(cli.analyze, [*DENSE, "--resume"])
    assert resumed.exit_code == 0, resumed.output
    found, whole = (SpectrumResult.load(Path(folder)) for folder in ("out", "expected"))
    np.testing.assert_allclose(found.largest, whole.largest, rtol=1e-9)


def test_training_stops_after_step(tmp_path):
    words = ("train", "--epochs", "2000", "--batch-size", "400", "--out", "run")
    ready = Path("run/last.pt").exists
    code, errors, _ = interrupted("import cli; cli.main()", *words, ready=ready)
    assert code == 1
    assert re.fullmatch(
        r"finishing this step, then saving; once more ends at once, without saving\n"
        r"stopped after step [\d,]+ of [\d,]+; go on with 'irevnet train --resume run'\n",
        errors,
    )


def test_study_at_work_ends(run, monkeypatch):
    """It has no handlers of its own."""
    monkeypatch.setattr(IRevNet, "features", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    stopped = CliRunner().invoke(cli.analyze, ["invert"])
    assert stopped.exit_code == 1
    assert re.fullmatch(r"using .*\n\nAborted!\n", stopped.stderr)
    assert not Path("runs/first/analysis/invert/invert.json").exists()
