import dataclasses
import itertools
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from irevnet.data.images import LabelledImages
from irevnet.data.transforms import IMAGENET_TRANSFORM, InputTransform, Shifts, read_image

DIGITS = InputTransform(channels=1, image_size=(8, 8))
CIFAR = InputTransform(channels=3, image_size=(32, 32))


def test_imagenet_transform_is_torchvisions_and_comes_back():
    resized = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])
    image = torch.rand(3, 300, 401)
    inputs = IMAGENET_TRANSFORM(image)
    expected = v2.functional.normalize(resized(image), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    torch.testing.assert_close(inputs, expected)
    torch.testing.assert_close(IMAGENET_TRANSFORM.to_pixels(inputs), resized(image))


def test_bicubic_images_are_those_of_pillow_and_stay_images():
    """Pillow rounds to bytes after either direction: within half a step each, of which a pass multiplies the first by
    the sum of its absolute weights, below 1.5."""
    pixels = torch.randint(96, 160, (3, 90, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    transform = InputTransform(channels=3, image_size=(24, 24), resize=30, interpolation="bicubic")
    found = transform(pixels / 255)
    photograph = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((30, 45), Image.Resampling.BICUBIC)
    expected = v2.functional.center_crop(v2.functional.pil_to_tensor(photograph), [24, 24]) / 255
    torch.testing.assert_close(found, expected, rtol=0, atol=1.25 / 255 + 1e-5)
    step = torch.zeros(1, 8, 8)
    step[:, :, 4:] = 1
    wide = dataclasses.replace(transform, channels=1, resize=None)(step)
    assert (wide.min(), wide.max()) == (0, 1)


def test_images_get_the_size_and_channels_of_the_networks_input():
    grey = torch.rand(1, 8, 8)
    assert torch.equal(DIGITS(grey), grey)
    assert InputTransform(channels=1, image_size=(4, 6))(torch.rand(1, 9, 9)).shape == (1, 4, 6)
    coloured = InputTransform(channels=3, image_size=(8, 8))(grey)
    assert torch.equal(coloured, grey.expand(3, 8, 8))
    torch.testing.assert_close(DIGITS(coloured), grey, rtol=0, atol=1e-3)  # the grey weights sum to 0.9999
    alpha = torch.cat((coloured, torch.ones(1, 8, 8)))
    assert torch.equal(InputTransform(channels=3, image_size=(8, 8))(alpha), coloured)


def shifted(image: torch.Tensor, count: int, **options) -> list[tuple[bool, int, int]]:
    """Flip, row and column of each augmented copy of an image, found among all windows of the padded image."""
    shifts = Shifts.drawn(count, (32, 32), seed=0, **options)
    padded = v2.functional.pad(image, [4] * 4, padding_mode="reflect" if shifts.reflect else "constant")
    windows = {}
    for flip, y, x in itertools.product((False, True), range(9), range(9)):
        window = padded[:, y : y + 32, x : x + 32].flip([2] if flip else [])
        windows[window.contiguous().numpy().tobytes()] = (flip, y, x)
    copies = shifts(image.expand(count, *image.shape))
    return [windows[each.contiguous().numpy().tobytes()] for each in copies]


@pytest.mark.parametrize("alternate", [False, True])
def test_shifts_and_flips_are_drawn_equally(alternate, unchecked_types):
    flips, ys, xs = (
        np.array(values) for values in zip(*shifted(torch.rand(3, 32, 32), 2000, epoch=1, alternate=alternate))
    )
    assert abs(flips.mean() - 0.5) < 0.04  # 3.6 standard deviations
    for shifts in (ys, xs):
        counts = np.bincount(shifts, minlength=9)
        assert ((counts - 2000 / 9) ** 2 / (2000 / 9)).sum() < 26.1  # chi squared, 8 degrees of freedom, p = 0.001


def test_every_image_is_flipped_in_every_other_epoch(unchecked_types):
    image = torch.rand(3, 32, 32)
    epochs = [np.array(shifted(image, 50, epoch=epoch, alternate=True)) for epoch in (1, 2, 3)]
    flips = [epoch[:, 0] for epoch in epochs]
    assert (flips[0] == flips[2]).all()
    assert (flips[0] != flips[1]).all()
    assert (epochs[0][:, 1:] != epochs[2][:, 1:]).any()


def test_the_imagenet_augmentation_is_the_releases():
    image = torch.rand(3, 60, 80)
    crop = v2.RandomResizedCrop(32, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), antialias=True)
    reference = v2.Compose([crop, v2.RandomHorizontalFlip(0.5), v2.ColorJitter(0.87, 0.5, 0.5, 0.2)])
    drawn = []
    for number in range(5):
        state = torch.get_rng_state()
        drawn.append(CIFAR.distorted(image, (7, number)))
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(int(np.random.SeedSequence([7, number]).generate_state(1, np.uint64)[0]))
        torch.testing.assert_close(drawn[-1], reference(image))
    assert torch.equal(CIFAR.distorted(image, (7, 0)), drawn[0])
    assert not torch.equal(drawn[0], drawn[1])


def test_training_images_become_what_the_network_takes():
    images = torch.rand(2, 3, 40, 50)
    transform = InputTransform(channels=3, image_size=(32, 32), resize=36, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    for change in (transform, CIFAR, DIGITS):
        data = LabelledImages(images, [0, 0], ("a",), change)
        assert torch.equal(data.inputs([1, 0]), torch.stack([change(images[1]), change(images[0])]))
    whole = LabelledImages(torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8), [0] * 3, ("a",), CIFAR)
    assert torch.equal(whole.inputs(range(3)), torch.stack([image for image, _ in whole]))
    assert CIFAR.distorted(images[0, :1], (0,)).shape == (3, 32, 32)


RGB = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
GREY = RGB[..., 0]
DEEP = GREY.astype(np.uint16) * 256 + 99
"""GREY in 16 bits, as their upper byte."""


def saved(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


def planes(array: np.ndarray) -> torch.Tensor:
    """The tensor that `read_image` returns for these pixels."""
    return torch.from_numpy(array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0).copy())


def test_image_files_are_read_without_transparency_and_palettes(tmp_path):
    grey, coloured, alpha = Image.fromarray(GREY), Image.fromarray(RGB), Image.fromarray(RGB)
    alpha.putalpha(7)
    bits = np.where(GREY > 100, 255, 0).astype(np.uint8)
    colours = np.array([[250, 3, 4], [5, 240, 6], [7, 8, 230], [0, 0, 0]], dtype=np.uint8)
    palette = Image.fromarray(GREY // 64).convert("P")
    palette.putpalette(colours.tobytes())
    for name, image, expected, options in (
        ("x.png", coloured, RGB, {}),
        ("x.png", alpha, RGB, {}),
        ("x.tif", coloured.convert("CMYK"), RGB, {}),
        ("x.png", grey, GREY, {}),
        ("x.png", Image.fromarray(bits).convert("1"), bits, {}),
        ("x.png", Image.fromarray(DEEP), GREY, {}),
        ("x.png", Image.merge("LA", [grey, grey]), GREY, {}),
        ("x.tif", Image.merge("LA", [grey, grey]), GREY, {}),
        ("x.png", palette, colours[GREY // 64], {}),
        ("x.png", palette, colours[GREY // 64], {"transparency": 1}),  # of one index, or an opacity for each
        ("x.png", palette, colours[GREY // 64], {"transparency": b"\x00\x80\xff\x10"}),
    ):
        assert torch.equal(read_image(saved(tmp_path / name, image, **options)), planes(expected)), image.mode
    (tmp_path / "x.pgm").write_bytes(b"P5 5 6 65535\n" + DEEP.astype(">u2").tobytes())
    assert torch.equal(read_image(tmp_path / "x.pgm"), planes(GREY))
    (tmp_path / "x.pgm").write_bytes(b"P5 5 6 1023\n" + (GREY.astype(np.uint16) * 4 + 3).astype(">u2").tobytes())
    upper = np.floor((GREY * 4.0 + 3) / 1023 * 65535 / 256).astype(np.uint8)
    assert torch.equal(read_image(tmp_path / "x.pgm"), planes(upper))


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
    for pixels, options in (
        (DEEP, {}),
        (DEEP, {"order": ">"}),
        (65535 - DEEP, {"white_is_zero": True}),
        (255 - GREY, {"white_is_zero": True}),
        (floats, {}),
        (floats, {"order": ">"}),
        (1 - floats, {"white_is_zero": True}),
    ):
        assert torch.equal(read_image(tiff(path, pixels, **options)), planes(GREY)), options
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


UPRIGHT = {3: lambda x: x[::-1, ::-1], 5: lambda x: x.swapaxes(0, 1), 8: np.rot90}
"""What makes a picture upright, by EXIF orientation."""


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_photograph_is_turned_upright(tmp_path, orientation):
    """Also in an uncompressed TIFF of one byte per pixel, which Pillow would map into memory by the turned size."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = UPRIGHT[orientation]
    for name, pixels, expected in (("x.png", RGB, RGB), ("x.tif", GREY, GREY), ("deep.tif", DEEP, GREY)):
        path = saved(tmp_path / name, Image.fromarray(pixels), exif=exif)
        assert torch.equal(read_image(path), planes(upright(expected).copy())), name
    large = np.kron(RGB, np.ones((16, 16, 1), np.uint8))  # flat enough for JPEG
    jpeg = saved(tmp_path / "x.jpg", Image.fromarray(large), exif=exif, quality=100, subsampling=0)
    assert np.abs(read_image(jpeg).permute(1, 2, 0).numpy() - upright(large).astype(float)).max() <= 4


@pytest.mark.parametrize("suffix", ["gif", "png", "tif"])
def test_of_several_frames_the_first_is_read(tmp_path, suffix):
    frames = [Image.new("RGB", (5, 6), colour) for colour in ("red", "lime", "blue")]
    path = saved(tmp_path / f"x.{suffix}", frames[0], save_all=True, append_images=frames[1:])
    assert torch.equal(read_image(path), torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 6, 5))


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
