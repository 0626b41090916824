"""Products of large matrices: in parts, and in the precision that they are said to have."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

ROWS = 8192
"""Rows a product: bounds the work space."""


def row_parts(count: int) -> Iterator[slice]:
    """Slices of at most `ROWS` rows that cover `count`.

    >>> list(row_parts(10_000))
    [slice(0, 8192, None), slice(8192, 10000, None)]
    """
    return (slice(start, min(start + ROWS, count)) for start in range(0, count, ROWS))


@contextmanager
def true_float32() -> Iterator[None]:
    """Products of float32 matrices in float32 throughout: never in the 10 bits of TF32, whatever the caller has set."""
    earlier = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(earlier)
