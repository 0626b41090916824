"""A saved result as a table of text, for a terminal or a page."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TextTable:
    """Headings, rows of as many cells, and lines of text to go below them."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def percent(value: float, interval: Sequence[float] | None = None) -> str:
    """A share with one decimal, and its interval.

    >>> percent(0.5, (0.41, 0.59))
    '50.0% (41.0% to 59.0%)'
    """
    text = f"{value:.1%}"
    return text if interval is None else f"{text} ({interval[0]:.1%} to {interval[1]:.1%})"
