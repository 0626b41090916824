"""Uses the wheel and runs the tests by release of torch, instruction set and number of threads: `make test-matrix`.

Each release runs the whole suite in one configuration (`make test` runs it with the processor's own instructions), and
the numerical tests in all others, with AVX2 and without. Runs are of a clone of a commit, one after the other. What
each found is kept in build/matrix/results, and one that passed is not repeated.
"""

import argparse
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
MATRIX = ROOT / "build" / "matrix"
UV = Path(sys.executable).with_name("uv")

RELEASES = {  # environment: what uv is told
    "lowest-direct": ["--resolution", "lowest-direct"],  # pyproject.toml names the oldest versions
    "torch-2.9.1": ["torch==2.9.1"],
    "torch-2.14.1": ["torch==2.14.1"],
    "highest": ["--resolution", "highest", "--upgrade"],
}
INSTRUCTIONS = {
    "own": {},  # with the wheel, and `make test`
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "default": {"ATEN_CPU_CAPABILITY": "default"},
}
THREADS = (1, 2)

WHOLE = {  # on one thread, so that there is a process for each core
    ("lowest-direct", "default", 1),
    ("torch-2.9.1", "AVX2", 1),
    ("torch-2.14.1", "default", 1),
    ("highest", "AVX2", 1),
}

NOT_NUMERICAL = [
    "tests/analysis/results",
    "tests/analysis/features/test_store.py",
    "tests/analysis/studies/test_training_curves.py",
    "tests/analysis/test_findings.py",
    *(
        f"tests/irevnet/{name}"
        for name in ("data/test_datasets.py", "training/test_runs.py", "training/test_settings.py")
    ),
    "tests/irevnet/utils",
]
"""What of tests/analysis and tests/irevnet the numerical runs leave out: commands, processes and files."""

COMMANDS = [
    "irevnet --version",
    "irevnet train --epochs 1",
    "irevnet evaluate",
    "irevnet-analyze invert --num-noise 20 --num-images 2 --depths 1,12",
]
"""What is run with the wheel alone, without what it takes to develop."""


@dataclass(frozen=True)
class Run:
    """A configuration, and what is run: the wheel, the whole suite, or the numerical tests."""

    tests: str
    release: str
    instructions: str = "own"
    threads: int = 1

    @property
    def name(self) -> str:
        return f"{self.tests}-{self.release}-{self.instructions}-{self.threads}"

    def environment(self, source: Path) -> dict[str, str]:
        """That of this process but for what the configuration says, with the clone before what is installed."""
        kept = {name: value for name, value in os.environ.items() if name not in INSTRUCTIONS["AVX2"]}
        threads = {"OMP_NUM_THREADS": str(self.threads), "PYTHONPATH": str(source)}
        return kept | INSTRUCTIONS[self.instructions] | threads


RUNS = [
    *(Run("wheel", release) for release in RELEASES),
    *(Run("whole", *configuration) for configuration in sorted(WHOLE, key=lambda each: [*RELEASES].index(each[0]))),
    *(
        Run("numerical", *configuration)
        for configuration in product(RELEASES, ("AVX2", "default"), THREADS)
        if configuration not in WHOLE
    ),
]


def _clone(commit: str) -> Path:
    """The files of a commit, which nobody edits while the tests run."""
    source = MATRIX / "sources" / commit
    if not source.exists():
        unfinished = source.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", ROOT, unfinished], check=True)
        subprocess.run(["git", "-C", unfinished, "checkout", "--quiet", "--detach", commit], check=True)
        unfinished.rename(source)
    return source


def _install(environment: Path, release: str, *what: str | Path, source: Path) -> None:
    """Installs into an environment, which is made where it is missing."""
    if not environment.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [UV, "pip", "install", "--quiet", "--python", python, *RELEASES[release], *what], cwd=source, check=True
    )


def _ready(release: str, source: Path) -> Path:
    """The environment with everything for the tests of a release."""
    environment = MATRIX / release
    if not (environment / "ready").exists():
        _install(environment, release, "--editable", f"{ROOT}[dev]", source=source)
        (environment / "ready").touch()
    return environment / "bin"


