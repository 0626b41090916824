import os
import pickle
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets

from irevnet.data.datasets import _from_torchvision, choose_classes, load_dataset
from irevnet.data.image_folder import read_skipped, save_skipped
from irevnet.data.images import DataSource, LabelledImages
from irevnet.data.loaders import batches, training_batches
from irevnet.data.transforms import InputTransform

DIGITS = InputTransform(channels=1, image_size=(8, 8))


@pytest.fixture(scope="module")
def digits() -> DataSource:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def digits_for_testing(digits) -> LabelledImages:
    return digits.images("test", digits.transform())


def test_split_of_the_digits_is_fixed_and_stratified(digits, digits_for_testing, unchecked_types):
    train = digits.images("train", digits.transform())
    assert (len(train), len(digits_for_testing)) == (1437, 360)
    assert min(np.bincount(digits_for_testing.labels)) >= 34
    every = load_digits()
    known = {(image / 16).astype(np.float32).tobytes(): label for image, label in zip(every.images, every.target)}
    found = {image.numpy().tobytes(): label for data in (train, digits_for_testing) for image, label in data}
    assert found == known
    assert digits.classes == tuple("0123456789")
    normalised = digits.images("train", digits.transform(normalise=True))
    pixels = torch.stack([image for image, _ in normalised])
    assert abs(pixels.mean().item()) < 1e-3
    assert pixels.std().item() == pytest.approx(1, abs=1e-3)


def test_cifar_is_read_from_its_folder(tmp_path, monkeypatch):
    """Both sets in the layout of their archives, with twelve images each (a batch of two, and ten to test)."""
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: Path(path).is_file())
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    rows = pixels.reshape(12, -1)
    files = {f"10-batches-py/data_batch_{i}": {"data": rows[:2], "labels": [3, 9]} for i in range(1, 6)}
    files["10-batches-py/test_batch"] = {"data": rows[2:], "labels": list(range(10))}
    files["10-batches-py/batches.meta"] = {"label_names": list("abcdefghij")}
    files["100-python/train"] = {"data": rows[:2], "fine_labels": [42, 7]}
    files["100-python/test"] = {"data": rows[2:], "fine_labels": list(range(0, 100, 10))}
    files["100-python/meta"] = {"fine_label_names": [f"class {n}" for n in range(100)]}
    for name, content in files.items():
        path = tmp_path / f"cifar-{name}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(content))
    ten, hundred = (load_dataset(name, root=tmp_path) for name in ("cifar10", "cifar100"))
    assert ten.classes == tuple("abcdefghij")
    train = ten.images("train", ten.transform())
    assert train.labels == [3, 9] * 5
    torch.testing.assert_close(train[1][0], torch.from_numpy(pixels[1] / np.float32(255)), rtol=1e-7, atol=0)
    assert hundred.images("train", hundred.transform()).labels == [42, 7]
    normalised, _ = ten.images("test", ten.transform(normalise=True))[0]
    assert normalised[1, 5, 5].item() == pytest.approx((pixels[2, 1, 5, 5] / 255 - 0.4822) / 0.1994, rel=1e-5)


