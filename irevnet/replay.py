"""Evaluating a module a second time as it was evaluated the first time, or refusing to.

Back-propagation that stores no activations evaluates each F_j again. Its gradients are right only if the second
evaluation computes what the first one did. What a module computes follows from its input and from: its parameters, its
buffers and the plain attributes of it and its parts (training flags among them), the random generators that it draws
from, and autocast. All of that is noted before the first evaluation and is in force again during the second one; what
cannot be brought back, since a tensor was changed in place since, is refused. Whatever the second evaluation changes,
such as running statistics, is discarded. Forward hooks are called the first time alone.
"""

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules import module as torch_hooks
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import get_device_states, set_device_states

PLAIN = 'set model.memory = "plain"'
"""The way out of every refusal."""

_INTERNAL = frozenset(vars(nn.Module()))
"""Attributes that every module has."""

_CONTAINERS = (list, dict, set, OrderedDict, deque)
"""Attributes of these kinds are copied, so that what is put into them during the second evaluation is discarded."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_GLOBAL_HOOKS = (torch_hooks._global_forward_hooks, torch_hooks._global_forward_pre_hooks)


@dataclass(frozen=True, eq=False)
class _Part:
    """A module within the one that is evaluated.

    Attributes:
        name: its name there.
        module: itself.
        attributes: a copy of its attributes, one level deep.
        containers: names of plain attributes that are containers.
        tensors: its own tensors: the container that they are in (empty for plain attributes), their names, themselves.
    """

    name: str
    module: nn.Module
    attributes: dict[str, Any]
    containers: list[str]
    tensors: list[tuple[str, str, Tensor]]

    @classmethod
    def of(cls, name: str, module: nn.Module) -> "_Part":
        if isinstance(module, torch.jit.ScriptModule):
            raise RuntimeError(f"{_named(name)} is a TorchScript module, whose state cannot be replayed; {PLAIN}")
        own = vars(module).copy()
        containers, tensors = [], []
        for place in ("_parameters", "_buffers"):
            if own[place]:
                own[place] = own[place].copy()
                tensors += [(place, key, tensor) for key, tensor in own[place].items() if tensor is not None]
        if own["_modules"]:
            own["_modules"] = own["_modules"].copy()
        for key in own.keys() - _INTERNAL:
            if isinstance(own[key], Tensor):
                tensors.append(("", key, own[key]))
            elif type(own[key]) in _CONTAINERS:
                own[key] = own[key].copy()
                containers.append(key)
        return cls(name, module, own, containers, tensors)

    def replayed(self, number: int, saved: Mapping, replaced: Mapping[int, Tensor]) -> dict[str, Any]:
        """The attributes for a second evaluation, which may change them: buffers and containers are copies.

        Args:
            number: of this part.
            saved: tensors that the first evaluation changed, as they were before, by part, container and name.
            replaced: leaves of the graph, by the tensor that they stand for.
        """
        own = self.attributes.copy()
        for place in ("_parameters", "_buffers"):
            if own[place]:
                own[place] = own[place].copy()
        for key in self.containers:
            own[key] = own[key].copy()
        for place, key, tensor in self.tensors:
            tensor = saved.get((number, place, key), replaced.get(id(tensor), tensor))
            if place != "_parameters" and not tensor.requires_grad:
                tensor = tensor.detach().clone()
            (own[place] if place else own)[key] = tensor
        for hooks in _HOOKS:
            if own[hooks]:
                own[hooks] = OrderedDict((key, hook) for key, hook in own[hooks].items() if _is_torchs(hook))
        return own

    def watched(self) -> Iterator[tuple[str, str, Tensor]]:
        """Of `tensors`, those that what it computes may depend on: torch's normalisations only update their running
        statistics in train mode."""
        own_statistics = self.is_torchs_norm and self.attributes["training"]
        return (entry for entry in self.tensors if not (own_statistics and entry[0] == "_buffers"))

    @property
    def is_torchs_norm(self) -> bool:
        """Whether it is one of torch's normalisations, which update buffers in train mode and do not read them."""
        return isinstance(self.module, nn.modules.batchnorm._NormBase) and _is_torchs(self.module)


