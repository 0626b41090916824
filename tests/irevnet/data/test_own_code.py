"""Data sets of one's own code, and what their items may be."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

from analysis.opening import open_experiment
from irevnet.data.datasets import load_dataset
from irevnet.data.items import as_image, as_label
from irevnet.training.config import recipe
from irevnet.training.runs import new_run
from irevnet.training.settings import RunSettings, check_unchanged

CODE = """
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from beside_data import SHADES

class Photos(Dataset):
    classes = ["ant", "bee"]

    def __init__(self, count=10, first=0):
        self.count, self.first = count, first

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return Image.new("RGB", (8, 8), (SHADES * (self.first + index), 0, 0)), index % 2

class OfSplit(Photos):
    def __init__(self, split):
        super().__init__(6 if split == "train" else 4, 0 if split == "train" else 6)

class Endless(IterableDataset):
    def __iter__(self):
        yield from Photos()

class Jittered(Photos):
    def __getitem__(self, index):
        return torch.rand(3, 8, 8), 0

class Mixed(Photos):
    def __getitem__(self, index):
        return super().__getitem__(index)[0], [1, "ant"][index % 2]

class Torn(Photos):
    def __getitem__(self, index):
        if index == 3:
            raise RuntimeError("torn")
        return super().__getitem__(index)

class Triples(Photos):
    def __getitem__(self, index):
        return (*super().__getitem__(index), index)

class Unnamed(Photos):
    classes = ["ant"]

photos = Photos()
pair = OfSplit("train"), OfSplit("test")
empty = Photos(0)
number = 3

def made():
    return Photos()

def made_pair():
    return pair

def of_split(which):
    return OfSplit(which)

def of_usual_split(split="train", *, root="."):
    return OfSplit(split)

def of_keyword(*, split):
    return OfSplit(split)

def always(split):
    return photos

def boolean(train):
    return OfSplit("train" if train else "test")

def needs(one, two):
    return photos

def fails():
    raise RuntimeError("no such luck")

def words():
    return TensorDataset(torch.rand(6, 1, 8, 8), torch.tensor([10, 10, 10, 9, 9, 9]))
"""


@pytest.fixture
def code(tmp_path, monkeypatch) -> str:
    """A file of one's own, which imports another beside it."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "beside_data", raising=False)
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "beside_data.py").write_text("SHADES = 20")
    return str(tmp_path / "mine.py")


@pytest.mark.parametrize("name", ["photos", "made", "Photos"])
def test_data_set_without_split_is_split(code, name):
    source = load_dataset(f"{code}:{name}")
    assert (source.classes, source.image_shape) == (("ant", "bee"), (3, 8, 8))
    assert source.split is not None
    for split, names in (("train", source.split.train), ("test", source.split.test)):
        images = source.images(split, source.transform())
        assert images.labels == [int(each) % 2 for each in names]
        assert [round(float(image[0, 0, 0]) * 255) for image, _ in images] == [20 * int(each) for each in names]
    assert source.statistics[0] == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("name", "workers"),
    [("pair", 2), *((name, 0) for name in ("made_pair", "OfSplit", "of_split", "of_usual_split", "of_keyword"))],
)
def test_data_set_with_split_keeps_it(code, name, workers):
    source = load_dataset(f"{code}:{name}", workers=workers)
    train, test = (source.images(split, source.transform()) for split in ("train", "test"))
    assert source.split is None
    assert (train.labels, test.labels) == ([0, 1, 0, 1, 0, 1], [0, 1, 0, 1])
    assert round(float(test[0][0][0, 0, 0]) * 255) == 120
    with pytest.raises(
        ValueError, match=r"it is known which images of .*mine\.py:.* are tested on; leave `val_fraction`"
    ):
        load_dataset(f"{code}:{name}", val_fraction=0.5)


def test_data_set_of_integers_has_these_as_classes(code):
    source = load_dataset(f"{code}:words", val_fraction=0.34)
    assert (source.classes, source.image_shape, source.statistics) == (("9", "10"), (1, 8, 8), ((0.5,), (0.5,)))
    assert sorted(source.images("test", source.transform()).labels) == [0, 1]


