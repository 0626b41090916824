"""How loops show their progress to whoever wants to see it."""

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
Track = Callable[[Iterable, str], Iterable]
"""Wraps a loop to show its progress under a description; `no_progress` shows nothing."""


def no_progress(loop: Iterable[T], description: str) -> Iterable[T]:
    return loop
