"""`make test` says which test killed its process, or hung, and then judges no coverage; and which `raise` no test
reaches."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _make_test(folder: Path, body: str, *options: str) -> subprocess.CompletedProcess[str]:
    """`make test` of a file with a test that passes and one of this body."""
    file = folder / "test_some.py"
    file.write_text(f"import os, signal, time\n\ndef test_passes(): pass\n\ndef test_in_question(): {body}\n")
    ignored = "-W ignore"  # coverage warns of what these tests do not import
    tests = f"TESTS=-c {ROOT / 'pyproject.toml'} --rootdir {folder} -n 1 {file} {ignored} {' '.join(options)}"
    make = ["make", "-C", ROOT, "--old-file=.venv/ready", "test", f"BIN={Path(sys.executable).parent}", tests]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "PYTEST_"))}
    environment["COVERAGE_FILE"] = str(folder / "coverage")  # not that of the run which this test is part of
    return subprocess.run(make, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("body", "options", "traceback"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", (), "Fatal Python error: Segmentation fault"),
        ("time.sleep(1000)", ("--override-ini", "faulthandler_timeout=1"), "Timeout (0:00:01)!"),
    ],
    ids=["crashes", "hangs"],
)
def test_test_that_ends_its_process_is_named(body, options, traceback, tmp_path):
    done = _make_test(tmp_path, body, *options)
    assert done.returncode != 0
    assert re.search("worker '.*' crashed while running 'test_some.py::test_in_question'", done.stdout)
    assert traceback in done.stderr
    assert "test_some.py" in done.stderr.partition(traceback)[2]
    assert "TOTAL" not in done.stdout  # no coverage


def test_coverage_is_judged_once_all_tests_have_passed(tmp_path):
    done = _make_test(tmp_path, "import figures.style")
    assert "2 passed" in done.stdout
    assert done.returncode != 0
    assert "Coverage failure: total of" in done.stdout


SOURCE = """
def check(x):
    if x:
        raise ValueError(f"{x!r} is too "
                         f"{'much'}")
    try:
        raise KeyError
    except KeyError as error:
        raise OSError("it is gone") from error

class Kind:
    def convert(self, value):
        self.fail("no " + value)
        raise
"""


def test_unreached_raise_is_named():
    raises = runpy.run_path(str(ROOT / "tests" / "raises.py"))
    sites = sorted(raises["sites_in"](SOURCE, "x.py"), key=lambda site: site.lines.start)
    assert [(site.lines.start, site.lines.stop) for site in sites] == [(4, 6), (9, 10), (13, 14)]

    def complaints(*executed: int, **exceptions: str) -> list[str]:
        return raises["complaints"](sites, lambda file: set(executed), exceptions)

    assert complaints(2, 4, 9, 13) == []
    assert complaints(2, 5, 9) == ["x.py:13 self.fail('no ' + value): reached by no test"]
    assert complaints(2, 5, 9, fail="why") == []
    (idle,) = complaints(2, 5, 9, 13, fail="why")
    assert idle == "'fail': of no one statement that is not reached; take it out of EXCEPTIONS"
    assert len(raises["all_sites"]()) > 200
