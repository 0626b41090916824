"""Forward hooks of what is evaluated twice: they look once, and may change nothing."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_hooks
from torch.utils._pytree import tree_leaves, tree_map

PLAIN = 'set model.memory = "plain"'
"""The way out of every refusal."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks")
"""Where a module keeps them."""

_GLOBAL_HOOKS = (torch_hooks._global_forward_hooks, torch_hooks._global_forward_pre_hooks)


def is_torchs(thing: Any) -> bool:
    """Whether torch or this toolkit wrote the class of a module or of a hook: such do not reach outside themselves."""
    return type(thing).__module__.startswith(("torch.nn.", "irevnet."))


def named(name: str) -> str:
    return f"{name!r} of a bottleneck" if name else "a bottleneck"


def mark(tensor: Tensor) -> tuple:
    """What differs where a tensor was changed in place, or given other memory by way of `.data`."""
    version = None if tensor.is_inference() else tensor._version
    ordinary = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided
    return version, tensor.dtype, tensor.data_ptr() if ordinary else None


def as_leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


@contextmanager
def observed_hooks(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Lets forward hooks look, and refuses those that change what is computed, or use it in a graph that is not kept.

    torch's own, which compute weights from others, are part of the function, and left alone.
    """
    places = [(name, hooks) for name, part in modules.items() for kind in HOOKS if (hooks := getattr(part, kind))]
    places += [("", hooks) for hooks in _GLOBAL_HOOKS if hooks]
    kept = [(hooks, dict(hooks)) for _, hooks in places]
    for name, hooks in places:
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
    """A hook that is shown what it would see, cut off from the graph."""

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
    """A tensor whose graph is not kept: to back-propagate through it is an error rather than a missing gradient."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        raise RuntimeError(
            f"what a forward hook saw inside a bottleneck has no graph that gradients could go through; {PLAIN}"
        )
