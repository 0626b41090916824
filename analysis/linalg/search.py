"""The largest singular values of a linear map, searched for by a Lanczos process that can be interrupted."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from analysis.linalg.lanczos import GolubKahan
from irevnet.utils.progress import Interrupted, Report


class Keeper:
    """Keeps processes on the disk as they go on, so that work which was stopped or killed continues where it was.

    Args:
        folder: where; `None` keeps nothing.
        stop: is asked after each step whether to stop.
        seconds: how much work may be lost when the program is killed.
    """

    def __init__(self, folder: Path | None = None, *, stop: Callable[[], bool] = lambda: False, seconds: float = 60.0):
        self._folder = folder
        self._stop = stop
        self._seconds = seconds
        self._processes: dict[Path, GolubKahan] = {}
        self._saved = time.monotonic()

    def open(self, name: str, process: GolubKahan) -> GolubKahan:
        """The process, where it was if it has been kept."""
        if self._folder is not None:
            self._processes[self._folder / name] = process
            process.restore(self._folder / name)
        return process

    def step_done(self) -> None:
        """Saves from time to time. Raises `Interrupted`, having saved, where it is to stop."""
        stop = self._stop()
        if stop or time.monotonic() >= self._saved + self._seconds:
            for folder, process in self._processes.items():
                process.save(folder)
            self._saved = time.monotonic()
        if stop:
            raise Interrupted("stopped")


class Search:
    """The largest singular values of a map.

    Args:
        name: of what is searched for.
        process: on the map, as far as it is.
        wanted: how many.
        tolerance: a value s has converged if ||A^T u - s v|| <= tolerance s.
        keeper: is told of each step.
        report: is told how far it is.
    """

    def __init__(
        self, name: str, process: GolubKahan, *, wanted: int, tolerance: float, keeper: Keeper, report: Report
    ):
        self.name = name
        self.process = process
        self.wanted = wanted
        self.tolerance = tolerance
        self.keeper = keeper
        self.report = report
        self._due = wanted + process.width
        self._skip_until(process.columns - process.width)  # what was looked at before it was interrupted
        self.converge()

    def converge(self) -> None:
        """Goes on until as many values as are wanted have converged, or there are no others."""
        while True:
            while not (self.process.exhausted or self.process.columns >= self._due):
                self._step()
            if self._look() or self.process.exhausted:
                return
            self._skip_until(self.process.columns)

    def _skip_until(self, columns: int) -> None:
        """The next look, of a sequence that does not depend on where the work was interrupted."""
        while self._due <= columns:
            self._due = math.ceil(1.1 * self._due)

    def _step(self) -> None:
        self.process.extend()
        self.keeper.step_done()

    def _look(self) -> bool:
        """Whether all have converged."""
        self.ritz = self.process.ritz()
        values, residuals = self.ritz.values[: self.wanted], self.ritz.residuals[: self.wanted]
        rounding = 10 * torch.finfo(self.process.map.dtype).eps * values[0]
        self.num_converged = int((residuals <= (self.tolerance * values).clamp(min=rounding)).sum())
        self.report(f"{self.num_converged} of the {self.wanted} {self.name} values, {self.process.columns} vectors")
        return self.num_converged == self.wanted

    @property
    def values(self) -> Float[ndarray, " wanted"]:
        """In decreasing order."""
        return self.ritz.values[: self.wanted].cpu().numpy()

    @property
    def residuals(self) -> Float[ndarray, " wanted"]:
        """||A^T u - s v|| of each."""
        return self.ritz.residuals[: self.wanted].cpu().numpy()

    def vectors(self) -> Float[Tensor, "wanted n"]:
        """Their right singular vectors."""
        return self.process.right_vectors(self.ritz, self.wanted)

    def widen(self) -> None:
        """Searches on, with new random vectors, for what the process missed."""
        self.process.widen()
        self._due = self.process.columns + 4 * self.process.width
        self.converge()
