"""Choices and defaults of what is done with images; without torch, for the help of commands."""

from typing import Literal

Augmentation = Literal["none", "cifar", "alternate", "imagenet"]
"""Random changes of a training image, drawn anew each time that it is loaded.

- `"none"`: no change.
- `"cifar"`: padded with black by an eighth of the image (4 pixels at 32 x 32), cropped to the old size, and flipped
  left to right half the time, as in the authors' CIFAR release.
- `"alternate"`: padded by its own reflection by an eighth of the image, cropped to the old size, and flipped left to
  right in every other epoch, half of the images in the odd ones (Jordan 2024, arXiv 2404.00498).
- `"imagenet"`: section 3.2's random scaling, crop, flip and colour distortion, by the release's parameters: 8 to 100%
  of the area at aspect 3/4 to 4/3; brightness 0.87, contrast 0.5, saturation 0.5, hue 0.2.
"""

Interpolation = Literal["bilinear", "bicubic"]
"""How images are resized, with antialiasing."""

OnError = Literal["stop", "skip"]
"""What to do about files of a folder that cannot be read as images: stop at the first, or skip all of them."""

VAL_FRACTION = 0.2
"""Share of each class's images that are tested on, where the data have no split of their own."""
