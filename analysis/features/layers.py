"""Layers of a network whose features are studied: blocks by depth, or modules by name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from irevnet.utils.lookup import check_depth, find


@dataclass(frozen=True)
class Layer:
    """A layer whose output is studied.

    Attributes:
        name: `block-3`, or the module's own name in a network that was not made of blocks by this toolkit.
        depth: number of the layer among the network's blocks or the layers chosen, from 1 on.
        relative_depth: that number over the number of blocks or layers.
        module: the module in the network.
    """

    name: str
    depth: int
    relative_depth: float
    module: nn.Module


def network_layers(
    model: nn.Module, *, depths: Sequence[int] | None = None, names: Sequence[str] | None = None
) -> list[Layer]:
    """The blocks of a network: all of them, or those of some depths; or modules of some names in their place.

    The blocks of a network that was not made by this toolkit are the outermost modules with parts of their own in its
    chains (`nn.Sequential`): the residual blocks of torchvision's ResNets, for example.

    Raises:
        ValueError: no such depth or module, both depths and names, or a network in which no blocks are found.
    """
    if names is not None and depths is not None:
        raise ValueError("`depths` and `layers` were both given; give one of them")
    if names is not None:
        modules = {name: module for name, module in model.named_modules() if name}
        return _numbered({name: find("layer", name, modules) for name in names})
    own = getattr(model, "blocks", None)
    if isinstance(own, nn.ModuleList):
        layers = _numbered({f"block-{depth}": block for depth, block in enumerate(own, start=1)})
    else:
        layers = _numbered(dict(_blocks_in(model, "", inside=False)))
    if not layers:
        raise ValueError(
            f"no blocks are found in this {type(model).__name__}; name its layers by `layers`, such as "
            f"{next((name for name, _ in model.named_modules() if name), 'features')}"
        )
    if depths is None:
        return layers
    return [layers[check_depth(depth, len(layers), first=1) - 1] for depth in depths]


def _numbered(modules: Mapping[str, nn.Module]) -> list[Layer]:
    return [
        Layer(name, depth, depth / len(modules), module)
        for depth, (name, module) in enumerate(modules.items(), start=1)
    ]


def _blocks_in(module: nn.Module, prefix: str, *, inside: bool) -> Iterator[tuple[str, nn.Module]]:
    """Modules with parts of their own, `inside` a chain, with their names."""
    for name, child in module.named_children():
        full_name = f"{prefix}{name}"
        if type(child) in (nn.Sequential, nn.ModuleList):
            yield from _blocks_in(child, f"{full_name}.", inside=True)
        elif inside and any(True for _ in child.children()):
            yield full_name, child
        elif not inside:
            yield from _blocks_in(child, f"{full_name}.", inside=False)
