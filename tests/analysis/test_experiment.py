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
from torch import nn

from analysis.cache import Cache
from analysis.experiment import Experiment, check_comparable, only
from analysis.features import contents
from analysis.features.contents import contents_sha256
from analysis.features.export import export_features
from analysis.opening import DataOptions, find_split, open_experiment
from analysis.overrides import Overrides
from analysis.subjects import labels_of, network_features, save_result
from irevnet import IRevNet, IRevNetConfig
from irevnet.data import lazy_images
from irevnet.data.datasets import load_dataset
from irevnet.data.splits import read_split
from irevnet.data.transforms import InputTransform
from irevnet.training.config import recipe
from irevnet.training.runs import new_run, resume_run
from irevnet.training.settings import RunSettings
from irevnet.training.trainer import evaluate


@pytest.fixture
def run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


def test_a_run_is_opened_with_its_own_data(run):
    experiment = open_experiment(run, device="cpu")
    assert (experiment.path, experiment.source.name) == (run / "last.pt", "digits")
    assert len(experiment.images("test")) == 360
    assert not experiment.checkpoint.model.training
    assert experiment.classes == tuple("0123456789")
    drawn = [open_experiment(run, data=DataOptions(classes=4, class_seed=seed)).classes for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_results_are_saved_into_the_run_with_their_provenance(run, inversion, tmp_path):
    experiment = open_experiment(run, seed=5, command=["irevnet-analyze", "invert"])
    files = save_result([experiment], inversion, wall_seconds=1.23456)
    assert files[0] == run / "analysis" / "invert" / "invert.npz"
    record = json.loads(files[2].read_text())["provenance"]
    expected = {"seed": 5, "command": ["irevnet-analyze", "invert"], "data": "digits", "classes": list("0123456789")}
    assert record.items() >= {**expected, "wall_seconds": 1.235}.items()
    assert record["config"]["blocks"] == [4, 4, 4]
    assert len(record["checkpoint_sha256"]) == len(record["weights_sha256"]) == 64
    assert (run / "analysis" / "invert" / "classes.txt").read_text() == "".join(f"{digit}\n" for digit in range(10))
    assert replace(experiment, out=tmp_path / "else").results_folder("invert") == tmp_path / "else"
    with pytest.raises(FileExistsError, match="holds other files"):
        replace(experiment, out=run).results_folder("invert")


def test_images_of_a_subset_have_the_labels_of_the_network(run):
    experiment = open_experiment(run, data=DataOptions(classes=("3", "8")))
    shown = experiment.images("test")
    assert (experiment.classes, set(shown.labels)) == (("3", "8"), {0, 1})
    relabelled = experiment.with_network_labels(shown)
    assert [(3, 8)[label] for label in shown.labels] == relabelled.labels
    assert evaluate(experiment.checkpoint.model, relabelled).top1 > 0.9
    for names in (("3", "7"), ()):  # ten outputs and ten digits may be in any order
        other = replace(experiment, checkpoint=replace(experiment.checkpoint, classes=names))
        assert other.with_network_labels(shown) is None
        assert not other.knows_its_classes
    assert other.output_names[:2] == ("(0)", "(1)")
    assert experiment.knows_its_classes


def test_a_network_trained_on_some_classes_is_studied_on_them(tmp_path):
    settings = RunSettings(model="irevnet-small", data="digits", classes=("9", "1"), training=recipe("digits", steps=1))
    list(new_run(tmp_path / "some", settings).epochs())
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
    shown, model = few.images("test"), few.checkpoint.model
    inputs = torch.stack([shown[row][0] for row in range(len(shown))])
    expected = model.features(inputs, 12).mean(dim=(2, 3)).detach()
    np.testing.assert_allclose(features.test["block-12"], expected, rtol=1e-4, atol=1e-5)
    assert features.test_labels.tolist() == shown.labels
    assert features.accuracy() == pytest.approx(evaluate(model, few.with_network_labels(shown)).top1)
    assert features.accuracy() <= features.restricted_accuracy()
    assert few.extract(few.store(), layers) == 0
    features.cache.get("block-3", lambda: {}, seed=0)
    assert (folder / "depth-probe" / "block-3.json").is_file()


def test_features_of_other_classes_and_data_are_kept_apart(run, few, tmp_path):
    whole = open_experiment(run)
    assert whole.store().folder == run / "features" / "digits"
    other = replace(few, classes=("1", "3", "7"))
    assert len({each.store().folder for each in (whole, few, other)}) == 3
    sent = replace(whole, features_root=tmp_path / "large-disk")
    assert sent.store().folder == tmp_path / "large-disk" / "run" / "digits"


def test_features_that_are_pooled_otherwise_are_kept_apart(few, probe):
    """The identity of averages is what it was before there was a choice."""
    assert "pool" not in few.store_identity()
    largest = replace(few, pool="max")
    assert largest.store().folder.name == f"{few.store().folder.name}+max"
    assert largest.store_identity() == {**few.store_identity(), "pool": "max"}
    found = {each.pool: each.features(each.layers([12]), "depth-probe", label="net") for each in (few, largest)}
    shown = few.images("test")
    phi = few.checkpoint.model.features(torch.stack([shown[row][0] for row in range(len(shown))]), 12).detach()
    for pool, expected in {"mean": phi.mean(dim=(2, 3)), "max": phi.amax(dim=(2, 3))}.items():
        np.testing.assert_allclose(found[pool].test["block-12"], expected, rtol=1e-4, atol=1e-5)
    assert found["max"].cache.folder != found["mean"].cache.folder
    assert "pool" not in few.record([few], probe)
    assert few.record([largest], probe)["pool"] == "max"


def test_features_of_other_weights_or_images_are_refused(few):
    few.store()
    load = few.source.load
    other = replace(few.source, load=lambda split: (1 - load(split)[0], load(split)[1]))
    with pytest.raises(ValueError, match=r"its images_sha256\.test is"):
        replace(few, source=other).store()
    few.checkpoint.model.head.classifier.bias.data.add_(1)
    with pytest.raises(ValueError, match="holds features of something else: its weights_sha256 is"):
        few.store()


def test_networks_that_differ_are_called_by_their_architecture(few):
    second = replace(few, name="second")
    bare = replace(few, path=None, name="resnet18")
    assert labels_of([few, second]) == ["run", "second"]
    assert labels_of([few, bare]) == ["irevnet-small", "resnet18"]
    (features,) = network_features([few], [few.layers([12])], "depth-probe")
    assert features.name == "irevnet-small"


def test_experiments_that_are_not_compared_are_refused(few):
    assert only([few], "invert") is few
    with pytest.raises(ValueError, match="2 experiments were given; invert takes one"):
        only([few, few], "invert")
    check_comparable([few, few])
    message = "run is studied on 10 classes of digits, run on 3 of digits; choose the same for all"
    with pytest.raises(ValueError, match=message):
        check_comparable([few, replace(few, classes=few.source.classes)])


AT_32 = {"model": "torchvision:resnet18", "data": "digits", "overrides": Overrides(image_size=32)}


def test_a_network_of_torchvision_is_studied_with_a_file(tmp_path):
    torch.manual_seed(4)
    model, path = torchvision.models.resnet18(num_classes=10).eval(), tmp_path / "weights.pth"
    torch.save(model.state_dict(), path)
    experiment = open_experiment(path, **AT_32)
    assert (experiment.name, experiment.checkpoint.guessed) == ("weights", ("mean and std",))
    transform = experiment.checkpoint.transform
    assert (transform.channels, transform.image_size) == (3, (32, 32))
    assert [layer.name for layer in experiment.layers()][:2] == ["layer1.0", "layer1.1"]
    few = replace(experiment, classes=("1", "2"))
    features = few.features(few.layers([8]), "depth-probe", label="net")
    shown = few.images("test")
    inputs = torch.stack([shown[row][0] for row in range(20)])
    parts = torch.nn.Sequential(*list(model.children())[:-1])
    np.testing.assert_allclose(features.test["layer4.1"][:20], parts(inputs).flatten(1).detach(), rtol=1e-4, atol=1e-4)
    assert np.isnan(features.accuracy())  # what its ten outputs are it does not say
    assert few.results_folder("depth-probe") == tmp_path / "weights-analysis" / "depth-probe"
    config = {"name": "resnet18", "weights": str(path), "num_classes": 10}
    assert json.loads((few.store().folder / "manifest.json").read_text())["identity"]["config"] == config
    names = tuple("1023456789")
    named = open_experiment(path, **AT_32 | {"overrides": Overrides(image_size=32, class_names=names)})
    assert named.checkpoint.classes == names
    assert named.with_network_labels(shown).labels == [(0, 2)[label] for label in shown.labels]


def test_fresh_networks_of_torchvision_are_drawn_by_the_seed():
    one, same, other = (open_experiment(seed=seed, **AT_32).store_identity() for seed in (1, 1, 2))
    assert one == same
    assert one["weights_sha256"] != other["weights_sha256"]


@pytest.mark.parametrize(
    ("ckpt", "options", "message"),
    [
        ("torchvision:resnet18", {}, "torchvision:resnet18 does not come with a data set; name the images to look at"),
        (None, {"model": "irevnet-b", "data": "digits"}, "'irevnet-b' names no network; expected torchvision:NAME"),
    ],
)
def test_networks_that_cannot_be_opened_are_explained(ckpt, options, message):
    with pytest.raises(ValueError, match=message):
        open_experiment(ckpt, **options)


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"fc.bias": torch.zeros(10)}, path)
    with pytest.raises(ValueError, match=r"the weights of .*weights\.pth are not those of a resnet18: bn1\.bias is"):
        open_experiment(path, **AT_32)
    with pytest.raises(ValueError, match=r"torchvision:resnet18/DEFAULT names weights and .* holds others; give one"):
        open_experiment(path, **AT_32 | {"model": "torchvision:resnet18/DEFAULT"})


