"""Data that studies seldom see: the right answer, held against a direct computation, or one line that says what is
wrong with them. Nowhere a traceback, a warning, or a NaN that is shown as if it were a result."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import cli
from analysis.results import DepthProbeResult, InversionResult, PCASweepResult
from irevnet import Checkpoint, build_model, save_checkpoint
from irevnet.data.transforms import InputTransform

Pixels = Callable[[int, int], np.ndarray]
"""Of the n-th image of a class."""


pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "blank_figures")


@pytest.fixture
def model(trained_looking):
    """A network that knows no class by name, so that a study looks at all that there are."""
    model = trained_looking(build_model("irevnet-small", num_classes=2, image_size=8, in_channels=3))
    transform = InputTransform(channels=3, image_size=(8, 8))
    save_checkpoint(Path("net.pt"), Checkpoint(model=model, transform=transform, data="data", classes=(), metrics={}))
    return model


def folder(counts: Mapping[str, tuple[int, int]], pixels: Pixels, name: str = "data") -> None:
    """So many training and test images a class."""
    for label, (kind, numbers) in enumerate(counts.items()):
        for split, count, first in zip(("train", "val"), numbers, (0, 1000)):
            place = Path(name, split, kind)
            place.mkdir(parents=True)
            for n in range(count):
                Image.fromarray(pixels(label, first + n)).save(place / f"{n:03}.png")


def noise(label: int, n: int) -> np.ndarray:
    """A little brighter with each class."""
    return np.random.default_rng([label, n]).integers(10 * label, 10 * label + 100, (8, 8, 3), dtype=np.uint8)


TWO = {"a": (14, 6), "b": (14, 6)}


def analyze(*arguments: str) -> str:
    """What a study prints."""
    result = CliRunner().invoke(cli.analyze, [*arguments, "--ckpt", "net.pt"])
    assert result.exit_code == 0, result.output
    assert "nan" not in result.stdout.lower()
    return result.stdout


def refused(*arguments: str) -> str:
    """The line that says why."""
    result = CliRunner().invoke(cli.analyze, [*arguments, "--ckpt", "net.pt"])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def refused_after(arguments: tuple[str, ...]) -> str:
    """The line that says why, after those that say what was chosen."""
    result = CliRunner().invoke(cli.analyze, [*arguments, "--ckpt", "net.pt"])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr.splitlines()[-1]


PROBE = ("depth-probe", "--depths", "1,12")


def probed(place: str = "net-analysis/depth-probe") -> DepthProbeResult:
    return DepthProbeResult.load(Path(place))


def features(model, layer: int, split: str, name: str = "data") -> tuple[np.ndarray, np.ndarray]:
    """By themselves, one image after the other, in float64."""
    paths = sorted(Path(name, split).rglob("*.png"))
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255
    with torch.no_grad():
        phi = torch.cat([model.double().features(x[None], layer).mean(dim=(2, 3)) for x in inputs])
    return phi.numpy(), np.unique([path.parent.name for path in paths], return_inverse=True)[1]


def check_against_a_direct_computation(model, name: str = "data") -> DepthProbeResult:
    result = probed()
    for row, depth in enumerate(result.depth.tolist()):
        (train, train_labels), (test, labels) = (features(model, depth, split, name) for split in ("train", "val"))
        scaler = StandardScaler().fit(train)
        train, test = scaler.transform(train), scaler.transform(test)
        svm = LinearSVC(C=float(result.svm_cost[row]), dual=False, tol=1e-9, max_iter=100_000).fit(train, train_labels)
        assert result.svm_accuracy[row] == pytest.approx(svm.score(test, labels))
        squares = ((test[:, None] - train) ** 2).sum(axis=2)
        nearest = (squares <= squares.min(axis=1, keepdims=True) * (1 + 1e-9) + 1e-12).argmax(
            axis=1
        )  # the first of ties
        assert result.nn_accuracy[row] == pytest.approx((train_labels[nearest] == labels).mean())
        squares, same = ((test[:, None] - test) ** 2).sum(axis=2), labels[:, None] == labels
        pairs = ~np.eye(len(test), dtype=bool)
        if (same & pairs).any() and squares[~same].any():
            expected = np.sqrt(squares[same & pairs].mean() / squares[~same].mean())
            assert result.distance_ratio[row] == pytest.approx(expected, rel=1e-4)
        else:
            assert np.isnan(result.distance_ratio[row])
    return result


def constant(label: int, n: int) -> np.ndarray:
    pixels = noise(label, n)
    pixels[..., 1] = 77
    return pixels


def one_of_three(label: int, n: int) -> np.ndarray:
    return noise(label, n % 3)


def of_either_class(label: int, n: int) -> np.ndarray:
    return noise(0, n % 3)


@pytest.mark.parametrize(
    ("pixels", "solver"),
    [(constant, "newton"), (one_of_three, "newton"), (of_either_class, "newton"), (one_of_three, "sklearn")],
)
def test_constant_channels_and_copies_are_probed_rightly(model, pixels, solver):
    folder(TWO, pixels)
    analyze(*PROBE, "--solver", solver)
    check_against_a_direct_computation(model)


def test_few_images_are_probed_rightly(model):
    """One test image of each class, of which no two are of one class; and fewer images than a batch or a channel."""
    folder({"a": (3, 1), "b": (4, 1), "c": (3, 1)}, noise)
    assert "undefined" in analyze(*PROBE)
    result = check_against_a_direct_computation(model)
    assert int(result.num_test) == 3
    found = json.loads(analyze(*PROBE, "--json"))
    assert [row["distance_ratio"] for row in found["networks"][0]["rows"]] == [None, None]


def test_classes_with_gaps_are_a_data_set_of_their_own(model):
    counts = {"a": (5, 3), "b": (1, 1), "c": (6, 2), "d": (1, 1), "e": (5, 2)}
    folder(counts, noise)
    chosen = ("a", "c", "e")
    Path("some.txt").write_text("e\nc\na\n")
    analyze(*PROBE, "--classes", "some.txt")
    for split in ("train", "val"):
        for name in chosen:
            shutil.copytree(Path("data", split, name), Path("chosen", split, name))
    check_against_a_direct_computation(model, "chosen")


def test_images_that_are_all_the_same(model):
    folder(TWO, lambda label, n: np.full((8, 8, 3), 100, np.uint8))
    assert "undefined" in analyze(*PROBE)
    result = probed()
    assert result.svm_accuracy.tolist() == result.nn_accuracy.tolist() == [0.5, 0.5]
    assert np.isnan(result.distance_ratio).all()
    analyze("pca", "--dims", "1,5")
    assert PCASweepResult.load(Path("net-analysis/pca")).explained.tolist() == [1.0, 1.0, 1.0]
    for direction, message in {
        "pc:1": "the features of all 28 images are the same at this depth",
        "mean:a-b": "the mean features of a and b are the same at this depth, and no direction leads from one to the",
        "svm:a-b": "the mean features of a and b are the same at this depth",
    }.items():
        assert message in refused("interpolate", "--direction", direction, "--num-pairs", "1", "--steps", "2")
    analyze("interpolate", "--num-pairs", "1", "--steps", "3", "--even")
    analyze("spectrum", "--num-images", "1")


def test_black_images_have_no_relative_error(model):
    def black(label: int, n: int) -> np.ndarray:
        return np.zeros((8, 8, 3), np.uint8)

    invert = ("invert", "--num-noise", "3", "--num-images", "4", "--depths", "1,12")
    folder(TWO, black)
    text = analyze(*invert)
    assert "of 12 more test images, which are zero throughout, a relative error is not defined" in text
    assert "magnified" not in text
    result = InversionResult.load(Path("net-analysis/invert"))
    assert np.isnan(result.image_errors).all()
    assert np.isfinite(result.noise_errors).all()
    found = json.loads(analyze(*invert, "--json"))
    assert found["images"] == {"count": 0, "undefined": 12}
    assert found["by_depth"][-1]["amplification_largest"] is None
    analyze("interpolate", "--num-pairs", "1", "--steps", "3", "--json")


def test_black_image_among_others_has_no_relative_error(model):
    folder(TWO, lambda label, n: noise(label, n) * (n % 3 == 0))
    analyze("invert", "--num-noise", "3", "--num-images", "12", "--depths", "12")
    result = InversionResult.load(Path("net-analysis/invert"))
    assert np.isnan(result.image_errors).tolist() == [True, True, False] * 4
    images = np.stack([np.asarray(Image.open(path)) for path in sorted(Path("data/val").rglob("00[25].png"))])
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        again = model.float().inverse(model.features(inputs)).double()
    expected = torch.linalg.vector_norm((inputs.double() - again).flatten(1), dim=1) / inputs.flatten(1).double().norm(
        dim=1
    )
    assert np.nanmean(result.image_errors) == pytest.approx(expected.mean().item(), rel=0.3)  # of rounding
    summary = result.summary()["by_depth"][-1]
    known = result.amplification_largest[:, ~np.isnan(result.amplification_largest[0])]
    assert 0 < known.shape[1] < 4
    assert summary["amplification_largest"] == pytest.approx(float(np.median(known[-1])))


def test_a_class_with_too_few_images_is_named(model):
    folder({"a": (9, 3), "b": (1, 1), "c": (2, 1)}, noise)
    for study in (PROBE, ("pca",)):
        assert (
            "class 'b' of data has 1 training images, but --shots asks for 2 of each class; lower it, or leave that"
        ) in refused(*study, "--shots", "2")
    assert not Path("net-analysis").exists()  # before any work
    expected = "a has 9 training images, c 2; a direction between them needs at least 3 of each"
    assert expected in refused("interpolate", "--direction", "svm:a-c")


def test_more_classes_than_images_of_any(model):
    folder({f"{n:02}": (1, 1) for n in range(12)}, noise)
    (network,) = json.loads(analyze(*PROBE, "--json"))["networks"]
    assert (network["rows"][0]["svm_accuracy"], network["rows"][0]["svm_cost"]) == (None, None)
    assert 0 <= network["rows"][0]["nn_accuracy"] <= 1  # the nearest neighbour needs no C
    (network,) = json.loads(analyze(*PROBE, "--C", "0.01", "--json"))["networks"]
    assert network["rows"][0]["svm_cost"] == 0.01
    analyze("invert", "--num-noise", "1", "--num-images", "1", "--depths", "12")
    assert np.load("net-analysis/invert/invert.npz")["image_errors"].shape == (12,)


def test_a_single_class(model):
    folder({"a": (6, 4)}, noise)
    for study in (PROBE, ("pca",)):
        assert "data has one class, 'a'; the probes need at least two" in refused(*study)
    expected = "all test images are of one class, but a path connects two classes; name image files"
    assert expected in refused("interpolate")
    assert "'svm:a-b' does not name two classes; there are a" in refused("interpolate", "--direction", "svm:a-b")
    analyze("interpolate", "--direction", "pc:1", "--num-pairs", "1", "--steps", "2")
    analyze("features", "--depths", "12")
    assert np.load("net-analysis/features/data/train/block-12.npy").shape == (6, 192)


def test_images_without_labels_do_for_what_needs_none(model):
    for n in range(5):
        Path("data").mkdir(exist_ok=True)
        Image.fromarray(noise(0, n)).save(f"data/{n}.gif")
    analyze("spectrum", "--num-images", "1")
    analyze("invert", "--num-noise", "1", "--num-images", "1", "--depths", "12")
    assert "test image 2 to test image 4" in analyze("interpolate", "--num-pairs", "1", "--steps", "2")
    analyze("features", "--depths", "12")
    assert np.load("net-analysis/features/data/test/block-12.npy").shape == (5, 192)
    assert not Path("net-analysis/features/data/train").exists()
    states = {row["study"]: row["reason"] for row in json.loads(analyze("all", "--dry-run", "--json"))["studies"]}
    assert states["pca"] == states["depth-probe"] == "there are no training images"
    for study in (PROBE, ("pca",)):
        assert "the images of data have no labels, but the probes are trained on labels; put them" in refused_after(
            study
        )
    words = "data has test images alone, but training images are needed here; give data with both"
    assert words in refused_after(("interpolate", "--direction", "pc:1"))
    for command, why in (
        (["evaluate", "--ckpt", "net.pt"], "accuracy is the"),
        (["train", "--data", "data"], "a network"),
    ):
        result = CliRunner().invoke(cli.main, command)
        assert result.exit_code == 2
        assert f"the images of data have no labels, but {why}" in result.stderr
    for n in range(1, 5):
        Path(f"data/{n}.gif").unlink()
    assert "there is one test image, but a path connects two; name image files" in refused_after(("interpolate",))


def test_split_that_was_drawn_is_said_and_shared(model):
    folder({"a": (20, 0), "b": (20, 0)}, noise)
    Path("data/train").rename("photos")
    trained = [
        "train",
        "--data",
        "photos",
        "--max-steps",
        "1",
        "-b",
        "4",
        "--val-fraction",
        "0.25",
        "--out",
        "runs/one",
    ]
    result = CliRunner().invoke(cli.main, trained)
    assert result.exit_code == 0, result.output
    (line, _) = result.stderr.splitlines()
    assert line == (
        "photos has no training and test images of its own: 10 of 40 were drawn to test on, 0.25 of each class "
        "(--val-fraction), by their names, and so the same every time"
    )
    shutil.copy("photos/a/000.png", "photos/a/new.png")
    compared = [
        "depth-probe",
        "--ckpt",
        "net.pt",
        "--ckpt",
        "runs/one",
        "--data",
        "photos/",
        "--depths",
        "12",
        "--json",
    ]
    result = CliRunner().invoke(cli.analyze, compared)
    assert result.exit_code == 0, result.output
    said = "photos/ has 1 image in neither split of the run, and not used, such as a/new.png"
    assert result.stderr.splitlines()[:2] == [said.replace("photos/ ", "photos "), said.replace("photos/ ", "photos ")]
    assert int(DepthProbeResult.load(Path("net-analysis/depth-probe")).num_test) == 10


def test_a_class_without_images_is_named_and_may_be_left_out(model):
    """By all that train; what looks at test images alone does not need others."""
    folder({"a": (6, 4), "b": (0, 2), "c": (6, 4)}, noise)
    line = (
        "class 'b' of data has no training images, and 2 test images; add some, or give the names of the other classes"
    )
    for study in ("features", "depth-probe", "pca"):
        assert line in refused(study)
    result = CliRunner().invoke(cli.main, ["train", "--data", "data"])
    assert result.exit_code == 2
    assert line in result.stderr
    analyze("spectrum", "--num-images", "1")
    Path("others.txt").write_text("a\nc\n")
    analyze(*PROBE, "--classes", "others.txt")
    for split in ("train", "val"):
        for name in "ac":
            shutil.copytree(Path("data", split, name), Path("chosen", split, name))
    check_against_a_direct_computation(model, "chosen")


def test_evaluation_of_few_images_is_that_of_each(model):
    folder({"a": (3, 1), "b": (3, 2)}, noise)
    Path("names.txt").write_text("a\nb\n")
    named = "--class-names", "names.txt"
    result = CliRunner().invoke(cli.main, ["evaluate", "--ckpt", "net.pt", *named, "--json"])
    found = json.loads(result.stdout)
    paths = sorted(Path("data/val").rglob("*.png"))
    inputs = torch.stack([torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255 for path in paths])
    with torch.no_grad():
        logits = model(inputs).double()
    assert found["top1"] == pytest.approx((logits.argmax(dim=1) == torch.tensor([0, 1, 1])).double().mean().item())
    loss = torch.logsumexp(logits, dim=1) - logits[[0, 1, 2], [0, 1, 1]]
    assert found["loss"] == pytest.approx(loss.mean().item(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("odd", ["same", "rare"])
def test_every_study_of_odd_data_ends_on_one_page(model, odd):
    """Studies that cannot be are named, with the reason, and the others are run."""
    if odd == "same":
        folder(TWO, lambda label, n: np.zeros((8, 8, 3), np.uint8))
    else:
        folder({"a": (6, 3), "b": (1, 1)}, noise)
    result = CliRunner().invoke(cli.analyze, ["all", "--ckpt", "net.pt", "--json"])
    states = {row["study"]: row["state"] for row in json.loads(result.stdout)["studies"]}
    probes = "done" if odd == "same" else "failed"
    assert states == {
        "training-curves": "not applicable",
        "invert": "done",
        "interpolate": "done",
        "spectrum": "done",
        "depth-probe": probes,
        "pca": probes,
    }
    assert result.exit_code == (0 if odd == "same" else 1)
    assert "Traceback" not in result.stderr
    page = Path("net-analysis/report.html").read_text()
    texts = re.findall(r">([^<>{};=]+)<", page)  # and no code
    assert any("relative error" in text for text in texts)
    assert [text for text in texts if re.search(r"\bnan\b", text, re.IGNORECASE)] == []
