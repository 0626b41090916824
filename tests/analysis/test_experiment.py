import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from analysis.cache import Cache
from analysis.experiment import Experiment, check_comparable, network_features, only, save_result
from analysis.features import contents
from analysis.features.contents import contents_sha256
from analysis.opening import DataOptions, Overrides, _with_class_names, open_experiment
from irevnet import IRevNet, IRevNetConfig
from irevnet.data import images
from irevnet.data.datasets import load_dataset
from irevnet.data.transforms import InputTransform
from irevnet.training.config import recipe
from irevnet.training.runs import new_run
from irevnet.training.settings import RunSettings
from irevnet.training.trainer import evaluate


@pytest.fixture
def run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


@pytest.fixture
def result(inversion):
    return inversion


def test_a_run_is_opened_with_its_own_data(run):
    experiment = open_experiment(run, device="cpu")
    assert experiment.path == run / "last.pt"
    assert experiment.source.name == "digits"
    assert len(experiment.images("test")) == 360
    assert not experiment.checkpoint.model.training


def test_results_are_saved_into_the_run_with_their_provenance(run, result):
    experiment = open_experiment(run, seed=5, command=["irevnet-analyze", "invert"])
    files = save_result([experiment], result, wall_seconds=1.23456)
    assert files[0] == run / "analysis" / "invert" / "invert.npz"
    record = json.loads(files[2].read_text())["provenance"]
    assert record["seed"] == 5
    assert record["command"] == ["irevnet-analyze", "invert"]
    assert record["data"] == "digits"
    assert record["config"]["blocks"] == [4, 4, 4]
    assert record["classes"] == list("0123456789")
    assert len(record["checkpoint_sha256"]) == len(record["weights_sha256"]) == 64
    assert (run / "analysis" / "invert" / "classes.txt").read_text() == "".join(f"{digit}\n" for digit in range(10))
    assert record["wall_seconds"] == 1.235


def test_results_go_where_they_are_sent(run, result, tmp_path):
    experiment = open_experiment(run, out=tmp_path / "elsewhere")
    assert save_result([experiment], result)[0] == tmp_path / "elsewhere" / "invert.npz"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(FileExistsError, match="holds other files"):
        open_experiment(run, out=tmp_path / "full").results_folder("invert")


