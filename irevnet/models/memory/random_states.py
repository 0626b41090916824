"""The states of all random generators that layers may draw from, as values to compare and to restore."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils.checkpoint import get_device_states, set_device_states


@dataclass(frozen=True, eq=False)
class RandomSource:
    """A random generator.

    Attributes:
        get: function that returns the state, as a value that can be compared.
        set: function that sets the generator to such a state.
    """

    get: Callable[[], Any]
    set: Callable[[Any], object]


def random_sources(attributes: Sequence[Mapping[str, Any]], like: Tensor, *, everywhere: bool) -> list[RandomSource]:
    """Torch's generators for the device of a tensor and, if `everywhere`, Python's, NumPy's and those in attributes."""
    if isinstance(like, FakeTensor):  # has a shape alone: nothing is drawn
        return []
    sources = [RandomSource(lambda: _bytes(torch.get_rng_state()), lambda state: torch.set_rng_state(_tensor(state)))]
    if like.device.type not in ("cpu", "meta"):
        sources.append(
            RandomSource(lambda: tuple(map(_bytes, get_device_states(like)[1])), lambda state: _set_device(like, state))
        )
    if everywhere:
        sources.append(RandomSource(random.getstate, random.setstate))
        sources.append(RandomSource(lambda: _numpy_state(np.random.get_state(legacy=False)), _set_numpy))  # noqa: NPY002
        held = {id(value): value for own in attributes for value in own.values()}
        sources += [source for value in held.values() if (source := _held(value)) is not None]
    return sources


def _held(value: Any) -> RandomSource | None:
    match value:
        case torch.Generator():
            return RandomSource(lambda: _bytes(value.get_state()), lambda state: value.set_state(_tensor(state)))
        case random.Random():
            return RandomSource(value.getstate, value.setstate)
        case np.random.Generator():
            return RandomSource(
                lambda: _numpy_state(value.bit_generator.state),
                lambda state: setattr(value.bit_generator, "state", _numpy_arrays(state)),
            )
        case np.random.RandomState():
            return RandomSource(
                lambda: _numpy_state(value.get_state(legacy=False)), lambda state: value.set_state(_numpy_arrays(state))
            )
    return None


def set_states(sources: Sequence[RandomSource], states: Sequence[Any]) -> None:
    for source, state in zip(sources, states):
        source.set(state)


def _bytes(state: Tensor) -> bytes:
    return state.numpy().tobytes()


def _tensor(state: bytes) -> Tensor:
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)


def _set_device(like: Tensor, state: Sequence[bytes]) -> None:
    devices, _ = get_device_states(like)
    set_device_states(devices, list(map(_tensor, state)), device_type=like.device.type)


def _set_numpy(state: Any) -> None:
    np.random.set_state(_numpy_arrays(state))  # noqa: NPY002  (whatever a layer draws from)


def _numpy_state(state: Any) -> Any:
    """A nested state of NumPy, with tuples, which can be compared, in place of arrays."""
    if isinstance(state, Mapping):
        return {name: _numpy_state(value) for name, value in state.items()}
    return ("array", state.dtype.str, state.tobytes()) if isinstance(state, np.ndarray) else state


def _numpy_arrays(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {name: _numpy_arrays(value) for name, value in state.items()}
    if isinstance(state, tuple) and state[:1] == ("array",):
        return np.frombuffer(state[2], dtype=state[1]).copy()
    return state
