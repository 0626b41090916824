import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from irevnet.data.transforms import IMAGENET_TRANSFORM, InputTransform, read_image

DIGITS = InputTransform(channels=1, image_size=(8, 8))
CIFAR = InputTransform(channels=3, image_size=(32, 32))


def test_the_imagenet_transform_is_torchvisions_recipe():
    reference = v2.Compose(
        [
            v2.Resize(256),
            v2.CenterCrop(224),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    image = torch.rand(3, 300, 401)
    torch.testing.assert_close(IMAGENET_TRANSFORM(image), reference(image))


def test_an_image_of_the_right_size_is_left_as_it_is():
    image = torch.rand(1, 8, 8)
    assert torch.equal(DIGITS(image), image)


def test_whole_image_is_resized_without_crop():
    assert InputTransform(channels=1, image_size=(4, 6))(torch.rand(1, 9, 9)).shape == (1, 4, 6)


def test_grey_images_become_coloured_and_coloured_ones_grey():
    grey = torch.rand(1, 8, 8)
    coloured = InputTransform(channels=3, image_size=(8, 8))(grey)
    assert torch.equal(coloured, grey.expand(3, 8, 8))
    again = InputTransform(channels=1, image_size=(8, 8))(coloured)
    torch.testing.assert_close(again, grey, rtol=0, atol=1e-3)  # the grey weights of torchvision sum to 0.9999
    alpha = torch.cat((coloured, torch.ones(1, 8, 8)))
    assert torch.equal(InputTransform(channels=3, image_size=(8, 8))(alpha), coloured)


def test_pixels_come_back_from_the_networks_input():
    pixels = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    inputs = IMAGENET_TRANSFORM.normalise(pixels)
    assert inputs[0, 1, 2, 3].item() == pytest.approx((pixels[0, 1, 2, 3].item() - 0.456) / 0.224)
    torch.testing.assert_close(IMAGENET_TRANSFORM.to_pixels(inputs), pixels, rtol=1e-12, atol=1e-12)


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="an image with 2 channels does not fit a network that takes 3"):
        InputTransform(channels=3, image_size=(8, 8))(torch.rand(2, 8, 8))


def test_an_unchanged_training_image_is_the_test_image():
    image = torch.rand(3, 40, 50)
    transform = InputTransform(channels=3, image_size=(32, 32), resize=36, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    assert torch.equal(transform.augmented(image, "none", (0, 1, 2)), transform(image))


def test_cifar_augmentation_draws_all_shifts_and_flips_equally():
    image = torch.rand(3, 32, 32)
    padded = torch.nn.functional.pad(image, (4, 4, 4, 4))
    windows = {}
    for flip in (False, True):
        for y in range(9):
            for x in range(9):
                window = padded[:, y : y + 32, x : x + 32]
                windows[(window.flip(2) if flip else window).contiguous().numpy().tobytes()] = (flip, y, x)
    draws = [windows[CIFAR.augmented(image, "cifar", (0, 1, n)).contiguous().numpy().tobytes()] for n in range(2000)]
    flips, ys, xs = (np.array(values) for values in zip(*draws))
    assert abs(flips.mean() - 0.5) < 0.04  # 3.6 standard deviations
    for shifts in (ys, xs):
        counts = np.bincount(shifts, minlength=9)
        assert ((counts - 2000 / 9) ** 2 / (2000 / 9)).sum() < 26.1  # chi squared, 8 degrees of freedom, p = 0.001


def test_the_imagenet_augmentation_is_the_releases():
    image = torch.rand(3, 60, 80)
    reference = v2.Compose(
        [
            v2.RandomResizedCrop(32, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), antialias=True),
            v2.RandomHorizontalFlip(0.5),
            v2.ColorJitter(0.87, 0.5, 0.5, 0.2),
        ]
    )
    for number in range(5):
        state = torch.get_rng_state()
        drawn = CIFAR.augmented(image, "imagenet", (7, number))
        torch.manual_seed(int(np.random.SeedSequence([7, number]).generate_state(1, np.uint64)[0]))
        torch.testing.assert_close(drawn, reference(image))
        torch.set_rng_state(state)


def test_augmentation_depends_on_its_seed_alone():
    image = torch.rand(1, 8, 8)
    state = torch.get_rng_state()
    first = DIGITS.augmented(image, "imagenet", (3, 1, 5))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert torch.equal(DIGITS.augmented(image, "imagenet", (3, 1, 5)), first)
    assert not torch.equal(DIGITS.augmented(image, "imagenet", (3, 1, 6)), first)


def test_training_images_become_what_the_network_takes():
    grey, coloured = torch.rand(1, 40, 40), torch.rand(4, 40, 40)
    assert CIFAR.augmented(grey, "imagenet", (0,)).shape == (3, 32, 32)
    assert DIGITS.augmented(coloured, "cifar", (0,)).shape == (1, 8, 8)


RGB = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def saved(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


def test_image_files_are_read_as_they_are(tmp_path):
    image = Image.fromarray(RGB)
    expected = torch.from_numpy(RGB).permute(2, 0, 1)
    assert torch.equal(read_image(saved(tmp_path / "rgb.png", image)), expected)
    alpha = image.copy()
    alpha.putalpha(7)
    assert torch.equal(read_image(saved(tmp_path / "rgba.png", alpha)), expected)
    palette = Image.fromarray(RGB // 128 * 255).quantize(8)
    assert torch.equal(read_image(saved(tmp_path / "palette.png", palette)), expected // 128 * 255)
    grey = Image.fromarray(RGB[..., 0])
    assert torch.equal(read_image(saved(tmp_path / "grey.png", grey)), expected[:1])
    bits = Image.fromarray((RGB[..., 0] > 100).astype(np.uint8) * 255).convert("1")
    assert torch.equal(read_image(saved(tmp_path / "bits.png", bits)), (expected[:1] > 100).byte() * 255)
    deep = Image.fromarray(RGB[..., 0].astype(np.uint16) * 256 + 99)
    assert torch.equal(read_image(saved(tmp_path / "deep.png", deep)), expected[:1])
    assert read_image(saved(tmp_path / "cmyk.jpg", image.convert("CMYK"))).shape == (3, 6, 5)


GREY = RGB[..., 0]
DEEP = GREY.astype(np.uint16) * 256 + 99
"""GREY in 16 bits, as their upper byte."""


def planes(array: np.ndarray) -> torch.Tensor:
    """The tensor that `read_image` returns for these pixels."""
    return torch.from_numpy(array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0).copy())


def tiff(path, pixels: np.ndarray, *, bits: int | None = None, white_is_zero: bool = False, order: str = "<"):
    """An uncompressed TIFF of one strip, tag by tag."""
    height, width, samples = pixels.shape if pixels.ndim == 3 else (*pixels.shape, 1)
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    content = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes() if bits is None else packed_in_12_bits(pixels)
    photometric = 2 if samples == 3 else int(not white_is_zero)
    tags = {256: width, 257: height, 258: bits or 8 * pixels.itemsize, 259: 1, 262: photometric, 273: 8}
    tags |= {277: samples, 278: height, 279: len(content), 339: kind}
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items()]
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(content))
    path.write_bytes(header + content + struct.pack(f"{order}H", len(tags)) + b"".join(entries) + bytes(4))
    return path


def packed_in_12_bits(pixels: np.ndarray) -> bytes:
    rows = ["".join(f"{value:012b}" for value in row) for row in pixels]
    return b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in rows)


