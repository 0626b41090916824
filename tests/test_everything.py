"""`irevnet-analyze all`, `report` and `reproduce`."""

import json
import re
import shutil
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import cli
from irevnet import read_checkpoint, save_checkpoint

STUDIES = ["training-curves", "invert", "interpolate", "spectrum", "depth-probe", "pca", "geometry", "metamers"]


pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "blank_figures")


@pytest.fixture
def run(small_run) -> Path:
    return shutil.copytree(small_run, Path("runs") / "first")


@pytest.fixture
def light(monkeypatch) -> list[str]:
    """Studies that do nothing; the names of those that were run."""
    called: list[str] = []
    monkeypatch.setattr(cli, "_compute", lambda study, subjects, options: called.append(study))
    return called


@pytest.fixture
def in_tf32(monkeypatch) -> set[bool]:
    """Whether convolutions were computed in TF32, which a GPU has, and PyTorch uses unless it is told otherwise."""
    found: set[bool] = set()
    convolve = torch.nn.Conv2d.forward

    def forward(self: torch.nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        found.add(torch.backends.cudnn.allow_tf32)
        return convolve(self, x)

    assert torch.backends.cudnn.allow_tf32
    monkeypatch.setattr(torch.nn.Conv2d, "forward", forward)
    return found


def raising(monkeypatch: pytest.MonkeyPatch, called: list[str], **errors: Exception) -> None:
    """Has some studies end with an error, and the others do nothing."""

    def compute(study: str, subjects: object, options: object) -> None:
        if study in errors:
            raise errors[study]
        called.append(study)

    monkeypatch.setattr(cli, "_compute", compute)


def analyze(*arguments: str) -> Result:
    return CliRunner().invoke(cli.analyze, arguments)


def states(*arguments: str) -> dict[str, str]:
    """The state of each study."""
    done = analyze("all", *arguments, "--json")
    assert done.exit_code == 0, done.output
    return {row["study"]: row["state"] for row in json.loads(done.stdout)["studies"]}


def test_moving_average_of_short_run_is_short(run):
    for steps, words in ((7, ["--window", "7"]), (100, [])):
        lines = "".join(f"{step},0.1\n" for step in range(1, steps + 1))
        (run / "losses.csv").write_text(f"step,loss\n{lines}")
        (first, *_) = json.loads(analyze("all", "--dry-run", "--json").stdout)["studies"]
        assert first["command"].split() == ["irevnet-analyze", "training-curves", "runs/first", *words]


def test_every_study_is_run_once_and_put_on_one_page(run):
    first = analyze("all")
    assert first.exit_code == 0, first.output
    assert first.stdout.splitlines()[-1] == "runs/first/report.html"
    assert [line.split()[:2] for line in first.stdout.splitlines()[2:-1]] == [[study, "done"] for study in STUDIES]
    assert "[2/8] irevnet-analyze invert --ckpt runs/first --num-noise 108: due" in first.stderr
    text = Path("runs/first/report.html").read_text()
    assert "What irevnet-small learned" in text
    assert "has not been run" not in text

    files = {path: path.stat().st_mtime_ns for path in Path("runs/first/analysis").rglob("*.*")}
    assert set(states().values()) == {"up to date"}
    assert {path: path.stat().st_mtime_ns for path in Path("runs/first/analysis").rglob("*.*")} == files

    rebuilt = analyze("reproduce", "runs/first/report.html")
    assert rebuilt.exit_code == 0, rebuilt.output
    commands = [line for line in rebuilt.stdout.splitlines() if not line.startswith("#")]
    assert commands[-8:-1] == [
        "irevnet-analyze invert --ckpt runs/first --num-noise 108",
        *(f"irevnet-analyze {study} --ckpt runs/first" for study in STUDIES[2:]),
    ]
    assert commands[-1] == "irevnet-analyze report runs/first --out runs/first/report.html"
    asked = json.loads(analyze("reproduce", "runs/first/report.html", "--json").stdout)
    assert len([step for step in asked["steps"] if step["command"]]) == len(commands)

    # What is of another seed, data or weights is not up to date, and what was interrupted is not there.
    due = {study: "due" for study in STUDIES[1:]}
    assert states("--dry-run", "--seed", "1") == {"training-curves": "up to date", **due}
    assert states("--dry-run", "--classes", "2") == {"training-curves": "up to date", **due}
    for place in (Path("others") / split / digit for split in ("train", "val") for digit in "138"):
        place.mkdir(parents=True)
        Image.fromarray(np.full((8, 8), 7, dtype=np.uint8)).save(place / "a.png")
    assert states("--dry-run", "--data", "others") == {"training-curves": "up to date", **due}  # the same three classes
    Path("runs/first/analysis/spectrum/spectrum.json").unlink()
    assert [study for study, state in states("--dry-run").items() if state == "due"] == ["spectrum"]
    Path("runs/first/analysis/pca/pca.npz").write_bytes(b"damaged")
    assert [study for study, state in states("--dry-run").items() if state == "due"] == ["spectrum", "pca"]
    losses = Path("runs/first/losses.csv")
    losses.write_text(losses.read_text() + "7,0.1\n")
    assert states("--dry-run")["training-curves"] == "due"
    checkpoint = read_checkpoint(run / "last.pt")
    with torch.no_grad():
        next(checkpoint.model.parameters()).add_(1e-6)
    save_checkpoint(run / "last.pt", checkpoint)
    assert states("--dry-run") == {"training-curves": "due", **due}


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_every_study_takes_any_precision_and_is_without_tf32(run, precision, in_tf32):
    checkpoint = read_checkpoint(run / "last.pt")
    checkpoint.model.to(precision)
    save_checkpoint(Path("model.pt"), checkpoint)
    done = analyze("all", "--ckpt", "model.pt", "--json")
    found = {row["study"]: (row["state"], row["reason"]) for row in json.loads(done.stdout)["studies"]}
    state, reason = found.pop("metamers")  # in half precision perhaps no image has logits that are another's to 1e-5
    assert state == "done" or (precision.itemsize == 2 and "image has the logits asked for: the nearest" in reason)
    assert {state for state, _ in found.values()} == {"done", "not applicable"}
    if state == "done":
        with np.load("model-analysis/metamers/metamers.npz") as kept:
            dtypes = {kept[name].dtype for name in ("source", "metamer")}
        assert dtypes == {np.dtype(f"f{max(4, precision.itemsize)}")}
    assert in_tf32 == {False}


def test_studies_over_training_are_on_the_page_where_they_were_made(run):
    assert "over training" not in analyze("all", "--dry-run").stdout
    assert analyze("report").exit_code == 0
    assert "over training" not in Path("runs/first/report.html").read_text()
    done = analyze("spectrum", "--over-training", "--num-images", "2", "--json")
    assert done.exit_code == 0, done.output
    (network,) = json.loads(done.stdout)["networks"]
    assert [found["step"] for found in network["steps"]] == [0, 3, 6]
    for name in ("png", "pdf", "csv", "npz", "json"):
        assert Path(f"runs/first/analysis/spectrum-over-training/spectrum-over-training.{name}").is_file()
    assert analyze("report").exit_code == 0
    text = Path("runs/first/report.html").read_text()
    assert "What is contracted around an image, over training</h2>" in text
    assert "The geometry of features over training" not in text
    rebuilt = analyze("reproduce", "runs/first/report.html").stdout
    assert "irevnet-analyze spectrum --over-training --num-images 2 --json --ckpt runs/first\n" in rebuilt
    for study in ("depth-probe", "geometry"):
        done = analyze(study, "--over-training", "--depths", "2", "--out", f"{study}-found")
        assert done.exit_code == 0, done.output
        assert [line.split()[0] for line in done.stdout.splitlines()[2:5]] == ["0", "3", "6"]
        assert Path(f"{study}-found/{study}-over-training.steps/step-000003/{study}/{study}.npz").is_file()


def test_a_study_that_fails_is_named_and_the_others_are_run(run, light, monkeypatch):
    cold, wrong = RuntimeError("the tea is cold"), ValueError("such a cup is none; give another")
    raising(monkeypatch, light, invert=cold, spectrum=wrong)
    done = analyze("all")
    assert done.exit_code == 1
    assert light == ["training-curves", "interpolate", "depth-probe", "pca", "geometry", "metamers"]
    assert "invert failed: RuntimeError: the tea is cold (--debug shows where)" in done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()[2:-1]}
    assert lines["spectrum"].split()[1:] == ["failed", "such", "a", "cup", "is", "none;", "give", "another"]
    assert Path("runs/first/report.html").is_file()
    told = json.loads(analyze("all", "--json").stdout)
    assert [row["state"] for row in told["studies"]] == ["done", "failed", "done", "failed", *4 * ["done"]]
    assert told["report"] == "runs/first/report.html"