@dataclass(frozen=True, eq=False)
class _Watched:
    """A tensor that has to be the same in the second evaluation."""

    name: str
    tensor: Tensor
    mark: tuple

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> "_Watched":
        return cls(name, tensor, _mark(tensor))

    @property
    def changed(self) -> bool:
        return _mark(self.tensor) != self.mark


class Replay:
    """The evaluation of a module, which can be repeated.

    Args:
        module: what is evaluated.
        like: a tensor on the device on which that is done.

    Attributes:
        module: what is evaluated.
        tensors: the tensors of the module that require gradients, each once.
    """

    def __init__(self, module: nn.Module, like: Tensor):
        self.module = module
        self._parts = [_Part.of(name, part) for name, part in module.named_modules()]
        self._foreign = not all(_is_torchs(part.module) for part in self._parts)
        self._watched: list[_Watched] = []
        self._saved: dict[tuple[int, str, str], Tensor] = {}
        place = like.new_empty(0)  # which, kept, keeps nothing of what is evaluated
        self._sources = _sources([part.attributes for part in self._parts], place, everywhere=self._foreign)
        self._states: list[Any] = []
        self._autocast = _Autocast.current(like.device.type)
        found = (tensor for part in self._parts for _, _, tensor in part.tensors)
        self.tensors = list({id(tensor): tensor for tensor in found if tensor.requires_grad}.values())

    @contextmanager
    def first(self) -> Iterator[None]:
        """Within it the first evaluation takes place, without gradients.

        Raises `RuntimeError` for what cannot be done twice: hooks that change what is computed, and parameters that
        are changed by being used.
        """
        # What the evaluation itself may change is kept as it was before.
        watched, copies = [], []
        for number, part in enumerate(self._parts):
            for container, name, tensor in part.watched():
                entry = _Watched.of(f"{part.name}.{name}".lstrip("."), tensor)
                watched.append(entry)
                if container != "_parameters" and not tensor.requires_grad and not part.is_torchs_norm:
                    copies.append(((number, container, name), entry, tensor.detach().clone()))
        with _observed_hooks(self._parts), self._autocast.entered():
            before = [source.get() for source in self._sources]
            yield
        # Generators that were not drawn from, and tensors that did not change, need not be brought back.
        drawn = [(source, state) for source, state in zip(self._sources, before) if source.get() != state]
        self._sources, self._states = [source for source, _ in drawn], [state for _, state in drawn]
        self._saved = {place: copy for place, entry, copy in copies if entry.changed}
        restored = {id(entry) for _, entry, _ in copies if entry.changed}
        self._watched = [entry for entry in watched if id(entry) not in restored]
        _refuse_changes(self._watched, "while it was evaluated")

    def leaves(self) -> list[Tensor]:
        """A leaf of the graph of a second evaluation for each of `tensors`; themselves, where they are leaves."""
        return [each if each.is_leaf and each.requires_grad else _leaf(each) for each in self.tensors]

    @contextmanager
    def again(self, leaves: Sequence[Tensor]) -> Iterator[None]:
        """Within it the evaluation can be repeated, with these leaves in place of `tensors`.

        Raises `RuntimeError` for tensors that have been changed in place since the first evaluation.
        """
        _refuse_changes(self._watched, "between the forward pass and back-propagation")
        replaced = {id(tensor): leaf for tensor, leaf in zip(self.tensors, leaves) if tensor is not leaf}
        present = [vars(part.module) for part in self._parts]
        states = [source.get() for source in self._sources]
        with ExitStack() as stack:
            stack.enter_context(self._autocast.entered())
            stack.enter_context(_without_global_hooks())
            stack.callback(_set_all, self._sources, states)
            stack.callback(_set_attributes, [part.module for part in self._parts], present)
            own = [part.replayed(number, self._saved, replaced) for number, part in enumerate(self._parts)]
            _set_attributes([part.module for part in self._parts], own)
            _set_all(self._sources, self._states)
            yield

    def check_leaves(self, output: Tensor, leaves: Sequence[Tensor]) -> None:
        """Raises `RuntimeError` if an output of the second evaluation depends on tensors that it does not know of.

        Only code of others reaches for tensors that no module has.
        """
        if not self._foreign:
            return
        known = {id(leaf) for leaf in leaves}
        waiting, seen = [output.grad_fn], set()
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            variable = getattr(node, "variable", None)
            if variable is not None and id(variable) not in known:
                raise RuntimeError(
                    f"a bottleneck uses a tensor of shape {tuple(variable.shape)} that is no parameter, buffer or "
                    f"attribute of its modules, and would get no gradient; register it, or {PLAIN}"
                )
            waiting += [following for following, _ in node.next_functions]


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _set_attributes(modules: Sequence[nn.Module], attributes: Sequence[dict[str, Any]]) -> None:
    for module, own in zip(modules, attributes):
        object.__setattr__(module, "__dict__", own)


