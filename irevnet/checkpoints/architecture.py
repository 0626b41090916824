"""Checks that a network matches its config, and that weights match a network."""

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from irevnet.models.config import ARCHITECTURES, Config
from irevnet.models.zoo import build_network
from irevnet.utils.untrusted import brief


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside the wrappers of `torch.compile`, DataParallel and DistributedDataParallel."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def check_architecture(path: Path, model: nn.Module) -> None:
    """Raises `ValueError` unless a network built from its config has the same modules, which weights do not show."""
    name = type(model).__name__
    config = getattr(model, "config", None)
    if ARCHITECTURES.get(name) is not type(config) or not type(model).__module__.startswith("irevnet."):
        raise ValueError(
            f"{path}: a {name} cannot be saved, since no config describes it; save its state_dict() with torch.save"
        )
    with torch.device("meta"):
        expected = build_network(cast(Config, config))
    for (key, mine), (other, theirs) in zip_longest(
        model.named_modules(), expected.named_modules(), fillvalue=("", None)
    ):
        same = key == other and isinstance(mine, nn.Module) and isinstance(theirs, nn.Module)
        kinds = [nn.BatchNorm2d if type(each) is nn.SyncBatchNorm else type(each) for each in (mine, theirs)]
        if not (same and kinds[0] is kinds[1] and mine.extra_repr() == theirs.extra_repr()):  # type: ignore[union-attr]
            found, wanted = (_described(each) if each is not None else "nothing" for each in (mine, theirs))
            raise ValueError(
                f"{path}: this {name} cannot be saved: its {key or other} is {found}, but its config describes "
                f"{wanted} there; save its state_dict() with torch.save"
            )
    try:
        check_shapes(expected, model.state_dict())
    except ValueError as error:
        raise ValueError(
            f"{path}: this {name} cannot be saved: {error}; save its state_dict() with torch.save"
        ) from error


def _described(module: nn.Module) -> str:
    return f"{type(module).__name__}({module.extra_repr()})"


def check_shapes(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raises `ValueError` unless weights have the names and shapes of a network's, which may be on the meta device."""
    state = model.state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights:
            raise ValueError(f"{name} is missing")
        if name not in expected:
            raise ValueError(f"{brief(name)} belongs to none of its modules")
        if tuple(weights[name].shape) != expected[name]:
            raise ValueError(f"{name} has shape {tuple(weights[name].shape)}; expected {expected[name]}")
        if weights[name].is_floating_point() != state[name].is_floating_point():
            raise ValueError(f"{name} is {weights[name].dtype}; expected a type like {state[name].dtype}")