def test_stopped_study_stops_all(run, light, monkeypatch):
    raising(monkeypatch, light, interpolate=click.exceptions.Exit(1))
    assert analyze("all").exit_code == 1
    assert light == ["training-curves", "invert"]
    assert not Path("runs/first/report.html").exists()


def test_dry_run_runs_nothing(run, light):
    done = analyze("all", "--dry-run", "--device", "cpu", "-b", "64")
    assert done.exit_code == 0, done.output
    assert light == []
    assert "irevnet-analyze pca --ckpt runs/first --device cpu --batch-size 64" in done.stdout
    assert re.search(r"irevnet-analyze spectrum --ckpt runs/first --device cpu *\n", done.stdout)  # it has no batches
    assert not Path("runs/first/analysis").exists()


def test_several_networks_stand_on_one_page(run, light):
    shutil.copytree(run, "runs/second")
    done = analyze("all", "--ckpt", "runs/first", "--ckpt", "runs/second", "--out", "pages/both.html")
    assert done.exit_code == 0, done.output
    assert light == 2 * STUDIES
    assert "What first and second learned" in Path("pages/both.html").read_text()


@pytest.fixture
def many_classes() -> Path:
    """101 classes, of an image each."""
    for split in ("train", "val"):
        for number in range(101):
            folder = Path("photos") / split / f"class-{number:03d}"
            folder.mkdir(parents=True)
            Image.fromarray(np.full((4, 4, 3), number, dtype=np.uint8)).save(folder / "a.png")
    return Path("photos")


