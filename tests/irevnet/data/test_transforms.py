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


def test_images_are_resized_as_a_whole_or_left_as_they_are():
    image = torch.rand(1, 8, 8)
    assert torch.equal(DIGITS(image), image)
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
    drawn = []
    for number in range(5):
        state = torch.get_rng_state()
        drawn.append(CIFAR.augmented(image, "imagenet", (7, number)))
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(int(np.random.SeedSequence([7, number]).generate_state(1, np.uint64)[0]))
        torch.testing.assert_close(drawn[-1], reference(image))
    assert torch.equal(CIFAR.augmented(image, "imagenet", (7, 0)), drawn[0])
    assert not torch.equal(drawn[0], drawn[1])


def test_training_images_become_what_the_network_takes():
    image = torch.rand(3, 40, 50)
    transform = InputTransform(channels=3, image_size=(32, 32), resize=36, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    assert torch.equal(transform.augmented(image, "none", (0, 1, 2)), transform(image))
    assert CIFAR.augmented(image[:1], "imagenet", (0,)).shape == (3, 32, 32)
    assert DIGITS.augmented(torch.rand(4, 40, 40), "cifar", (0,)).shape == (1, 8, 8)


RGB = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def saved(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


def test_image_files_are_read_as_they_are(tmp_path):
    coloured, grey = Image.fromarray(RGB), RGB[..., 0]
    alpha = coloured.copy()
    alpha.putalpha(7)
    two_levels = RGB // 128 * 255
    bits = np.where(grey > 100, 255, 0).astype(np.uint8)
    for image, expected in (
        (coloured, RGB),
        (alpha, RGB),
        (Image.fromarray(two_levels).quantize(8), two_levels),
        (Image.fromarray(grey), grey),
        (Image.fromarray(bits).convert("1"), bits),
    ):
        assert torch.equal(read_image(saved(tmp_path / "x.png", image)), planes(expected)), image.mode


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
    for order in "<>":
        for pixels, options in (
            (DEEP, {}),
            (65535 - DEEP, {"white_is_zero": True}),
            (255 - GREY, {"white_is_zero": True}),
            (floats, {}),
            (1 - floats, {"white_is_zero": True}),
        ):
            assert torch.equal(read_image(tiff(path, pixels, order=order, **options)), planes(GREY))
    assert torch.equal(read_image(tiff(path, even.astype(np.uint16) * 16 + 5, bits=12)), planes(even))
    assert torch.equal(read_image(tiff(path, RGB.astype(np.uint16) * 256 + 99)), planes(RGB))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (GREY.astype(np.int8), "the white level of its 8-bit integers is unknown, convert it to 8 or 16 bits"),
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
    for name, pixels, expected in (
        ("x.png", RGB, upright),
        ("x.tif", RGB, upright),
        ("x.webp", RGB, upright),
        ("grey.tif", GREY, upright[..., 0]),
        ("deep.tif", DEEP, upright[..., 0]),
    ):
        options = {"lossless": True, "exact": True} if name == "x.webp" else {}
        path = saved(tmp_path / name, Image.fromarray(pixels), exif=exif, **options)
        assert torch.equal(read_image(path), planes(expected.copy())), name
    large = np.ones((16, 16, 1), np.uint8)  # flat enough for JPEG
    jpeg = saved(tmp_path / "x.jpg", Image.fromarray(np.kron(RGB, large)), exif=exif, quality=100, subsampling=0)
    expected = np.kron(upright, large).astype(float)
    assert np.abs(read_image(jpeg).permute(1, 2, 0).numpy() - expected).max() <= 4


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_several_frames_the_first_is_read(tmp_path, suffix):
    frames = [Image.new("RGB", (5, 6), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"x.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    red = np.broadcast_to(np.array([255, 0, 0], np.uint8), (6, 5, 3))
    assert torch.equal(read_image(path), planes(red))


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpg", "png", "ppm", "tif", "webp"])
def test_a_truncated_image_is_named(tmp_path, suffix):
    path = saved(tmp_path / f"cut.{suffix}", Image.fromarray(np.tile(RGB, (30, 30, 1))))
    whole = path.read_bytes()
    for content in (b"", b"no image", *(whole[: int(part * len(whole))] for part in (0.02, 0.5, 0.9))):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"cut\.{suffix} cannot be read as an image: .*; replace or remove it"):
            read_image(path)


def test_what_is_no_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match=r"folder\.png cannot be read as an image: Is a directory; replace or"):
        read_image(tmp_path / "folder.png")
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_image(tmp_path / "none.png")

    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", refuse)  # root may read every file
    with pytest.raises(ValueError, match=r"x\.png cannot be read as an image: Permission denied; replace or remove it"):
        read_image(tmp_path / "x.png")


def test_too_large_image_error_names_the_limit(tmp_path, monkeypatch):
    path = saved(tmp_path / "large.png", Image.fromarray(np.broadcast_to(GREY[:1, :1], (40, 50))))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1999)  # Pillow warns above it, and refuses twice as much
    assert read_image(path).shape == (1, 40, 50)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 999)
    message = r"large\.png is too large: .*2000 pixels.* limit of 1998 .*Make it smaller, or"
    with pytest.raises(ValueError, match=message):
        read_image(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": (0, 8)}, r"image_size=\(0, 8\), resize=None; expected positive integers"),
        ({"image_size": (10**5, 10**5)}, "and no more than 16,777,216 pixels"),
        ({"image_size": (8, 8), "resize": 10**9}, "and no more than 16,777,216 pixels"),
        ({"image_size": (8, 8), "mean": (0.5, 0.5)}, r"mean=\(0.5, 0.5\), std=\(1.0,\); expected a number for each"),
        ({"image_size": (8, 8), "std": (1.0, 0.0, 1.0)}, "and no deviation of 0"),
    ],
)
def test_a_transform_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        InputTransform(channels=3, **fields)


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="an image with 2 channels does not fit a network that takes 3"):
        CIFAR(torch.rand(2, 8, 8))
    transform = InputTransform(channels=1, image_size=(224, 224), resize=256)
    with pytest.raises(ValueError, match="an image of 1000 x 1 pixels, resized to 256 on its shorter side, would have"):
        transform(torch.zeros(1, 1, 1000))
    assert transform(torch.zeros(1, 1, 100)).shape == (1, 224, 224)
