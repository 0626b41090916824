"""Images as they come: what every command makes of a folder in which some cannot be read."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import cli
from analysis.results import DepthProbeResult

COUNTS = {"train": 12, "val": 5}
BAD = ("train/a/3.png", "train/b/new\nline.png", "val/a/0.png")


pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "blank_figures")


def main(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments)


def analyze(*arguments: str) -> Result:
    return CliRunner().invoke(cli.analyze, arguments)


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def photos() -> Path:
    """Two classes of small images."""
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for label, name in enumerate("ab"):
            folder = Path("photos", split, name)
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(128 * label, 128 + 128 * label, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return Path("photos")


@pytest.fixture
def spoilt(photos) -> Path:
    for name in BAD:
        (photos / name).write_text("no image")
    return photos


TRAIN = ("train", "--epochs", "2", "--batch-size", "4")


def test_first_image_that_cannot_be_read_stops_and_is_named(spoilt):
    for workers in ("0", "1"):
        stopped = main(*TRAIN, "--data", str(spoilt), "--workers", workers, "--out", f"runs/{workers}")
        assert stopped.exit_code == 2
        line = stopped.stderr.strip()
        assert "\n" not in line
        assert line.startswith("Error: photos/train/")
        assert line.endswith(
            "cannot be read as an image: it is no BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP, or an unusual one; replace or "
            "remove it, or skip all such files with --on-error='skip'"
        )


def test_a_run_and_its_studies_leave_the_same_images_out(spoilt):
    trained = main(*TRAIN, "--data", str(spoilt), "--on-error", "skip", "--out", "runs/first")
    done(trained)
    assert trained.stderr.startswith("3 images are skipped, the first of them train/a/3.png, which cannot be read")
    run = Path("runs/first")
    skipped = json.loads((run / "left-out.json").read_text())
    assert sorted(skipped) == sorted(BAD)
    assert json.loads((run / "config.json").read_text())["left_out"] == 3

    evaluated = json.loads(done(main("evaluate", "--json")))
    assert (evaluated["num_images"], evaluated["left_out"]) == (9, skipped)
    quick = {
        "features": (),
        "depth-probe": ("--depths", "11,12"),
        "pca": ("--dims", "2"),
        "invert": ("--num-noise", "2", "--num-images", "2", "--depths", "1"),
        "interpolate": ("--num-pairs", "1", "--steps", "2"),
        "spectrum": ("--num-images", "1"),
    }
    for study, options in quick.items():
        result = analyze(study, *options)
        done(result)
        assert "3 images are skipped, the first of them train/a/3.png" in result.stderr
        if study != "features":
            folder = run / "analysis" / study
            assert json.loads((folder / "left-out.json").read_text()) == skipped
            assert json.loads((folder / f"{study}.json").read_text())["provenance"]["left_out"] == 3
    (store,) = (run / "features").iterdir()
    assert store.name.startswith("photos-without-3-images-")
    assert json.loads((store / "manifest.json").read_text())["record"]["left_out"] == skipped
    assert np.load(store / "train" / "labels.npy").tolist() == [0] * 11 + [1] * 12
    agenda = json.loads(done(analyze("all", "--dry-run", "--json")))
    assert {row["study"]: row["state"] for row in agenda["studies"]}["invert"] == "up to date"


def test_results_are_those_of_the_folder_without_these_images(spoilt):
    shutil.copytree(spoilt, "clean")
    for name in BAD:
        Path("clean", name).unlink()
    for number, (data, *skip) in enumerate([("photos", "--on-error", "skip"), ("clean",)]):
        done(main(*TRAIN, "--data", data, *skip, "--out", f"runs/{number}"))
        done(analyze("depth-probe", "--ckpt", f"runs/{number}", "--depths", "1,12"))
    assert Path("runs/0/losses.csv").read_text() == Path("runs/1/losses.csv").read_text()
    tables = [Path(f"runs/{number}/analysis/depth-probe/depth-probe.csv").read_text() for number in (0, 1)]
    assert tables[0] == tables[1].replace("clean", "photos")
    probe = DepthProbeResult.load(Path("runs/0/analysis/depth-probe"))
    assert (int(probe.num_train), int(probe.num_test)) == (23, 9)
    assert not Path("runs/1/left-out.json").exists()


def test_run_goes_on_without_the_images_it_was_begun_without(spoilt):
    whole, part = (
        (*TRAIN, "--data", str(spoilt), "--on-error", "skip", "--out", name) for name in ("runs/whole", "runs/part")
    )
    done(main(*whole))
    done(main(*part, "--max-steps", "7"))
    shutil.copy(spoilt / "train/a/0.png", spoilt / "train/a/3.png")  # mended meanwhile
    done(main("train", "--resume", "runs/part"))
    assert Path("runs/part/losses.csv").read_text() == Path("runs/whole/losses.csv").read_text()


def test_a_run_that_was_begun_with_all_images_goes_on_with_all(photos):
    done(main(*TRAIN, "--data", str(photos), "--out", "runs/all", "--max-steps", "2"))
    refused = main("train", "--resume", "runs/all", "--on-error", "skip")
    assert refused.exit_code == 2
    assert (
        "runs/all was started with all images; repair those that cannot be read, or start a new run" in refused.stderr
    )


def test_images_broken_later_are_left_out_where_asked_for(photos):
    done(main(*TRAIN, "--data", str(photos), "--out", "runs/all"))
    done(analyze("features", "--depths", "12"))
    broken = photos / "val/b/1.png"
    broken.write_bytes(bytes(broken.stat().st_size))
    stopped = analyze("depth-probe", "--depths", "11")
    assert stopped.exit_code == 2
    assert "features of something else: its images_sha256.test is" in stopped.stderr
    stopped = analyze("depth-probe", "--depths", "11", "--features", "anew")
    assert "photos/val/b/1.png cannot be read as an image" in stopped.stderr
    for dry in (["--dry-run"], []):
        planned = main(*TRAIN, "--data", str(photos), "--on-error", "skip", *dry)
        assert "1 image is skipped, the first of them val/b/1.png" in planned.stderr
    done(analyze("depth-probe", "--ckpt", "runs/all", "--depths", "11", "--on-error", "skip"))
    folder = Path("runs/all/analysis/depth-probe")
    assert list(json.loads((folder / "left-out.json").read_text())) == ["val/b/1.png"]
    broken.unlink()
    done(analyze("depth-probe", "--ckpt", "runs/all", "--depths", "11", "--features", "elsewhere"))
    assert not (folder / "left-out.json").exists()
