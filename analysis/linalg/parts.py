"""Products of large matrices in parts."""

from collections.abc import Iterator

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
