"""What is installed."""

import importlib
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

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
    typed = {
        f"{package}/{name}" for package in ("irevnet", "analysis", "figures") for name in ("py.typed", "__init__.pyi")
    }
    assert typed <= set(names)
    assert {f"figures/report/page.{suffix}" for suffix in ("html.jinja", "css", "js")} <= set(names)
    assert "irevnet/data/imagenet_synsets.txt" in names
    pretrained = {
        f"irevnet/pretrained/{data}-{net}.pt" for data in ("cifar10", "cifar100") for net in ("irevnet", "resnet")
    }
    assert pretrained <= set(names)
    assert any(name.endswith("LICENSE") for name in names)


def test_both_commands_are_installed():
    commands = {entry.name: entry.value for entry in entry_points(group="console_scripts")}
    assert commands["irevnet"] == "cli:main"
    assert commands["irevnet-analyze"] == "cli:analyze"


@pytest.mark.parametrize("package", ["irevnet", "analysis", "figures"])
def test_public_names_are_imported_when_first_used(package):
    module = importlib.import_module(package)
    assert dir(module) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
    with pytest.raises(AttributeError, match=f"No {package} attribute plots"):
        _ = module.plots
    code = f"import sys, {package}; assert not {{'torch', 'matplotlib'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
