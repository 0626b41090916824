"""Forward hooks of modules that are evaluated twice: they are called once, and may change nothing."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_hooks
from torch.utils._pytree import tree_leaves, tree_map

PLAIN = 'set model.memory = "plain"'
"""Advice that every error ends with."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks")
"""Attributes in which a module keeps its forward hooks."""

_GLOBAL_HOOKS = (torch_hooks._global_forward_hooks, torch_hooks._global_forward_pre_hooks)


def is_torchs(thing: Any) -> bool:
    """Whether the class of a module or hook is torch's or this toolkit's, and so uses no state outside the module."""
    return type(thing).__module__.startswith(("torch.nn.", "irevnet."))


def named(name: str) -> str:
    return f"{name!r} of a block" if name else "a block"


def mark(tensor: Tensor) -> tuple:
    """A value that changes when a tensor is changed in place, or gets other memory through `.data`."""
    version = None if tensor.is_inference() else tensor._version
    ordinary = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided
    return version, tensor.dtype, tensor.data_ptr() if ordinary else None


def as_leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


@contextmanager
def observed_hooks(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Calls forward hooks with tensors cut off from the graph, and refuses those that change what is computed.

    Torch's own hooks, which compute weights from others, are part of the function, and called as usual.
    """
    dictionaries = [(name, hooks) for name, part in modules.items() for kind in HOOKS if (hooks := getattr(part, kind))]
    dictionaries += [("", hooks) for hooks in _GLOBAL_HOOKS if hooks]
    kept = [(hooks, dict(hooks)) for _, hooks in dictionaries]
    for name, hooks in dictionaries:
        for key, hook in list(hooks.items()):
            if not is_torchs(hook):
                hooks[key] = _observer(hook, name)
    try:
        yield
    finally:
        for hooks, own in kept:
            hooks.update({key: hook for key, hook in own.items() if key in hooks})


@contextmanager
def without_global_hooks() -> Iterator[None]:
    kept = [dict(hooks) for hooks in _GLOBAL_HOOKS]
    for hooks in _GLOBAL_HOOKS:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, own in zip(_GLOBAL_HOOKS, kept):
            hooks.update(own)


def _observer(hook: Callable[..., Any], name: str) -> Callable[..., None]:
    """A hook that calls another with tensors cut off from the graph."""

    def observe(module: nn.Module, *seen: Any) -> None:
        tensors = [leaf for leaf in tree_leaves(seen) if isinstance(leaf, Tensor)]
        marks = list(map(mark, tensors))
        with torch.enable_grad():
            shown = tree_map(lambda each: _unconnected(each) if isinstance(each, Tensor) else each, seen)
            result = hook(module, *shown)
        known = {id(leaf) for leaf in tree_leaves(shown)}
        if not {id(leaf) for leaf in tree_leaves(result)} <= known | {id(None)} or marks != list(map(mark, tensors)):
            raise RuntimeError(
                f"a forward hook of {named(name)} changes what the module computes, which cannot be done a second "
                f"time; make it a module, or {PLAIN}"
            )

    return observe


def _unconnected(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point() or tensor.is_inference():
        return tensor.detach()
    return _Unconnected.apply(as_leaf(tensor))  # type: ignore[return-value]


class _Unconnected(torch.autograd.Function):
    """A tensor without a graph, through which back-propagation raises an error instead of losing a gradient."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        raise RuntimeError(
            f"tensors that a forward hook gets inside a block have no graph to back-propagate through; {PLAIN}"
        )