def _is_torchs(thing: Any) -> bool:
    """Whether torch or this toolkit wrote the class of a module or of a hook: such do not reach outside themselves."""
    return type(thing).__module__.startswith(("torch.nn.", "irevnet."))


def _named(name: str) -> str:
    return f"{name!r} of a bottleneck" if name else "a bottleneck"


def _mark(tensor: Tensor) -> tuple:
    """What differs where a tensor was changed in place, or given other memory by way of `.data`."""
    version = None if tensor.is_inference() else tensor._version
    ordinary = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided
    return version, tensor.dtype, tensor.data_ptr() if ordinary else None


def _refuse_changes(watched: Sequence[_Watched], when: str) -> None:
    for entry in watched:
        if entry.changed:
            raise RuntimeError(
                f"{entry.name!r} of a bottleneck was changed in place {when}, so that its activations cannot be "
                f"computed again; change it after backward(), or {PLAIN}"
            )


@dataclass(frozen=True)
class _Autocast:
    """Automatic mixed precision as it is set, without its cache of weights.

    The cache would hand weights that were cast without gradients, in the first evaluation, to the second.
    """

    device_type: str
    enabled: bool
    dtype: torch.dtype

    @classmethod
    def current(cls, device_type: str) -> "_Autocast":
        if not torch.amp.is_autocast_available(device_type):  # such as the meta device
            return cls(device_type, False, torch.float32)
        enabled = torch.is_autocast_enabled(device_type)
        return cls(device_type, enabled, torch.get_autocast_dtype(device_type))

    @contextmanager
    def entered(self) -> Iterator[None]:
        if not self.enabled and not (
            torch.amp.is_autocast_available(self.device_type) and torch.is_autocast_enabled(self.device_type)
        ):
            yield
            return
        with torch.autocast(self.device_type, dtype=self.dtype, enabled=self.enabled, cache_enabled=False):
            yield


@dataclass(frozen=True, eq=False)
class _Source:
    """A random generator: its state, as a value that compares, and how to set it."""

    get: Callable[[], Any]
    set: Callable[[Any], object]


def _sources(attributes: Sequence[Mapping[str, Any]], place: Tensor, *, everywhere: bool) -> list[_Source]:
    """torch's generators and, where others' code may draw from them, Python's, NumPy's and those that modules hold."""
    if isinstance(place, FakeTensor):  # which have shapes alone: nothing is drawn
        return []
    sources = [_Source(lambda: _bytes(torch.get_rng_state()), lambda state: torch.set_rng_state(_tensor(state)))]
    if place.device.type not in ("cpu", "meta"):
        sources.append(
            _Source(lambda: tuple(map(_bytes, get_device_states(place)[1])), lambda state: _set_device(place, state))
        )
    if everywhere:
        sources.append(_Source(random.getstate, random.setstate))
        sources.append(_Source(lambda: _numpy_state(np.random.get_state(legacy=False)), _set_numpy))  # noqa: NPY002
        held = {id(value): value for own in attributes for value in own.values()}
        sources += [source for value in held.values() if (source := _held(value)) is not None]
    return sources


