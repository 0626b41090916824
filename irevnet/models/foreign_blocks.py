"""Blocks with an inverse from other packages, as modules from one tensor to one tensor.

Each has `forward(x)` and `inverse(y)`. They are made of

- modules of FrEIA, its `SequenceINN`, and its `GraphINN`, of which each node is a block: features between two nodes are
  the tensors on the edges that lead from the nodes before to those after, flattened and joined where there are several;
- MemCNN's `InvertibleModuleWrapper`, and any module with a method `inverse`, which may return a log-determinant beside
  its output;
- `nn.PixelUnshuffle`, `nn.PixelShuffle`, `nn.Identity`, and `nn.Sequential` of all of these.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]


def has_inverse(module: nn.Module) -> bool:
    """Whether a module is one of those above."""
    if type(module) is nn.Sequential:
        return all(map(has_inverse, module))
    reshapes = isinstance(module, nn.Identity | nn.PixelUnshuffle | nn.PixelShuffle)
    return reshapes or _is_freia(module) or callable(getattr(module, "inverse", None))


def freia_input(module: nn.Module) -> Shape | None:
    """Shape of the input of a module of FrEIA for one image; `None` for other modules."""
    return tuple(module.dims_in[0]) if _is_freia(module) else None  # pyright: ignore


def invertible_blocks(module: nn.Module, shape: Shape | None = None) -> list[nn.Module]:
    """The blocks that a module with an inverse consists of, first to last.

    Args:
        module: module from one tensor to one tensor.
        shape: shape of its input for one image; needed for modules of FrEIA that take vectors where images are given.

    Raises `ValueError` for a module of FrEIA with other inputs than one tensor, or for images of another shape.
    """
    match module:
        case nn.Identity():
            return [Mutual(module, module)]
        case nn.PixelUnshuffle():
            return [Mutual(module, nn.PixelShuffle(module.downscale_factor))]
        case nn.PixelShuffle():
            return [Mutual(module, nn.PixelUnshuffle(module.upscale_factor))]
        case nn.Sequential() if type(module) is nn.Sequential:
            shapes = [shape, *[None] * len(module)]
            return [block for part, each in zip(module, shapes) for block in invertible_blocks(part, each)]
    return _of_freia(module, shape) if _is_freia(module) else [TensorBlock(module)]


def keep_activations(module: nn.Module) -> None:
    """Has MemCNN's wrappers in a network keep their inputs, whose memory they would free for its owners too."""
    for part in module.modules():
        if _is_a(part, "memcnn.models.revop", "InvertibleModuleWrapper"):
            part.disable = True  # pyright: ignore[reportArgumentType]


def _is_freia(module: nn.Module) -> bool:
    return _is_a(module, "FrEIA.modules.base", "InvertibleModule")


def _is_a(module: nn.Module, package: str, name: str) -> bool:
    """Whether a module is of a class of a package, which then has been imported."""
    kind = getattr(sys.modules.get(package), name, None)
    return kind is not None and isinstance(module, kind)


class Mutual(nn.Module):
    """A module and another one, each of which is the inverse of the other."""

    def __init__(self, there: nn.Module, back: nn.Module):
        super().__init__()
        self.there = there
        self.back = back

    def forward(self, x: Tensor) -> Tensor:
        return self.there(x)

    def inverse(self, y: Tensor) -> Tensor:
        return self.back(y)