def test_studies_are_sized_to_the_network_and_the_data(many_classes):
    options = ("--ckpt", "torchvision:resnet18", "--data", str(many_classes), "--image-size", "224", "--dry-run")
    done = analyze("all", *options, "--json")
    assert done.exit_code == 0, done.output
    rows = {row["study"]: row for row in json.loads(done.stdout)["studies"]}
    network = "--ckpt torchvision:resnet18 --image-size 224 --data photos"
    assert rows["spectrum"]["command"] == f"irevnet-analyze spectrum {network} --num-values 1000"
    for study in ("depth-probe", "pca"):
        assert rows[study]["command"] == f"irevnet-analyze {study} {network} --classes 100"
    assert [rows[study]["reason"] for study in STUDIES[:3]] == [
        "there is no record of its training",
        "it has no inverse",
        "it has no inverse",
    ]
    for size, values in (("128", True), ("64", False)):  # a fifteenth of 49,152 and of 12,288
        smaller = analyze("all", *options[:5], size, *options[6:], "--json")
        assert ("--num-values 1000" in smaller.stdout) == values
    fewer = analyze("all", *options, "--classes", "50", "--json")
    assert "--classes 50" in json.loads(fewer.stdout)["studies"][5]["command"]
    assert "--classes 100" not in fewer.stdout
    for data, pairs in (("cifar10", []), ("cifar100", ["--num-pairs", "16"])):
        network = ["--ckpt", f"pretrained:{data}-irevnet", "--data", str(many_classes)]
        done = analyze("all", *network, "--dry-run", "--json")
        (found,) = [row for row in json.loads(done.stdout)["studies"] if row["study"] == "metamers"]
        assert found["command"].split() == ["irevnet-analyze", "metamers", *network, *pairs]


def test_report_is_of_runs_checkpoints_and_folders(run, light):
    newest = analyze("report")
    assert newest.exit_code == 0, newest.output
    assert newest.stdout == "runs/first/report.html\n"
    assert newest.stderr == "using runs/first/last.pt, the newest run\n"
    for named in ("runs/first", "runs/first/last.pt"):
        assert json.loads(analyze("report", named, "--json").stdout) == {
            "runs": ["runs/first"],
            "report": "runs/first/report.html",
        }
