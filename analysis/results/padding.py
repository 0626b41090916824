"""Arrays of different sizes in one, padded with NaN."""

from collections.abc import Sequence

import numpy as np
from numpy import ndarray


def stacked(arrays: Sequence[ndarray]) -> ndarray:
    """Arrays of as many dimensions, one for each row; those of floating-point numbers are padded where they differ.

    >>> stacked([np.array([1.0]), np.array([2.0, 3.0])]).tolist()
    [[1.0, nan], [2.0, 3.0]]
    """
    if arrays[0].dtype.kind != "f":
        return np.stack(arrays)
    sizes = np.max([array.shape for array in arrays], axis=0).astype(int)
    result = np.full((len(arrays), *sizes), np.nan, np.result_type(*arrays))
    for row, array in enumerate(arrays):
        result[(row, *map(slice, array.shape))] = array
    return result
