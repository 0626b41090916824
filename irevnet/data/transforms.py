"""From an image to a network's input: decoding, the fixed transform that a checkpoint carries, and augmentation."""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as image_ops

from irevnet.data.choices import Interpolation

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, in units of [0, 1]."""

IMAGENET_STATISTICS: Normalisation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR10_STATISTICS: Normalisation = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
CIFAR100_STATISTICS: Normalisation = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
"""The three normalisations of the authors' releases."""


MOST_PIXELS = 2**24
"""Most pixels of an image after resizing: 4,096 x 4,096."""


@dataclass(frozen=True, kw_only=True)
class InputTransform:
    """From an image to the network's input: conversion of channels, resize, centre crop, normalise. Deterministic.

    A checkpoint carries it, so that every study shows the network images as it was trained on them.

    Attributes:
        channels: channels of the network's input; a grey image is repeated, a coloured one is converted to grey.
        image_size: height and width of the network's input.
        resize: number of pixels that the shorter side is resized to (antialiased) before the centre crop; `None`
            resizes the whole image to `image_size` and does not crop.
        interpolation: `"bilinear"` or `"bicubic"`; values of a bicubic image are clamped to [0, 1].
        mean: mean that is subtracted from each channel, in units of [0, 1].
        std: standard deviation that each channel is then divided by.
    """

    channels: int
    image_size: tuple[int, int]
    resize: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    interpolation: Interpolation = "bilinear"

    def __post_init__(self):
        height, width = self.image_size
        if (
            min(self.channels, height, width, self.resize or 1) < 1
            or max(height * width, self.resize or 1) > MOST_PIXELS
        ):
            raise ValueError(
                f"channels={self.channels}, image_size={self.image_size}, resize={self.resize}; expected positive "
                f"integers, and no more than {MOST_PIXELS:,} pixels"
            )
        if any(len(values) not in (1, self.channels) for values in (self.mean, self.std)) or 0 in self.std:
            raise ValueError(
                f"mean={self.mean}, std={self.std}; expected a number for each of {self.channels} channels, or one for "
                "all, and no deviation of 0"
            )

    def __call__(self, image: Float[Tensor, "image_channels h w"]) -> Float[Tensor, "channels height width"]:
        """The input tensor of an image with values in [0, 1]; a fourth channel, transparency, is dropped.

        Raises `ValueError` for numbers of channels that cannot be converted to the network's.
        """
        return self.normalise(self.frame(self.to_channels(image)))

    def to_channels(self, image: Float[Tensor, "image_channels h w"]) -> Float[Tensor, "channels h w"]:
        """The image with the number of channels that the network takes."""
        if image.shape[0] == 4 != self.channels:
            image = image[:3]
        if image.shape[0] != self.channels:
            if image.shape[0] not in (1, 3) or self.channels not in (1, 3):
                raise ValueError(
                    f"an image with {image.shape[0]} channels does not fit a network that takes {self.channels}"
                )
            image = image_ops.rgb_to_grayscale(image, num_output_channels=self.channels)
        return image

    def frame(self, image: Float[Tensor, "channels h w"]) -> Float[Tensor, "channels height width"]:
        """The image after resize and centre crop."""
        if self.resize is not None:
            short, long = sorted(image.shape[1:])
            if self.resize**2 * long > MOST_PIXELS * short:  # a thin image would become a very long one
                raise ValueError(
                    f"an image of {image.shape[2]} x {image.shape[1]} pixels, resized to {self.resize} on its shorter "
                    f"side, would have more than {MOST_PIXELS:,} pixels; crop it"
                )
            return image_ops.center_crop(self._resized(image, [self.resize]), list(self.image_size))
        if tuple(image.shape[1:]) != self.image_size:
            return self._resized(image, list(self.image_size))
        return image

    def _resized(self, image: Tensor, size: list[int]) -> Tensor:
        resized = image_ops.resize(image, size, interpolation=InterpolationMode(self.interpolation))
        return resized.clamp(0, 1) if self.interpolation == "bicubic" else resized

    def normalise(self, pixels: Float[Tensor, "*batch channels height width"]) -> Tensor:
        """Pixel values in [0, 1] to the network's input."""
        return (pixels - _per_channel(self.mean, pixels)) / _per_channel(self.std, pixels)

    def to_pixels(self, inputs: Float[Tensor, "*batch channels height width"]) -> Tensor:
        """The network's input back to pixel values, the inverse of `normalise`."""
        return inputs * _per_channel(self.std, inputs) + _per_channel(self.mean, inputs)

    def distorted(self, image: Float[Tensor, "image_channels h w"], seed: Sequence[int]) -> Tensor:
        """A random crop of an image in random colours, `(channels, height, width)`, before `normalise`: section 3.2's
        augmentation for ImageNet, drawn by that seed alone. Torch's global generator is restored.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(np.random.SeedSequence(list(seed)).generate_state(1, np.uint64)[0]))
            return _distortion(self.image_size)(self.to_channels(image))


def _per_channel(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).reshape(-1, 1, 1)


IMAGENET_TRANSFORM = InputTransform(
    channels=3, image_size=(224, 224), resize=256, mean=IMAGENET_STATISTICS[0], std=IMAGENET_STATISTICS[1]
)
"""The transform of the authors' ImageNet release: short side to 256, centre crop 224, ImageNet mean and std."""


