"""Which dimension of what a layer puts out is that of the images, and which that of the channels.

Nothing in a tensor says it: `(n, c, h, w)` is the rule, but there are `(n, h, w, c)`, `(n, tokens, c)`,
`(tokens, n, c)` and others. So the network is shown batches of two sizes: the one dimension that goes with them is that
of the images. It is shown a larger image: dimensions that grow are places, and the one that stays is that of the
channels. A network that takes images of one size alone is told by the shape of the image, and by the layers that it
ends with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from irevnet.models.irevnet import IRevNet
from irevnet.utils.modules import as_input, in_eval_mode

Shapes = list[tuple[int, ...]]
"""Of the tensors that a layer puts out."""


@dataclass(frozen=True)
class Layout:
    """Of a tensor that a layer puts out.

    Attributes:
        images: the dimension of the images.
        channels: the dimension of the channels.
    """

    images: int
    channels: int

    def average(self, output: Tensor) -> Tensor:
        """The mean over all other dimensions, `(images, channels)`, in float32, or float64 if the output is that.

        >>> tokens_first = Layout(images=1, channels=2)
        >>> tokens_first.average(torch.arange(8.0).reshape(2, 1, 4)).tolist()
        [[2.0, 3.0, 4.0, 5.0]]
        """
        kind = torch.float64 if output.dtype == torch.float64 else torch.float32
        places = [each for each in range(output.ndim) if each not in (self.images, self.channels)]
        mean = output.mean(dim=places, dtype=kind) if places else output.to(kind)
        return mean if self.images < self.channels else mean.T


def find_layouts(model: nn.Module, layers: Mapping[str, nn.Module], image: Tensor) -> dict[str, list[Layout]]:
    """The layout of each tensor that these layers put out, by their names; `image` is `(c, h, w)`, for its shape.

    Raises `ValueError`, naming the layer, for one that the network does not pass, or passes more than once, one that
    puts out other than tensors, or whose layout cannot be told.
    """
    size = tuple(image.shape[1:])
    if isinstance(model, IRevNet) and _are_blocks(model, layers):
        return {name: [Layout(0, 1), Layout(0, 1)] for name in layers}
    two, three = (shapes_of(model, layers, image.new_zeros(n, *image.shape)) for n in (2, 3))
    try:
        larger = shapes_of(model, layers, image.new_zeros(2, image.shape[0], 2 * size[0], 2 * size[1]))
    except Exception:  # whatever it says of images of another size than its own
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
    """The shapes of what these layers put out for images; raises `ValueError` as `find_layouts` does."""
    found: dict[str, Shapes] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if name in found:
                raise ValueError(f"the network passes through {name} more than once; name other layers")
            found[name] = [tuple(stream.shape) for stream in streams_of(output, name)]

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in layers.items()]
    try:
        with in_eval_mode(model):
            model(as_input(images, model))
    finally:
        for handle in handles:
            handle.remove()
    if missing := [name for name in layers if name not in found]:
        raise ValueError(f"the network does not pass through {missing[0]}; name other layers")
    return found


def streams_of(output: Any, name: str) -> tuple[Tensor, ...]:
    """The tensors that a layer put out, one or several; `ValueError` if it is something else."""
    streams = output if isinstance(output, tuple) else (output,)
    for stream in streams:
        if not isinstance(stream, Tensor):
            raise ValueError(f"the output of {name} is {type(stream).__name__}; expected tensors; name other layers")
    return streams


def images_dimension(name: str, two: tuple[int, ...], three: tuple[int, ...]) -> int:
    """The one dimension that differs, and is 2 for two images and 3 for three; `ValueError` if there is none such."""
    differing = [each for each, (one, other) in enumerate(zip(two, three)) if one != other]
    if len(two) != len(three) or [(two[each], three[each]) for each in differing] != [(2, 3)]:
        raise ValueError(
            f"the output of {name} has the shape {two} for 2 images and {three} for 3: none of its dimensions is that "
            "of the images; name other layers"
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
            f"the output of {name} has the shape {two} for 2 images, which does not tell its channels from its places; "
            "expected such as (n, c, h, w), (n, h, w, c), (n, tokens, c) or (n, c); name other layers"
        )
    return Layout(images, channels)


def _likely(others: Sequence[int], shape: tuple[int, ...], size: tuple[int, ...], module: nn.Module) -> int | None:
    """The dimension of the channels in a network that takes images of one size: the places have the proportions of the
    image; or else the module ends with a layer that has so many channels at that end."""
    first, last = others[0], others[-1]
    if len(others) == 3:
        are_places = [_proportional(shape[one], shape[other], size) for one, other in (others[1:], others[:2])]
        if are_places in ([True, False], [False, True]):
            return first if are_places[0] else last
    evidence = _evidence(module)
    return next((end for end in (first, last) if (end == last, shape[end]) in evidence), None)


def _proportional(height: int, width: int, size: tuple[int, ...]) -> bool:
    return height == width == 1 or height * size[1] == width * size[0]


def _evidence(module: nn.Module) -> list[tuple[bool, int]]:
    """Whether channels are last, and how many they are, by the last layer in a module that says it."""
    for part in reversed(list(module.modules())):
        match part:
            case nn.Linear():
                return [(True, part.out_features)]
            case nn.LayerNorm():
                return [(True, part.normalized_shape[-1])]
            case nn.MultiheadAttention():
                return [(True, part.embed_dim)]
            case nn.Conv1d() | nn.Conv2d():
                return [(False, part.out_channels)]
            case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.InstanceNorm2d():
                return [(False, part.num_features)]
            case nn.GroupNorm():
                return [(False, part.num_channels)]
    return []