def test_the_classes_looked_at_are_those_trained_on_unless_others_are_asked_for(run):
    assert open_experiment(run).classes == tuple("0123456789")
    few = open_experiment(run, data=DataOptions(classes=("3", "8")))
    assert few.classes == ("3", "8")
    assert set(few.images("test").labels) == {0, 1}
    drawn = [open_experiment(run, data=DataOptions(classes=4, class_seed=seed)).classes for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_images_of_a_subset_are_labelled_as_the_network_knows_them(run):
    experiment = open_experiment(run, data=DataOptions(classes=("3", "8")))
    shown = experiment.images("test")
    relabelled = experiment.with_network_labels(shown)
    assert [(3, 8)[label] for label in shown.labels] == relabelled.labels
    assert evaluate(experiment.checkpoint.model, relabelled).top1 > 0.9
    other = replace(experiment, checkpoint=replace(experiment.checkpoint, classes=("3", "7")))
    assert other.with_network_labels(shown) is None
    unnamed = replace(experiment, checkpoint=replace(experiment.checkpoint, classes=()))
    assert unnamed.with_network_labels(shown) is None  # ten outputs and ten digits may be in any order
    assert unnamed.output_names[:2] == ("(0)", "(1)")
    assert experiment.knows_its_classes
    assert not unnamed.knows_its_classes


def test_a_network_trained_on_some_classes_is_studied_on_them(tmp_path):
    settings = RunSettings(model="irevnet-small", data="digits", classes=("9", "1"), training=recipe("digits", steps=1))
    made = new_run(tmp_path / "some", settings)
    list(made.epochs())
    experiment = open_experiment(tmp_path / "some")
    assert experiment.classes == ("1", "9")
    assert experiment.with_network_labels(experiment.images("test")).labels == experiment.images("test").labels


@pytest.fixture
def few(run) -> Experiment:
    """Three classes of ten, to be quick."""
    return open_experiment(run, data=DataOptions(classes=("1", "3", "8")), device="cpu")


def test_features_are_extracted_once_and_found_again(few, run):
    layers = few.layers([3, 12])
    features = few.features(layers, "depth-probe", label="net")
    folder = next((run / "features").iterdir())
    assert folder.name.startswith("digits-3-classes-")
    assert (features.name, features.layers, features.depths) == ("net", ["block-3", "block-12"], [3, 12])
    assert features.relative_depths == [0.25, 1.0]
    shown = few.images("test")
    inputs = torch.stack([shown[row][0] for row in range(len(shown))])
    model = few.checkpoint.model
    np.testing.assert_allclose(
        features.test["block-12"], model.features(inputs, 12).mean(dim=(2, 3)).detach(), rtol=1e-4, atol=1e-5
    )
    assert features.test_labels.tolist() == shown.labels
    known = few.with_network_labels(shown)
    assert features.accuracy() == pytest.approx(evaluate(model, known).top1)
    assert features.accuracy() <= features.restricted_accuracy()
    assert few.extract(few.store(), layers) == 0
    features.cache.get("block-3", lambda: {}, seed=0)
    assert (folder / "depth-probe" / "block-3.json").is_file()


def test_features_of_other_classes_and_data_are_kept_apart(run, few):
    whole, again = open_experiment(run).store(), few.store()
    assert whole.folder == run / "features" / "digits"
    assert again.folder != whole.folder
    other = open_experiment(run, data=DataOptions(classes=("1", "3", "7"))).store()
    assert other.folder not in (whole.folder, again.folder)


def test_features_go_where_they_are_sent(run, tmp_path):
    experiment = open_experiment(run, features_root=tmp_path / "large-disk")
    assert experiment.store().folder == tmp_path / "large-disk" / "run" / "digits"


def test_features_of_other_weights_are_refused(few, run):
    few.store()
    with torch.no_grad():
        few.checkpoint.model.head.classifier.bias.add_(1)
    with pytest.raises(ValueError, match="holds features of something else: its weights_sha256 is"):
        few.store()


def test_features_of_other_images_are_refused(few):
    few.store()
    load = few.source.load
    other = replace(few.source, load=lambda split: (1 - load(split)[0], load(split)[1]))
    with pytest.raises(ValueError, match=r"its images_sha256\.test is"):
        replace(few, source=other).store()


def test_networks_are_called_by_their_architecture_where_they_differ_in_it(run, few, tmp_path):
    second = open_experiment(shutil.copytree(run, tmp_path / "second"), data=DataOptions(classes=("1", "3", "8")))
    bare = replace(few, path=None, name="resnet18")
    for experiments, names in (
        ((few,), ["irevnet-small"]),
        ((few, second), ["run", "second"]),
        ((few, bare), ["irevnet-small", "resnet18"]),
    ):
        layers = [experiment.layers([12]) for experiment in experiments]
        features = network_features(
            [replace(experiment, features_root=tmp_path / "f") for experiment in experiments], layers, "depth-probe"
        )
        assert [each.name for each in features] == names


def test_a_study_of_one_network_takes_one(few):
    assert only([few], "invert") is few
    with pytest.raises(ValueError, match="2 experiments were given; invert takes one"):
        only([few, few], "invert")


def test_networks_that_look_at_other_images_are_not_compared(run, few):
    check_comparable([few, few])
    with pytest.raises(
        ValueError, match="run is studied on 10 classes of digits, run on 3 of digits; choose the same for all"
    ):
        check_comparable([few, open_experiment(run)])


def test_a_network_of_torchvision_is_studied_with_weights_from_a_file(tmp_path):
    torch.manual_seed(4)
    model = torchvision.models.resnet18(num_classes=10).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    experiment = open_experiment(
        tmp_path / "weights.pth", model="torchvision:resnet18", data="digits", overrides=Overrides(image_size=32)
    )
    assert experiment.name == "weights"
    assert experiment.checkpoint.transform.image_size == (32, 32)
    assert experiment.checkpoint.transform.channels == 3
    assert [layer.name for layer in experiment.layers()][:2] == ["layer1.0", "layer1.1"]
    few = replace(experiment, classes=("1", "2"))
    features = few.features(few.layers([8]), "depth-probe", label="net")
    shown = few.images("test")
    inputs = torch.stack([shown[row][0] for row in range(20)])
    parts = torch.nn.Sequential(*list(model.children())[:-1])
    np.testing.assert_allclose(features.test["layer4.1"][:20], parts(inputs).flatten(1).detach(), rtol=1e-4, atol=1e-4)
    assert np.isnan(features.accuracy())  # what its ten outputs are it does not say
    named = open_experiment(
        tmp_path / "weights.pth",
        model="torchvision:resnet18",
        data="digits",
        overrides=Overrides(image_size=32, class_names=list("1023456789")),
    )
    assert named.with_network_labels(shown).labels == [(0, 2)[label] for label in shown.labels]
    assert (experiment.checkpoint.guessed, named.checkpoint.classes) == (("mean and std",), tuple("1023456789"))
    assert few.results_folder("depth-probe") == tmp_path / "weights-analysis" / "depth-probe"
    assert json.loads((few.store().folder / "manifest.json").read_text())["identity"]["config"] == {
        "name": "resnet18",
        "weights": str(tmp_path / "weights.pth"),
        "num_classes": 10,
    }


def test_fresh_networks_of_torchvision_are_drawn_by_the_seed():
    one, same, other = (
        open_experiment(
            "torchvision:resnet18", data="digits", overrides=Overrides(image_size=32), seed=seed
        ).store_identity()
        for seed in (1, 1, 2)
    )
    assert one == same
    assert one["weights_sha256"] != other["weights_sha256"]


@pytest.mark.parametrize(
    ("ckpt", "options", "message"),
    [
        (
            "torchvision:resnet18",
            {},
            "torchvision:resnet18 does not come with a data set; name the images to look at by `data`",
        ),
        (
            "torchvision:resnet19",
            {"data": "digits"},
            "there is no network of torchvision 'resnet19'; did you mean resnet",
        ),
        ("torchvision:resnet18/IMAGENET", {"data": "digits"}, "there is no set of weights of resnet18 'IMAGENET'"),
        (None, {"model": "irevnet-b"}, "`model` irevnet-b is no network of torchvision, such as torchvision:resnet50"),
    ],
)
def test_networks_that_cannot_be_opened_are_explained(ckpt, options, message):
    with pytest.raises(ValueError, match=message):
        open_experiment(ckpt, **options)


def test_weights_of_another_network_are_refused(tmp_path, run):
    torch.save({"fc.bias": torch.zeros(10)}, tmp_path / "weights.pth")
    options = {"data": "digits", "overrides": Overrides(image_size=32)}
    with pytest.raises(
        ValueError, match=r"the weights of .*weights\.pth are not those of a resnet18: bn1\.bias is missing"
    ):
        open_experiment(tmp_path / "weights.pth", model="torchvision:resnet18", **options)
    with pytest.raises(ValueError, match=r"torchvision:resnet18/DEFAULT names weights and .* holds others; give one"):
        open_experiment(tmp_path / "weights.pth", model="torchvision:resnet18/DEFAULT", **options)
    with pytest.raises(ValueError, match=r"last\.pt says that its images are 8 x 8; leave `image_size` out"):
        open_experiment(run, overrides=Overrides(image_size=32))


def test_pretrained_weights_bring_their_transform(monkeypatch):
    fresh = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **options: fresh)
    experiment = open_experiment("torchvision:resnet18/DEFAULT", data="digits")
    transform = experiment.checkpoint.transform
    assert (transform.image_size, transform.mean) == ((224, 224), (0.485, 0.456, 0.406))
    assert experiment.checkpoint.config.weights == "IMAGENET1K_V1"
    assert experiment.checkpoint.config.num_classes == 1000
    assert experiment.with_network_labels(experiment.images("test")) is None
    assert experiment.name == "resnet18-DEFAULT"