IMAGENET_MEAN = (0.485, 0.456, 0.406)


class Tokens(nn.Module):
    """A network of one's own that has no logits: tokens of six channels, of grey images."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 2, 2))

    def forward(self, x):
        return {"last_hidden_state": self.body(x).flatten(2).mT}


def test_network_of_ones_own_is_shown_images_in_its_channels(tmp_path):
    """Normalised as the data usually are, if that says something of as many channels."""
    for place in (tmp_path / split / name for split in ("train", "val") for name in "ab"):
        place.mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(place / "red.png")
    for channels, data, mean in (
        (3, "digits", (0.3053,)),
        (1, str(tmp_path), (0.0,)),
        (3, str(tmp_path), IMAGENET_MEAN),
    ):
        model = nn.Sequential(nn.Conv2d(channels, 4, 2, 2))
        transform = open_experiment(model=model, data=data).checkpoint.transform
        assert (transform.channels, transform.mean) == (channels, mean)


def test_network_of_ones_own_is_studied(tmp_path):
    model = Tokens()
    experiment = open_experiment(model=model, data="digits")
    checkpoint = experiment.checkpoint
    assert (experiment.name, experiment.path, checkpoint.config.num_classes) == ("Tokens", None, 6)
    assert (checkpoint.transform.channels, checkpoint.transform.image_size) == (1, (8, 8))
    assert checkpoint.guessed == ("image size", "mean and std", "averaged output")
    few = replace(experiment, classes=("1", "2"), features_root=tmp_path)
    features = few.features(few.layers(names=["body.0"]), "depth-probe", label="net")
    shown = few.images("test")
    inputs = torch.stack([shown[row][0] for row in range(5)])
    expected = model.body[0](inputs).mean(dim=(2, 3)).detach()
    np.testing.assert_allclose(features.test["body.0"][:5], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(features.test_logits[:5], expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(features.accuracy())
    with pytest.raises(
        ValueError, match="the outputs of Tokens are no logits that were trained; leave `class_names` out"
    ):
        open_experiment(model=model, data="digits", overrides=Overrides(class_names=list("abcdef")))


def test_pretrained_weights_bring_their_transform(monkeypatch, tmp_path, capsys):
    """That they are fetched is not said on standard output."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "weights.pth")
    url = (tmp_path / "weights.pth").as_uri()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url",
        lambda _, **options: torch.hub.load_state_dict_from_url(url, progress=options["progress"]),
    )
    experiment = open_experiment("torchvision:resnet18/DEFAULT", data="digits")
    printed = capsys.readouterr()
    assert (printed.out, "Downloading" in printed.err) == ("", True)
    transform, config = experiment.checkpoint.transform, experiment.checkpoint.config
    assert (transform.image_size, transform.mean) == ((224, 224), (0.485, 0.456, 0.406))
    assert (config.weights, config.num_classes) == ("IMAGENET1K_V1", 1000)
    assert experiment.with_network_labels(experiment.images("test")) is None
    assert experiment.name == "resnet18-DEFAULT"


