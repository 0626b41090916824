"""The device, the precision and the mode of any torch module, what it puts out, and its random weights."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn


@runtime_checkable
class Module(Protocol):
    """A module of torch, as far as its tensors go."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def buffers(self) -> Iterator[Tensor]: ...


def device_of(model: Module) -> torch.device:
    """Device of a network; the CPU if it has no tensors."""
    return next(_tensors(model), torch.empty(0)).device


def as_input(images: Tensor, model: Module) -> Tensor:
    """Images on the device of a network and, where they are floating-point numbers, in its precision.

    >>> as_input(torch.rand(2), nn.Linear(2, 1).double()).dtype
    torch.float64
    """
    kinds = (tensor.dtype for tensor in _tensors(model) if tensor.is_floating_point() and images.is_floating_point())
    return images.to(device_of(model), next(kinds, images.dtype), non_blocking=True)


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Puts a network into eval mode within the block, then each of its modules back into the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws within the block by that seed, on the CPU, from the global generators of torch, NumPy and Python, which are
    then in their earlier states: other packages draw their weights from any of them."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


@contextmanager
def outputs_seen(modules: Mapping[str, nn.Module], see: Callable[[str, nn.Module, Any], None]) -> Iterator[None]:
    """Calls a function with the name, the module and the output of each of these modules whenever it is run within the
    block."""

    def hook(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        see(name, module, output)

    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.callback(module.register_forward_hook(partial(hook, name)).remove)
        yield


def _tensors(model: Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
