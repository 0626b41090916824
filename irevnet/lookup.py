"""Names that users type, found in a table or answered with the nearest that exist."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def find(what: str, name: str, table: Mapping[str, T]) -> T:
    """`table[name]`; otherwise a `ValueError` that says what there is instead, nearest names first."""
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(table)}"
    raise ValueError(f"there is no {what} {name!r}; {hint}")
