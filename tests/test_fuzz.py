"""A few hundred of the inputs of `benchmarks/fuzz.py`, which says what they are and what becomes of them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_hostile_files_are_read_or_refused():
    command = [sys.executable, "benchmarks/fuzz.py", "--inputs", "400", "--check", "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [list(map(int, re.findall(r" (\d+)", line))) for line in done.stdout.splitlines()[1:]]
    inputs, read, refused, findings = map(sum, zip(*rows))
    assert inputs == read + refused >= 390
    assert findings == 0
    assert min(read, refused) > 50  # files that are all broken at once would prove nothing
