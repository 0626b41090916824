"""Every option and argument of every command is given values that it cannot have: each is answered by one line and exit
code 2, and nothing is written. The values follow from the kind of the option; `NAMED` has those that a kind does not
tell. A kind without wrong values fails."""

import builtins
import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import cli
from irevnet.commandline.terminal import Classes, ClassNames, File, Floats, Names, Numbers, Part

WORDS = ["", "word", "1e999", "1;2", "0x10"]
"""Which are no number."""

FILES = ["", "absent", "full", "thesis.tex", "thesis.tex/below", "locked", 300 * "1"]
"""Nothing, a folder, a file of another kind, what cannot be, a file that cannot be read, and too long a name."""

FOLDERS = ["", "full", "thesis.tex", "thesis.tex/below", "locked", 300 * "1"]
"""Where no folder of results can be."""

NAMED: dict[str, list[str]] = {
    "ckpt": FILES,
    "data": FILES,
    "data_root": FILES,
    "direction": ["", "up", "pc:0", "pc:1e9", "pc:65", "svm:4", "svm:4-4", "svm:4-eleven"],
    "features_root": ["", "thesis.tex", "thesis.tex/below", "locked", 300 * "1"],
    "file": FILES,
    "images": FILES,
    "layer": ["", "block-1", "absent"],
    "model": ["", "irevnet-smal", "torchvision:", "torchvision:resnet19"],
    "out": FOLDERS,
    "pairs": FILES,
    "report": FILES,
    "resume": FILES,
    "runs": FILES,
    # of the numbers that the library bounds
    "batch_size": ["-1", "0", "1", "1438"],
    "check_reconstruction": ["-1", "1"],
    "decay": ["-1", "0", "nan", "inf"],
    "epochs": ["-1", "0"],
    "learning_rate": ["-1", "0", "nan", "inf"],
    "momentum": ["-0.1", "1", "nan", "inf"],
    "steps": ["-1", "0"],
    "weight_decay": ["-1", "nan", "inf"],
}
"""Wrong values of parameters whose kind does not tell them."""

MORE = {
    "class_seed": ["--classes", "3"],
    "data_root": ["--data", "cifar10"],
    "decay": ["--schedule", "step"],
    "decay_at": ["--schedule", "step"],
}
"""What else has to be given for a parameter to matter."""

NEEDED = {
    "encode": {"images": ["grey.png"], "out": ["-o", "phi.npz"]},
    "decode": {"file": ["grey.npz"], "out": ["-o", "images"]},
    "reproduce": {"report": ["absent"]},
    "train": {"max_steps": ["--max-steps", "1"]},  # not much is lost where a wrong value is taken
}
"""What a command is given beside the parameter that is tried."""

COMMANDS = [(group, name) for group in (cli.main, cli.analyze) for name in group.commands]
PARAMETERS = [
    pytest.param(group, name, parameter, id=f"{name} {parameter.opts[0]}")
    for group, name in COMMANDS
    for parameter in group.commands[name].params
]


def wrong_values(parameter: click.Parameter) -> list[str]:
    """Values that a parameter of that kind cannot have."""
    kind = parameter.type
    assert parameter.name is not None
    match kind:
        case click.Choice():
            return ["", "word", f"{kind.choices[0]}s", kind.choices[0].upper()]
        case click.types._NumberRangeBase():
            assert kind.min is not None or kind.max is not None
            outside = [kind.min if kind.min is None or kind.min_open else kind.min - 1, kind.max and kind.max + 1]
            return [*WORDS, "nan", "-inf", *(str(value) for value in outside if value is not None)]
        case click.types.IntParamType():
            return [*WORDS, "nan", "1.5", *NAMED[parameter.name]]
        case click.types.FloatParamType():
            return [*(word for word in WORDS if word != "1e999"), *NAMED[parameter.name]]
        case Numbers():
            return [*WORDS, "-1", "1-", "3-1", "1,,2", "1-9999999", 5000 * "1"]
        case Floats():
            return [*WORDS[1:], "nan", "1,inf", *(["0.5"] if parameter.name == "t" else ["0", "1", "-0.5"])]
        case Names():
            return ["", ",", "absent", "blocks.1,absent"]
        case Part():
            return [*WORDS, "2", "0/2", "3/2", "1/0", f"1/{5000 * '1'}"]
        case Classes():
            return [*WORDS, "1", "11", "-1", *FILES[1:], "binary", "seven.txt"]
        case ClassNames():
            return [*WORDS, "1", *FILES[1:], "binary", "seven.txt"]
        case File() | click.types.StringParamType():
            return NAMED[parameter.name]
    raise AssertionError(f"there are no wrong values of a {type(kind).__name__}; give some here")