def _held(value: Any) -> _Source | None:
    match value:
        case torch.Generator():
            return _Source(lambda: _bytes(value.get_state()), lambda state: value.set_state(_tensor(state)))
        case random.Random():
            return _Source(value.getstate, value.setstate)
        case np.random.Generator():
            return _Source(
                lambda: _numpy_state(value.bit_generator.state),
                lambda state: setattr(value.bit_generator, "state", _numpy_arrays(state)),
            )
        case np.random.RandomState():
            return _Source(
                lambda: _numpy_state(value.get_state(legacy=False)), lambda state: value.set_state(_numpy_arrays(state))
            )
    return None


def _set_all(sources: Sequence[_Source], states: Sequence[Any]) -> None:
    for source, state in zip(sources, states):
        source.set(state)


def _bytes(state: Tensor) -> bytes:
    return state.numpy().tobytes()


def _tensor(state: bytes) -> Tensor:
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)


def _set_device(place: Tensor, state: Sequence[bytes]) -> None:
    devices, _ = get_device_states(place)
    set_device_states(devices, list(map(_tensor, state)), device_type=place.device.type)


def _set_numpy(state: Any) -> None:
    np.random.set_state(_numpy_arrays(state))  # noqa: NPY002  (whatever a layer draws from)


def _numpy_state(state: Any) -> Any:
    """NumPy's nested dictionaries, with lists, which compare, for arrays."""
    if isinstance(state, Mapping):
        return {name: _numpy_state(value) for name, value in state.items()}
    return ("array", state.dtype.str, state.tobytes()) if isinstance(state, np.ndarray) else state


def _numpy_arrays(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {name: _numpy_arrays(value) for name, value in state.items()}
    if isinstance(state, tuple) and state[:1] == ("array",):
        return np.frombuffer(state[2], dtype=state[1]).copy()
    return state


@contextmanager
def _observed_hooks(parts: Sequence[_Part]) -> Iterator[None]:
    """Lets forward hooks look, and refuses those that change what is computed, or use it in a graph that is not kept.

    torch's own, which compute weights from others, are part of the function, and left alone.
    """
    places = [(part.name, part.attributes[kind]) for part in parts for kind in _HOOKS if part.attributes[kind]]
    places += [("", hooks) for hooks in _GLOBAL_HOOKS if hooks]
    kept = [(hooks, dict(hooks)) for _, hooks in places]
    for name, hooks in places:
        for key, hook in list(hooks.items()):
            if not _is_torchs(hook):
                hooks[key] = _observer(hook, name)
    try:
        yield
    finally:
        for hooks, own in kept:
            hooks.update({key: hook for key, hook in own.items() if key in hooks})


@contextmanager
def _without_global_hooks() -> Iterator[None]:
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
        marks = list(map(_mark, tensors))
        with torch.enable_grad():
            shown = tree_map(lambda each: _unconnected(each) if isinstance(each, Tensor) else each, seen)
            result = hook(module, *shown)
        known = {id(leaf) for leaf in tree_leaves(shown)}
        if not {id(leaf) for leaf in tree_leaves(result)} <= known | {id(None)} or marks != list(map(_mark, tensors)):
            raise RuntimeError(
                f"a forward hook of {_named(name)} changes what the module computes, which cannot be done a second "
                f"time; make it a module, or {PLAIN}"
            )

    return observe


def _unconnected(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point() or tensor.is_inference():
        return tensor.detach()
    return _Unconnected.apply(_leaf(tensor))  # type: ignore[return-value]


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
