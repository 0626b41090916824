"""Parts of a spectrum by the Lanczos process: the largest values one by one, and how dense the others lie."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from analysis.lanczos import Basis, GolubKahan, orthonormalise
from analysis.linear_map import LinearMap

Report = Callable[[str], None]

MANY = 64
"""Vectors that are multiplied at once."""


def no_report(line: str) -> None:
    """Says nothing."""


class Interrupted(Exception):
    """The work was stopped; what there was of it is kept if it was to be."""


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


@dataclass(frozen=True, eq=False)
class Density:
    """Values that stand for singular values of a map: how many each of them stands for, by every probe.

    Attributes:
        nodes: in decreasing order, `(nodes,)`.
        weights: their numbers, which add up to the same for every probe, `(probes, nodes)`.
    """

    nodes: Float[ndarray, " nodes"]
    weights: Float[ndarray, "probes nodes"]

    def log_sums(self) -> Float[ndarray, " probes"]:
        """The sum of the logarithms of all, by every probe."""
        return self.weights @ np.log(self.nodes)


class Quadrature:
    """Densities of the singular values of several maps, but those whose right singular vectors are locked.

    For orthonormal probes p that are drawn evenly from the r dimensions left, E[p^T f(A^T A) p] = tr f(A^T A) / r. With
    W an orthonormal basis of a subspace that holds the probes, s the singular values of A W and q its right singular
    vectors, p^T f(A^T A) p is nearly the sum of f(s^2) times the square of what p has of W q (Golub and Meurant, 2010).
    W is spanned by the Krylov subspaces of all the maps. Of A and of A^-T together that is an extended Krylov subspace
    (Druskin and Knizhnerman, 1998), which at the same size resolves far more of the spectrum than that of A alone.

    Args:
        maps: from the same space.
        locked: vectors of that space.
        num_probes: how many.
        steps: of a Lanczos process on each map, with a block of as many vectors.
        generator: draws the probes, on the CPU; it stays as it is.
        keeper: is told of each step.

    Attributes:
        basis: the locked vectors, the probes, and what else W has.
        num_products: that have been computed.
    """

    def __init__(
        self,
        maps: Sequence[LinearMap],
        locked: Basis,
        *,
        num_probes: int,
        steps: int,
        generator: torch.Generator,
        keeper: Keeper,
    ):
        self._start = len(locked)
        self._room = locked.size - len(locked)
        self._keeper = keeper
        self._maps = maps
        self.num_products = 0
        for number, linear_map in enumerate(maps):
            same = generator.clone_state()  # for the same probes
            process = GolubKahan(linear_map, width=num_probes, generator=same, locked=locked)
            while process.columns < steps * num_probes and not process.exhausted:
                process.extend()
                keeper.step_done()
            self.num_products += 2 * process.columns
            if number == 0:
                self._probes = process.width
                self.basis = process.basis
            else:
                self._join(process.basis, self._start + process.width)

    def _join(self, other: Basis, start: int) -> None:
        """Adds what the vectors of another basis, from one on, have beyond this one."""
        for part in other.parts(start):
            for block in part.split(MANY):
                once, _ = orthonormalise(self.basis.project_off(block.double()), floor=1e-3)
                twice, _ = orthonormalise(self.basis.project_off(once), floor=0.5)
                self.basis.append(twice[twice.square().sum(dim=1) > 0.5])

    def density(self, number: int) -> Density:
        """Of the map of that number."""
        images = []
        for part in self.basis.parts(self._start):
            for block in part.split(MANY):
                images.append(self._maps[number].matvec(block).double())
                self._keeper.step_done()
        if not images:
            return Density(np.empty(0), np.empty((self._probes, 0)))
        r = torch.linalg.qr(torch.cat(images).T, mode="r").R
        self.num_products += r.shape[1]
        _, values, right = torch.linalg.svd(r, full_matrices=False)
        weights = self._room * right[:, : self._probes].square().T
        return Density(values.cpu().numpy(), weights.cpu().numpy())