def test_deep_and_floating_point_tiffs_keep_their_upper_bits(tmp_path):
    path, even = tmp_path / "x.tif", np.hstack((GREY, GREY[:, :1]))
    floats = (GREY / 255).astype(np.float32)
    files = {
        "16": lambda: tiff(path, DEEP),
        "16, big endian": lambda: tiff(path, DEEP, order=">"),
        "16, white is zero": lambda: tiff(path, 65535 - DEEP, white_is_zero=True),
        "8, white is zero": lambda: tiff(path, 255 - GREY, white_is_zero=True),
        "float": lambda: tiff(path, floats),
        "float, big endian": lambda: tiff(path, floats, order=">"),
        "float, white is zero": lambda: tiff(path, 1 - floats, white_is_zero=True),
    }
    for name, write in files.items():
        assert torch.equal(read_image(write()), planes(GREY)), name
    assert torch.equal(read_image(tiff(path, even.astype(np.uint16) * 16 + 5, bits=12)), planes(even))
    assert torch.equal(read_image(tiff(path, RGB.astype(np.uint16) * 256 + 99)), planes(RGB))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (GREY.astype(np.int8), "the white level of its 8-bit integers is unknown, convert it to 8 or 16 bits"),
        (GREY.astype(np.int16), "the white level of its 16-bit integers is unknown"),
        (DEEP.astype(np.int32), "the white level of its 32-bit integers is unknown"),
        (DEEP.astype(np.uint32), "the white level of its 32-bit integers is unknown"),
        (GREY.astype(np.float32), r"its values range from \d+ to \d+, expected floating-point ones from 0 to 1"),
        (np.full((4, 4), np.nan, np.float32), "its values range from nan to nan"),
        (GREY.astype(np.float64), "it is no BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP, or an unusual one"),
    ],
)
def test_values_of_unknown_white_level_are_refused(tmp_path, pixels, message):
    with pytest.raises(ValueError, match=rf"x\.tif cannot be read as an image: {message}.*; replace or remove it"):
        read_image(tiff(tmp_path / "x.tif", pixels))


