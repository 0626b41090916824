"""Whether anything is lost when a process is killed by `kill -9` at random moments, again and again until it is done.

    OMP_NUM_THREADS=1 python benchmarks/faults.py              # 240 kills: writes results/faults.*
    OMP_NUM_THREADS=1 python benchmarks/faults.py --kills 12   # a dozen, which writes nothing

Training, extraction of features, the probes, a spectrum and the report are begun, killed and gone on with as a user
would: by the same command, or with --resume. They save as often as they can, so that many a kill falls into the writing
of a file. After each kill every file that is there has to load; in the end all files have to be, to the last bit, those
of work that was never interrupted, but for times. Exits with 1 if not.
"""

import argparse
import csv
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from recording import environment, save_results

import analysis.features.extract
import analysis.linalg.autosave
import cli
import figures.report.page  # noqa: F401  (here, so that what is killed need not import it)
import irevnet.training.runs
from irevnet import read_checkpoint
from irevnet.utils.files import contents

RECORDED = 200
"""Kills from which on the results are written down."""

VOLATILE = {"seconds", "wall_seconds", "time", "commit", "provenance", "record", "command", "processes"}
"""What tells when and how something was made, rather than what it is."""


@dataclass
class Work:
    """Something to be done, in a folder of its own.

    Attributes:
        begin: the words of its command.
        resume: those that go on with it, where it left something.
        left: whether it left something, given its folder.
        kills: what became of it each time: seconds from its start, and the files that were there.
        wrong: what was not as it should be.
    """

    name: str
    begin: list[str]
    resume: list[str]
    left: Callable[[Path], bool]
    kills: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    finished: int = 0


def works(run: Path) -> list[Work]:
    """All of them, each of which writes to OUT."""
    network = ["--ckpt", str(run)]
    train = ["train", "--epochs", "3", "-b", "200", "--augmentation", "cifar"]
    features = ["features", *network, "--depths", "1,6,12", "-b", "100", "--features", "OUT"]
    probe = ["depth-probe", *network, "--depths", "1,12", "--classes", "4", "--features", "OUT/f", "--out", "OUT/r"]
    spectrum = ["spectrum", *network, "--num-images", "6", "--method", "lanczos", "--num-values", "12", "--out", "OUT"]
    spectrum += ["--block-width", "4"]
    report = ["report", str(run), "--out", "OUT/page.html"]

    def begun(out: Path) -> bool:
        return (out / "config.json").is_file()

    def kept(out: Path) -> bool:
        state = out / "spectrum.state"
        return state.is_dir() and any(path.name != "settings.json" for path in contents(state))

    return [
        Work("training", [*train, "--out", "OUT"], ["train", "--resume", "OUT"], begun),
        Work("features", features, features, begun),
        Work("probes", probe, probe, begun),
        Work("spectrum", spectrum, spectrum, kept),
        Work("report", report, report, begun),
    ]


def start(words: list[str], out: Path, log: Path) -> int:
    """A process of its own, which has everything imported already, at a command."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        irevnet.training.runs.SAVE_EVERY = analysis.features.extract.FLUSH_SECONDS = 0.0
        analysis.linalg.autosave.Autosave.__init__.__kwdefaults__["seconds"] = 0.0
        group = cli.analyze if words[0] in cli.analyze.commands else cli.main
        group.main([word.replace("OUT", str(out)) for word in words])
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(child: int, seconds: float | None) -> int | None:
    """The exit code of a process that ended by then; otherwise it is killed, and `None`."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.0005)


