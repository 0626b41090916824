"""Layers of a network whose features are studied: blocks by depth, or modules by name."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from analysis.features.outputs import main_output
from irevnet.utils.lookup import check_depth, find
from irevnet.utils.modules import as_input, in_eval_mode, outputs_seen


@dataclass(frozen=True)
class NamedLayer:
    """A layer whose features are studied, and of which there need be no network.

    Attributes:
        name: `block-3`, or the module's own name in a network that was not made of blocks by this toolkit.
        depth: number of the layer among the network's blocks or the layers chosen, from 1 on.
        relative_depth: that number over the number of blocks or layers.
    """

    name: str
    depth: int
    relative_depth: float


@dataclass(frozen=True)
class Layer(NamedLayer):
    """A layer of a network whose output is studied.

    Attributes:
        module: the module in the network.
    """

    module: nn.Module


def network_layers(
    model: nn.Module, *, depths: Sequence[int] | None = None, names: Sequence[str] | None = None
) -> list[Layer]:
    """The blocks of a network: all of them, or those of some depths; or modules of some names in their place.

    Names may be patterns: `layer*.0`, `blocks.{0,5,11}`, where `*` and `?` stand for anything but a dot and `**` for
    anything. The modules are in the network's order.

    The blocks of a network that was not made by this toolkit are the outermost modules with parts of their own in its
    chains (`nn.Sequential`): the residual blocks of torchvision's ResNets, for example.

    Raises:
        ValueError: no such depth or module, both depths and names, or a network in which no blocks are found.
    """
    _check_choice(depths, names)
    if names is not None:
        modules = {name: module for name, module in model.named_modules() if name}
        return _numbered({name: modules[name] for name in _chosen(names, modules)})
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


def named_layers(
    known: Sequence[str], *, depths: Sequence[int] | None = None, names: Sequence[str] | None = None
) -> list[NamedLayer]:
    """Layers that have features and no network: all of them, those of some numbers, or those of some names.

    Raises `ValueError` as `network_layers` does.
    """
    _check_choice(depths, names)
    chosen = known if names is None else _chosen(names, dict.fromkeys(known))
    layers = [NamedLayer(name, depth, depth / len(chosen)) for depth, name in enumerate(chosen, start=1)]
    return layers if depths is None else [layers[check_depth(depth, len(layers), first=1) - 1] for depth in depths]


def _check_choice(depths: Sequence[int] | None, names: Sequence[str] | None) -> None:
    if names is not None and depths is not None:
        raise ValueError("`depths` and `layers` were both given; give one of them")


def _chosen(patterns: Sequence[str], modules: Mapping[str, Any]) -> list[str]:
    """The names that fit any of the patterns, in the network's order."""
    fitting = set(itertools.chain.from_iterable(_fitting(pattern, modules) for pattern in patterns))
    return [name for name in modules if name in fitting]


def _fitting(pattern: str, modules: Mapping[str, Any]) -> list[str]:
    """The names that fit a pattern. Raises `ValueError` if there are none."""
    if not re.search(r"[*?{]", pattern):
        find("layer", pattern, modules)
        return [pattern]
    parts = re.split(r"(\*\*|\*|\?|\{[^}]*\})", pattern)
    expression = "".join(_WILD.get(part) or _alternatives(part) for part in parts)
    fitting = [name for name in modules if re.fullmatch(expression, name)]
    if not fitting:
        known = ", ".join(itertools.islice(modules, 20))
        raise ValueError(f"no layer fits {pattern!r}; known: {known}{', ...' if len(modules) > 20 else ''}")
    return fitting


_WILD = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
"""Regular expressions of the wild parts of a pattern."""


def _alternatives(part: str) -> str:
    """The regular expression of words in braces, or of plain text."""
    if not part.startswith("{"):
        return re.escape(part)
    return f"({'|'.join(re.escape(word.strip()) for word in part.strip('{}').split(','))})"


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """One module of a network.

    Attributes:
        name: name of the module in the network, by which it can be studied.
        kind: class of the module.
        depth: number of the block that it is, by which it can be studied; `None` for other modules.
        shape: shape of its output for one image, or that of the first tensor in it; `None` if there is none.
        parameters: number of its parameters, those of its parts included.
        calls: how often a forward pass runs it; only modules that are run once can be studied.
    """

    name: str
    kind: str
    depth: int | None
    shape: tuple[int, ...] | None
    parameters: int
    calls: int


@torch.no_grad()
def list_layers(model: nn.Module, channels: int, size: tuple[int, int]) -> list[LayerInfo]:
    """All modules of a network, in its order, with the shapes of their outputs for an image of that size."""
    shapes: dict[str, tuple[int, ...] | None] = {}
    calls: Counter[str] = Counter()

    def record(name: str, module: nn.Module, output: Any) -> None:
        found = main_output(output)
        shapes[name] = tuple(found.shape) if isinstance(found, Tensor) else None
        calls[name] += 1

    modules = {name: module for name, module in model.named_modules() if name}
    with in_eval_mode(model), outputs_seen(modules, record):
        model(as_input(torch.zeros(1, channels, *size), model))
    try:
        depths = {layer.module: layer.depth for layer in network_layers(model)}
    except ValueError:  # no blocks are found
        depths = {}
    return [
        LayerInfo(
            name=name,
            kind=type(module).__name__,
            depth=depths.get(module),
            shape=shapes.get(name),
            parameters=sum(each.numel() for each in module.parameters()),
            calls=calls[name],
        )
        for name, module in modules.items()
    ]


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
