"""Progress of long work, and requests to stop it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
Track = Callable[[Iterable, str], Iterable]
"""Wraps a loop to show its progress under a description; `no_progress` shows nothing."""

Report = Callable[[str], None]
"""Shows a line on how far the work is; `no_report` shows nothing."""


def no_progress(loop: Iterable[T], description: str) -> Iterable[T]:
    return loop


def no_report(line: str) -> None:
    """Shows nothing."""


def never() -> bool:
    """Never stops."""
    return False


class Interrupted(Exception):
    """Work was stopped on request; its finished parts are on the disk if there was a folder for them."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How work shows its progress, and whether it should stop; by default it shows nothing and never stops.

    Attributes:
        track: function that wraps a loop to show its progress.
        report: function that shows a line on how far the work is.
        stop: function that returns whether to stop, called after each step of work that can be resumed.
    """

    track: Track = no_progress
    report: Report = no_report
    stop: Callable[[], bool] = never
