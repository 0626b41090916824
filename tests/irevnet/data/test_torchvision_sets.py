"""Data sets of torchvision, read from small files in their layouts."""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from scipy.io import savemat

from irevnet.data import torchvision_sets
from irevnet.data.datasets import load_dataset
from irevnet.data.images import DataSource
from irevnet.data.sources import LoadOptions
from irevnet.data.torchvision_sets import open_torchvision

RNG = np.random.default_rng(0)

TAKE_LOADERS = "loader" in inspect.signature(torchvision.datasets.Imagenette).parameters
"""Whether classes of this release of torchvision that list their files let others read these."""


def write(path: Path, size: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)


def images_of(source: DataSource, split: Any) -> Any:
    return source.images(split, source.transform())


@pytest.fixture
def intact(monkeypatch) -> None:
    """Takes small files for the real ones."""
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda path, md5=None: Path(path).is_file())
    monkeypatch.setattr("torchvision.datasets.semeion.check_integrity", lambda path, md5=None: Path(path).is_file())


@pytest.mark.usefixtures("intact")
def test_arrays_are_held_in_one_tensor(tmp_path):
    pixels = {split: RNG.integers(0, 256, (32, 32, 3, 12), dtype=np.uint8) for split in ("train", "test")}
    for split, values in pixels.items():
        savemat(
            tmp_path / f"{split}_32x32.mat", {"X": values, "y": np.arange(1, 13)[:, None] % 11}
        )  # 10 is the digit 0
    source = load_dataset("torchvision:SVHN", root=tmp_path)
    assert (source.classes, source.image_shape) == (tuple("0123456789"), (3, 32, 32))
    assert (source.split, source.statistics[0]) == (None, (0.485, 0.456, 0.406))
    for split, values in pixels.items():
        images = images_of(source, split)
        assert isinstance(images.images, torch.Tensor)
        assert images.labels[:10] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
        torch.testing.assert_close(images[3][0], torch.from_numpy(values[..., 3]).permute(2, 0, 1) / 255)
    with pytest.raises(ValueError, match=r"it is known which images of torchvision:SVHN are tested on; leave"):
        load_dataset("torchvision:SVHN", root=tmp_path, val_fraction=0.2)


@pytest.mark.usefixtures("intact")
def test_array_without_split_is_split(tmp_path):
    rows = np.concatenate([RNG.integers(0, 2, (20, 256)), np.eye(10)[np.arange(20) % 10]], axis=1)
    np.savetxt(tmp_path / "semeion.data", rows)
    source = load_dataset("torchvision:SEMEION", root=tmp_path, val_fraction=0.5)
    assert (source.classes, source.image_shape, source.statistics) == (
        tuple("0123456789"),
        (1, 16, 16),
        ((0.5,), (0.5,)),
    )
    assert source.split is not None
    for split, names in (("train", source.split.train), ("test", source.split.test)):
        images = images_of(source, split)
        assert sorted(images.labels) == list(range(10))
        chosen = [int(name) for name in names]
        np.testing.assert_array_equal(images.images, rows[chosen, :256].reshape(-1, 1, 16, 16) * 255)
    kept = load_dataset("torchvision:SEMEION", root=tmp_path, split=source.split)
    assert images_of(kept, "test").sha256() == images_of(source, "test").sha256()


def test_files_are_read_as_those_of_a_folder(tmp_path):
    for name in ("Forest", "River"):
        for n in range(5):
            write(tmp_path / "eurosat" / "2750" / name / f"{name}_{n}.jpg")
    source, folder = load_dataset("torchvision:EuroSAT", root=tmp_path), load_dataset(str(tmp_path / "eurosat/2750"))
    assert (source.classes, source.image_shape) == (("Forest", "River"), (3, 8, 8))
    assert source.split is not None
    assert folder.split is not None
    assert source.split.test == folder.split.test
    for split in ("train", "test"):
        assert images_of(source, split).images.paths == images_of(folder, split).images.paths
        assert images_of(source, split).sha256() == images_of(folder, split).sha256()
    (tmp_path / "eurosat/2750/Forest/Forest_0.jpg").write_bytes(b"")
    skipped = load_dataset("torchvision:EuroSAT", root=tmp_path, on_error="skip").skipped
    assert skipped is not None
    assert skipped.keys() == {"Forest/Forest_0.jpg"}