def test_pretrained_weights_that_cannot_be_fetched_are_explained(monkeypatch):
    def fail(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(OSError, match=r"IMAGENET1K_V1 cannot be fetched \(no route to host\); save its state dict"):
        open_experiment("torchvision:resnet18/DEFAULT", data="digits")


@pytest.fixture
def released_at_32(tmp_path) -> Path:
    """In the authors' layout, of a network that they did not release, with ten classes."""
    fields = {"input_shape": (3, 32, 32), "num_classes": 10, "blocks": (1, 1), "strides": (1, 2)}
    state = {}
    for ours, tensor in IRevNet(IRevNetConfig(**fields, kernel_sizes=(3, 3, 3))).state_dict().items():
        theirs = ours.replace("blocks.", "stack.").replace("bottleneck.", "bottleneck_block.")
        theirs = theirs.replace("head.norm.", "bn1.").replace("head.classifier.", "linear.")
        state[f"module.{theirs}"] = tensor
    torch.save({"state_dict": state}, tmp_path / "theirs.pth.tar")
    return tmp_path / "theirs.pth.tar"


def test_what_a_released_file_does_not_say_is_guessed(released_at_32, inversion):
    guessed = open_experiment(released_at_32, data="digits")
    assert guessed.checkpoint.guessed == ("image size", "mean and std")
    assert guessed.checkpoint.transform.image_size == guessed.checkpoint.config.input_shape[1:] == (32, 32)
    assert guessed.checkpoint.transform.mean == (0.4914, 0.4822, 0.4465)
    assert guessed.record([guessed], inversion)["guessed"] == ["image size", "mean and std"]
    overrides = Overrides(image_size=16, mean=[0.0], std=[1.0], class_names=list("0123456789"))
    told = open_experiment(released_at_32, data="digits", overrides=overrides)
    assert told.checkpoint.guessed == ()
    assert told.checkpoint.transform == InputTransform(channels=3, image_size=(16, 16))
    assert told.images("test")[0][0].shape == (3, 16, 16)
    assert told.knows_its_classes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 18}, "images of 18 x 18 cannot be squeezed by 4"),
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
    with pytest.raises(ValueError, match=r"last\.pt says that its images are 8 x 8; leave `image_size` out"):
        open_experiment(run, overrides=Overrides(image_size=32))
    with pytest.raises(ValueError, match="says how its images are resized; leave `interpolation` out"):
        open_experiment(run, overrides=Overrides(interpolation="bicubic"))
    names = tuple("abcdefghij")
    assert open_experiment(run, overrides=Overrides(class_names=names)).checkpoint.classes == names


