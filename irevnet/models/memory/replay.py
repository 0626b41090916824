"""Evaluating a module a second time exactly as the first time, or refusing to.

Back-propagation that stores no activations evaluates each F_j again. Its gradients are right only if the second
evaluation computes the same as the first. The result of a module depends on its input and on: the parameters, buffers
and plain attributes of the module and its submodules (training flags among them), the random generators that it draws
from, and autocast. All of these are recorded before the first evaluation and restored for the second one; a tensor that
was changed in place in between cannot be restored, and raises an error. Changes by the second evaluation, such as to
running statistics, are discarded. Forward hooks are called in the first evaluation only.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from irevnet.models.memory.forward_hooks import (
    HOOKS,
    PLAIN,
    as_leaf,
    is_torchs,
    mark,
    named,
    observed_hooks,
    without_global_hooks,
)
from irevnet.models.memory.random_states import random_sources, set_states

_INTERNAL = frozenset(vars(nn.Module()))
"""Attributes that every module has."""

_CONTAINERS = (list, dict, set, OrderedDict, deque)
"""Types of attributes that are copied, so that changes to them in the second evaluation are discarded."""


@dataclass(frozen=True, eq=False)
class _Part:
    """A submodule of the module that is evaluated.

    Attributes:
        name: name of the submodule.
        module: the submodule.
        attributes: copy of its attributes, one level deep.
        containers: names of the plain attributes that are containers.
        tensors: the submodule's own tensors, each with the attribute that contains it (empty for plain attributes) and
            its name.
    """

    name: str
    module: nn.Module
    attributes: dict[str, Any]
    containers: list[str]
    tensors: list[tuple[str, str, Tensor]]

    @classmethod
    def of(cls, name: str, module: nn.Module) -> "_Part":
        if isinstance(module, torch.jit.ScriptModule):
            raise RuntimeError(f"{named(name)} is a TorchScript module, whose state cannot be replayed; {PLAIN}")
        own = vars(module).copy()
        containers, tensors = [], []
        for kind in ("_parameters", "_buffers"):
            if own[kind]:
                own[kind] = own[kind].copy()
                tensors += [(kind, key, tensor) for key, tensor in own[kind].items() if tensor is not None]
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
            number: index of this part.
            saved: tensors that the first evaluation changed, with their earlier values, by part, container and name.
            replaced: leaves of the graph, by the id of the tensor that they replace.
        """
        own = self.attributes.copy()
        for kind in ("_parameters", "_buffers"):
            if own[kind]:
                own[kind] = own[kind].copy()
        for key in self.containers:
            own[key] = own[key].copy()
        for kind, key, tensor in self.tensors:
            tensor = saved.get((number, kind, key), replaced.get(id(tensor), tensor))
            if kind != "_parameters" and not tensor.requires_grad:
                tensor = tensor.detach().clone()
            (own[kind] if kind else own)[key] = tensor
        for hooks in HOOKS:
            if own[hooks]:
                own[hooks] = OrderedDict((key, hook) for key, hook in own[hooks].items() if is_torchs(hook))
        return own

    def watched(self) -> Iterator[tuple[str, str, Tensor]]:
        """The tensors that the result may depend on: all but the running statistics of torch's normalisations in train
        mode, which are updated but not read."""
        own_statistics = self.is_torchs_norm and self.attributes["training"]
        return (entry for entry in self.tensors if not (own_statistics and entry[0] == "_buffers"))

    @property
    def is_torchs_norm(self) -> bool:
        """Whether it is one of torch's normalisations, which update buffers in train mode but do not read them."""
        return isinstance(self.module, nn.modules.batchnorm._NormBase) and is_torchs(self.module)


@dataclass(frozen=True, eq=False)
class _Watched:
    """A tensor that has to be unchanged in the second evaluation."""

    name: str
    tensor: Tensor
    mark: tuple

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> "_Watched":
        return cls(name, tensor, mark(tensor))

    @property
    def changed(self) -> bool:
        return mark(self.tensor) != self.mark


