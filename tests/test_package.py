"""What is installed."""

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import irevnet

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_the_four_names_and_nothing_else(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("irevnet", "analysis", "figures", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("cli.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path,
        source,
    ]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"irevnet", "analysis", "figures", "cli.py"}
    assert {"irevnet/py.typed", "analysis/py.typed", "figures/py.typed"} <= set(names)
    assert {f"figures/report/page.{suffix}" for suffix in ("html.jinja", "css", "js")} <= set(names)
    assert any(name.endswith("LICENSE") for name in names)


def test_both_commands_are_installed():
    commands = {entry.name: entry.value for entry in entry_points(group="console_scripts")}
    assert commands["irevnet"] == "cli:main"
    assert commands["irevnet-analyze"] == "cli:analyze"


def test_the_library_says_what_it_has_and_imports_it_when_asked():
    assert dir(irevnet) == sorted(irevnet.__all__) == sorted(irevnet._MODULES)
    for name in irevnet.__all__:
        assert getattr(irevnet, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'irevnet' has no attribute 'IRevnet'"):
        _ = irevnet.IRevnet
    code = "import sys, irevnet; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
