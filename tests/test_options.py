"""Values that an option cannot have are answered by one line and exit code 2, and nothing is written."""

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import cli
from irevnet.commandline.options import SEED
from irevnet.commandline.terminal import Classes, ClassNames, File, Floats, Names, Numbers, Part

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")

NUMBERS = "is not a list of numbers; expected numbers and ranges, such as 1,4,8-12"
PLACES = "is not a list of places; expected numbers such as 1,0.5"
PART = "is no part; expected k/n, such as 2/4 for the second of four"
NAMES = "names nothing; expected names such as layer1.0,layer4"
LINES = "expected a file with one class name per line"
TEXT = "expected a text file with one class name per line"

WRONG_VALUES = [
    *(
        (Numbers(), value, NUMBERS)
        for value in ("", "word", "0x10", "1;2", "-1", "1-", "1,,2", "1-9999999", 5000 * "1")
    ),
    (Numbers(), "1,3-1", "'3-1' is an empty range; expected the lower number first"),
    *((Floats("places", "1,0.5"), value, PLACES) for value in ("word", "1;2", "nan", "1,inf", "1e999", "1,half")),
    *((Part(), value, PART) for value in ("", "word", "2", "0/2", "3/2", "1/0", "-1/2", f"1/{5000 * '1'}")),
    *((Names(), value, NAMES) for value in ("", ",", " , ")),
    (File(), "", "it is empty; expected the path of a file or a folder"),
    *((Classes(), value, f"is neither a number nor a file; {LINES}") for value in ("", "-1", "1.5", "absent", ".")),
    *((ClassNames(), value, f"is no file; {LINES}") for value in ("", "3", "absent", ".")),
    *((kind, "binary", f"binary cannot be read: .*; {TEXT}") for kind in (Classes(), ClassNames())),
    *((kind, 300 * "a", ".*name per line") for kind in (Classes(), ClassNames())),  # as the system says it
    *((SEED, value, ".* is not .*") for value in ("-1", str(2**32), "1.5")),
]


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    WRONG_VALUES,
    ids=[f"{type(kind).__name__} {value[:12]!r}" for kind, value, _ in WRONG_VALUES],
)
def test_wrong_value_is_refused(kind, value, message):
    Path("binary").write_bytes(bytes(range(256)))
    with pytest.raises(click.BadParameter, match=message):
        kind.convert(value, None, None)


def test_value_becomes_what_is_meant():
    Path("names.txt").write_text("8\n\n 1 \n3\n")
    for kind, value, expected in [
        (Numbers(), "3", [3]),
        (Numbers(), "4,1", [1, 4]),
        (Numbers(), "1,8-10", [1, 8, 9, 10]),
        (Numbers(), "2-3, 3-4", [2, 3, 4]),
        (Floats("places", "1,0.5"), "1,0.5, -2e0", (1.0, 0.5, -2.0)),
        (Part(), "2/2", (2, 2)),
        (Names(), "layer1.0, layer4,", ["layer1.0", "layer4"]),
        (Names(), "a*,b.{0, 5}.c,{", ["a*", "b.{0, 5}.c", "{"]),
        (File(), "some/file", Path("some/file")),
        (Classes(), "3", 3),
        (Classes(), "names.txt", ("8", "1", "3")),
        (ClassNames(), "names.txt", ("8", "1", "3")),
    ]:
        assert kind.convert(value, None, None) == expected


WRONG = {
    "train": ["--batch-size", "1e3"],
    "evaluate": ["--bits", "25"],
    "models": ["--json=yes"],
    "encode": ["a.png", "-o", ""],
    "decode": ["a.npz", "-o", ""],
    "apply-probes": ["x.npz", "--bits", "25"],
    "features": ["--part", "0/2"],
    "layers": ["--device", "tpu"],
    "depth-probe": ["--depths", "3-1"],
    "pca": ["--dims", "1;2"],
    "geometry": ["--num-images", "2"],
    "invert": ["--num-noise", "-1"],
    "interpolate": ["--t", "1,half"],
    "metamers": ["--kind", "nearest"],
    "spectrum": ["--method", "Dense"],
    "training-curves": ["--window", "0"],
    "all": ["--classes", "absent.txt"],
    "report": ["--out", ""],
    "reproduce": [""],
}
"""For each command an option that it cannot take."""


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in (cli.main, cli.analyze) for name in group.commands]
)
def test_command_with_wrong_value_ends_with_code_2(group, name):
    result = CliRunner().invoke(group, [name, *WRONG[name]])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    *usage, error = result.stderr.splitlines()
    assert [line.split(" ")[0] for line in usage] in ([], ["Usage:", "Try", ""])  # none where a flag has a value
    assert re.match(r"Error: (Invalid value for '|Option '--json' does not take a value)", error), error
    assert not list(Path().iterdir())