def read(path: Path) -> Any:
    """What a file holds, but for times; raises an error if it is not whole."""
    match path.suffix:
        case ".pt":
            content = torch.load(path, weights_only=True)
            read_checkpoint(path)
            return without_times(content)
        case ".npy":
            return bits(np.load(path, allow_pickle=False))
        case ".npz":
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: bits(arrays[name]) for name in arrays.files}
        case ".csv":
            with open(path, newline="") as file:
                return without_times(list(csv.DictReader(file)))
        case ".json":
            return without_times(json.loads(path.read_text()))
        case ".png":
            with Image.open(path) as image:
                return bits(np.asarray(image))
        case ".pdf":
            content = path.read_bytes()
            assert content.startswith(b"%PDF")
            assert content.rstrip().endswith(b"%%EOF")
            return len(content) > 0
        case ".html":
            text = path.read_text()
            assert text.lower().startswith("<!doctype html>")
            assert text.rstrip().endswith("</html>")
            return text
        case ".txt":
            return path.read_text()
        case ".bin":  # which its state.npz says how much of is meant
            return None
    raise ValueError(f"nothing is known of files like {path.name}")


def bits(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    """All of an array, which is equal to itself even where it is not a number."""
    return str(array.dtype), array.shape, array.tobytes()


def without_times(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: without_times(value) for key, value in content.items() if key not in VOLATILE}
    if isinstance(content, list):
        return [without_times(value) for value in content]
    return bits(content.numpy()) if isinstance(content, torch.Tensor) else content


def read_all(folder: Path) -> dict[str, Any]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): read(path) for path in paths}


def endure(work: Work, count: int, generator: np.random.Generator, place: Path) -> None:
    """Kills the work so many times, and looks at what it leaves."""
    log = place / "log"
    out = place / work.name
    begun = time.monotonic()
    if wait(start(work.begin, out, log), None) != 0:
        work.wrong.append(f"it does not work at all: {log.read_text()[-300:]}")
        return
    seconds = time.monotonic() - begun
    expected = read_all(out)
    shutil.rmtree(out)
    while len(work.kills) < count and not work.wrong:
        code = None
        while code is None and not work.wrong:
            resuming = work.left(out)
            spared = len(work.kills) >= count
            moment = None if spared else float(generator.uniform(0, seconds))
            begun = time.monotonic()
            code = wait(start(work.resume if resuming else work.begin, out, log), moment)
            if (
                code == 0 and not resuming
            ):  # the first time may have been a slow one, and most kills would come too late
                seconds = min(seconds, time.monotonic() - begun)
            try:
                there = list(read_all(out)) if out.exists() else []
            except Exception as error:
                work.wrong.append(f"after kill {len(work.kills) + 1}: {type(error).__name__}: {error}")
            else:
                if code is None:
                    work.kills.append({"seconds": moment, "resuming": resuming, "files": len(there)})
                elif code != 0:
                    work.wrong.append(f"exit code {code} after kill {len(work.kills)}: {log.read_text()[-300:]}")
        if work.wrong:
            break
        found = read_all(out)
        work.wrong += [name for name in {*found, *expected} if found.get(name) != expected.get(name)]
        left = [path.name for path in out.rglob(".*")]
        work.wrong += [f"{name} is left" for name in left]
        work.finished += 1
        shutil.rmtree(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run = place / "run"
        log = place / "log"
        for words in (
            ["train", "--epochs", "2", "--out", str(run)],
            ["invert", "--ckpt", str(run), "--num-noise", "20"],
        ):
            if wait(start(words, place, log), None) != 0:
                sys.exit(log.read_text())
        rows = works(run)
        for number, work in enumerate(rows):
            share = (options.kills * (number + 1)) // len(rows) - (options.kills * number) // len(rows)
            endure(work, share, generator, place)
            print(f"{work.name}: {len(work.kills)} kills, {work.finished} times to the end", file=sys.stderr)
            for wrong in work.wrong:
                print(f"{work.name}: WRONG: {wrong}", file=sys.stderr)
    if options.kills >= RECORDED:
        table = pd.DataFrame(
            {
                "work": work.name,
                "kills": len(work.kills),
                "of_those_resumed": sum(kill["resuming"] for kill in work.kills),
                "times_to_the_end": work.finished,
                "wrong": len(work.wrong),
            }
            for work in rows
        )
        kills = [{"work": work.name, **kill} for work in rows for kill in work.kills]
        save_results("faults", table, kills, environment(seed=options.seed))
    return 1 if any(work.wrong for work in rows) else 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