def test_classes_of_imagenet_keep_their_wordnet_numbers(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for name in ("n01440764", "n02102040"):
            for n in range(count):
                write(tmp_path / "imagenette2" / split / name / f"{n}.JPEG", size=8 + n)
    source = load_dataset("torchvision:Imagenette", root=tmp_path)
    shape = (3, 8, 8) if TAKE_LOADERS else (3, None, None)  # of images read item by item it is not known
    assert (source.classes, source.image_shape) == (("n01440764", "n02102040"), shape)
    assert [images_of(source, split).labels for split in ("train", "test")] == [[0, 0, 0, 1, 1, 1], [0, 0, 1, 1]]


def test_test_images_without_labels_are_passed_over(tmp_path):
    place = tmp_path / "clevr" / "CLEVR_v1.0"
    for split in ("train", "val", "test"):
        scenes = []
        for n in range(4):
            write(place / "images" / split / f"{split}{n}.png")
            scenes.append({"image_filename": f"{split}{n}.png", "objects": [0] * (9 + n % 2)})
        (place / "scenes").mkdir(exist_ok=True)
        (place / "scenes" / f"CLEVR_{split}_scenes.json").write_text(json.dumps({"scenes": scenes}))
    source = load_dataset("torchvision:CLEVRClassification", root=tmp_path)
    assert source.classes == ("9", "10")
    assert images_of(source, "test").labels == [0, 1, 0, 1]
    if TAKE_LOADERS:
        assert [Path(path).name for path in images_of(source, "test").images.paths] == [f"val{n}.png" for n in range(4)]


def test_other_sets_are_read_item_by_item(tmp_path):
    """One that has no arrays and takes no loader."""
    place = tmp_path / "oxford-iiit-pet"
    for split in ("trainval", "test"):
        rows = [(f"{name}_{split}{n}", label) for label, name in enumerate(("Abyssinian", "pug"), 1) for n in range(2)]
        for name, _ in rows:
            write(place / "images" / f"{name}.png")
            (place / "images" / f"{name}.png").rename(place / "images" / f"{name}.jpg")
        (place / "annotations").mkdir(exist_ok=True)
        (place / "annotations" / f"{split}.txt").write_text("".join(f"{name} {label} 1 1\n" for name, label in rows))
    source = load_dataset("torchvision:OxfordIIITPet", root=tmp_path)
    assert (source.classes, source.image_shape) == (("Abyssinian", "Pug"), (3, 8, 8))
    test = images_of(source, "test")
    assert test.labels == [0, 0, 1, 1]
    expected = np.asarray(Image.open(place / "images" / "pug_test1.jpg")) / np.float32(255)
    np.testing.assert_allclose(test[3][0].permute(1, 2, 0), expected, rtol=1e-6)
    write(place / "images" / "changed.png")
    (place / "images" / "changed.png").rename(place / "images" / "pug_test1.jpg")
    again = load_dataset("torchvision:OxfordIIITPet", root=tmp_path)
    assert images_of(again, "test").sha256() != test.sha256()
    assert images_of(again, "train").sha256() == images_of(source, "train").sha256()


@pytest.mark.parametrize("name", ["CelebA", "CocoDetection", "MovingMNIST", "Sintel", "UCF101", "VOCSegmentation"])
def test_sets_without_classes_are_refused_by_name(name):
    with pytest.raises(
        ValueError, match=rf"the images of torchvision:{name} have .* in place of a class; name one with"
    ):
        load_dataset(f"torchvision:{name}")


@pytest.mark.parametrize("name", ["SVNH", "ImageFolder", "FakeData", "wrap_dataset_for_transforms_v2"])
def test_names_that_are_no_set_are_refused(name):
    with pytest.raises(ValueError, match=rf"there is no data set of torchvision '{name}'; "):
        load_dataset(f"torchvision:{name}")


def test_every_set_with_classes_is_looked_for_in_its_folder(tmp_path, capsys):
    """That it is not there is said in words of this toolkit, whatever its constructor raises."""
    for name in torchvision.datasets.__all__:
        try:
            torchvision_sets.named_set(f"torchvision:{name}")
        except ValueError:
            continue
        message = r"is not under .*, or is damaged there; name the folder|needs a package that is not installed"
        if name == "EMNIST":
            message = r"has no images with one class each \(Unknown value 'valid' for argument split"
        with pytest.raises((FileNotFoundError, ImportError, ValueError), match=message):
            load_dataset(f"torchvision:{name}", root=tmp_path)
    assert capsys.readouterr().out == ""


def test_files_that_cannot_be_fetched_are_explained(tmp_path):
    def failing(error: Exception) -> Any:
        def kind(root, train=True, download=False):
            if download:
                print("fetching")
            raise error

        return kind

    options = LoadOptions(root=tmp_path, download=True)
    with pytest.raises(OSError, match=r"it cannot be fetched, or read \(no route\); put its files under"):
        open_torchvision("it", failing(OSError("no route")), options)
    with pytest.raises(ImportError, match="it needs a package that is not installed: No module named 'h5py'"):
        open_torchvision("it", failing(ModuleNotFoundError("No module named 'h5py'")), options)


def test_items_count_where_an_array_says_otherwise(tmp_path):
    class Turned(torch.utils.data.Dataset):
        """The array of a data set whose items are turned."""

        def __init__(self, root, train=True):
            self.data = RNG.integers(0, 256, (4, 8, 8), dtype=np.uint8)
            self.targets = [0, 0, 1, 1]

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return Image.fromarray(self.data[index].T.copy()), self.targets[index]

    images = images_of(open_torchvision("it", Turned, LoadOptions(root=tmp_path)), "test")
    assert not isinstance(images.images, torch.Tensor)
    assert images.labels == [0, 0, 1, 1]
