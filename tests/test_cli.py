import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from click.testing import CliRunner, Result
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_iris

import cli
from analysis.linalg.lanczos import GolubKahan
from analysis.results import DepthProbeResult
from figures.text_table import TextTable
from irevnet import Checkpoint, IRevNet, IRevNetConfig, build_model, save_checkpoint
from irevnet.commandline import terminal
from irevnet.data.transforms import InputTransform
from irevnet.models import zoo as presets
from irevnet.training.config import RECIPES, TrainConfig
from irevnet.training.settings import RunSettings
from irevnet.utils import provenance

COMMANDS = [(group, name) for group in (cli.main, cli.analyze) for name in group.commands]


pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "blank_figures")


@pytest.fixture
def run(finished_run) -> Path:
    """A run in this folder, so that it is found as the newest one."""
    return shutil.copytree(finished_run, Path("runs") / "first")


@pytest.fixture
def residual() -> Path:
    """The checkpoint of a network without an inverse, that knows other classes."""
    return save_residual(Path("resnet.pt"))


def save_residual(path: Path) -> Path:
    model = build_model("resnet-cifar", num_classes=3, image_size=8, in_channels=1)
    transform = InputTransform(channels=1, image_size=(8, 8))
    save_checkpoint(
        path, Checkpoint(model=model, transform=transform, data="digits", classes=("a", "b", "c"), metrics={})
    )
    return path


@pytest.fixture
def _counted_before(models, monkeypatch) -> None:
    monkeypatch.setattr(presets, "list_models", lambda: list(models.values()))


def main(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments)


def analyze(*arguments: str) -> Result:
    return CliRunner().invoke(cli.analyze, arguments)


def test_newcomer_trains_evaluates_inverts_and_probes():
    """On some of the classes, which are kept with the run and studied."""
    Path("names.txt").write_text("8\n\n1\n3\n")
    trained = main("train", "--classes", "names.txt", "--epochs", "4")
    assert trained.exit_code == 0, trained.output
    assert re.match(r"test accuracy: top-1 \d+\.\d\d%, top-5 \d+\.\d\d%\nruns/digits-irevnet-small-", trained.stdout)
    assert trained.stderr == ""  # quiet where nobody looks

    evaluated = main("evaluate")
    assert evaluated.exit_code == 0, evaluated.output
    assert evaluated.stdout.split(" (")[0] == trained.stdout.splitlines()[0]
    assert re.fullmatch(r"using runs/digits-\S+/last\.pt, the newest run\n", evaluated.stderr)

    (folder,) = Path("runs").iterdir()
    assert (folder / "classes.txt").read_text() == "1\n3\n8\n"

    inverted = analyze("invert", "--num-noise", "20", "--num-images", "2", "--depths", "1,12")
    assert inverted.exit_code == 0, inverted.output
    assert re.search(r"test images +108 +\d\.\d\de-0[5-9]", inverted.stdout)
    assert re.search(r"uniform noise +20 +\d\.\d\de-0[5-9]", inverted.stdout)

    probed = analyze("depth-probe", "--depths", "1,11-12")
    assert probed.exit_code == 0, probed.output
    assert re.search(r"\n +12 +64 +\d+\.\d% \(\d+\.\d% to \d+\.\d%\)", probed.stdout)
    top1 = pd.read_csv(folder / "metrics.csv")["test_top1"].iloc[-1]
    assert f"irevnet-small itself: {top1:.1%}" in probed.stdout
    edge = DepthProbeResult.load(folder / "analysis/depth-probe").at_edge.any()
    assert ("edge of its grid (1e-05 to 10)" in probed.stdout) == edge

    swept = analyze("pca", "--dims", "2,10")
    assert swept.exit_code == 0, swept.output
    assert re.search(r"\n +10 +\d+\.\d% +\d+\.\d% \(\d+\.\d% to \d+\.\d%\)", swept.stdout)
    assert re.search(
        r"irevnet-small, block-12: within one point of all 64 components from \d+ on \(linear", swept.stdout
    )
    for text, suffixes in ((inverted.stdout, 5), (probed.stdout, 5), (swept.stdout, 5)):
        files = [Path(line) for line in text.splitlines() if line.startswith("runs/")]
        assert len(files) == suffixes
        assert all(path.stat().st_size > 0 for path in files)

    probed = json.loads(analyze("depth-probe", "--depths", "12", "--classes", "2", "--json").stdout)
    assert probed["networks"][0]["accuracy"] > 0.7
    assert probed["num_test"] < 108
    record = json.loads((folder / "analysis/depth-probe/depth-probe.json").read_text())["provenance"]
    assert record["classes"] == ["1", "3", "8"]
    assert len(record["classes_studied"]) == 2