def thousand() -> nn.Module:
    """A network with as many outputs as ImageNet has classes."""
    return nn.Sequential(nn.Conv2d(3, 2, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1000))


def folder_of(place: Path, *classes: str) -> str:
    """A data set of one image a class and split."""
    for folder in (place / split / name for split in ("train", "val") for name in classes):
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(folder / "red.png")
    return str(place)


@pytest.mark.parametrize("classes", [("n01443537", "n02012849"), ("goldfish", "n03126707"), ("goldfish", "tench")])
def test_network_of_imagenet_knows_some_of_its_classes(tmp_path, classes):
    """By WordNet numbers or by names; a crane is known by its number alone."""
    experiment = open_experiment(model=thousand(), data=folder_of(tmp_path, *classes))
    assert experiment.classes == classes
    outputs = {"tench": 0, "goldfish": 1, "n01443537": 1, "n02012849": 134, "n03126707": 517}
    shown = experiment.images("test")
    assert experiment.with_network_labels(shown).labels == [outputs[name] for name in classes]
    assert experiment.checkpoint.guessed[-1] == "class names"
    names = [f"output {n}" for n in range(998)] + ["of two", *classes[:1]]
    told = open_experiment(model=thousand(), data=str(tmp_path), overrides=Overrides(class_names=names))
    assert (told.knows_its_classes, "class names" in told.checkpoint.guessed) == (False, False)


def test_classes_that_imagenet_does_not_have_are_not_known(tmp_path):
    for number, classes in enumerate([("cat", "tench"), ("crane", "tench"), ("n01443537", "tench")]):
        data = folder_of(tmp_path / str(number), *classes)
        assert not open_experiment(model=thousand(), data=data).knows_its_classes
    known = folder_of(tmp_path / "known", "n01440764")
    fresh = open_experiment("torchvision:squeezenet1_1", data=known, overrides=Overrides(image_size=32))
    torch.save(fresh.checkpoint.model.state_dict(), tmp_path / "weights.pt")
    trained = open_experiment(tmp_path / "weights.pt", model="torchvision:squeezenet1_1", data=known)
    assert (fresh.knows_its_classes, trained.knows_its_classes) == (False, True)