def test_fashion_mnist_is_read_from_its_folder(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    for name in ("train", "t10k"):
        header = np.array([0x803, 4, 28, 28], dtype=">i4").tobytes()
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        header = np.array([0x801, 4], dtype=">i4").tobytes()
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(header + bytes([9, 0, 3, 3]))
    source = load_dataset("fashion-mnist", root=tmp_path)
    data = source.images("test", source.transform())
    assert data.labels == [9, 0, 3, 3]
    assert source.classes[9] == "Ankle boot"
    torch.testing.assert_close(data[2][0], torch.from_numpy(pixels[2:3] / np.float32(255)), rtol=1e-7, atol=0)


def test_data_sets_that_are_not_there_are_explained(tmp_path):
    with pytest.raises(ValueError, match="there is no data set or folder 'digit'; did you mean digits"):
        load_dataset("digit")
    for name in ("cifar10", "cifar100", "fashion-mnist"):
        absent = rf"{name} is not under .*; name the folder that holds its files, or set `download`"
        with pytest.raises(FileNotFoundError, match=absent):
            load_dataset(name, root=tmp_path)
    asked = []  # files are fetched only then

    def fetch(root, train=True, download=False):
        asked.append(download)
        raise RuntimeError("no network")

    for download in (False, True):
        with pytest.raises(FileNotFoundError):
            _from_torchvision("cifar10", fetch, (3, 32, 32), ((0.0,), (1.0,)))(tmp_path, download)
    assert asked == [False, True]


def test_classes_are_chosen_by_number_and_seed_or_by_name(digits):
    three = choose_classes(digits, 3, seed=1)
    assert len(three) == 3
    assert three == choose_classes(digits, 3, seed=1)
    assert list(three) == sorted(three)
    assert {choose_classes(digits, 3, seed=seed) for seed in range(20)} > {three}
    assert choose_classes(digits, 10) == digits.classes
    assert choose_classes(digits, ("7", "2")) == ("2", "7")
    assert choose_classes(digits, 2, among=("5", "4")) == ("4", "5")
    for which, message in (
        (1, "expected 2 to 10 classes of digits, got 1"),
        (11, "expected 2 to 10 classes of digits, got 11"),
        (("3", "13"), "there is no class of digits '13'; did you mean 3"),
        (("3", "3"), "expected at least 2 classes of digits, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            choose_classes(digits, which)


def test_subset_has_the_images_of_its_classes(digits, digits_for_testing):
    subset = digits.images("test", digits.transform(), classes=("7", "2"))
    expected = [(image, "72".index(str(label))) for image, label in digits_for_testing if label in (2, 7)]
    assert subset.labels == [label for _, label in expected]
    assert all(torch.equal(image, other) for (image, _), (other, _) in zip(subset, expected, strict=True))
    numbers = [str(row) for row, label in enumerate(digits_for_testing.labels) if label in (2, 7)]
    assert subset.names == numbers  # those of the whole split
    again = subset.relabelled(tuple("9876543210"))
    assert again.names == numbers
    assert again.labels == [9 - int("72"[label]) for label in subset.labels]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of coloured images of different sizes, one of them grey."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for n in range(count):
                shape = (20 + n, 30, 3) if n else (20, 30)
                Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / split / name / f"{n}.png")
    (tmp_path / "train" / "notes.txt").write_text("not a class")
    return tmp_path


def test_a_folder_of_images_is_a_data_set(folder):
    source = load_dataset(str(folder))
    assert source.classes == ("cat", "dog")
    data = source.images("train", source.transform(image_size=16))
    assert data.labels == [0, 0, 0, 1, 1, 1]
    assert data[0][0].shape == (source.image_shape[0], 16, 16)
    assert len(source.images("test", source.transform())) == 4
    dogs_first = source.images("train", source.transform(), classes=("dog", "cat"))
    assert dogs_first.labels == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("place", ["", "/", "/.", "here"])
def test_files_are_named_by_their_path_in_the_folder(folder, place, monkeypatch):
    (folder / "train" / "dog" / "more").mkdir()
    (folder / "train" / "dog" / "2.png").rename(folder / "train" / "dog" / "more" / "2.png")
    monkeypatch.chdir(folder)
    source = load_dataset("." if place == "here" else f"{folder}{place}")
    cats = [f"train/cat/{n}.png" for n in range(3)]
    dogs = ["train/dog/0.png", "train/dog/1.png", "train/dog/more/2.png"]
    assert source.images("train", source.transform()).names == cats + dogs
    assert source.images("train", source.transform(), classes=("dog",)).names == dogs


@pytest.mark.parametrize(("train", "val"), [("training", "validation"), ("train", "test"), ("train", "valid")])
def test_splits_may_have_other_names(folder, train, val):
    for old, new in (("train", train), ("val", val)):
        (folder / old).rename(folder / new)
    source = load_dataset(str(folder))
    assert [len(source.images(split, source.transform())) for split in ("train", "test")] == [6, 4]
    (folder / "val").mkdir()  # is preferred
    with pytest.raises(ValueError, match="val has no folder for class 'cat'; both splits need the same classes"):
        load_dataset(str(folder))


def test_images_of_one_square_size_keep_it_others_are_cropped(folder):
    source = load_dataset(str(folder))
    assert source.image_shape == (1, None, None)  # the first of each class determines the channels
    assert source.transform() == InputTransform(channels=1, image_size=(224, 224), resize=256)
    assert source.transform(image_size=112).resize == 128
    for channels in (3, 1):
        for name in ("cat", "dog"):
            pixels = np.zeros((12, 12, channels), dtype=np.uint8).squeeze()
            Image.fromarray(pixels).save(folder / "train" / name / "0.png")
        source = load_dataset(str(folder))
        assert source.image_shape == (channels, 12, 12)
        assert source.transform() == InputTransform(channels=channels, image_size=(12, 12))


SPOILT = {
    "rm -r val": "has no folder val/; expected train/ and val/, or training/ and validation/ or test/, and",
    "rm -r train/* val/*": "train holds no class folders; expected a folder of images for each class",
    "mkdir train/bird": "val has no folder for class 'bird'; both splits need the same classes",
    "mkdir val/bird": "train has no folder for class 'bird'; both splits need the same classes",
    "mkdir train/bird val/bird": r"train/bird holds no images; add some \(\.jpg, .*\), or remove the class from",
    "for at in train val; do mv $at/cat $at/'two\nlines'; done": r"train has a class 'two\\nlines'; rename it, without",
    "ln -s . train/dog/loop": "is a link to a folder that contains it; remove it",
    "ln -s ../.. train/dog/up": "is a link to a folder that contains it; remove it",
    "ln -s . train/loop; ln -s . val/loop": "is a link to a folder that contains it; remove it",
}


@pytest.mark.parametrize("command", SPOILT)
def test_a_folder_that_is_no_data_set_is_explained(folder, command):
    subprocess.run(command, shell=True, cwd=folder, check=True)
    with pytest.raises((FileNotFoundError, ValueError), match=SPOILT[command]):
        load_dataset(str(folder))


def test_image_files_are_found_by_extension(folder, tmp_path):
    """As in torchvision's ImageFolder, except for hidden files."""
    cats, names = folder / "train" / "cat", ["a b.png", "ünï.PNG", "日本.JPG", "two\nlines.png", "-x.jpeg", "B.png"]
    for name in names:
        Image.new("RGB", (30, 20), "red").save(cats / name, format="PNG")
    Image.new("RGB", (30, 20)).save(os.fsdecode(os.fsencode(cats) + b"/\xff.png"), format="PNG")
    (cats / "deeper.png").mkdir()
    (cats / "0.png").rename(cats / "deeper.png" / "0.png")
    expected = datasets.ImageFolder(folder / "train").samples
    for name in (".DS_Store", "._a b.png", ".hidden.png", "notes.txt"):
        (cats / name).write_text("no image")
    for place in (cats / ".ipynb_checkpoints", folder / "train" / ".cache"):
        place.mkdir()
        (place / "x.png").write_text("no image")
    source = load_dataset(str(folder))
    images = source.images("train", source.transform())
    assert source.classes == ("cat", "dog")
    assert list(zip(images.images.paths, images.labels)) == expected
    assert len(images) == 3 + 8 - 1 + 3
    assert all(images[row][0].shape == (3, 224, 224) for row in range(len(images)))
    assert len(images.sha256()) == 64
    (folder / "train/dog/more").symlink_to(shutil.copytree(cats, tmp_path / "elsewhere"))  # which is followed
    dogs = load_dataset(str(folder)).images("train", source.transform()).labels.count(1)
    assert dogs == 3 + images.labels.count(0)


UNREADABLE = {
    "train/cat/1.png": "image file is truncated",
    "train/dog/empty.png": "it is no BMP",
    "train/dog/link.jpg": "it is missing, or a broken link",
    "val/dog/text.png": "it is no BMP",
}


@pytest.fixture
def spoilt_folder(folder) -> Path:
    cut = folder / "train/cat/1.png"
    cut.write_bytes(cut.read_bytes()[:200])
    (folder / "train/dog/empty.png").touch()
    (folder / "train/dog/link.jpg").symlink_to(folder / "nothing.jpg")
    (folder / "val/dog/text.png").write_text("no image")
    return folder


def test_unreadable_images_are_errors_or_skipped_and_listed(spoilt_folder):
    source = load_dataset(str(spoilt_folder))
    images = source.images("train", source.transform())
    for row, name in ((1, "cat/1.png"), (6, "dog/empty.png"), (7, "dog/link.jpg")):
        message = rf"train/{name} cannot be read .*; replace or remove it, or skip all such"
        with pytest.raises(ValueError, match=message):
            images[row]
    tracked = []

    def track(loop, description):
        tracked.append(description)
        return loop

    options = {"on_error": "skip", "track": track}
    source, other = (load_dataset(str(spoilt_folder), workers=workers, **options) for workers in (0, 2))
    assert tracked == ["reading every image"] * 2
    assert source.skipped is not None
    assert source.skipped == other.skipped
    assert list(source.skipped) == list(UNREADABLE)
    for name, reason in source.skipped.items():
        assert reason.startswith(f"cannot be read as an image: {UNREADABLE[name]}")
        assert reason.endswith("; replace or remove it")
        (spoilt_folder / name).unlink()
    without = load_dataset(str(spoilt_folder))
    assert without.skipped is None
    for split in ("train", "test"):
        expected, found = (each.images(split, each.transform()) for each in (without, source))
        assert (found.images.paths, found.labels) == (expected.images.paths, expected.labels)
        assert found.sha256() == expected.sha256()
    (spoilt_folder / "val/dog/0.png").write_bytes(b"")
    (spoilt_folder / "val/dog/1.png").write_bytes(b"")
    message = r"val/dog holds no images that can be read; add some .*, or remove the"
    with pytest.raises(FileNotFoundError, match=message):
        load_dataset(str(spoilt_folder), on_error="skip").images("test", source.transform())


def test_skipped_images_stay_skipped_unread(spoilt_folder, tmp_path):
    first = load_dataset(str(spoilt_folder), on_error="skip")
    (tmp_path / "run").mkdir()
    save_skipped(tmp_path / "run", first.skipped)
    shutil.copy(spoilt_folder / "train/cat/0.png", spoilt_folder / "train/cat/1.png")  # repaired meanwhile
    known = read_skipped(tmp_path / "run")
    again = load_dataset(str(spoilt_folder), skipped=known)
    assert again.skipped == first.skipped
    labels = [source.images("train", source.transform()).labels for source in (first, again)]
    assert labels == [[0, 0, 1, 1, 1]] * 2
    (spoilt_folder / "val/cat/0.png").write_bytes(b"")
    found = load_dataset(str(spoilt_folder), on_error="skip", skipped=known).skipped
    assert found is not None
    assert found.keys() == {*UNREADABLE, "val/cat/0.png"}
    save_skipped(tmp_path / "run", None)
    assert read_skipped(tmp_path / "run") is None
    for text, message in (("{", "Expecting property name"), ("[1]", r"found \[1\] where names of files and reasons")):
        (tmp_path / "left-out.json").write_text(text)
        with pytest.raises(ValueError, match=rf"left-out\.json is damaged: {message}"):
            read_skipped(tmp_path)


def epoch_of(data, **options) -> list[torch.Tensor]:
    return [images for images, _ in training_batches(data, 50, augmentation="cifar", **options)]


def test_batches_are_full_and_drawn_by_seed_and_epoch(digits_for_testing, unchecked_types):
    """For any start and number of workers; and without the global generator."""
    state = torch.get_rng_state()
    first = epoch_of(digits_for_testing, seed=1, epoch=1)
    list(batches(digits_for_testing, 100))
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(images) for images in first] == [50] * 7
    for other in ({"seed": 2, "epoch": 1}, {"seed": 1, "epoch": 2}):
        assert not torch.equal(epoch_of(digits_for_testing, **other)[0], first[0])
    torch.manual_seed(5)
    for start, workers in ((0, 2), (4, 0)):
        again = epoch_of(digits_for_testing, seed=1, epoch=1, start=start, workers=workers)
        assert all(map(torch.equal, again, first[start:]))
        assert len(again) == 7 - start


def test_an_epoch_holds_each_image_once(digits_for_testing):
    numbered = LabelledImages(digits_for_testing.images, range(360), tuple(map(str, range(360))), DIGITS)
    first, second, ordered = (
        torch.cat([labels for _, labels in loader]).tolist()
        for loader in (*(training_batches(numbered, 90, epoch=epoch) for epoch in (1, 2)), batches(numbered, 100))
    )
    assert sorted(first) == sorted(second) == ordered == list(range(360))
    assert len({*map(tuple, (first, second, ordered))}) == 3


def test_each_image_of_an_epoch_is_augmented_differently():
    """100 copies of one image: padded by one pixel, it has 9 shifts, each flipped or not."""
    image = torch.arange(64.0).reshape(1, 8, 8) / 64
    drawn = torch.cat(epoch_of(LabelledImages(image.expand(100, 1, 8, 8), [0] * 100, ("a",), DIGITS))).flatten(1)
    assert len(torch.unique(drawn, dim=0)) > 14  # of the 18


def test_images_in_memory_are_identified_by_pixels_and_labels(digits):
    images = digits.images("test", digits.transform())
    again = digits.images("test", digits.transform(image_size=16))  # the transform has no influence
    assert images.sha256() == again.sha256()
    changed = images.images.clone()
    changed[17, 0, 3, 3] += 1 / 16
    for pixels, labels in ((changed, images.labels), (images.images, [*images.labels[1:], 0])):
        assert LabelledImages(pixels, labels, images.classes, DIGITS).sha256() != images.sha256()


@pytest.mark.parametrize(("value", "label"), [(np.nan, 0), (np.inf, 0), (0.5, -1), (0.5, 2)])
def test_invalid_images_and_labels_are_named(value, label):
    images, labels = torch.rand(4, 1, 8, 8), [0, 1, label or 1, 0]
    images[2, 0, 3, 3] = value
    message = f"has label {label}; expected 0 to 1, of 2 classes" if label else "has values that are not finite"
    with pytest.raises(ValueError, match=f"image 2 {message}"):
        LabelledImages(images, labels, ("a", "b"), DIGITS)


def test_image_files_are_identified_by_class_name_and_size(folder, tmp_path_factory):
    source = load_dataset(str(folder))
    before = source.images("train", source.transform()).sha256()
    moved = shutil.copytree(folder, tmp_path_factory.mktemp("elsewhere") / "moved")
    source = load_dataset(str(moved))
    assert source.images("train", source.transform()).sha256() == before
    first = next(iter(sorted((moved / "train").rglob("*.png"))))
    first.write_bytes(first.read_bytes() + b"more")
    assert source.images("train", source.transform()).sha256() != before
