"""The layout of a layer's output: which of its dimensions is that of the images, and which that of the channels.

A tensor does not say so: `(n, c, h, w)` is common, but there are `(n, h, w, c)`, `(n, tokens, c)`, `(tokens, n, c)` and
others. So batches of two and three images are passed through the network: the one dimension that grows with them is
that of the images. A larger image is passed as well: dimensions that grow are spatial, and the one that stays is that
of the channels. If a network takes images of one size only, the shape of the image and the last layers of the module
decide.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from irevnet.models.foreign_blocks import BLOCKS
from irevnet.models.invertible import InvertibleChain
from irevnet.models.irevnet import IRevNet
from irevnet.utils.modules import as_input, in_eval_mode, outputs_seen

Shapes = list[tuple[int, ...]]
"""Shape of each tensor in the output of a layer."""


@dataclass(frozen=True)
class Layout:
    """Layout of a tensor in the output of a layer.

    Attributes:
        images: index of the dimension of the images.
        channels: index of the dimension of the channels.
    """

    images: int
    channels: int

    def average(self, output: Tensor) -> Tensor:
        """The mean over all other dimensions, `(images, channels)`, in float64 if the output is, else in float32.

        >>> tokens_first = Layout(images=1, channels=2)
        >>> tokens_first.average(torch.arange(8.0).reshape(2, 1, 4)).tolist()
        [[2.0, 3.0, 4.0, 5.0]]
        """
        kind = torch.float64 if output.dtype == torch.float64 else torch.float32
        others = [each for each in range(output.ndim) if each not in (self.images, self.channels)]
        mean = output.mean(dim=others, dtype=kind) if others else output.to(kind)
        return mean if self.images < self.channels else mean.T

    def positions(self, output: Tensor) -> Tensor:
        """The channels at each position in space or token, in the network's order: `(images, positions, channels)`."""
        images, channels = output.shape[self.images], output.shape[self.channels]
        return output.movedim((self.images, self.channels), (0, -1)).reshape(images, -1, channels)


def find_layouts(model: nn.Module, layers: Mapping[str, nn.Module], image: Tensor) -> dict[str, list[Layout]]:
    """The layout of each tensor in the outputs of these layers, by their names.

    Args:
        model: network.
        layers: modules of the network by name.
        image: tensor of the shape of one image, `(c, h, w)`.

    Raises:
        ValueError: a layer is not called or is called more than once, its output is not of tensors, or their layout
            cannot be determined.
    """
    size = tuple(image.shape[1:])
    if isinstance(model, IRevNet) and _are_blocks(model, layers):
        return {name: [Layout(0, 1), Layout(0, 1)] for name in layers}
    two, three = (shapes_of(model, layers, image.new_zeros(n, *image.shape)) for n in (2, 3))
    try:
        larger = shapes_of(model, layers, image.new_zeros(2, image.shape[0], 2 * size[0], 2 * size[1]))
    except Exception:  # networks that take images of one size only raise all kinds
        larger = {name: [()] * len(shapes) for name, shapes in two.items()}
    return {
        name: [
            _layout(name, module, size, of_two, of_three, of_larger)
            for of_two, of_three, of_larger in zip(two[name], three[name], larger[name])
        ]
        for name, module in layers.items()
    }


def _are_blocks(model: IRevNet, layers: Mapping[str, nn.Module]) -> bool:
    return all(any(module is block for block in model.blocks) for module in layers.values())


@torch.no_grad()
def shapes_of(model: nn.Module, layers: Mapping[str, nn.Module], images: Tensor) -> dict[str, Shapes]:
    """The shapes in the outputs of these layers for a batch of images. Raises `ValueError` as `find_layouts` does."""
    found: dict[str, Shapes] = {}

    def record_shapes(name: str, module: nn.Module, output: Any) -> None:
        if name in found:
            raise ValueError(f"the network passes through {name} more than once; name other layers")
        found[name] = [tuple(stream.shape) for stream in streams_of(output, name)]

    with in_eval_mode(model), outputs_seen(layers, record_shapes):
        model(as_input(images, model))
    if missing := [name for name in layers if name not in found]:
        raise ValueError(f"the network does not pass through {missing[0]}; name other layers")
    return found