def test_contents_identify_a_data_set(code):
    """Whatever its code says of itself."""

    def digests() -> list[str]:
        source = load_dataset(f"{code}:pair")
        return [source.images(split, source.transform()).sha256() for split in ("train", "test")]

    before = digests()
    assert digests() == before
    text = Path(code).read_text()
    Path(code).write_text(text.replace("SHADES * (", "(SHADES + (index + self.first == 7)) * ("))
    after = digests()
    assert after[0] == before[0]
    assert after[1] != before[1]
    Path(code).write_text(text.replace("index % 2", "index // 3 % 2"))
    assert digests()[0] != before[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("photo", r"there is no name in .*mine\.py 'photo'; did you mean photos"),
        (
            "number",
            r"mine\.py:number is, or returns, a int; expected a torch\.utils\.data\.Dataset with a length, a pair",
        ),
        ("Endless", "is, or returns, a Endless; expected a torch"),
        ("empty", "is, or returns, a data set without items; give it some"),
        ("needs", r"returned no data set \(TypeError: it takes 2 arguments\); expected a torch"),
        ("fails", r"returned no data set \(RuntimeError: no such luck\); expected a torch"),
        ("always", "gives the same images to train and to test on; have it tell 'train' from 'test'"),
        ("boolean", "gives the same images to train and to test on"),
        ("Jittered", "item 0 of .*:Jittered differs each time it is read; leave random changes of images out"),
        ("Mixed", "has labels that are integers and labels that are text; expected one of the two"),
        ("Torn", r"item 3 of .*:Torn cannot be read \(RuntimeError: torn\); mend the data set"),
        ("Triples", "item 0 of .*:Triples is unknown: it is a tuple of 3; expected a pair of an image and its label"),
        ("Unnamed", "item 1 of .*:Unnamed has label 1; expected 0 to 0, as it has names"),
    ],
)
def test_what_is_no_data_set_is_explained(code, name, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(f"{code}:{name}")


BYTES = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(BYTES), BYTES),
        (Image.fromarray(BYTES[..., 0]), BYTES[..., :1]),
        (BYTES, BYTES),
        (BYTES[::-1].transpose(2, 0, 1), BYTES[::-1]),
        (torch.from_numpy(BYTES), BYTES),
        (torch.from_numpy(BYTES[..., 0]), BYTES[..., :1]),
        (np.concatenate([BYTES, BYTES[..., :1]], axis=2), BYTES),
        (BYTES / 255, np.float32(BYTES / 255)),
        (torch.from_numpy(BYTES / 255).half(), np.float16(BYTES / 255)),
    ],
)
def test_images_are_pil_images_arrays_or_tensors(image, expected):
    np.testing.assert_array_equal(as_image(image).permute(1, 2, 0), expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("a.png", "its image is a str; expected a PIL image, an array or a tensor"),
        (BYTES.astype(np.int64), r"its image is of torch\.int64; expected uint8, or floating-point values in \[0, 1\]"),
        (BYTES - 0.5, r"its image has values from -0\.5 to 88\.5; expected them in \[0, 1\], or uint8, before any"),
        (BYTES * np.nan, "its image has values from nan to nan; expected them"),
        (
            BYTES[:3, :, :3],
            r"its image has the shape \(3, 5, 3\), in which the channels may be either end; expected \(c,",
        ),
        (
            BYTES[:2, :, :2],
            r"its image has the shape \(2, 5, 2\), which is no image; expected \(c, h, w\), \(h, w, c\)",
        ),
        (BYTES[:0], r"its image has the shape \(0, 5, 3\), which is no image"),
        (Image.new("I", (4, 4)), "the white level of its image of 32-bit integers is unknown; convert it to 8 or 16"),
    ],
)
def test_other_images_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        as_image(image)


def test_labels_are_integers_or_text():
    for label, expected in (
        (3, 3),
        (np.int64(3), 3),
        (np.array(3), 3),
        (torch.tensor(3), 3),
        ("cat", "cat"),
        (np.str_("cat"), "cat"),
    ):
        found = as_label(label)
        assert found == expected
        assert isinstance(found, int | str)
    wrong: list[Any] = [None, True, 0.5, torch.tensor([0, 1]), torch.tensor(0.5), {"boxes": []}, (1, 2), np.array([3])]
    for label in wrong:
        with pytest.raises(ValueError, match=r"its label is .*; expected the number of one class, or its name"):
            as_label(label)


def test_code_that_a_file_names_is_not_run(code, tmp_path, monkeypatch):
    """By nobody who does not name it."""
    settings = RunSettings(model="irevnet-small", data=f"{code}:pair", training=recipe("digits", steps=1, batch_size=4))
    list(new_run(tmp_path / "run", settings).epochs())
    ran = tmp_path / "ran"
    Path(code).write_text(f"{CODE}\nfrom pathlib import Path\nPath({str(ran)!r}).touch()")
    message = r"says that its data are '.*mine\.py:pair', which is code; to run it, name it yourself by `data`"
    with pytest.raises(ValueError, match=message):
        open_experiment(tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        check_unchanged(tmp_path / "run", {})
    assert not ran.exists()
    check_unchanged(tmp_path / "run", {"data": f"{code}:pair"})
    assert len(open_experiment(tmp_path / "run", data=f"{code}:pair").images("test")) == 4
    assert ran.exists()


def test_part_of_a_data_set_has_its_classes(tmp_path, monkeypatch):
    class Named(Dataset):
        classes = ("ant", "bee")

        def __len__(self):
            return 8

        def __getitem__(self, index):
            return np.full((8, 8), index, np.uint8), index % 2

    monkeypatch.setattr("irevnet.data.own_code.named_object", lambda name: Subset(Named(), range(2, 8)))
    assert load_dataset("mine:part").classes == ("ant", "bee")
    tensors = TensorDataset(torch.zeros(4, 3, 8, 8), torch.tensor([0, 0, 1, 1]))
    monkeypatch.setattr("irevnet.data.own_code.named_object", lambda name: tensors)
    assert load_dataset("mine:tensors").classes == ("0", "1")
