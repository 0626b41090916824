from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from analysis.paths.endpoints import draw_images, draw_pairs, read_files, read_pairs
from irevnet.data.images import LabelledImages
from irevnet.data.transforms import InputTransform

TRANSFORM = InputTransform(channels=3, image_size=(4, 4), mean=(0.5,), std=(0.25,))


@pytest.fixture
def images(tmp_path) -> dict[str, Path]:
    paths = {}
    for number, (name, size) in enumerate({"a": (4, 4), "b": (4, 4), "c": (4, 4), "large": (6, 8)}.items()):
        paths[name] = tmp_path / f"{name}.png"
        Image.fromarray(np.full((*size, 3), 50 * number + 20, dtype=np.uint8)).save(paths[name])
    return paths


def value(number: int) -> float:
    """What the network sees of the image of that number."""
    return ((50 * number + 20) / 255 - 0.5) / 0.25


def test_files_are_the_ends_of_a_path(images):
    ends = read_files([images["a"], images["b"]], TRANSFORM)
    assert ends.names == ("a to b",)
    assert ends.inputs.shape == (1, 2, 3, 4, 4)
    np.testing.assert_allclose(ends.inputs[0, :, 0, 0, 0], [value(0), value(1)], rtol=1e-5)
    assert ends.middle is None


def test_images_of_different_sizes_are_refused_unless_resized(images):
    message = r"a\.png is 4 x 4 pixels large, .*large\.png is 8 x 6; give images of one size, or an `image_size`"
    with pytest.raises(ValueError, match=message):
        read_files([images["a"], images["large"]], TRANSFORM)
    assert read_files([images["a"], images["large"]], TRANSFORM, resize=True).inputs.shape == (1, 2, 3, 4, 4)


def test_a_table_names_pairs_kinds_and_middles(images, tmp_path):
    (tmp_path / "pairs.csv").write_text("kind,a,b,middle\nviews,a.png,c.png,b.png\n,b.png,a.png,\n")
    ends = read_pairs(tmp_path / "pairs.csv", TRANSFORM)
    assert ends.names == ("views: a to c", "b to a")
    np.testing.assert_allclose(ends.inputs[:, :, 0, 0, 0], [[value(0), value(2)], [value(1), value(0)]], rtol=1e-5)
    assert ends.middle[0, 0, 0, 0].item() == pytest.approx(value(1), rel=1e-5)
    assert ends.middle[1].isnan().all()
    (tmp_path / "plain.csv").write_text("a,b\na.png,b.png\n")
    assert read_pairs(tmp_path / "plain.csv", TRANSFORM).middle.isnan().all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,c\na.png,b.png\n", r"has the columns a, c; expected a and b, and at least one row"),
        ("a,b\n", "expected a and b, and at least one row"),
        ("", "cannot be read as CSV"),
        ('a,b\n"a.png', "cannot be read as CSV"),
        ("a,b\na.png,large.png\n", "give images of one size"),
        ("a,b\na.png,pairs.csv\n", r"pairs\.csv cannot be read as an image"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(images, tmp_path, text, message):
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_pairs(tmp_path / "pairs.csv", TRANSFORM)


def test_missing_files_are_named(images, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no table of pairs .*absent\.csv"):
        read_pairs(tmp_path / "absent.csv", TRANSFORM)
    (tmp_path / "pairs.csv").write_text("a,b\na.png,absent.png\n")
    with pytest.raises(FileNotFoundError, match="absent"):
        read_pairs(tmp_path / "pairs.csv", TRANSFORM)


@pytest.fixture
def data() -> LabelledImages:
    """Image n is of class n modulo 3, and n wherever one looks."""
    pixels = torch.arange(12, dtype=torch.uint8).reshape(12, 1, 1, 1).expand(12, 3, 4, 4)
    return LabelledImages(pixels, [n % 3 for n in range(12)], ("cat", "dog", "cow"), TRANSFORM)


def test_pairs_are_drawn_of_different_classes(data, generator):
    ends = draw_pairs(data, 4, generator)
    assert len(ends.names) == 4
    rows = TRANSFORM.to_pixels(ends.inputs[:, :, :, 0, 0].reshape(-1, 3, 1, 1))[:, 0].flatten().mul(255).round().int()
    assert len(set(rows.tolist())) == 8  # each image once
    for name, (first, second) in zip(ends.names, rows.reshape(4, 2).tolist()):
        assert first % 3 != second % 3
        expected = " to ".join(f"{data.classes[row % 3]} (test image {row})" for row in (first, second))
        assert name == expected
    again = draw_pairs(data, 4, torch.Generator().manual_seed(0))
    assert again.names == ends.names
    assert len(draw_pairs(data, 100, generator).names) <= 6


def test_images_are_drawn_of_all_classes_or_of_one(data, generator):
    assert len(draw_images(data, 5, generator).names) == 5
    cows = draw_images(data, 9, generator, of="cow")
    assert sorted(cows.names) == ["cow (test image 11)", *(f"cow (test image {row})" for row in (2, 5, 8))]
    assert cows.inputs.shape == (4, 1, 3, 4, 4)


@pytest.mark.parametrize("name", ["../secret.png", "sub/../../secret.png", "/etc/passwd", "..", "."])
@pytest.mark.parametrize("column", ["a", "b", "middle"])
def test_a_table_names_no_file_outside_its_folder(images, tmp_path, column, name):
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (tmp_path / "table").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "table" / "a.png")
    row = {"a": "a.png", "b": "a.png", "middle": "a.png"} | {column: name}
    (tmp_path / "table" / "pairs.csv").write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    with pytest.raises(
        ValueError, match=r"pairs\.csv names the file '.*'; expected one in the table's folder or below it"
    ):
        read_pairs(tmp_path / "table" / "pairs.csv", TRANSFORM)


def test_a_table_names_files_in_folders_below_it_and_by_links(images, tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "c.png").symlink_to(images["c"])
    (tmp_path / "pairs.csv").write_text("a,b\na.png,below/c.png\n")
    ends = read_pairs(tmp_path / "pairs.csv", TRANSFORM)
    assert ends.inputs[0, 1, 0, 0, 0].item() == pytest.approx(value(2), rel=1e-5)


def test_a_row_that_is_cut_short_is_refused(images, tmp_path):
    (tmp_path / "pairs.csv").write_text("a,b\na.png\n")
    with pytest.raises(ValueError, match=r"pair 1 is of 'a\.png' and ''; expected two image files"):
        read_pairs(tmp_path / "pairs.csv", TRANSFORM)


def test_images_that_are_not_there_are_not_drawn(data, generator):
    kind = data.classes[data.labels[0]]
    rows = [row for row, label in enumerate(data.labels) if label == data.labels[0]]
    alike = LabelledImages(data.images[rows], [data.labels[0]] * len(rows), data.classes, data.transform)
    with pytest.raises(ValueError, match="all test images are of one class, but a path connects two classes"):
        draw_pairs(alike, 2, generator)
    other = next(name for name in data.classes if name != kind)
    with pytest.raises(ValueError, match=f"there are no test images of {other} to draw from; name images"):
        draw_images(alike, 2, generator, of=other)