def test_that_weights_are_fetched_is_not_said_on_standard_output(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "weights.pth")
    url = (tmp_path / "weights.pth").as_uri()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url",
        lambda _, **options: torch.hub.load_state_dict_from_url(url, progress=options["progress"]),
    )
    open_experiment("torchvision:resnet18/DEFAULT", data="digits")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Downloading" in printed.err


def test_pretrained_weights_that_cannot_be_fetched_are_explained(monkeypatch):
    def fail(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(OSError, match=r"IMAGENET1K_V1 cannot be fetched \(no route to host\); save its state dict"):
        open_experiment("torchvision:resnet18/DEFAULT", data="digits")


def test_weights_of_another_network_of_torchvision_are_refused_before_it_is_made(tmp_path):
    state = {"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.bias": torch.zeros(10**6)}  # whose weights take 2 GB
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth are not those of a resnet18: bn1\.bias is missing"):
        open_experiment(
            tmp_path / "weights.pth", model="torchvision:resnet18", data="digits", overrides=Overrides(image_size=32)
        )
    torch.save({"fc.bias": torch.tensor(0.0)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth are not those of a resnet18: len\(\) of a 0-d tensor"):
        open_experiment(
            tmp_path / "weights.pth", model="torchvision:resnet18", data="digits", overrides=Overrides(image_size=32)
        )


@pytest.fixture
def released_at_32(tmp_path) -> Path:
    """In the authors' layout, of a network that they did not release, with ten classes."""
    config = IRevNetConfig(
        input_shape=(3, 32, 32), num_classes=10, blocks=(1, 1), strides=(1, 2), kernel_sizes=(3, 3, 3)
    )
    state = {}
    for name, tensor in IRevNet(config).state_dict().items():
        for ours, theirs in (
            ("blocks.", "stack."),
            ("bottleneck.", "bottleneck_block."),
            ("head.norm.", "bn1."),
            ("head.classifier.", "linear."),
        ):
            name = name.replace(ours, theirs)
        state[f"module.{name}"] = tensor
    torch.save({"state_dict": state}, tmp_path / "theirs.pth.tar")
    return tmp_path / "theirs.pth.tar"


def test_what_a_released_file_does_not_say_is_guessed(released_at_32, inversion):
    guessed = open_experiment(released_at_32, data="digits")
    assert guessed.checkpoint.guessed == ("image size", "mean and std")
    assert guessed.checkpoint.transform.image_size == guessed.checkpoint.config.input_shape[1:] == (32, 32)
    assert guessed.checkpoint.transform.mean == (0.4914, 0.4822, 0.4465)
    assert guessed.record([guessed], inversion)["guessed"] == ["image size", "mean and std"]
    told = open_experiment(
        released_at_32,
        data="digits",
        overrides=Overrides(image_size=16, mean=[0.0], std=[1.0], class_names=[f"{n}" for n in range(10)]),
    )
    assert told.checkpoint.guessed == ()
    assert told.checkpoint.transform == InputTransform(channels=3, image_size=(16, 16))
    assert told.images("test")[0][0].shape == (3, 16, 16)
    assert told.knows_its_classes
    with pytest.raises(ValueError, match="images of 18 x 18 cannot be squeezed by 4"):
        open_experiment(released_at_32, data="digits", overrides=Overrides(image_size=18))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": [0.5]}, r"`mean` and `std` belong together; give both, in units of \[0, 1\]"),
        ({"mean": [0.5], "std": [0.0]}, "no deviation of 0"),
        ({"class_names": ["a", "b"]}, r"has 2 names, but .* has 10 outputs; give one for each"),
        ({"class_names": ["a"] * 10}, "has 'a' more than once; give each output a name of its own"),
    ],
)
def test_wrong_answers_for_what_a_file_does_not_say(released_at_32, options, message):
    with pytest.raises(ValueError, match=message):
        open_experiment(released_at_32, data="digits", overrides=Overrides(**options))


def test_what_a_file_says_is_not_overruled(run):
    with pytest.raises(ValueError, match="says how its images are normalised; leave `mean` and `std` out"):
        open_experiment(run, overrides=Overrides(mean=[0.5], std=[0.5]))
    assert open_experiment(run, overrides=Overrides(class_names=list("abcdefghij"))).checkpoint.classes == tuple(
        "abcdefghij"
    )


def test_folders_with_the_names_of_imagenets_classes_are_in_the_order_of_outputs(run, monkeypatch):
    digest = hashlib.sha256("\n".join("0123456789").encode()).hexdigest()
    monkeypatch.setattr(images, "_IMAGENET_SYNSETS", digest)
    experiment = open_experiment("torchvision:resnet18", data="digits", overrides=Overrides(image_size=32))
    assert experiment.checkpoint.classes == ()  # a thousand outputs
    experiment = open_experiment(run)
    unnamed = replace(experiment.checkpoint, classes=())
    known = _with_class_names("it", unnamed, experiment.source, None)
    assert (known.classes, known.guessed) == (tuple("0123456789"), ("class names",))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of BMP files, all of the same size in bytes."""
    for split, count in (("train", 6), ("val", 4)):
        for name in ("dark", "light"):
            place = tmp_path / "images" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8), (200 * (name == "light") + number,) * 3).save(place / f"{number}.bmp")
    return tmp_path / "images"


def test_images_that_are_overwritten_are_noticed(folder, tmp_path):
    def opened() -> Experiment:
        return open_experiment(
            "torchvision:resnet18",
            data=str(folder),
            overrides=Overrides(image_size=8),
            features_root=tmp_path / "features",
        )

    before = opened()
    before.extract(before.store(), before.layers([8]))
    assert before.extract(before.store(), before.layers([8])) == 0
    swapped = folder / "val" / "dark" / "0.bmp"
    times = os.stat(swapped)
    swapped.write_bytes((folder / "val" / "light" / "0.bmp").read_bytes())
    os.utime(swapped, ns=(times.st_atime_ns, times.st_mtime_ns))  # as copying with times does
    assert os.stat(swapped).st_size == times.st_size
    with pytest.raises(ValueError, match=r"features of something else: its images_sha256\.test is"):
        opened().store()


def test_images_are_read_again_only_when_they_were_written_to(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "SETTLED", 0)  # whatever their age
    reads: list[str] = []
    read = images._file_sha256
    monkeypatch.setattr(images, "_file_sha256", lambda path: (reads.append(path), read(path))[1])
    data = load_dataset(str(folder))
    test = data.images("test", data.transform())
    digests = tmp_path / "contents"
    first = contents_sha256(test, Cache(), "test")
    assert (len(reads), contents_sha256(test, Cache(digests), "test"), len(reads)) == (8, first, 8)  # by this process
    contents._READ.clear()
    assert (contents_sha256(test, Cache(digests), "test"), len(reads)) == (first, 8)  # from the file
    contents._READ.clear()
    (digests / "test.json").write_text("{}")
    assert (contents_sha256(test, Cache(digests), "test"), len(reads)) == (first, 16)
    changed = folder / "val" / "dark" / "1.bmp"
    times = os.stat(changed)
    changed.write_bytes((folder / "val" / "dark" / "0.bmp").read_bytes())
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert contents_sha256(test, Cache(digests), "test") != first
    monkeypatch.undo()
    assert test.signature() is None  # of files that were written to just now
