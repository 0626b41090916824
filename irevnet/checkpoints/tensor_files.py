"""Files of tensors that may come from anyone, read without running their code: of `torch.save`, or safetensors."""

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from irevnet.utils.untrusted import brief, check_tensors

_KEYS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "weights",
    "params",
    "model_ema",
    "ema_state_dict",
)
"""Names under which state dicts are saved, in the order in which they are preferred."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict that `torch.save` wrote, alone or under one of the usual keys, or of a file of
    safetensors.

    Raises `ValueError` if the file holds no state dict, values that are not finite, or pickled code.
    """
    if path.suffix == ".safetensors":
        content: dict[str, Any] = _read_safetensors(path)
    else:
        content = read_tensors(path)
    weights = next((content[key] for key in _KEYS if is_state_dict(content.get(key)) and content[key]), content)
    if not is_state_dict(weights) or not weights:
        raise ValueError(
            f"{path} holds no state dict{', but ' if content else ''}{', '.join(map(brief, content))}; save the "
            "network's state_dict()"
        )
    check_finite(path, weights)
    return weights


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(f"{path} needs the package safetensors; pip install safetensors") from error
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        return load_file(path)
    except Exception as error:
        raise ValueError(f"{path} is not a file of safetensors, or is damaged: {first_line(error)}") from error


def load_tensors(path: Path, *, mmap: bool = False) -> Any:
    """The content of a file of tensors, without running its code; mapped into memory with `mmap`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about foreign pickles, which are then refused
        check_tensors(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    _check_content(content, room=path.stat().st_size)
    return content


def read_tensors(path: Path) -> dict[str, Any]:
    """The dictionary in a file of `torch.save`.

    Raises `FileNotFoundError` if there is none, `ValueError` for another file, a damaged one, or pickled code.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        content = load_tensors(path)
    except Exception as error:  # torch raises many kinds
        if isinstance(error, pickle.UnpicklingError) and _holds_code(path, error):
            raise ValueError(
                f"{path} holds pickled Python objects, which could run code when read, and is refused "
                f"({first_line(error)}); save the network's state_dict() instead"
            ) from error
        raise ValueError(f"{path} is not a checkpoint, or is damaged: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a checkpoint's dictionary")
    return content


def _check_content(content: Any, *, room: int) -> None:
    """Raises `ValueError` for tensors that are no plain arrays, or that take more than `room` bytes, which a stride of
    0 allows. Removes attributes of dictionaries, which could hide their methods."""
    seen: set[int] = set()
    waiting, total = [content], 0
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, Tensor):
            if each.layout != torch.strided or each.device.type != "cpu" or each.is_quantized or each.is_complex():
                raise ValueError(f"it holds a tensor of {each.dtype} as {each.layout}; expected plain numbers")
            total += each.numel() * each.element_size()
        elif isinstance(each, dict):
            if isinstance(each, OrderedDict):
                vars(each).clear()
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple):
            waiting += each
    if total > room:
        raise ValueError(f"its tensors declare {total:,} bytes, but the file has {room:,}")


def is_state_dict(content: Any) -> bool:
    """Whether these are tensors by name."""
    return isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    )


def _holds_code(path: Path, error: pickle.UnpicklingError) -> bool:
    """Whether a file was refused for naming something to call, or for being a plain pickle instead of torch's."""
    with open(path, "rb") as file:
        plain_pickle = file.read(1) == b"\x80"
    return "Unsupported global" in str(error) or "Unsupported class" in str(error) or plain_pickle


def check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Raises `ValueError`, with the name of the tensor, for weights that are not finite."""
    if broken := first_not_finite(weights):
        raise ValueError(
            f"the weights of {path} are not finite, the first of them in {broken}; give another checkpoint"
        )


def first_not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor with a value that is not finite."""
    return next((name for name, tensor in weights.items() if not tensor.isfinite().all()), None)


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its kind if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