class Replay:
    """An evaluation of a module that can be repeated.

    Args:
        module: module to evaluate.
        like: tensor on the device of the evaluation.

    Attributes:
        module: module to evaluate.
        tensors: tensors of the module that require gradients, each once.
    """

    def __init__(self, module: nn.Module, like: Tensor):
        self.module = module
        self._parts = [_Part.of(name, part) for name, part in module.named_modules()]
        self._foreign = not all(is_torchs(part.module) for part in self._parts)
        self._watched: list[_Watched] = []
        self._saved: dict[tuple[int, str, str], Tensor] = {}
        like = like.new_empty(0)  # keeps no activation alive
        self._sources = random_sources([part.attributes for part in self._parts], like, everywhere=self._foreign)
        self._states: list[Any] = []
        self._autocast = _Autocast.current(like.device.type)
        found = (tensor for part in self._parts for _, _, tensor in part.tensors)
        self.tensors = list({id(tensor): tensor for tensor in found if tensor.requires_grad}.values())

    @contextmanager
    def first(self) -> Iterator[None]:
        """The context of the first evaluation, which is without gradients.

        Raises `RuntimeError` for what cannot be repeated: hooks that change what is computed, and parameters that the
        evaluation changes.
        """
        # Tensors that the evaluation itself may change are copied.
        watched, copies = [], []
        for number, part in enumerate(self._parts):
            for container, name, tensor in part.watched():
                entry = _Watched.of(f"{part.name}.{name}".lstrip("."), tensor)
                watched.append(entry)
                if container != "_parameters" and not tensor.requires_grad and not part.is_torchs_norm:
                    copies.append(((number, container, name), entry, tensor.detach().clone()))
        with observed_hooks({part.name: part.module for part in self._parts}), self._autocast.entered():
            before = [source.get() for source in self._sources]
            yield
        # Generators that were not drawn from, and tensors that did not change, need not be restored.
        drawn = [(source, state) for source, state in zip(self._sources, before) if source.get() != state]
        self._sources, self._states = [source for source, _ in drawn], [state for _, state in drawn]
        self._saved = {key: copy for key, entry, copy in copies if entry.changed}
        restored = {id(entry) for _, entry, _ in copies if entry.changed}
        self._watched = [entry for entry in watched if id(entry) not in restored]
        _refuse_changes(self._watched, "while it was evaluated")

    def leaves(self) -> list[Tensor]:
        """Leaves of the graph of a second evaluation, one for each of `tensors`: the tensor itself if it is a leaf."""
        return [each if each.is_leaf and each.requires_grad else as_leaf(each) for each in self.tensors]

    @contextmanager
    def again(self, leaves: Sequence[Tensor]) -> Iterator[None]:
        """The context of a repeated evaluation, with these leaves in place of `tensors`.

        Raises `RuntimeError` for tensors that have been changed in place since the first evaluation.
        """
        _refuse_changes(self._watched, "between the forward pass and back-propagation")
        replaced = {id(tensor): leaf for tensor, leaf in zip(self.tensors, leaves) if tensor is not leaf}
        present = [vars(part.module) for part in self._parts]
        states = [source.get() for source in self._sources]
        with ExitStack() as stack:
            stack.enter_context(self._autocast.entered())
            stack.enter_context(without_global_hooks())
            stack.callback(set_states, self._sources, states)
            stack.callback(_set_attributes, [part.module for part in self._parts], present)
            own = [part.replayed(number, self._saved, replaced) for number, part in enumerate(self._parts)]
            _set_attributes([part.module for part in self._parts], own)
            set_states(self._sources, self._states)
            yield

    def check_leaves(self, output: Tensor, leaves: Sequence[Tensor]) -> None:
        """Raises `RuntimeError` if an output of the second evaluation depends on unknown tensors.

        Only foreign code uses tensors that no module holds.
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
                    f"a block uses a tensor of shape {tuple(variable.shape)} that is no parameter, buffer or "
                    f"attribute of its modules, and would get no gradient; register it, or {PLAIN}"
                )
            waiting += [following for following, _ in node.next_functions]


def _set_attributes(modules: Sequence[nn.Module], attributes: Sequence[dict[str, Any]]) -> None:
    for module, own in zip(modules, attributes):
        object.__setattr__(module, "__dict__", own)


def _refuse_changes(watched: Sequence[_Watched], when: str) -> None:
    for entry in watched:
        if entry.changed:
            raise RuntimeError(
                f"{entry.name!r} of a block was changed in place {when}, so that its activations cannot be "
                f"computed again; change it after backward(), or {PLAIN}"
            )


@dataclass(frozen=True)
class _Autocast:
    """The current setting of automatic mixed precision, without its cache of weights.

    The cache would pass weights that the first evaluation cast without gradients on to the second.
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
