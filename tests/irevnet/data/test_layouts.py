"""Folders of images as people have them, and the tables beside them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from irevnet.data.datasets import choose_classes, load_dataset
from irevnet.data.imagenet import class_names, output_names, synsets
from irevnet.data.images import DataSource


def write(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(path)


def shown(source: DataSource) -> dict[str, str]:
    """The class and split of each image, by the name of its file."""
    found = {}
    for split in source.splits:
        images = source.images(split, source.transform())
        for path, label in zip(images.images.paths, images.labels, strict=True):
            found[Path(path).name] = f"{images.classes[label]} {split}"
    return found


@pytest.fixture
def write_table(tmp_path) -> Callable[..., str]:
    """Writes a table, and images of these names beside it."""

    def make(text: str, *images: str, name: str = "table.csv") -> str:
        for number, image in enumerate(images):
            write(tmp_path / image, number)
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return make


def test_class_folders_are_split(tmp_path):
    for name in "ab":
        for n in range(10):
            write(tmp_path / name / f"{name}{n}.gif", n)
    write(tmp_path / "once" / "x.png")
    source = load_dataset(str(tmp_path))
    assert source.classes == ("a", "b", "once")
    assert source.split is not None
    assert len(source.split.test) == 4
    (remark,) = source.remarks
    assert remark.startswith(
        f"{tmp_path} has no training and test images of its own: 4 of 21 were drawn to test on, 0.2"
    )
    train = source.images("train", source.transform())
    assert (len(train), train[0][0].shape) == (17, (3, 8, 8))
    with pytest.raises(
        ValueError, match=r"class 'once' of .* has no test images, and 1 training images, too few for bo"
    ):
        source.images("test", source.transform())
    two = choose_classes(source, ("a", "b"))
    assert len(source.images("test", source.transform(), classes=two)) == 4
    half = load_dataset(str(tmp_path), val_fraction=0.5)
    assert half.split is not None
    assert {*half.split.test} > {*source.split.test}


def test_class_that_a_split_lacks_may_be_left_out(tmp_path):
    for place in ("train/a", "train/b", "train/c", "train/d", "val/a", "val/b", "val/e"):
        write(tmp_path / place / "x.png")
    source = load_dataset(str(tmp_path))
    assert source.classes == tuple("abcde")
    message = (
        r"class 'c' of .* has no test images \(nor have 1 other classes\), and 1 training images; add some, or give"
    )
    with pytest.raises(ValueError, match=message):
        source.images("test", source.transform())
    for split in ("train", "test"):
        assert len(source.images(split, source.transform(), classes=("a", "b"))) == 2


@pytest.mark.parametrize(
    ("paths", "options", "message"),
    [
        (("a/x.png", "b/x.png", "y.png"), {}, r"holds folders and images, such as y\.png; expected a folder of images"),
        (("notes.txt",), {}, r"holds no images; expected some \(\.jpg, "),
        (
            ("train/a/x.png", "val/a/x.png"),
            {"val_fraction": 0.2},
            "it is known which images of .* are tested on; leave",
        ),
        (("x.png",), {"val_fraction": 0.2}, "it is known which images of .* are tested on; leave `val_fraction` out"),
    ],
)
def test_folders_that_are_no_data_set_are_explained(tmp_path, paths, options, message):
    for path in paths:
        write(tmp_path / path) if path.endswith("png") else (tmp_path / path).touch()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_dataset(str(tmp_path), **options)


def test_split_of_other_data_is_refused(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name / "a" / "x.png")
        write(tmp_path / name / "a" / "y.png")
    split = load_dataset(str(tmp_path / "one")).split
    with pytest.raises(ValueError, match=r"the split is one of .*one, not of .*two; leave it out"):
        load_dataset(str(tmp_path / "two"), split=split)
    (tmp_path / "one" / "val").mkdir()
    (tmp_path / "one" / "a").rename(tmp_path / "one" / "val" / "a")
    with pytest.raises(
        ValueError, match=r"it is now known which images of .* are tested on, but the run had drawn some"
    ):
        load_dataset(str(tmp_path / "one"), split=split)


def test_images_alone_have_no_labels(tmp_path):
    for n in range(3):
        write(tmp_path / f"{n}.png", n)
    (tmp_path / "notes.csv").write_text("name,weather\n0,sunny\n")
    source = load_dataset(str(tmp_path))
    assert (source.splits, source.labelled) == (("test",), False)
    assert shown(source) == {f"{n}.png": "(no label) test" for n in range(3)}
    with pytest.raises(ValueError, match="has test images alone, but training images are needed here; give data with"):
        source.images("train", source.transform())


def test_table_names_images_classes_and_splits(write_table, tmp_path):
    text = "path,label,split\na.png,10,train\ndeep/b.png,9,Training\nc.png,10,test\nd.png,9,testing\ne.png,9,val\n"
    table = write_table(text, "a.png", "deep/b.png", "c.png", "d.png", "e.png")
    source = load_dataset(table)
    assert source.classes == ("9", "10")
    assert shown(source) == {"a.png": "10 train", "b.png": "9 train", "c.png": "10 test", "d.png": "9 test"}
    assert source.remarks == (f"{table} has a split val beside test: 1 image in it, not used",)
    assert source.image_shape == (3, 8, 8)
    (tmp_path / "folder").mkdir()
    Path(table).write_text("path,label,split\na.png,NA,train\nc.png,NA,valid\n")
    assert shown(load_dataset(table)) == {"a.png": "NA train", "c.png": "NA test"}


def test_table_without_splits_is_split(write_table):
    images = [f"{n}.png" for n in range(10)]
    table = write_table("path,label\n" + "".join(f"{name},b\n" for name in images), *images)
    assert sorted(shown(load_dataset(table)).values()) == ["b test"] * 2 + ["b train"] * 8


def test_table_beside_images_is_found(write_table, tmp_path):
    write_table("label,path\ncat,a.png\ncat,b.png\n", "a.png", "b.png")
    assert sorted(shown(load_dataset(str(tmp_path))).values()) == ["cat test", "cat train"]
    write_table("path,label\na.png,dog\n", name="other.csv")
    with pytest.raises(ValueError, match=r"has two tables of its images, other\.csv and table\.csv; give one itself"):
        load_dataset(str(tmp_path))


OF_KAGGLE = (
    "ImageId,PredictionString\nILSVRC2012_val_1,n02012849 1 2 3 4 n01440764 1 2 3 4\nILSVRC2012_val_2,n01440764 1\n"
)
OF_CAFFE = "ILSVRC2012_val_1.JPEG 134\nILSVRC2012_val_2.JPEG 0\n"


@pytest.mark.parametrize(("name", "text"), [("LOC_val_solution.csv", OF_KAGGLE), ("val.txt", OF_CAFFE)])
def test_validation_images_of_imagenet_have_their_table(write_table, tmp_path, name, text):
    table = write_table(text, "ILSVRC2012_val_1.JPEG", "ILSVRC2012_val_2.JPEG", name=name)
    classes = {"ILSVRC2012_val_1.JPEG": "n02012849 test", "ILSVRC2012_val_2.JPEG": "n01440764 test"}
    for data in (table, str(tmp_path)):
        source = load_dataset(data)
        assert (shown(source), source.splits) == (classes, ("test",))
        assert bool(source.remarks) == (name == "val.txt")
    whole = tmp_path / "whole"
    whole.mkdir()
    for each in [*classes, name]:
        (whole / "val").mkdir(exist_ok=True)
        (tmp_path / each).rename(whole / "val" / each)
    for each in ("n02012849", "n01440764"):
        write(whole / "train" / each / "x.png")
    assert shown(load_dataset(str(whole))) == {**classes, "x.png": "n02012849 train"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "table.csv",
            "file,class\na.png,b\n",
            "has 1 rows of file, class; expected a CSV with the columns path and lab",
        ),
        ("table.csv", "path,label\n", "has 0 rows of path, label; expected a CSV"),
        ("table.csv", "", r"table\.csv cannot be read as CSV: No columns"),
        ("table.csv", "path,label\n../a.png,b\n", r"names the file '\.\./a\.png'; expected one in the table's folder"),
        ("table.csv", "path,label\n/etc/a.png,b\n", "names the file '/etc/a.png'; expected one in the table's folder"),
        (
            "table.csv",
            "path,label\na.png,b\n./a.png,c\n",
            r"names .*a\.png twice, again in row 2; name each image once",
        ),
        ("table.csv", "path,label\na.png,\n", "has no label in row 1; give the class of each image"),
        ("table.csv", "path,label\na.png, b\n", "has a class ' b'; rename it, without line breaks and spaces"),
        (
            "table.csv",
            "path,label,split\na.png,b,dev\n",
            "has the split 'dev' in row 1; expected one of train, training",
        ),
        ("table.csv", "ImageId,PredictionString\na,cat 1\n", "has 'cat'; expected the WordNet number of one of"),
        (
            "table.csv",
            "ImageId,PredictionString\nb,n01440764 1\n",
            r"has no image 'b', which table\.csv names \(1 of 1 ",
        ),
        ("val.txt", "ILSVRC2012_val_1.JPEG 1000\n", "has 'ILSVRC2012_val_1.JPEG 1000' in line 1; expected a CSV with"),
        (
            "val.txt",
            "cat.png 3\n",
            "has 'cat.png 3' in line 1; expected a CSV with the columns path and label, and per",
        ),
        ("val.txt", "", r"val\.txt is empty; expected a CSV"),
        ("val.txt", "\udcff", r"val\.txt cannot be read as text: "),
        ("table.json", "[]", r"table\.json is no table of images; expected a CSV"),
    ],
)
def test_other_tables_are_refused(tmp_path, name, text, message):
    write(tmp_path / "a.png")
    (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_dataset(str(tmp_path / name))


def test_table_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match=r"there is no file gone\.csv; expected a table of images, a folder"):
        load_dataset("gone.csv")


def test_unreadable_images_of_a_table_are_skipped(write_table, tmp_path):
    images = [f"{n}.png" for n in range(6)]
    table = write_table("path,label\n" + "".join(f"{name},b\n" for name in images), *images)
    (tmp_path / "3.png").write_bytes(b"")
    source = load_dataset(table, on_error="skip")
    assert source.skipped is not None
    assert source.skipped.keys() == {"3.png"}
    assert shown(source).keys() == {*images} - {"3.png"}
    again = load_dataset(table, skipped=source.skipped, split=source.split)
    assert shown(again) == shown(source)


def test_outputs_of_imagenet_are_those_of_timm():
    info = pytest.importorskip("timm.data").ImageNetInfo()
    assert synsets() == tuple(info.label_names())
    named = np.array(info.label_descriptions())
    assert named[synsets().index("n02012849")] == "crane"
    assert class_names()[:2] == ("tench", "goldfish")
    assert len({*class_names()}) == len(synsets()) == 1000
    assert output_names(["n02012849", "tench"]) is None
    assert output_names(["crane"]) is output_names(["maillot"]) is None
