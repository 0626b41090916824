"""The origin of a run or a result."""

import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("irevnet-toolkit", "torch", "torchvision", "numpy", "scipy", "scikit-learn")


def provenance(command: Sequence[str]) -> dict[str, Any]:
    """The command, the versions of the packages that compute, the platform, this toolkit's commit, and the time.

    The program is recorded by its name, without the folder that it is installed in.
    """
    program, arguments = command[:1], command[1:]
    return {
        "command": [*(Path(path).name for path in program), *arguments],
        "versions": {name: installed_version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "commit": _source_commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def installed_version(package: str) -> str:
    """The version of a package, or that it is not installed: this toolkit also runs from its source alone."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _source_commit() -> str | None:
    """The git commit of this source tree; `None` if it is not tracked by git, such as in site-packages."""
    here = Path(__file__)
    try:
        for arguments in (["ls-files", "--error-unmatch", here.name], ["rev-parse", "HEAD"]):
            done = subprocess.run(["git", *arguments], cwd=here.parent, capture_output=True, text=True, timeout=10)
            if done.returncode != 0:
                return None
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip()
