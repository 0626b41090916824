"""Products of large matrices: in parts, and in a stated precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

ROWS = {"cpu": 1024, "cuda": 32768}
"""Number of rows in a product, by type of device: few enough for the workspace to stay in a CPU's cache, and enough to
fill a GPU."""


def row_parts(count: int, device: torch.device) -> Iterator[slice]:
    """Consecutive slices of at most `ROWS` rows, which cover `count` rows.

    >>> list(row_parts(1500, torch.device("cpu")))
    [slice(0, 1024, None), slice(1024, 1500, None)]
    """
    rows = ROWS[device.type]
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


@contextmanager
def true_float32() -> Iterator[None]:
    """Products and convolutions of float32 in full float32, never in TF32, whatever the caller has set."""
    with _float32_products("highest", tf32=False):
        yield


@contextmanager
def tensor_float32() -> Iterator[None]:
    """Products and convolutions of float32 in TF32 on a GPU that has it: factors of 10 bits, sums in float32."""
    with _float32_products("high", tf32=True):
        yield


@contextmanager
def _float32_products(precision: str, *, tf32: bool) -> Iterator[None]:
    earlier = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(earlier[0])
        torch.backends.cudnn.allow_tf32 = earlier[1]
