import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from irevnet import IRevNet, IRevNetConfig
from irevnet.codec import decode, encode, read_header
from irevnet.data.transforms import InputTransform

TRANSFORM = InputTransform(channels=3, image_size=(8, 8), resize=9, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.fixture
def model(bijective) -> IRevNet:
    return bijective.exact()


def draw(path: Path, *shape: int, mode: str | None = None, seed: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode).save(path)
    return path


@pytest.fixture
def file(model, tmp_path) -> Path:
    """The features of an image."""
    encode(model, TRANSFORM, [draw(tmp_path / "a.png", 8, 8, 3)], tmp_path / "phi.npz")
    return tmp_path / "phi.npz"


IMAGE = {"name": "a", "channels": 3, "height": 8, "width": 8}


def rewrite(file: Path, change: dict) -> None:
    """Changes the header of a file of features."""
    with np.load(file) as archive:
        arrays = dict(archive)
    header = {**json.loads(arrays["header"].tobytes()), **change}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    np.savez(file, **arrays)


@pytest.mark.parametrize("depth", [None, 0, 2])
def test_images_of_any_size_and_kind_are_decoded_identically(model, tmp_path, depth):
    images = [
        draw(tmp_path / "square.png", 8, 8, 3),
        draw(tmp_path / "odd.bmp", 13, 30, 3),
        draw(tmp_path / "grey.png", 9, 4),
        draw(tmp_path / "one.pixel.png", 1, 1, 3),
    ]
    Image.open(images[1]).quantize(7).save(tmp_path / "palette.png")
    Image.open(images[2]).convert("1").save(tmp_path / "black-and-white.png")
    images += [tmp_path / "palette.png", tmp_path / "black-and-white.png"]
    encode(model, TRANSFORM, images, tmp_path / "phi.npz", depth=depth)
    decoded = decode(model, TRANSFORM, tmp_path / "phi.npz", tmp_path / "out" / "again")
    assert [path.name for path in decoded] == [f"{path.stem}.png" for path in images]
    for path, again in zip(images, decoded):
        before, after = Image.open(path), Image.open(again)
        assert after.mode == ("L" if before.mode in ("L", "1") else "RGB")
        np.testing.assert_array_equal(np.asarray(after), np.asarray(before.convert(after.mode)))


def test_the_file_holds_the_features_in_units_of_the_lattice(model, tmp_path):
    image = draw(tmp_path / "a.png", 7, 10, 3)  # the network takes multiples of 4
    header = encode(model, TRANSFORM, [image, image], tmp_path / "phi.npz", depth=3)
    assert header == read_header(tmp_path / "phi.npz")
    assert (header.bits, header.depth) == (14, 3)
    assert [entry.name for entry in header.images] == ["a-0", "a-1"]
    pixels = np.pad(np.asarray(Image.open(image)), ((0, 1), (0, 2), (0, 0)), mode="edge")
    pixels = torch.from_numpy(pixels.transpose(2, 0, 1) / 255.0)[None]
    with np.load(tmp_path / "phi.npz", allow_pickle=False) as archive:
        assert sorted(archive) == ["header", "phi_0", "phi_1"]
        assert archive["phi_0"].dtype == np.int32
        expected = model.features(TRANSFORM.normalise(pixels), 3)[0]
        np.testing.assert_array_equal(archive["phi_0"] / 2.0**14, expected)


def test_grey_images_go_through_a_network_for_grey_images(tmp_path, trained_looking):
    config = IRevNetConfig(input_shape=(1, 8, 8), num_classes=2, blocks=(2,), strides=(2,))
    model = trained_looking(IRevNet(config)).exact(bits=10)
    image = draw(tmp_path / "grey.png", 7, 9)
    transform = InputTransform(channels=1, image_size=(8, 8))
    encode(model, transform, [image], tmp_path / "phi.npz")
    (again,) = decode(model, transform, tmp_path / "phi.npz", tmp_path / "out")
    np.testing.assert_array_equal(np.asarray(Image.open(again)), np.asarray(Image.open(image)))
    with pytest.raises(ValueError, match=r"colour\.png: its colours, in a network for grey images, would be lost"):
        encode(model, transform, [draw(tmp_path / "colour.png", 8, 8, 3)], tmp_path / "other.npz")
    assert not (tmp_path / "other.npz").exists()
    rewrite(tmp_path / "phi.npz", {"images": [IMAGE]})
    with pytest.raises(ValueError, match="is coloured, but the network takes grey images"):
        decode(model, transform, tmp_path / "phi.npz", tmp_path / "out")


def test_lossy_images_are_refused_before_writing(model, tmp_path):
    good = draw(tmp_path / "good.png", 8, 8, 3)
    colours = Image.open(good)
    colours.convert("CMYK").save(tmp_path / "cmyk.tif")
    colours.quantize(5).save(tmp_path / "transparent.png", transparency=0)
    colours.save(tmp_path / "moving.png", save_all=True, append_images=[colours.rotate(90)])
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    draw(tmp_path / "alpha.png", 8, 8, 4)
    (tmp_path / "text.png").write_text("no image")
    for name, message in {
        "alpha.png": "its mode RGBA",
        "cmyk.tif": "its mode CMYK",
        "deep.png": "its mode I(;16)?",
        "transparent.png": "its transparency would be lost",
        "moving.png": "all frames but its first would be lost",
        "text.png": r"text\.png cannot be read as an image",
        "absent.png": "absent",
    }.items():
        with pytest.raises(FileNotFoundError if name == "absent.png" else ValueError, match=message):
            encode(model, TRANSFORM, [good, tmp_path / name], tmp_path / "phi.npz")
    assert not (tmp_path / "phi.npz").exists()


def test_networks_that_do_not_fit_are_refused(bijective, file, tmp_path):
    with pytest.raises(ValueError, match=r"encoding needs a network in exact arithmetic; pass model\.exact\(\)"):
        encode(bijective, TRANSFORM, [tmp_path / "a.png"], tmp_path / "other.npz")
    coarser = bijective.exact(bits=12)
    with torch.no_grad():
        bijective.blocks[0].bottleneck[0].weight[0, 0, 0, 0] += 1e-3
    message = "are of another network .* give the checkpoint that they were encoded with"
    for other in (bijective.exact(), coarser):
        with pytest.raises(ValueError, match=message):
            decode(other, TRANSFORM, file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(model, file):
    image = file.with_name("a.png")
    with pytest.raises(FileExistsError, match=r"phi\.npz already exists; name another file"):
        encode(model, TRANSFORM, [image], file)
    with pytest.raises(FileExistsError, match=r"a\.png already exists; name another folder"):
        decode(model, TRANSFORM, file, file.parent)


UNSAFE = ["/tmp/escaped", "", "..", "a\nb", "a\\b", "c:d", "x" * 201, "\ud800", "a\0b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "its header is not that of a file of features"),
        ({"depth": "3"}, "depth is '3'; expected int"),
        ({"weights_sha256": 3}, "weights_sha256 is 3; expected str"),
        ({"bits": "14"}, "bits is '14'; expected int"),
        ({"further": 1}, "unexpected keyword argument 'further'"),
        ({"images": 3}, "not iterable"),
        ({"images": [{"name": "a"}]}, "missing"),
        ({"images": [IMAGE | {"channels": 2}]}, "image 'a' cannot have size 2 x 8 x 8"),
        ({"images": [IMAGE | {"height": 0}]}, "image 'a' cannot have size 3 x 0 x 8"),
        ({"images": [IMAGE, IMAGE]}, "two of its images have the same name"),
        *(({"images": [IMAGE | {"name": name}]}, "is no name for an image; expected at most 200") for name in UNSAFE),
        ({"images": [IMAGE | {"height": 10**9}]}, "has 1000000000 x 8 pixels; expected at most 178,956,970"),
        (
            {"images": [IMAGE | {"height": 16}]},
            r"the features of 'a' cannot be read: they are \(48, 2, 2\) of int32; expected \(48, 4, 2\) of int32",
        ),
    ],
)
def test_changed_headers_are_refused(model, file, tmp_path, change, message):
    rewrite(file, change)
    with pytest.raises(ValueError, match=rf"phi\.npz is damaged.*: .*{message}"):
        decode(model, TRANSFORM, file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_is_named(model, file, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file of features"):
        read_header(tmp_path / "absent.npz")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"phi\.npz is damaged, or not a file that 'irevnet encode' wrote"):
        read_header(file)
    torn = bytearray(whole)
    torn[len(whole) // 2] ^= 255
    file.write_bytes(bytes(torn))
    with pytest.raises(ValueError, match="is damaged: the features of 'a' cannot be read"):
        decode(model, TRANSFORM, file, tmp_path / "out")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("header.npy", b"nothing")
    with pytest.raises(ValueError, match=r"phi\.npz is damaged"):
        read_header(file)
    np.savez(file, header=np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"its header is \(2, 2\) of float64"):
        read_header(file)
