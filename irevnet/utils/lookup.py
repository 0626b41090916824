"""Names: looked up, with suggestions for unknown ones, and made unique."""

import difflib
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def find(what: str, name: str, table: Mapping[str, T]) -> T:
    """`table[name]`; raises `ValueError` for an unknown name, with the nearest known ones or, if none is near, all."""
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(table)}"
    raise ValueError(f"there is no {what} {name!r}; {hint}")


def check_depth(depth: int, last: int, *, first: int = 0) -> int:
    """The depth, if it is one of `first` to `last`; `ValueError` otherwise. Depth 0 is the input of a network."""
    if not first <= depth <= last:
        raise ValueError(f"depth {depth} does not exist; this network has depths {first} to {last}")
    return depth


def names_apart(short: Sequence[str], long: Sequence[str]) -> list[str]:
    """The short name of each thing, or its long name where another thing has the same short name.

    >>> names_apart(["irevnet-b", "resnet-50", "resnet-50"], ["first", "second", "third"])
    ['irevnet-b', 'second', 'third']
    """
    return [name if short.count(name) == 1 else other for name, other in zip(short, long, strict=True)]
