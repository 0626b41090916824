import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from irevnet.transforms import IMAGENET_TRANSFORM, InputTransform, read_image

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


def test_the_whole_image_is_resized_where_nothing_is_cropped():
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
    with pytest.raises(ValueError, match="an image of 2 channels cannot be shown to a network of 3"):
        InputTransform(channels=3, image_size=(8, 8))(torch.rand(2, 8, 8))


def test_an_unchanged_training_image_is_the_test_image():
    image = torch.rand(3, 40, 50)
    transform = InputTransform(channels=3, image_size=(32, 32), resize=36, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    assert torch.equal(transform.augmented(image, "none", (0, 1, 2)), transform(image))


def test_the_cifar_augmentation_draws_every_shift_and_flip_of_the_padded_image_alike():
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


def test_an_augmentation_is_drawn_by_its_seed_alone_and_leaves_the_global_generator():
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


def test_a_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the top of the picture is on the right
    path = saved(tmp_path / "turned.png", Image.fromarray(RGB), exif=exif)
    assert torch.equal(read_image(path), torch.from_numpy(np.rot90(RGB, -1).copy()).permute(2, 0, 1))


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n broken"])
def test_a_broken_image_is_named(tmp_path, content):
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.png cannot be read as an image: .*; replace or remove it"):
        read_image(tmp_path / "broken.png")


def test_a_truncated_image_is_named(tmp_path):
    path = saved(tmp_path / "cut.jpg", Image.fromarray(np.tile(RGB, (30, 30, 1))))
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match=r"cut\.jpg cannot be read as an image: image file is truncated"):
        read_image(path)
