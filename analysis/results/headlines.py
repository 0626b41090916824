"""The numbers of a study's result by which networks are compared at different steps of their training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy import ndarray


@dataclass(frozen=True, kw_only=True)
class Headline:
    """One number of a result, with its interval.

    Attributes:
        network: index of the network among those of the result.
        layer: name of the layer.
        depth: block index j of the layer.
        relative_depth: j over the number of blocks of the network; NaN where the result does not have it.
        measure: code of what is measured.
        value: value of the measure; NaN where it is not defined or not known.
        low: lower end of the interval; NaN where there is none.
        high: upper end of the interval; NaN where there is none.
    """

    network: int
    layer: str
    depth: int
    relative_depth: float
    measure: str
    value: float
    low: float = float("nan")
    high: float = float("nan")


def of_each_row(result: Any, measures: Mapping[str, tuple[ndarray, ndarray]]) -> list[Headline]:
    """The numbers of a result with a row a layer: values, `(rows,)`, and intervals, `(rows, 2)`, by their codes."""
    return [
        Headline(
            network=int(result.network[row]),
            layer=str(result.layer[row]),
            depth=int(result.depth[row]),
            relative_depth=float(result.relative_depth[row]),
            measure=code,
            value=float(value[row]),
            low=float(interval[row, 0]),
            high=float(interval[row, 1]),
        )
        for row in range(len(result.layer))
        for code, (value, interval) in measures.items()
    ]