@functools.cache
def _distortion(size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """The release's augmentation for ImageNet, drawn from torch's global generator."""
    jitter = v2.ColorJitter(brightness=0.87, contrast=0.5, saturation=0.5, hue=0.2)
    return v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), jitter])


@dataclass(frozen=True, kw_only=True)
class Shifts:
    """How each image of a batch is moved by whole pixels, and which are flipped.

    Attributes:
        down: rows that each image is moved up by, negative down, `(n,)`.
        right: columns that each image is moved to the left by, `(n,)`.
        flipped: whether each is then flipped left to right, `(n,)`.
        reflect: whether images continue beyond their borders by reflection, or in black.
    """

    down: Int[ndarray, " n"]
    right: Int[ndarray, " n"]
    flipped: Bool[ndarray, " n"]
    reflect: bool

    @classmethod
    def drawn(cls, count: int, size: tuple[int, int], *, seed: int, epoch: int, alternate: bool = False) -> "Shifts":
        """Those of all images of an epoch, by up to an eighth of their size, all equally likely; for `alternate` see
        `irevnet.data.choices.Augmentation`."""
        rng = np.random.default_rng([seed, epoch, 1])
        down, right = (rng.integers(-(side // 8), side // 8, count, endpoint=True) for side in size)
        if alternate:
            flipped = (np.random.default_rng([seed, 0]).random(count) < 0.5) ^ (epoch % 2 == 0)
        else:
            flipped = rng.random(count) < 0.5
        return cls(down=down, right=right, flipped=flipped, reflect=alternate)

    def __getitem__(self, rows: Sequence[int]) -> "Shifts":
        """Those of some images."""
        index = np.asarray(rows, np.int64)
        return Shifts(down=self.down[index], right=self.right[index], flipped=self.flipped[index], reflect=self.reflect)

    def __call__(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n channels height width"]:
        """The images, moved and flipped."""
        height, width = images.shape[2:]
        row = torch.from_numpy(np.arange(height) + self.down[:, None])
        column = torch.from_numpy(np.where(self.flipped[:, None], np.arange(width)[::-1], np.arange(width)))
        column = column + torch.from_numpy(self.right[:, None])
        inside = ((row >= 0) & (row < height))[:, None, :, None] & ((column >= 0) & (column < width))[:, None, None, :]
        row, column = _reflected(row, height), _reflected(column, width)
        number, channel = torch.arange(len(images))[:, None, None, None], torch.arange(images.shape[1])[:, None, None]
        moved = images[number, channel, row[:, None, :, None], column[:, None, None, :]]
        return moved if self.reflect else moved * inside


def _reflected(index: Tensor, size: int) -> Tensor:
    """Indices beyond the borders of an axis, reflected at its first and last element."""
    last = size - 1
    return last - (last - index.abs()).abs()


FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats of image files that can be read."""


def read_image(path: str | Path) -> UInt8[Tensor, "c h w"]:
    """The first frame of an image file, turned by its EXIF orientation: one channel if it is grey, else three.

    The upper 8 of 12 or 16 bits are kept, floating-point values in [0, 1] are rounded to 8 bits; transparency is
    dropped, palettes and CMYK become RGB.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read as an image, is too large, or has values of unknown range; the message names it.
    """
    try:
        # From an open file: given a path, Pillow misreads memory-mapped TIFF files that have to be turned.
        with open(path, "rb") as content, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is dropped, such as transparency
            with Image.open(content, formats=FORMATS) as file:
                return to_pixels(file)
    except (FileNotFoundError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is too large: {error} Make it smaller, or remove it") from error
    except Exception as error:  # decoders raise many kinds
        reason = (
            f"it is no {', '.join(FORMATS)}, or an unusual one"
            if isinstance(error, UnidentifiedImageError)
            else _reason(error)
        )
        raise ValueError(f"{path} cannot be read as an image: {reason}; replace or remove it") from error


def to_pixels(image: Image.Image) -> UInt8[Tensor, "c h w"]:
    """The pixels of an image of Pillow, turned by its EXIF orientation, as `read_image` returns them.

    Raises `ValueError` for values of unknown range.
    """
    pixels = torch.from_numpy(_to_bytes(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def _to_bytes(file: Image.Image) -> UInt8[ndarray, "..."]:
    """`(h, w)` of a grey image, else `(h, w, 3)`."""
    tags: Mapping[int, Any] = getattr(file, "tag_v2", {})  # of a TIFF, which say what its numbers mean
    bits, kinds = (np.atleast_1d(tags.get(tag, default)) for tag, default in ((_BITS, 16), (_SAMPLE_FORMAT, 1)))
    if _SIGNED in kinds or (file.mode == "I" and file.format == "TIFF"):
        raise ValueError(f"the white level of its {bits[0]}-bit integers is unknown, convert it to 8 or 16 bits")
    image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):  # Pillow has 16-bit PGM as "I"
        pixels = (np.asarray(image).astype(np.int64) >> (bits[0] - 8)).astype(np.uint8)
    elif image.mode == "F":
        values = np.asarray(image)
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(
                f"its values range from {values.min():g} to {values.max():g}, expected floating-point ones from 0 to 1"
            )
        pixels = (255 * values).round().astype(np.uint8)
    else:
        return np.array(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    return 255 - pixels if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else pixels  # Pillow does so for 8 bits alone


_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2
"""Tags of a TIFF, and values of them."""


def _reason(error: Exception) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or str(error) or type(error).__name__