def png(path, pixels: np.ndarray, colour: int):
    """A PNG of 16 bits, chunk by chunk."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def test_deep_files_of_other_formats_keep_their_upper_bits(tmp_path):
    deep = RGB.astype(np.uint16) * 256 + 99
    assert torch.equal(read_image(png(tmp_path / "grey.png", DEEP, 0)), planes(GREY))
    assert torch.equal(read_image(png(tmp_path / "rgb.png", deep, 2)), planes(RGB))
    assert torch.equal(read_image(png(tmp_path / "rgba.png", np.dstack((deep, DEEP)), 6)), planes(RGB))
    (tmp_path / "x.pgm").write_bytes(b"P5 5 6 65535\n" + DEEP.astype(">u2").tobytes())
    assert torch.equal(read_image(tmp_path / "x.pgm"), planes(GREY))
    (tmp_path / "x.pgm").write_bytes(b"P5 5 6 1023\n" + (GREY.astype(np.uint16) * 4 + 3).astype(">u2").tobytes())
    expected = np.floor((GREY * 4.0 + 3) / 1023 * 65535 / 256).astype(np.uint8)
    assert torch.equal(read_image(tmp_path / "x.pgm"), planes(expected))


def test_transparency_is_left_out(tmp_path):
    both = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(255 - GREY)])
    for name in ("la.png", "la.tif"):
        assert torch.equal(read_image(saved(tmp_path / name, both)), planes(GREY))
    palette = Image.fromarray(GREY // 64).convert("P")
    colours = np.array([[250, 3, 4], [5, 240, 6], [7, 8, 230], [0, 0, 0]], dtype=np.uint8)
    palette.putpalette(colours.tobytes())
    for transparent in (1, b"\x00\x80\xff\x10"):  # of one index, or an opacity for each index
        path = saved(tmp_path / "palette.png", palette, transparency=transparent)
        assert torch.equal(read_image(path), planes(colours[GREY // 64]))


def test_cmyk_is_the_light_that_its_inks_leave(tmp_path):
    inks = np.kron(RGB[:4, :4], np.ones((16, 16, 1), np.uint8))  # flat enough for JPEG
    cmyk = np.dstack((inks, np.full(inks.shape[:2], 51, np.uint8)))
    expected = (255 - inks.astype(float)) * (255 - 51) / 255
    image = Image.frombytes("CMYK", cmyk.shape[1::-1], cmyk.tobytes())
    jpeg = saved(tmp_path / "x.jpg", image, quality=100, subsampling=0)
    assert b"Adobe" in jpeg.read_bytes()  # the file inverts its inks
    for path, off in ((jpeg, 6), (saved(tmp_path / "x.tif", image), 1)):
        assert np.abs(read_image(path).permute(1, 2, 0).numpy() - expected).max() <= off


def test_luma_and_chroma_become_rgb(tmp_path):
    flat = np.kron(RGB[:4, :4], np.ones((16, 16, 1), np.uint8))
    path = saved(tmp_path / "x.jpg", Image.fromarray(flat), quality=100, subsampling=0)
    assert np.abs(read_image(path).permute(1, 2, 0).numpy() - flat.astype(float)).max() <= 4


UPRIGHT = {
    1: RGB,
    2: RGB[:, ::-1],
    3: RGB[::-1, ::-1],
    4: RGB[::-1],
    5: RGB.swapaxes(0, 1),
    6: np.rot90(RGB, -1),
    7: RGB[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90(RGB),
}
"""The upright picture by EXIF orientation."""


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_photograph_is_turned_upright(tmp_path, orientation):
    """Also in an uncompressed TIFF of one byte per pixel, which Pillow would map into memory by the turned size."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = UPRIGHT[orientation]
    for suffix, options in ((".png", {}), (".tif", {}), (".webp", {"lossless": True, "exact": True})):
        path = saved(tmp_path / f"x{suffix}", Image.fromarray(RGB), exif=exif, **options)
        assert torch.equal(read_image(path), planes(upright)), suffix
        if suffix == ".webp":
            continue
        path = saved(tmp_path / f"grey{suffix}", Image.fromarray(GREY), exif=exif)
        assert torch.equal(read_image(path), planes(upright[..., 0].copy()))
        path = saved(tmp_path / f"deep{suffix}", Image.fromarray(DEEP), exif=exif)
        assert torch.equal(read_image(path), planes(upright[..., 0].copy()))
    large = np.kron(RGB, np.ones((16, 16, 1), np.uint8))
    jpeg = saved(tmp_path / "x.jpg", Image.fromarray(large), exif=exif, quality=100, subsampling=0)
    expected = np.kron(upright, np.ones((16, 16, 1), np.uint8)).astype(float)
    assert np.abs(read_image(jpeg).permute(1, 2, 0).numpy() - expected).max() <= 4


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_several_frames_the_first_is_read(tmp_path, suffix):
    frames = [Image.new("RGB", (5, 6), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"x.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    red = np.broadcast_to(np.array([255, 0, 0], np.uint8), (6, 5, 3))
    assert torch.equal(read_image(path), planes(red))


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n broken"])
def test_a_broken_image_is_named(tmp_path, content):
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.png cannot be read as an image: .*; replace or remove it"):
        read_image(tmp_path / "broken.png")


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpg", "png", "ppm", "tif", "webp"])
def test_a_truncated_image_is_named(tmp_path, suffix):
    path = saved(tmp_path / f"cut.{suffix}", Image.fromarray(np.tile(RGB, (30, 30, 1))))
    whole = path.read_bytes()
    for part in (0.02, 0.5, 0.9):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(ValueError, match=rf"cut\.{suffix} cannot be read as an image: .*; replace or remove it"):
            read_image(path)


def test_what_is_no_file_is_named(tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match=r"folder\.png cannot be read as an image: Is a directory; replace or"):
        read_image(tmp_path / "folder.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    for name in ("link.png", "none.png"):
        with pytest.raises(FileNotFoundError, match=rf"{name}"):
            read_image(tmp_path / name)


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", refuse)  # root may read every file
    with pytest.raises(ValueError, match=r"x\.png cannot be read as an image: Permission denied; replace or remove it"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("name", ["a b.png", "ünï.PNG", "日本.png", "two\nlines.png", "'quoted'.png", "-x.png"])
def test_any_name_will_do(tmp_path, name):
    assert torch.equal(read_image(saved(tmp_path / name, Image.fromarray(RGB), format="PNG")), planes(RGB))


def test_too_large_image_error_names_the_limit(tmp_path, monkeypatch):
    path = saved(tmp_path / "large.png", Image.fromarray(np.broadcast_to(GREY[:1, :1], (40, 50))))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1999)  # Pillow warns above it, and refuses twice as much
    assert read_image(path).shape == (1, 40, 50)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 999)
    with pytest.raises(
        ValueError, match=r"large\.png is too large: .*2000 pixels.* limit of 1998 .*Make it smaller, or"
    ):
        read_image(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": (0, 8)}, r"image_size=\(0, 8\), resize=None; expected positive integers"),
        ({"image_size": (10**5, 10**5)}, "and no more than 16,777,216 pixels"),
        ({"image_size": (8, 8), "resize": 10**9}, "and no more than 16,777,216 pixels"),
        (
            {"image_size": (8, 8), "mean": (0.5, 0.5)},
            r"mean=\(0.5, 0.5\), std=\(1.0,\); expected a number for each of 3",
        ),
        ({"image_size": (8, 8), "std": (1.0, 0.0, 1.0)}, "and no deviation of 0"),
    ],
)
def test_a_transform_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        InputTransform(channels=3, **fields)


def test_resize_of_a_thin_image_is_refused():
    transform = InputTransform(channels=1, image_size=(224, 224), resize=256)
    with pytest.raises(ValueError, match="an image of 1000 x 1 pixels, resized to 256 on its shorter side, would have"):
        transform(torch.zeros(1, 1, 1000))
    assert transform(torch.zeros(1, 1, 100)).shape == (1, 224, 224)