def command_lines(name: str, parameter: click.Parameter) -> Iterator[list[str]]:
    """A command with each wrong value of a parameter."""
    rest = [word for other, words in NEEDED.get(name, {}).items() if other != parameter.name for word in words]
    rest += MORE.get(parameter.name or "", [])
    if isinstance(parameter, click.Option) and parameter.is_flag:
        yield from ([name, *rest, f"{flag}=yes"] for flag in (*parameter.opts, *parameter.secondary_opts))
        return
    for value in wrong_values(parameter):
        if isinstance(parameter, click.Argument):
            yield [name, *rest, "--", *([value] * (2 if name == "interpolate" else 1))]
        else:
            yield [name, *rest, f"{parameter.opts[-1]}={value}"]


@pytest.fixture(scope="module")
def folder(finished_run, tmp_path_factory) -> Iterator[Path]:
    """The folder that all commands are run in, and never change."""
    folder = tmp_path_factory.mktemp("options")
    torch.manual_seed(0)
    with contextlib.chdir(folder):
        shutil.copytree(finished_run, Path("runs") / "first")
        Path("full").mkdir()
        Path("full/precious").write_text("results of another study")
        Path("full/grey.png").write_text("another image")
        Path("thesis.tex").write_text("years of work")
        Path("locked").write_text("secret")
        Path("binary").write_bytes(bytes(range(256)))
        Path("seven.txt").write_text("3\nseven\n")
        Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save("grey.png")
        assert CliRunner().invoke(cli.main, ["encode", "grey.png", "-o", "grey.npz"]).exit_code == 0
        yield folder


@pytest.fixture
def _locked(monkeypatch) -> None:
    """Lets nobody read the file that is called so: who runs the tests may be root, who may read everything."""
    opened = builtins.open

    def guarded(file: Any, *args: Any, **options: Any) -> Any:
        if isinstance(file, str | os.PathLike) and Path(file).name == "locked":
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *args, **options)

    monkeypatch.setattr(builtins, "open", guarded)
    monkeypatch.setattr(io, "open", guarded)


def stamps() -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in Path().rglob("*") if path.is_file()}


@pytest.mark.usefixtures("_locked", "unchecked_types")  # types would answer some values before the toolkit does
@pytest.mark.parametrize(("group", "name", "parameter"), PARAMETERS)
def test_a_wrong_value_is_answered_in_one_line(folder, group, name, parameter):
    tried = 0
    for words in command_lines(name, parameter):
        before = stamps()
        result = CliRunner().invoke(group, words)
        assert result.exit_code == 2, f"{words}: {result.output}"
        assert isinstance(result.exception, SystemExit)
        assert result.stdout == ""
        *usage, error = [line for line in result.stderr.splitlines() if not line.startswith("using ")]
        assert error.startswith("Error: ")
        assert [line.split(" ")[0] for line in usage] in ([], ["Usage:", "Try", ""])
        assert stamps() == before, words
        tried += 1
    assert tried


def test_a_kind_without_wrong_values_is_noticed():
    class Colour(click.ParamType):
        name = "colour"

    with pytest.raises(AssertionError, match="there are no wrong values of a Colour; give some here"):
        wrong_values(click.Option(["--colour"], type=Colour()))
    with pytest.raises(KeyError, match="name"):
        wrong_values(click.Option(["--name"]))