def test_split_of_a_run_is_that_of_its_studies(tmp_path):
    """Also where images were added since, and where another network is compared."""
    photos = tmp_path / "photos"
    for n in range(20):
        (photos / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * n).save(photos / "ab"[n % 2] / f"{n}.png")
    settings = RunSettings(
        model="irevnet-small", data=str(photos), val_fraction=0.3, training=recipe("digits", steps=1, batch_size=4)
    )
    run = new_run(tmp_path / "run", settings)
    list(run.epochs())
    images = [Path(path).name for path in run.training.test_data.images.paths]
    assert len(images) == 6
    for number in range(100, 120):
        shutil.copy(photos / "a" / "0.png", photos / "a" / f"{number}.png")
    for name in ("last.pt", "best.pt"):
        opened = open_experiment(tmp_path / "run" / name)
        assert [Path(path).name for path in opened.images("test").images.paths] == images
        (remark,) = opened.source.remarks
        assert remark == f"{photos} has 20 images in neither split of the run, and not used, such as a/100.png"
    (resumed,) = [resume_run(tmp_path / "run", settings).source.split]
    assert resumed == opened.source.split == read_split(tmp_path / "run")
    net = nn.Sequential(nn.Conv2d(1, 2, 2))
    other = open_experiment(model=net, data=f"{photos}/")
    assert other.source.split != opened.source.split
    with pytest.raises(ValueError, match=r"are studied on different splits of .*photos, as each run keeps its own"):
        check_comparable([opened, replace(other, source=replace(other.source, name=str(photos)))])
    assert find_split(["torchvision:resnet18", tmp_path / "run"], f"{photos}/") == tmp_path / "run"
    assert find_split(["torchvision:resnet18", tmp_path / "run"], "digits") is None
    same = open_experiment(model=net, data=DataOptions(name=str(photos), split_of=tmp_path / "run"))
    check_comparable([opened, same])
    digits = open_experiment(model=net, data=DataOptions(name="digits", split_of=tmp_path / "run"))
    assert digits.source.split is None
    with pytest.raises(FileNotFoundError, match="photos keeps no split; name the folder of a run that does by"):
        open_experiment(model=net, data=DataOptions(name=str(photos), split_of=photos))
    with pytest.raises(ValueError, match=r"keeps a split of .*photos with val_fraction=0\.3, not 0\.2; leave"):
        open_experiment(tmp_path / "run", data=DataOptions(val_fraction=0.2))
    (photos / "a" / images[0]).unlink()
    with pytest.raises(ValueError, match=rf"photos no longer has 'a/{images[0]}', which is in the split that the run"):
        open_experiment(tmp_path / "run")


def test_images_without_labels_are_studied(tmp_path):
    for n in range(3):
        Image.new("RGB", (8, 8), (n, 0, 0)).save(tmp_path / f"{n}.gif")
    experiment = open_experiment(model=nn.Sequential(nn.Conv2d(3, 2, 2)), data=str(tmp_path))
    assert len(experiment.images("test")) == 3
    assert experiment.images_sha256().keys() == {"test"}
    experiment = replace(experiment, features_root=tmp_path / "features")
    store, layers = experiment.store(), experiment.layers(names=["0"])
    assert experiment.extract(store, layers) == 3
    assert store.features("test", "0").shape == (3, 2)
    export_features(store, ["0"], tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz") as arrays:
        assert sorted(arrays) == ["classes", "test/0", "test/images", "test/labels"]
        assert arrays["test/images"].tolist() == ["0.gif", "1.gif", "2.gif"]
    export_features(store, ["0"], tmp_path / "features.csv")
    assert len((tmp_path / "features.csv").read_text().splitlines()) == 4
    with pytest.raises(
        ValueError, match="have no labels, but the probes are trained on labels; put them into a folder"
    ):
        network_features([experiment], [layers], "depth-probe")


def test_images_are_read_again_only_when_they_were_written_to(tmp_path, monkeypatch):
    """Whatever their size and times, which copying keeps."""
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), (number,) * 3).save(tmp_path / "images" / name / f"{number}.bmp")
    monkeypatch.setattr(lazy_images, "SETTLED", 0)  # whatever their age
    reads: list[str] = []
    read = lazy_images._file_sha256
    monkeypatch.setattr(lazy_images, "_file_sha256", lambda path: (reads.append(path), read(path))[1])
    data = load_dataset(str(tmp_path / "images"))
    test, digests = data.images("test", data.transform()), tmp_path / "contents"
    first = contents_sha256(test, Cache(), "test")
    assert (len(reads), contents_sha256(test, Cache(digests), "test"), len(reads)) == (6, first, 6)  # by this process
    contents._READ.clear()
    assert (contents_sha256(test, Cache(digests), "test"), len(reads)) == (first, 6)  # from the file
    contents._READ.clear()
    (digests / "test.json").write_text("{}")
    assert (contents_sha256(test, Cache(digests), "test"), len(reads)) == (first, 12)
    changed = tmp_path / "images" / "val" / "a" / "1.bmp"
    times = os.stat(changed)
    changed.write_bytes((tmp_path / "images" / "val" / "a" / "0.bmp").read_bytes())
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert contents_sha256(test, Cache(digests), "test") != first
    monkeypatch.undo()
    assert test.signature() is None  # of files that were written to just now
