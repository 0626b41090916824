"""The invertible down-sampling S_j of the paper (section 3.1, Fig. 2) and its inverse.

Each r x r patch of pixels becomes one pixel with r^2 times the channels. Nothing is computed, values only move,
so S_j is a permutation: orthogonal, with |det S_j| = 1.

>>> import torch
>>> x = torch.arange(4.0).reshape(1, 1, 2, 2)
>>> squeeze(x, 2).flatten().tolist()  # top left, top right, bottom left, bottom right
[0.0, 1.0, 2.0, 3.0]
>>> bool((unsqueeze(squeeze(x, 2), 2) == x).all())
True
"""

from jaxtyping import Shaped
from torch import Tensor

from irevnet.models.config import SqueezeOrder


def squeeze(
    x: Shaped[Tensor, "batch channels height width"], factor: int, order: SqueezeOrder = "block"
) -> Shaped[Tensor, "batch more_channels less_height less_width"]:
    """Space to depth: `(n, c, h, w)` to `(n, c r^2, h / r, w / r)` for r = `factor`, which divides h and w.

    Raises `ValueError` where it does not.
    """
    n, c, h, w = x.shape
    if factor == 1:
        return x
    if h % factor or w % factor:
        raise ValueError(f"{h} x {w} cannot be squeezed by {factor}; both sides must be multiples of it")
    patches = x.reshape(n, c, h // factor, factor, w // factor, factor)  # n, c, y, dy, x, dx
    patches = patches.permute(0, 3, 5, 1, 2, 4) if order == "block" else patches.permute(0, 1, 3, 5, 2, 4)
    return patches.reshape(n, c * factor**2, h // factor, w // factor)


def unsqueeze(
    x: Shaped[Tensor, "batch channels height width"], factor: int, order: SqueezeOrder = "block"
) -> Shaped[Tensor, "batch less_channels more_height more_width"]:
    """Depth to space, the inverse of `squeeze`: `(n, c r^2, h, w)` to `(n, c, h r, w r)` for r = `factor`.

    Raises `ValueError` where r^2 does not divide the channels.
    """
    n, c, h, w = x.shape
    if factor == 1:
        return x
    if c % factor**2:
        raise ValueError(f"{c} channels cannot be unsqueezed by {factor}; they must be a multiple of {factor**2}")
    c //= factor**2
    if order == "block":
        patches = x.reshape(n, factor, factor, c, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        patches = x.reshape(n, c, factor, factor, h, w).permute(0, 1, 4, 2, 5, 3)
    return patches.reshape(n, c, h * factor, w * factor)
