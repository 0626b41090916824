"""Data sets by name, and the transform from an image to a network's input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as image_ops

from irevnet.lookup import find

Split = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class InputTransform:
    """From an image to the network's input: the channels it takes, resize, centre crop, normalise. No randomness.

    A checkpoint carries it, so that every later study shows the network images as it was trained on them.

    Attributes:
        channels: channels of the network's input; a grey image is repeated, a coloured one is turned grey.
        image_size: height and width of the network's input.
        resize: the shorter side is resized to this many pixels (bilinear, antialiased) before the centre crop; `None`
            resizes the whole image to `image_size` and crops nothing.
        mean: subtracted from each channel, in units of [0, 1].
        std: divides each channel after that.
    """

    channels: int
    image_size: tuple[int, int]
    resize: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __call__(self, image: Float[Tensor, "image_channels h w"]) -> Float[Tensor, "channels height width"]:
        """The input tensor of an image with values in [0, 1]; a fourth channel, transparency, is left out.

        Raises `ValueError` for channels that are neither grey nor coloured and not what the network takes.
        """
        if image.shape[0] == 4 != self.channels:
            image = image[:3]
        if image.shape[0] != self.channels:
            if image.shape[0] not in (1, 3) or self.channels not in (1, 3):
                raise ValueError(
                    f"an image of {image.shape[0]} channels cannot be shown to a network of {self.channels}"
                )
            image = image_ops.rgb_to_grayscale(image, num_output_channels=self.channels)
        if self.resize is not None:
            image = image_ops.center_crop(image_ops.resize(image, [self.resize]), list(self.image_size))
        elif tuple(image.shape[1:]) != self.image_size:
            image = image_ops.resize(image, list(self.image_size))
        return self.normalise(image)

    def normalise(self, pixels: Float[Tensor, "*batch channels height width"]) -> Tensor:
        """Pixel values in [0, 1] to the network's input."""
        return (pixels - _per_channel(self.mean, pixels)) / _per_channel(self.std, pixels)

    def to_pixels(self, inputs: Float[Tensor, "*batch channels height width"]) -> Tensor:
        """The network's input back to pixel values, the inverse of `normalise`."""
        return inputs * _per_channel(self.std, inputs) + _per_channel(self.mean, inputs)


def _per_channel(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).reshape(-1, 1, 1)


IMAGENET_TRANSFORM = InputTransform(
    channels=3, image_size=(224, 224), resize=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
"""Of the authors' ImageNet release: short side to 256, centre crop 224, ImageNet mean and standard deviation."""


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """A data set by name.

    Attributes:
        classes: class names, in the order of their labels.
        image_shape: channels, height and width of its images.
        load: images `(n, c, h, w)` in [0, 1] and labels `(n,)` of a split.
    """

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    load: Callable[[Split], tuple[Tensor, Tensor]]


class LabelledImages(Dataset[tuple[Tensor, int]]):
    """Images as network inputs, with their labels, numbered in the order of `classes`."""

    def __init__(
        self, images: Float[Tensor, "n c h w"], labels: Tensor, classes: tuple[str, ...], transform: InputTransform
    ):
        self.images = images
        self.labels = labels.tolist()
        self.classes = classes
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def _digits(split: Split) -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 handwritten digits, 8 x 8, one fifth of each class held out for testing."""
    from sklearn.datasets import load_digits  # here, as it takes a second that other data sets need not wait for
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = torch.as_tensor(digits.images / 16, dtype=torch.float32)[:, None]  # type: ignore[union-attr]
    labels = torch.as_tensor(digits.target)  # type: ignore[union-attr]
    rows = train_test_split(torch.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    chosen = torch.as_tensor(rows[0] if split == "train" else rows[1])
    return images[chosen], labels[chosen]


_DATA: dict[str, DataInfo] = {
    "digits": DataInfo(classes=tuple("0123456789"), image_shape=(1, 8, 8), load=_digits),
}


def data_info(name: str) -> DataInfo:
    """The data set of that name; raises `ValueError` with the nearest names if there is none."""
    return find("data set", name, _DATA)


def load_data(name: str, split: Split, transform: InputTransform) -> LabelledImages:
    """A split of the data set of that name, as inputs for a network."""
    info = data_info(name)
    return LabelledImages(*info.load(split), info.classes, transform)


def batches(
    data: Dataset[tuple[Tensor, int]],
    batch_size: int,
    *,
    workers: int = 0,
    shuffle: torch.Generator | None = None,
) -> DataLoader[Any]:
    """Batches of inputs `(n, c, h, w)` and labels `(n,)`: all images in order or, given a generator, in an order it
    draws, leaving out the few that do not fill a batch (batch normalisation would weigh them too much).
    """
    return DataLoader(
        data,
        batch_size,
        num_workers=workers,
        shuffle=shuffle is not None,
        drop_last=shuffle is not None,
        generator=shuffle,
        pin_memory=torch.cuda.is_available(),
    )