class TensorBlock(nn.Module):
    """A module with a method `inverse`, without the log-determinants that either direction may return."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self._tensor(self.module(x))

    def inverse(self, y: Tensor) -> Tensor:
        return self._tensor(self.module.inverse(y))  # pyright: ignore[reportCallIssue]

    def _tensor(self, output: Any) -> Tensor:
        """The output, or the first of a tuple in which all others are numbers for each image, or nothing."""
        first, *others = output if isinstance(output, tuple) and output else (output,)
        if isinstance(first, Tensor) and all(not isinstance(each, Tensor) or each.ndim <= 1 for each in others):
            return first
        raise ValueError(
            f"a {type(self.module).__name__} puts out {type(output).__name__}s of several tensors; expected one, with "
            "streams joined along the channels"
        )


def _of_freia(module: Any, shape: Shape | None) -> list[nn.Module]:
    """The blocks of a module of FrEIA, each of which has fixed shapes."""
    inputs = [tuple(dims) for dims in module.dims_in]
    if len(inputs) != 1 or module.dims_c:
        raise ValueError(
            f"a {type(module).__name__} takes {len(inputs)} tensors and {len(module.dims_c)} conditions; expected one "
            "tensor and no conditions"
        )
    if shape is not None and math.prod(shape) != math.prod(inputs[0]):
        raise ValueError(
            f"a {type(module).__name__} takes {_text(inputs[0])}, not images of {_text(shape)}; choose their size by "
            "`image_size`"
        )
    given = inputs[0] if shape is None else shape
    if _is_a(module, "FrEIA.framework.graph_inn", "GraphINN"):
        return _of_graph(module, given)
    if not _is_a(module, "FrEIA.framework.sequence_inn", "SequenceINN"):
        return [FreiaBlock(module, [given], [0], module.output_dims(inputs))]
    if any(condition is not None for condition in module.conditions):
        raise ValueError(f"a {type(module).__name__} takes conditions; expected one tensor and no conditions")
    shapes = [given, *module.shapes[1:]]
    return [
        FreiaBlock(part, [shapes[number]], [0], [shapes[number + 1]]) for number, part in enumerate(module.module_list)
    ]


def _of_graph(graph: Any, given: Shape) -> list[nn.Module]:
    """A block for each node of a `GraphINN`, in the order in which it computes them."""
    edges = {(graph.in_nodes[0], 0): given}  # those that lead from the nodes so far to later ones, with their shapes
    blocks = []
    for node in graph.node_list:
        if node.module is not None:
            before = list(edges)
            take = [before.index((source, output)) for source, output in node.inputs]
            kept = [edge for edge in before if edge not in [before[position] for position in take]]
            put_out = {(node, output): tuple(dims) for output, dims in enumerate(node.output_dims)}
            blocks.append(FreiaBlock(node.module, [*edges.values()], take, [*put_out.values()]))
            edges = {edge: edges[edge] for edge in kept} | put_out
    return blocks


class FreiaBlock(nn.Module):
    """A module of FrEIA that takes some of the tensors of which features consist, and puts others in their place.

    Args:
        module: module from tuples of tensors to tuples of tensors.
        before: shapes of the tensors of the features before it, for one image.
        take: positions among these of the tensors that it takes.
        outputs: shapes of the tensors that it puts out; they follow those that it leaves alone.
    """

    def __init__(self, module: Any, before: Sequence[Shape], take: Sequence[int], outputs: Sequence[Shape]):
        super().__init__()
        self.module = module
        self.before = list(map(tuple, before))
        self.take = list(take)
        self.kept = [position for position in range(len(before)) if position not in take]
        self.after = [self.before[position] for position in self.kept] + list(map(tuple, outputs))

    def forward(self, x: Tensor) -> Tensor:
        streams = _split(x, self.before)
        inputs = (streams[position] for position in self.take)
        # Copies, as some modules change what they are given.
        taken = tuple(each.reshape(-1, *dims).clone() for each, dims in zip(inputs, self.module.dims_in))
        outputs, _ = self.module(taken, rev=False, jac=False)
        return _join([*(streams[position] for position in self.kept), *outputs])

    def inverse(self, y: Tensor) -> Tensor:
        streams = _split(y, self.after)
        inputs, _ = self.module(tuple(each.clone() for each in streams[len(self.kept) :]), rev=True, jac=False)
        by_position = dict(zip(self.kept, streams)) | dict(zip(self.take, inputs))
        return _join([by_position[position].reshape(-1, *shape) for position, shape in enumerate(self.before)])


BLOCKS = Mutual, TensorBlock, FreiaBlock
"""The classes of blocks, whose maps are `(n, c, h, w)`."""


def _join(streams: Sequence[Tensor]) -> Tensor:
    """A single tensor as it is; several are flattened, and put one after the other."""
    return streams[0] if len(streams) == 1 else torch.cat([stream.flatten(1) for stream in streams], dim=1)


def _split(joined: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """The tensors of these shapes that were joined."""
    parts = joined.flatten(1).split([math.prod(shape) for shape in shapes], dim=1)
    return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes)]


def _text(shape: Shape) -> str:
    return " x ".join(map(str, shape))
