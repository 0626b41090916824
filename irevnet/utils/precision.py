"""The precision of products and convolutions: of float32, which PyTorch may compute with factors of 10 or 7 bits, and
mixed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def true_float32() -> Iterator[None]:
    """Products and convolutions of float32 in full float32, whatever the caller has set; also as a decorator.

    On a GPU, PyTorch computes convolutions in TF32 unless it is told otherwise: factors of 10 bits, so that features
    and logits are off by 1e-3 of their size.
    """
    with _float32_products("highest", "ieee"):
        yield


@contextmanager
def tensor_float32() -> Iterator[None]:
    """Products and convolutions of float32 in TF32 on a GPU that has it: factors of 10 bits, sums in float32."""
    with _float32_products("high", "tf32"):
        yield


def mixed_precision(amp: str, device_type: str) -> torch.autocast:
    """Convolutions and products of float32 in `"bf16"` or `"fp16"` within the block; as they are for any other name."""
    dtype = torch.float16 if amp == "fp16" else torch.bfloat16
    return torch.autocast(device_type, dtype=dtype, enabled=amp in ("bf16", "fp16"))


def epsilon(device_type: str) -> float:
    """Distance from 1 to the next factor of convolutions of float32, as they are computed on such a device now."""
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.finfo(torch.get_autocast_dtype(device_type)).eps
    cudnn: Any = torch.backends.cudnn
    if device_type == "cuda" and (cudnn.conv.fp32_precision == "tf32" if _NEWER else cudnn.allow_tf32):
        return 2.0**-10
    return torch.finfo(torch.float32).eps


_NEWER = hasattr(torch.backends, "fp32_precision")
"""Whether each operation has a setting of its own, as since PyTorch 2.9."""


@contextmanager
def _float32_products(matmul: str, gpu: str) -> Iterator[None]:
    """Sets the older settings of PyTorch, and those of each operation."""
    operations = _operations()
    earlier = [_own_setting(library, operation) for library, operation, _ in operations]
    try:
        older = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:  # they cannot be read where the caller has set the newer ones otherwise
        older = None
    try:
        if older is not None:
            _set_older(matmul, tf32=gpu == "tf32")
        for _, operation, on_gpu in operations:
            operation.fp32_precision = gpu if on_gpu else "ieee"
        yield
    finally:
        if older is not None:
            _set_older(older[0], tf32=older[1])  # which sets some of the newer ones too
        for (_, operation, _), setting in zip(operations, earlier):
            operation.fp32_precision = setting


def _set_older(matmul: str, *, tf32: bool) -> None:
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = tf32


def _operations() -> list[tuple[Any, Any, bool]]:
    """Each operation with a setting of its own, after the library whose setting it follows if it has none, and whether
    it is of a GPU."""
    if not _NEWER:
        return []
    every: Any = torch.backends
    cuda, cudnn, mkldnn = every.cuda, every.cudnn, every.mkldnn
    return [
        (every, cuda.matmul, True),
        (cudnn, cudnn.conv, True),
        (cudnn, cudnn.rnn, True),
        (mkldnn, mkldnn.matmul, False),
        (mkldnn, mkldnn.conv, False),
        (mkldnn, mkldnn.rnn, False),
    ]


def _own_setting(library: Any, operation: Any) -> str:
    """The setting of an operation; "none" where it is that of its library, which it then follows."""
    return "none" if operation.fp32_precision == library.fp32_precision else operation.fp32_precision
