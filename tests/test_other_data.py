"""`irevnet-analyze geometry` on the digits, also with other data: `--ood`."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import cli
from analysis import GeometryOptions, measure_geometry, open_experiment
from analysis.opening import DataOptions
from analysis.results.geometry import GeometryResult
from irevnet.models.zoo import build_model

pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "blank_figures")


@pytest.fixture
def run(finished_run) -> Path:
    folder = Path("runs/digits").absolute()
    shutil.copytree(finished_run, folder)
    return folder


@pytest.fixture
def stripes() -> Path:
    """Images of two classes, horizontal and vertical stripes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 10)):
        for name, axis in (("across", 0), ("down", 1)):
            folder = Path("stripes") / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = 255 * (np.indices((8, 8))[axis] % 2 > 0) * rng.uniform(0.5, 1, (8, 8))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return Path("stripes")


def analyze(*words: object):
    return CliRunner().invoke(cli.analyze, [str(word) for word in words])


def test_probes_on_other_data_stand_beside_those_on_the_networks_own(run, stripes):
    result = analyze("geometry", "--depths", "1,4,8", "--num-images", 100, "--ood", stripes, "--json")
    assert result.exit_code == 0, result.output
    (network,) = json.loads(result.stdout)["networks"]
    saved = GeometryResult.load(run / "analysis" / "geometry")
    assert saved.probe_data.tolist() == ["digits", "stripes"]
    assert [each["name"] for each in network["tunnel"]["other_data"]] == ["stripes"]
    assert (saved.probe_accuracy[:, 1] == 1).all()  # stripes are told apart by their averages from the first block on
    shown = analyze("depth-probe", "--depths", "1,4,8", "--json")
    rows = json.loads(shown.stdout)["networks"][0]["rows"]
    assert [row["svm_accuracy"] for row in rows] == saved.probe_accuracy[:, 0].tolist()
    provenance = json.loads((run / "analysis/geometry/geometry.json").read_text())["provenance"]
    assert [each["data"] for each in provenance["networks"]] == ["digits", "stripes"]
    page = analyze("report")
    assert page.exit_code == 0, page.output
    assert "accuracy on stripes changes by" in (run / "report.html").read_text()


def test_own_data_and_features_without_a_network_are_refused(run):
    np.savez("mine.npz", **{"a": np.eye(10), "labels": np.arange(10) % 2})
    for words, error in (
        (["--ood", "digits"], "--ood is 'digits', the data that are studied; name other data"),
        (
            ["--features", "mine.npz", "--ood", "digits"],
            "--ood needs a network that is shown other data, and mine.npz is a file of features",
        ),
        (["--ood", "stripes", "--over-training"], "--ood and --over-training were both given; give one of them"),
    ):
        result = analyze("geometry", *words)
        assert result.exit_code == 2
        assert result.stderr.splitlines()[-1] == f"Error: {error}"


def test_other_networks_with_other_data_are_refused(run, stripes):
    own = open_experiment(run)
    other = open_experiment(run, data=DataOptions(name=str(stripes)))
    fresh = build_model("irevnet-small", num_classes=10, image_size=8, in_channels=1)
    other = replace(other, checkpoint=replace(other.checkpoint, model=fresh))
    with pytest.raises(ValueError, match="the networks with stripes are not those with digits; give the same, in the"):
        measure_geometry([own, other], GeometryOptions(depths=[1]))


def test_head_is_measured_where_its_linear_layer_looks(run):
    result = analyze("geometry", "--layers", "blocks.*,head.average", "--num-images", 100, "--json")
    assert result.exit_code == 0, result.output
    *blocks, head = json.loads(result.stdout)["networks"][0]["rows"]
    assert head["layer"] == "head.average"
    assert [row["nc3"] for row in blocks] == [None] * len(blocks)
    experiment = open_experiment(run)
    (layer,) = experiment.layers(names=["head.average"])
    features = experiment.features([layer], "geometry", label="").train["head.average"]
    means = np.array([features[experiment.images("train").labels == np.int64(k)].mean(axis=0) for k in range(10)])
    means -= means.mean(axis=0)
    weights = experiment.checkpoint.model.head.classifier.weight.detach().numpy()
    apart = weights / np.linalg.norm(weights) - means / np.linalg.norm(means)
    assert head["nc3"] == pytest.approx(np.linalg.norm(apart), rel=1e-5)
