"""Lanczos processes saved to disk while they run, so that interrupted work continues where it was."""

import time
from collections.abc import Callable
from pathlib import Path

from analysis.linalg.lanczos import GolubKahan
from irevnet.utils.progress import Interrupted


class Autosave:
    """Saves Lanczos processes from time to time, and interrupts them on request.

    Args:
        folder: folder that processes are saved in, each in a folder of its own; `None` saves nothing.
        stop: function called after each step, which returns whether to stop.
        seconds: time between two saves, and so the most work that is lost when the program is killed.
    """

    def __init__(self, folder: Path | None = None, *, stop: Callable[[], bool] = lambda: False, seconds: float = 60.0):
        self._folder = folder
        self._stop = stop
        self._seconds = seconds
        self._processes: dict[Path, GolubKahan] = {}
        self._saved = time.monotonic()

    def restore(self, name: str, process: GolubKahan) -> GolubKahan:
        """Restores the state that was saved under this name, if any; from now on the process is saved there.

        Raises `ValueError` if the saved state is damaged.
        """
        if self._folder is not None:
            self._processes[self._folder / name] = process
            process.restore(self._folder / name)
        return process

    def step_done(self) -> None:
        """Saves all processes if it is time to. Raises `Interrupted`, after saving, if it is to stop."""
        stop = self._stop()
        if stop or time.monotonic() >= self._saved + self._seconds:
            for folder, process in self._processes.items():
                process.save(folder)
            self._saved = time.monotonic()
        if stop:
            raise Interrupted("stopped")