def streams_of(output: Any, name: str) -> tuple[Tensor, ...]:
    """The tensors in the output of a layer, one or several. Raises `ValueError` if there is something else."""
    streams = output if isinstance(output, tuple) else (output,)
    for stream in streams:
        if not isinstance(stream, Tensor):
            raise ValueError(f"the output of {name} is {type(stream).__name__}; expected tensors; name other layers")
    return streams


def images_dimension(name: str, two: tuple[int, ...], three: tuple[int, ...]) -> int:
    """Index of the one dimension that is 2 for two images and 3 for three. Raises `ValueError` if there is none."""
    differing = [each for each, (one, other) in enumerate(zip(two, three)) if one != other]
    if len(two) != len(three) or [(two[each], three[each]) for each in differing] != [(2, 3)]:
        raise ValueError(
            f"the output of {name} has shape {two} for 2 images and {three} for 3; expected one dimension with an "
            "entry for each image; name other layers"
        )
    return differing[0]


def _layout(
    name: str,
    module: nn.Module,
    size: tuple[int, ...],
    two: tuple[int, ...],
    three: tuple[int, ...],
    larger: tuple[int, ...],
) -> Layout:
    images = images_dimension(name, two, three)
    others = [each for each in range(len(two)) if each != images]
    if len(others) == 1:
        return Layout(images, others[0])
    channels = None
    if len(others) in (2, 3):
        grown = [each for each in others if len(larger) == len(two) and larger[each] != two[each]]
        ends = others[0], others[-1]
        fitting = [end for end in ends if grown == [each for each in others if each != end]]
        channels = fitting[0] if fitting else None if grown else _likely(others, two, size, module)
    if channels is None:
        raise ValueError(
            f"the output of {name} has shape {two} for 2 images, in which the dimension of the channels is ambiguous; "
            "expected a layout such as (n, c, h, w), (n, h, w, c), (n, tokens, c) or (n, c); name other layers"
        )
    return Layout(images, channels)


def _likely(others: Sequence[int], shape: tuple[int, ...], size: tuple[int, ...], module: nn.Module) -> int | None:
    """Index of the dimension of the channels in a network that takes images of one size, `None` if it is ambiguous.

    The two other dimensions have the aspect ratio of the image, or else the last layer of the module has that number of
    channels, first or last. An `InvertibleChain` and its blocks have them first.
    """
    first, last = others[0], others[-1]
    if len(others) == 3:
        are_spatial = [_proportional(shape[one], shape[other], size) for one, other in (others[1:], others[:2])]
        if are_spatial in ([True, False], [False, True]):
            return first if are_spatial[0] else last
        if isinstance(module, (*BLOCKS, InvertibleChain)):
            return first
    known = _channels_of_last_layer(module)
    return next((end for end in (first, last) if (end == last, shape[end]) == known), None)


def _proportional(height: int, width: int, size: tuple[int, ...]) -> bool:
    return height == width == 1 or height * size[1] == width * size[0]


def _channels_of_last_layer(module: nn.Module) -> tuple[bool, int] | None:
    """Whether channels are the last dimension, and their number, from the last layer of a module that has channels."""
    for part in reversed(list(module.modules())):
        match part:
            case nn.Linear():
                return True, part.out_features
            case nn.LayerNorm():
                return True, part.normalized_shape[-1]
            case nn.MultiheadAttention():
                return True, part.embed_dim
            case nn.Conv1d() | nn.Conv2d():
                return False, part.out_channels
            case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.InstanceNorm2d():
                return False, part.num_features
            case nn.GroupNorm():
                return False, part.num_channels
    return None