@pytest.mark.usefixtures("_counted_before")
def test_json_is_one_object_alone_on_standard_output(run):
    outputs = [
        main("train", "--epochs", "1", "--classes", "3", "--json"),
        main("models", "--json"),
        main("evaluate", "--ckpt", str(run), "--json"),
        analyze("invert", "--ckpt", str(run), "--num-noise", "5", "--num-images", "2", "--depths", "1", "--json"),
        analyze("depth-probe", "--ckpt", str(run), "--classes", "3", "--depths", "12", "--json"),
    ]
    trained, models, evaluated, inverted, probed = (json.loads(output.stdout) for output in outputs)
    assert trained["epoch"] == 1
    assert Path(trained["run"], "last.pt").is_file()
    assert {model["name"]: model["parameters"] for model in models["models"]}["irevnet-b"] == 29_201_092
    assert evaluated["num_images"] == 360
    assert inverted["noise"]["count"] == 5
    assert all(Path(file).is_file() for file in inverted["files"])
    (network,) = probed["networks"]
    assert [row["depth"] for row in network["rows"]] == [12]


def test_training_without_stored_activations_ends_alike():
    options = ("train", "--epochs", "1", "--classes", "3", "--json")
    plain, reversible = (
        json.loads(main(*options, *memory).stdout)
        for memory in ((), ("--memory", "reversible", "--check-reconstruction", "5"))
    )
    assert reversible["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-3)


@pytest.mark.usefixtures("_counted_before")
def test_models_are_listed_without_cutting_anything_off(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    output = main("models").stdout
    assert re.search(r"irevnet-b +yes +yes +100 +29,201,092 +3,056,570,112 +3x224x224 +paper, section 3.2", output)
    assert "…" not in output


def test_progress_is_shown_on_a_terminal(monkeypatch):
    from rich.console import Console

    for module in (cli, terminal):
        monkeypatch.setattr(
            module, "standard_error", lambda: Console(stderr=True, force_terminal=True, highlight=False)
        )
    trained = main("train", "--epochs", "2", "--classes", "3")
    assert "epoch   2  train loss" in trained.stderr
    assert "epoch 1 of 2" in trained.stderr
    assert trained.stdout.startswith("test accuracy")


def test_network_of_other_classes_is_probed_without_accuracy(residual):
    probed = analyze("depth-probe", "--ckpt", str(residual), "--depths", "1", "--out", "probe")
    assert probed.exit_code == 0, probed.output
    assert "itself: unknown, as no outputs of it are known to be these classes" in probed.stdout
    assert sorted(path.name for path in Path("probe").iterdir()) == [
        "classes.txt",
        *(f"depth-probe.{suffix}" for suffix in ("csv", "json", "npz", "pdf", "png")),
    ]
    assert Path("resnet-analysis/features/digits/manifest.json").is_file()


def test_released_weights_are_taken_as_checkpoint(trained_looking):
    """The first stage of a tiny network in that layout; its transform shows it digits at 224 x 224 in colour."""
    model = trained_looking(
        IRevNet(IRevNetConfig(input_shape=(3, 224, 224), num_classes=7, blocks=(2,), strides=(2,), initial_squeeze=4))
    )
    names = {"blocks": "stack", "bottleneck": "bottleneck_block", "head.norm": "bn1", "head.classifier": "linear"}
    state = {}
    for key, value in model.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        state[f"module.{key}"] = value
    torch.save({"epoch": 3, "arch": "i-revnet", "state_dict": state}, "released.pth.tar")
    inverted = analyze(
        "invert",
        "--ckpt",
        "released.pth.tar",
        "--data",
        "digits",
        "--num-noise",
        "2",
        "--num-images",
        "1",
        "--depths",
        "1",
        "-b",
        "90",
        "--json",
    )
    assert inverted.exit_code == 0, inverted.output
    assert json.loads(inverted.stdout)["images"]["mean"] < 1e-5
    assert Path("released.pth-analysis/invert/invert.png").is_file()
    refused = main("evaluate", "--ckpt", "released.pth.tar", "--data", "digits")
    assert refused.stderr.splitlines() == [
        "released.pth does not say how it takes its images; guessed: images of 32 x 32 (--image-size), mean 0.4914, "
        "0.4822, 0.4465 and deviation 0.2023, 0.1994, 0.201 (--mean, --std), bilinear resizing (--interpolation)",
        "Error: released.pth.tar does not name its 7 outputs; list the class names in the order of the outputs in a "
        "file, and give it by --class-names",
    ]
    Path("names.txt").write_text("".join(f"{name}\n" for name in "9876543"))
    told = "--image-size", "32", "--mean", "0", "--std", "1", "--class-names", "names.txt"
    evaluated = main("evaluate", "--ckpt", "released.pth.tar", "--data", "digits", *told)
    assert (evaluated.exit_code, evaluated.stderr) == (0, "")
    unnamed = main("evaluate", "--ckpt", "released.pth.tar")
    assert unnamed.stderr == (
        "Error: there is no data set or folder 'imagenet'; known: digits, cifar10, cifar100, fashion-mnist\n"
    )


def test_results_of_a_bare_checkpoint_go_beside_it(run):
    Path("net.pt").write_bytes((run / "last.pt").read_bytes())
    options = ("--ckpt", "net.pt", "--num-noise", "5", "--num-images", "2", "--depths", "1")
    inverted = analyze("invert", *options)
    assert "net-analysis/invert/invert.npz" in inverted.stdout
    record = json.loads(Path("net-analysis/invert/invert.json").read_text())
    assert record["provenance"]["checkpoint"] == "net.pt"
    assert record["provenance"]["command"] == ["irevnet-analyze", "invert", *options]


def test_images_are_encoded_and_decoded_to_identical_ones(run):
    digit = np.random.default_rng(0).integers(0, 256, (11, 9), dtype=np.uint8)
    Image.fromarray(digit).save("digit.png")
    encoded = main("encode", "digit.png", "digit.png", "-o", "phi/digits.npz")
    assert encoded.exit_code == 0, encoded.output
    assert encoded.stdout == "phi/digits.npz\n"
    decoded = main("decode", "phi/digits.npz", "-o", "again")
    assert decoded.stdout == "again/digit-0.png\nagain/digit-1.png\n"
    for path in decoded.stdout.split():
        np.testing.assert_array_equal(np.asarray(Image.open(path)), digit)
    content = json.loads(main("encode", "digit.png", "-o", "3.npz", "--depth", "3", "--bits", "10", "--json").stdout)
    assert content["images"] == [{"name": "digit", "channels": 1, "height": 11, "width": 9}]
    assert (content["file"], content["depth"], content["bits"]) == ("3.npz", 3, 10)
    assert json.loads(main("decode", "3.npz", "-o", "more", "--json").stdout) == {"files": ["more/digit.png"]}


def test_in_exact_arithmetic_a_network_answers_alike(run):
    plain, exact = (json.loads(main("evaluate", "--json", *options).stdout) for options in ((), ("--exact",)))
    assert exact["top1"] == pytest.approx(plain["top1"], abs=1e-3)
    assert exact["loss"] == pytest.approx(plain["loss"], rel=1e-3)
    assert exact["loss"] != plain["loss"]


def test_exact_inversion_has_no_error(run):
    options = ("--num-noise", "5", "--num-images", "2", "--depths", "1,12", "--json")
    content = json.loads(analyze("invert", "--exact", "--bits", "12", *options).stdout)
    assert content["arithmetic"] == "exact"
    assert content["images"]["max"] == content["noise"]["max"] == 0
    assert [row["depth"] for row in content["by_depth"]] == [1, 12]
    assert json.loads(analyze("invert", *options).stdout)["images"]["max"] > 0


def test_paths_join_test_images_and_files_and_follow_directions(run):
    for name, value in {"a": 0, "b": 255, "half": 128, "large": 7}.items():
        side = 12 if name == "large" else 8
        Image.fromarray(np.full((side, side), value, dtype=np.uint8)).save(f"{name}.png")
    Path("pairs.csv").write_text("kind,a,b,middle\ngrey,a.png,b.png,half.png\n")
    drawn = analyze("interpolate", "--steps", "3", "--num-pairs", "2")
    assert drawn.exit_code == 0, drawn.output
    assert re.search(r"\(test image \d+\) to .* features +\d", drawn.stdout)
    files = drawn.stdout.splitlines()[-6:]
    assert [Path(file).suffix for file in files] == [".npz", ".csv", ".json", ".png", ".pdf", ".gif"]
    assert all(Path(file).is_file() for file in files)
    with Image.open(files[-1]) as animation:
        assert animation.n_frames == 4  # there and back

    def walk(*options: str) -> list[dict]:
        result = analyze("interpolate", *options, "--json", "--num-pairs", "2")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)["lines"]

    (line,) = walk("a.png", "b.png", "--t", "1,0.5,0,-1", "--exact")
    assert line["name"] == "a to b"
    assert len(line["paths"]["features"]["answers"]) == 4
    assert line["paths"]["pixels"]["length"] == pytest.approx(2.0, abs=1e-3)
    (line,) = walk("--pairs", "pairs.csv", "--depth", "3", "--even")
    assert line["name"] == "grey: a to b"
    assert line["paths"]["pixels"]["middle_distance"] == pytest.approx(0.5 / 255, abs=1e-5)
    assert [line["name"] for line in walk("a.png", "b.png", "half.png", "a.png", "--steps", "4", "--exact")] == [
        f"row {row}" for row in (1, 2, 3, 4)
    ]
    for direction, places in {"pc:2": {-3, 0, 3}, "svm:4-9": {0, 1, 2}, "mean:4-9": {0, 1, 2}}.items():
        lines = walk("--direction", direction, "--steps", "3")
        assert len(lines) == 2
        assert set(pd.read_csv(run / "analysis/interpolate/interpolate.csv")["t"]) == places
        assert all(re.match(r"\d \(test" if direction == "pc:2" else r"4 \(test", line["name"]) for line in lines)
    (line,) = walk("large.png", "--direction", "pc:1", "--image-size", "8")
    assert line["name"] == "large"


def test_singular_values_are_found_at_images_and_depths(run):
    drawn = analyze("spectrum")
    assert drawn.exit_code == 0, drawn.output
    assert "block-12: " not in drawn.stdout
    assert re.search(
        r"log \|det J\| = \S+e-\d+ to \S+e-\d+, each to within \S+; that of an i-RevNet is 0", drawn.stdout
    )
    files = drawn.stdout.splitlines()[-5:]
    assert [Path(file).suffix for file in files] == [".npz", ".csv", ".json", ".png", ".pdf"]
    assert all(Path(file).is_file() for file in files)
    assert sorted(path.name for path in (run / "analysis/spectrum").iterdir()) == [
        "classes.txt",
        *(f"spectrum.{suffix}" for suffix in ("csv", "json", "npz", "pdf", "png", "state")),
    ]
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save("ramp.png")
    options = ("--method", "lanczos", "--num-values", "3", "--block-width", "4", "--precision", "float64", "--json")
    result = analyze("spectrum", "ramp.png", "--depths", "1,12", *options)
    assert result.exit_code == 0, result.output
    first, last = json.loads(result.stdout)["layers"]
    assert (first["depth"], last["depth"]) == (1, 12)
    assert last["each"][0]["image"] == "ramp"
    assert (last["each"][0]["num_values"], last["each"][0]["num_converged"]) == (3, 3)
    result = analyze("spectrum", "ramp.png", "--json")
    assert result.exit_code == 0, result.output
    (by_matrix,) = json.loads(result.stdout)["layers"]
    assert last["largest"]["median"] == pytest.approx(by_matrix["largest"]["median"], rel=1e-6)
    assert last["condition"]["median"] == pytest.approx(by_matrix["condition"]["median"], rel=1e-6)
    result = analyze("spectrum", "ramp.png", "--vectors", "2", "--pixel-change", "0.05", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    least = found["layers"][0]["each"][0]["directions"]["least"]
    assert least[0]["singular_value"] == pytest.approx(by_matrix["each"][0]["smallest"])
    assert least[0]["pixel_changes"][0] == pytest.approx(0.05)
    assert [Path(file).name for file in found["files"][-2:]] == ["spectrum-directions.png", "spectrum-directions.pdf"]
    result = analyze("spectrum", "ramp.png", "--vectors", "40")
    assert result.exit_code == 2
    assert result.stderr.endswith("with 64 values found one by one they can be those of 0 to 32\n")


def test_an_interrupted_spectrum_goes_on(run, monkeypatch):
    options = ("spectrum", "--method", "lanczos", "--num-images", "1", "--num-values", "3", "--block-width", "2")
    expected = json.loads(analyze(*options, "--out", "other", "--json").stdout)["layers"]
    extend, steps = GolubKahan.extend, iter(range(4))

    def interrupt(process: GolubKahan) -> None:
        extend(process)
        if next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(GolubKahan, "extend", interrupt)
        stopped = analyze(*options)
    assert stopped.exit_code == 1
    assert stopped.stdout == ""
    assert "stopped; the same command goes on (its work is in runs/first/" in stopped.stderr.splitlines()[-1]
    assert Path("runs/first/analysis/spectrum/spectrum.state/lanczos-0/largest").is_dir()
    assert json.loads(analyze(*options, "--json").stdout)["layers"] == expected


def image_folder(folder: Path, classes: tuple[str, ...], count: int) -> None:
    """A folder of coloured noise a class."""
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for n in range(count):
            Image.fromarray(rng.integers(0, 256, (40 + n, 50, 3), dtype=np.uint8)).save(folder / name / f"{n}.png")


def test_networks_are_compared_in_one_figure(run, residual):
    Path("names.txt").write_text("1\n3\n8\n")
    shutil.copytree(run, "runs/second")
    options = ("--ckpt", "runs/first", "--ckpt", "runs/second", "--classes", "names.txt", "--json")
    probed = analyze("depth-probe", *options, "--depths", "1,12", "--out", "both")
    assert probed.exit_code == 0, probed.output
    content = json.loads(probed.stdout)
    assert [network["name"] for network in content["networks"]] == ["first", "second"]
    assert content["networks"][0]["rows"] == content["networks"][1]["rows"]
    assert content["networks"][0]["accuracy"] <= content["networks"][0]["restricted_accuracy"]
    record = json.loads(Path("both/depth-probe.json").read_text())["provenance"]
    assert [each["checkpoint"] for each in record["networks"]] == ["runs/first/last.pt", "runs/second/last.pt"]
    assert Path("both/classes.txt").read_text() == "1\n3\n8\n"
    swept = analyze("pca", *options, "--depth", "9", "--dims", "1,5")
    assert [row["layer"] for row in json.loads(swept.stdout)["networks"][1]["rows"]] == ["block-9"] * 3
    assert Path("runs/first/analysis/pca/pca.png").is_file()
    refused = analyze("pca", *options, "--depth", "9", "--dims", "65")
    assert refused.exit_code == 2
    assert refused.stderr == "Error: 65 to 65 components were asked for; first has 1 to 64 at block-9\n"


def test_features_are_extracted_in_parts_and_then_found(run):
    Path("names.txt").write_text("1\n3\n8\n")
    options = ("features", "--classes", "names.txt", "--features", "here", "--depths", "3,12", "-b", "50")
    first = analyze(*options, "--part", "1/2", "--json")
    assert first.exit_code == 0, first.output
    (store,) = json.loads(first.stdout)["stores"]
    second = analyze(*options, "--part", "2/2")
    assert second.stdout == store["folder"] + "\n"
    rest = int(re.search(r"(\d+) images extracted, the others were there", second.stderr)[1])
    folder = Path(store["folder"])
    assert folder.parent == Path("here/first")
    counts = [len(np.load(folder / split / "block-12.npy")) for split in ("train", "test")]
    assert store["extracted"] + rest == sum(counts)
    assert all(np.load(folder / split / "block-3.done.npy").all() for split in ("train", "test"))
    assert json.loads(analyze(*options, "--json").stdout)["stores"] == [{"folder": str(folder), "extracted": 0}]
    probed = analyze("depth-probe", *options[1:], "--json")
    assert probed.exit_code == 0, probed.output


def test_features_are_exported_once_all_are_there(run):
    Path("names.txt").write_text("1\n8\n")
    options = ("features", "--classes", "names.txt", "--depths", "3,12", "--export", "out/x.npz")
    for words, message in [
        (("--part", "1/2"), "holds no complete features of block-3 on the train images"),
        (("--ckpt", "runs/first", "--ckpt", "runs/first"), "2 experiments were given; --export takes one"),
    ]:
        refused = analyze(*options, *words)
        assert (refused.exit_code, message in refused.stderr) == (2, True), refused.output
    done = analyze(*options, "--json")
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert content["export"] == "out/x.npz"
    store = Path(content["stores"][0]["folder"])
    with np.load("out/x.npz") as arrays:
        np.testing.assert_array_equal(arrays["test/block-12"], np.load(store / "test/block-12.npy"))
        assert arrays["test/images"].tolist() == json.loads((store / "test/names.json").read_text())
        assert arrays["classes"].tolist() == ["1", "8"]
    again = analyze(*options)
    assert again.stderr.splitlines()[-1] == "Error: out/x.npz already exists; name another file"


def test_exported_features_have_the_results_of_their_network(run):
    """But for the network's own accuracy."""
    Path("names.txt").write_text("1\n3\n8\n")
    options = ("--classes", "names.txt", "--depths", "3,12")
    exported = analyze("features", *options, "--export", "x.npz")
    assert exported.exit_code == 0, exported.output
    of_network, of_file = (analyze("depth-probe", *words, "--json") for words in (options, ("--features", "x.npz")))
    assert of_file.exit_code == 0, of_file.output
    (network,), (file,) = (json.loads(each.stdout)["networks"] for each in (of_network, of_file))
    assert (file["name"], file["accuracy"]) == ("x", None)
    assert [row["layer"] for row in file["rows"]] == ["block-3", "block-12"]
    numbers = [{**row, "depth": 0, "relative_depth": 0} for row in network["rows"]]  # of 12 blocks, and of 2 layers
    assert [{**row, "depth": 0, "relative_depth": 0} for row in file["rows"]] == numbers
    swept = [analyze("pca", *words, "--dims", "2", "--json") for words in (options[:2], ("--features", "x.npz"))]
    assert json.loads(swept[0].stdout)["networks"][0]["rows"] == json.loads(swept[1].stdout)["networks"][0]["rows"]
    folder = Path("x-analysis/pca")
    assert {path.name for path in folder.iterdir()} == {
        *(f"pca.{suffix}" for suffix in ("npz", "csv", "json", "png", "pdf")),
        "classes.txt",
    }
    reported = analyze("report", "x-analysis")
    assert reported.exit_code == 0, reported.output
    commands = analyze("reproduce", "x-analysis/report.html").stdout.splitlines()
    assert [line for line in commands if not line.startswith("#")] == [
        "irevnet-analyze depth-probe --features x.npz --json",
        "irevnet-analyze pca --features x.npz --dims 2 --json",
        "irevnet-analyze report x-analysis --out x-analysis/report.html",
    ]


def test_features_without_a_split_are_divided_and_it_is_said():
    data = load_iris()
    np.save("x.npy", data.data)
    np.save("y.npy", data.target_names[data.target])
    probed = analyze("depth-probe", "--features", "x.npy", "--labels", "y.npy", "--seed", "2", "--out", "found")
    assert probed.exit_code == 0, probed.output
    said = "x.npy has no test split; 30 of its images are held out for testing, a fifth of each class, by --seed 2\n"
    assert probed.stderr == said
    assert Path("found/classes.txt").read_text() == "setosa\nversicolor\nvirginica\n"


def test_features_are_pooled_as_asked_and_said_so(run):
    Path("names.txt").write_text("1\n3\n8\n")
    options = ("--classes", "names.txt", "--depth", "12", "--pool", "flatten")
    probed = analyze("pca", *options, "--dims", "2", "--json")
    assert probed.exit_code == 0, probed.output
    assert [row["dims"] for row in json.loads(probed.stdout)["networks"][0]["rows"]] == [2, 64]
    assert json.loads(Path("runs/first/analysis/pca/pca.json").read_text())["provenance"]["pool"] == "flatten"
    (store,) = json.loads(analyze("features", *options, "--json").stdout)["stores"]
    assert store["extracted"] == 0
    assert store["folder"].endswith("+flatten")
    refused = analyze("depth-probe", *options[:-1], "cls")
    assert refused.exit_code == 2
    assert re.search(r"\nError: this IRevNet is not known to have a CLS token; .* another --pool\n$", refused.stderr)
    assert "Features are pooled by --pool flatten" in _report_text()


def _report_text() -> str:
    done = analyze("report", "--out", "page.html")
    assert done.exit_code == 0, done.output
    return Path("page.html").read_text()


def test_network_of_torchvision_is_probed_and_compared(run):
    Path("names.txt").write_text("1\n8\n")
    options = ("--ckpt", "torchvision:resnet18", "--data", "digits", "--classes", "names.txt", "--image-size", "32")
    probed = analyze("depth-probe", *options, "--layers", "layer1,layer4.1,fc", "--json")
    assert probed.exit_code == 0, probed.output
    (network,) = json.loads(probed.stdout)["networks"]
    assert network["name"] == "resnet18"
    assert [(row["layer"], row["dims"]) for row in network["rows"]] == [("layer1", 64), ("layer4.1", 512), ("fc", 1000)]
    assert network["rows"][0]["svm_accuracy"] > 0.8
    assert Path("resnet18-analysis/depth-probe/depth-probe.png").is_file()
    listed = analyze("layers", *options)
    assert re.search(r"\n *layer4\.1 +BasicBlock +8 +1 x 512 x 1 x 1 +4,720,640 +1\n", listed.stdout)
    (content,) = json.loads(analyze("layers", *options, "--json").stdout)["networks"]
    assert (content["name"], content["layers"][0]["name"]) == ("resnet18", "conv1")
    refused = analyze("pca", *options, "--layer", "layer{1,4}.*")
    assert refused.exit_code == 2
    assert refused.stderr == "Error: 4 layers fit --layer 'layer{1,4}.*'; name one, such as layer4.1\n"
    assert "newest run" not in probed.stderr
    # What is said of a network with weights from elsewhere is not said of the run beside it.
    state = {
        f"module.{name}": tensor for name, tensor in torchvision.models.resnet18(num_classes=10).state_dict().items()
    }
    torch.save({"state_dict": state}, "r18.pth")
    both = ("--ckpt", "runs/first", "--ckpt", "r18.pth", "--model", "torchvision:resnet18", *options[2:])
    compared = analyze("pca", *both, "--depth", "8", "--dims", "2", "--out", "both", "--json")
    assert compared.exit_code == 0, compared.output
    assert [network["name"] for network in json.loads(compared.stdout)["networks"]] == ["irevnet-small", "r18"]
    transforms = [each["transform"] for each in json.loads(Path("both/pca.json").read_text())["provenance"]["networks"]]
    assert [each["image_size"] for each in transforms] == [[8, 8], [32, 32]]
    assert "r18 does not say how it takes its images; guessed: mean 0.485" in compared.stderr
    assert "first does not say" not in compared.stderr


def test_work_that_fails_ends_with_1_and_debug_shows_where(run, monkeypatch):
    from irevnet.training import trainer as train

    def fail(*args, **options):
        raise RuntimeError("the sky\nfell down")

    monkeypatch.setattr(train, "evaluate", fail)
    result = main("evaluate")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "Error: RuntimeError: the sky fell down (--debug shows where)"
    shown = main("evaluate", "--debug")
    assert isinstance(shown.exception, RuntimeError)
    assert shown.exc_info[2] is not None


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_status_line_is_for_terminals(monkeypatch, is_terminal):
    shown = io.StringIO()
    monkeypatch.setattr(terminal, "standard_error", lambda: Console(file=shown, force_terminal=is_terminal))
    with terminal.status_line() as report:
        report("half of it")
    assert ("half of it" in shown.getvalue()) == is_terminal


@pytest.mark.usefixtures("_counted_before")
def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch):
    def closed(*args, **options):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(click, "echo", closed)
    result = main("models", "--json")
    assert (result.exit_code, result.output) == (1, "")


def test_a_disk_that_refuses_is_named(run, monkeypatch):
    from irevnet.checkpoints import checkpoint

    def fail(*args, **options):
        raise PermissionError(13, "Permission denied", "runs/x")

    monkeypatch.setattr(checkpoint, "read_checkpoint", fail)
    monkeypatch.setattr("analysis.opening.read_checkpoint", fail)
    result = main("evaluate")
    assert (result.exit_code, result.stderr) == (2, "Error: runs/x: Permission denied\n")


def test_a_missing_torch_is_named(monkeypatch):
    def absent(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(provenance, "version", absent)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert "torch (not installed) and torchvision (not installed)" in main("models").stderr


def test_help_and_usage_errors_answer_without_torch():
    """In a process of its own, where importing torch fails."""
    calls = [["main", "--help"], ["analyze", "--help"], ["main", "--version"], ["analyze", "--version"]]
    calls += [["main" if group is cli.main else "analyze", name, "--help"] for group, name in COMMANDS]
    code = f"""
import sys
for name in ("torch", "torchvision", "sklearn", "matplotlib", "pandas"):
    sys.modules[name] = None
import cli
for group, *arguments in {calls!r}:
    try:
        getattr(cli, group)(arguments)
    except SystemExit as stop:
        assert stop.code == 0, arguments
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage:") == len(calls) - 2


@pytest.mark.parametrize(("group", "name"), COMMANDS)
def test_every_option_is_explained(group, name):
    command = group.commands[name]
    assert command.help
    assert all(option.help or option.hidden for option in command.params if isinstance(option, click.Option))


def test_the_recipes_are_what_help_says():
    text = " ".join(main("train", "--help").stdout.split())
    digits, fast, cifar, imagenet = (RECIPES[name] for name in ("digits", "fast", "cifar", "imagenet"))
    assert (
        f"digits {digits.epochs} epochs of {digits.batch_size} images, one-cycle rate up to {digits.learning_rate}, "
        f"weight decay {digits.weight_decay}" in text
    )
    assert (
        f"fast {fast.epochs} epochs of {fast.batch_size}, Muon, {fast.schedule} rate up to {fast.learning_rate}, "
        f"labels smoothed by {fast.label_smoothing}, " in text
    )
    at = [round(part * cifar.epochs) for part in cifar.decay_at]
    assert (
        f"{cifar.epochs} epochs of {cifar.batch_size}, rate {cifar.learning_rate} x {cifar.decay} at epochs "
        f"{at[0]}, {at[1]} and {at[2]}" in text
    )
    every = round(imagenet.decay_at[0] * imagenet.steps)
    assert (
        f"{imagenet.steps:,} steps of {imagenet.batch_size}, rate {imagenet.learning_rate} x {imagenet.decay} every "
        f"{every:,}, --memory {imagenet.memory}" in text
    )


def test_every_setting_of_training_is_an_option():
    names = {option.name for option in cli.main.commands["train"].params}
    assert {field.name for field in dataclasses.fields(TrainConfig)} <= names
    assert {field.name for field in dataclasses.fields(RunSettings)} - {"training"} <= names


@pytest.fixture
def small_imagenet() -> Path:
    """The layout of ImageNet: two classes, of eight and four images."""
    image_folder(Path("imagenet/train"), ("n01440764", "n01443537"), 4)
    image_folder(Path("imagenet/val"), ("n01440764", "n01443537"), 2)
    return Path("imagenet")


AS_THE_PAPER = ("--recipe", "imagenet", "--data", "imagenet", "--json")


@pytest.mark.parametrize(
    ("model", "parameters"),
    [  # those of Table 1, with 2 classes in place of 1000 and their biases
        pytest.param("irevnet-a", 180_999_016 - 998 * (12288 + 1), marks=pytest.mark.slow),
        pytest.param("irevnet-b", 29_201_092 - 998 * (3072 + 1), marks=pytest.mark.slow),
        pytest.param("revnet-56", 27_553_128 - 998 * (3328 + 1), marks=pytest.mark.slow),
        ("resnet-50", 25_557_032 - 998 * (2048 + 1)),
    ],
)
def test_run_of_paper_is_planned_on_folder_like_imagenet(small_imagenet, model, parameters):
    planned = main("train", "--model", model, *AS_THE_PAPER, "--dry-run", "--batch-size", "4")
    assert planned.exit_code == 0, planned.output
    content = json.loads(planned.stdout)
    assert content["input_shape"] == [3, 224, 224]
    assert (content["num_train"], content["num_test"], content["num_checked"]) == (8, 4, 12)
    assert [step for step, _ in content["learning_rates"]] == [1, 160_001, 320_001, 480_001]
    assert content["num_steps"] == 600_000
    assert content["parameters"] == parameters
    assert not Path("runs").exists()


OF_PAPER = [pytest.param(name, marks=pytest.mark.slow) for name in ("irevnet-a", "irevnet-b", "revnet-56", "resnet-50")]


@pytest.mark.parametrize("model", ["irevnet-cifar-bijective", *OF_PAPER])
def test_run_of_paper_is_begun_on_folder_like_imagenet(small_imagenet, model):
    size = ("--image-size", "64", "-b", "2", "--max-steps", "2")
    command = ("train", "--model", model, *AS_THE_PAPER, *size, "--out", "run")
    begun = main(*command)
    assert begun.exit_code == 0, begun.output
    assert json.loads(begun.stdout) == {"run": "run", "finished": False, "step": 2}
    assert "stopped after step 2 of 600,000; go on with 'irevnet train --resume run'" in begun.stderr
    settings = json.loads(Path("run/config.json").read_text())
    assert settings["training"]["memory"] == ("reversible" if model.startswith("irevnet") else "plain")
    assert settings["classes"] == ["n01440764", "n01443537"]
    assert settings["provenance"]["command"] == ["irevnet", *command]
    assert settings["transform"]["resize"] == 73


def test_a_plan_is_printed_for_people(small_imagenet):
    planned = main("train", "--model", "irevnet-cifar-bijective", "--data", "imagenet", "-b", "4", "--dry-run")
    assert planned.exit_code == 0, planned.output
    lines = dict(re.split(r"(?<=\w)  +", line, maxsplit=1) for line in planned.stdout.splitlines())
    assert lines["network"] == "irevnet-cifar-bijective"
    assert int(lines["parameters"].replace(",", "")) == pytest.approx(1.95e6, rel=0.01)
    assert lines["input"] == "3x32x32, 2 classes"
    assert lines["images"] == "8 to train on, 4 to test on; 12 read"
    assert lines["steps"] == "60 of 4 images, 2 an epoch, 30 epochs"
    assert lines["learning rate"].startswith("0.0041 from step 1, 0.0492 from step 13, ")
    assert re.fullmatch(r"[\d.]+ MiB", lines["  plain"])
    assert not Path("runs").exists()


def test_run_told_to_stop_saves_and_goes_on_later(monkeypatch):
    from irevnet.training.trainer import Training

    do_step = Training._do_step

    def interrupted(training, *batch):
        do_step(training, *batch)
        if training.step == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    options = ("train", "--epochs", "2", "--classes", "3")
    expected = main(*options, "--out", "whole", "--json")
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(Training, "_do_step", interrupted)
    stopped = main(*options, "--out", "parts")
    assert stopped.exit_code == 1
    assert stopped.stderr.splitlines() == [
        "finishing this step, then saving; once more ends at once, without saving",
        "stopped after step 8 of 12; go on with 'irevnet train --resume parts'",
    ]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    resumed = main("train", "--resume", "parts", "--json")
    assert resumed.exit_code == 0, resumed.output
    volatile = {"run": None, "seconds": None}
    assert json.loads(resumed.stdout) | volatile == json.loads(expected.stdout) | volatile
    weights = [torch.load(f"{name}/last.pt", weights_only=True)["state_dict"] for name in ("whole", "parts")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_second_interrupt_ends_at_once(monkeypatch):
    from irevnet.training.trainer import Training

    def twice(training, *batch):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Training, "_do_step", twice)
    result = main("train", "--out", "run")
    assert result.exit_code == 1
    assert "Aborted!" in result.stderr
    assert sorted(path.name for path in Path("run").iterdir()) == ["classes.txt", "config.json"]


def test_training_curves_are_of_newest_run_or_of_several(run):
    one = analyze("training-curves", "--window", "22")
    assert one.exit_code == 0, one.output
    assert re.search(r"irevnet-small +110 +\d\.\d{4} +\d\.\d{4} +\d\.\d{4} +0\.\d{4} +9\d\.\d\d%", one.stdout)
    assert (run / "analysis/training-curves/training-curves.png").stat().st_size > 0
    shutil.copytree(run, "runs/second")
    both = analyze("training-curves", "runs/first", "runs/second", "--out", "curves", "--json")
    content = json.loads(both.stdout)
    assert [each["name"] for each in content["runs"]] == ["first", "second"]
    assert content["runs"][0]["loss_at_quarters"] == content["runs"][1]["loss_at_quarters"]
    record = json.loads(Path("curves/training-curves.json").read_text())["provenance"]
    assert [each["run"] for each in record["runs"]] == ["runs/first", "runs/second"]


def test_names_in_a_table_are_no_markup(capsys):
    cli._print_table(TextTable(("name", "of"), [("[/]", ":smile:"), ("[bold]cat[/bold]", "[link=x]y")]))
    out = capsys.readouterr().out
    for name in ("[/]", ":smile:", "[bold]cat[/bold]", "[link=x]y"):
        assert name in out