def _use_wheel(run: Run, source: Path, log: Path) -> tuple[int, str]:
    """The exit status of what went wrong or of the last command, and a word of it."""
    folder = MATRIX / f"wheel-{run.release}"
    shutil.rmtree(folder, ignore_errors=True)
    _install(folder, run.release, "--requirement", "pyproject.toml", source=source)
    built = ["pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source]
    subprocess.run([sys.executable, "-m", *built], check=True)
    subprocess.run(
        [UV, "pip", "install", "--quiet", "--python", folder / "bin" / "python", "--no-deps", *folder.glob("*.whl")],
        check=True,
    )
    environment = run.environment(source)
    del environment["PYTHONPATH"]
    steps = [[UV, "pip", "check", "--python", folder / "bin" / "python"]]
    steps += [[folder / "bin" / command.split()[0], *command.split()[1:]] for command in COMMANDS]
    (folder / "used").mkdir()
    with log.open("w") as output:
        for step in steps:
            done = subprocess.run(step, cwd=folder / "used", env=environment, stdout=output, stderr=subprocess.STDOUT)
            if done.returncode != 0:
                return done.returncode, f"failed: {' '.join(map(str, step))}"
    shutil.rmtree(folder)
    return 0, f"{len(COMMANDS)} commands passed"


def _run_tests(run: Run, source: Path, log: Path, chosen: list[str]) -> tuple[int, str]:
    """The exit status of pytest, and the line that it ends with."""
    numerical = ["tests/analysis", "tests/irevnet", *(f"--ignore={path}" for path in NOT_NUMERICAL)]
    workers = min(8, max(1, len(os.sched_getaffinity(0)) // run.threads))
    options = [f"--numprocesses={workers}", "--dist=worksteal", "--max-worker-restart=0"]
    options += ["--override-ini", "faulthandler_timeout=3600"]  # nothing but the slowest is to be waited for
    if run.release == "lowest-direct":  # what old releases warn of has been mended in new ones
        options += ["-W", "ignore::DeprecationWarning"]
    tests = chosen or (numerical if run.tests == "numerical" else [])
    command = [_ready(run.release, source) / "python", "-m", "pytest", *options, *tests]
    with log.open("w") as output:
        done = subprocess.run(command, cwd=source, env=run.environment(source), stdout=output, stderr=subprocess.STDOUT)
    lines = re.findall(r"^=+ (.* in [\d.]+s.*?) =+$", log.read_text(errors="replace"), re.MULTILINE)
    return done.returncode, lines[-1] if lines else "ended without a summary"


def _do(run: Run, source: Path, results: Path, chosen: list[str]) -> None:
    """Runs what has not passed yet, and keeps what it found."""
    result, log = results / f"{run.name}.json", results / f"{run.name}.log"
    if result.exists() and json.loads(result.read_text())["status"] == 0:
        return
    print(f"{time.strftime('%H:%M')} {run.name}", flush=True)
    begun = time.monotonic()
    try:
        status, summary = _use_wheel(run, source, log) if run.tests == "wheel" else _run_tests(run, source, log, chosen)
    except subprocess.CalledProcessError as error:  # no environment: the others may have theirs
        status, summary = error.returncode, f"failed: {' '.join(map(str, error.cmd))}"
    found = {"status": status, "summary": summary, "seconds": round(time.monotonic() - begun)}
    unfinished = result.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(dataclasses.asdict(run) | found) + "\n")
    unfinished.rename(result)
    print(f"      {summary}" + (f"; see {log}" if status else ""), flush=True)


def _version(release: str) -> str:
    found = [*(MATRIX / release).glob("lib/python*/site-packages/torch-*.dist-info")]
    return re.sub(r"^torch-|\+.*|\.dist-info$", "", found[0].name) if found else release


def table(results: Path) -> str:
    """What was found, in Markdown."""
    lines = ["| torch | instruction set | threads | tests | result | seconds |", "|---|---|---|---|---|---|"]
    for run in RUNS:
        result = results / f"{run.name}.json"
        found = json.loads(result.read_text()) if result.exists() else {"summary": "not run", "seconds": ""}
        summary = re.sub(r" in [\d.]+s.*", "", found["summary"])
        configuration = f"{_version(run.release)} | {run.instructions} | {run.threads} | {run.tests}"
        lines.append(f"| {configuration} | {summary} | {found['seconds']} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="wheel|whole|numerical|table", help="which runs (default: all)")
    parser.add_argument("--commit", default="HEAD", help="what is tested (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="TEXT", help="runs with this in their names")
    parser.add_argument("--tests", nargs="+", default=[], metavar="FILE", help="these tests instead, as a trial")
    options = parser.parse_args()
    if unknown := {*options.kinds} - {"wheel", "whole", "numerical", "table"}:
        parser.error(f"there are no runs {', '.join(sorted(unknown))}")
    revision = ["git", "-C", ROOT, "rev-parse", "--short=12", f"{options.commit}^{{commit}}"]
    commit = subprocess.run(revision, check=True, capture_output=True, text=True).stdout.strip()
    results = MATRIX / "results" / (f"{commit}-trial" if options.tests else commit)
    results.mkdir(parents=True, exist_ok=True)
    runs = [run for run in RUNS if run.tests in (options.kinds or ("wheel", "whole", "numerical"))]
    runs = [run for run in runs if options.only in run.name]
    for run in runs:
        _do(run, _clone(commit), results, options.tests)
    print(f"Commit {commit}:\n\n{table(results)}")
    files = [results / f"{run.name}.json" for run in runs]
    return int(any(json.loads(file.read_text())["status"] for file in files))


if __name__ == "__main__":
    sys.exit(main())
