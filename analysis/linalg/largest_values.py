"""The largest singular values of a linear operator, from a Lanczos process that runs until they have converged."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from analysis.linalg.autosave import Autosave
from analysis.linalg.lanczos import GolubKahan, RitzValues
from analysis.linalg.singular_vectors import SingularPairs
from irevnet.utils.progress import Report, no_report


@dataclass(frozen=True, eq=False)
class LargestSingularValues:
    """The largest singular values of an operator A.

    Attributes:
        process: Lanczos process from which they were computed.
        ritz: singular values of A on the subspace of the process, of which those searched for are the first.
        num_values: number of values searched for.
        num_converged: number of these values that have converged.
    """

    process: GolubKahan
    ritz: RitzValues
    num_values: int
    num_converged: int

    @property
    def values(self) -> Float[ndarray, " num_values"]:
        """Singular values, in decreasing order."""
        return self.ritz.values[: self.num_values].cpu().numpy()

    @property
    def residuals(self) -> Float[ndarray, " num_values"]:
        """Residual ||A^T u - s v|| of each value s and its singular vectors."""
        return self.ritz.residuals[: self.num_values].cpu().numpy()

    def right_vectors(self) -> Float[Tensor, "num_values n"]:
        """Right singular vector of each value."""
        return self.process.right_vectors(self.ritz, self.num_values)

    def pairs(self, count: int) -> SingularPairs:
        """The largest values with their singular vectors."""
        vectors = self.process.right_vectors(self.ritz, count)
        return SingularPairs.of(self.process.operator, self.ritz.values[:count], vectors)


def largest_singular_values(
    process: GolubKahan,
    *,
    num_values: int,
    tolerance: float,
    widen: bool = False,
    name: str = "largest",
    autosave: Autosave | None = None,
    report: Report = no_report,
) -> LargestSingularValues:
    """Extends a Lanczos process until its largest singular values have converged, or its space is exhausted.

    Args:
        process: Lanczos process on the operator, new or restored.
        num_values: number of values searched for.
        tolerance: relative residual at which a value s has converged, ||A^T u - s v|| <= tolerance s.
        widen: whether random vectors join the process first, for values that it has missed so far.
        name: word for these values in progress reports.
        autosave: object that saves the process after its steps, and may interrupt it.
        report: function called with a line of progress.

    Raises:
        Interrupted: the autosave was asked to stop.
        ValueError: a product is not finite.

    >>> from analysis.linalg.linear_operator import aslinearoperator
    >>> operator = aslinearoperator(torch.diag(torch.arange(1.0, 9.0, dtype=torch.float64)))
    >>> process = GolubKahan(operator, width=2, generator=torch.Generator())
    >>> largest_singular_values(process, num_values=3, tolerance=1e-6).values.round(6).tolist()
    [8.0, 7.0, 6.0]
    """
    autosave = autosave or Autosave()
    # Ritz values cost a dense decomposition, so they are computed at subspace sizes that grow by a tenth each. A
    # restored process joins this sequence where it was, so that it ends at the size of one that was never interrupted.
    if widen:
        process.widen()
        next_check = process.columns + 4 * process.width
    else:
        next_check = _check_after(process.columns - process.width, num_values + process.width)
    while True:
        while not (process.exhausted or process.columns >= next_check):
            process.extend()
            autosave.step_done()
        found = _check(process, num_values, tolerance)
        report(f"{found.num_converged} of the {num_values} {name} values, {process.columns} vectors")
        if found.num_converged == num_values or process.exhausted:
            return found
        next_check = _check_after(process.columns, next_check)


def _check_after(columns: int, next_check: int) -> int:
    """The first of the subspace sizes `next_check`, 1.1 `next_check`, ... that is larger than `columns`."""
    while next_check <= columns:
        next_check = math.ceil(1.1 * next_check)
    return next_check


def _check(process: GolubKahan, num_values: int, tolerance: float) -> LargestSingularValues:
    """The values as they are now; residuals within the rounding of the products count as converged."""
    ritz = process.ritz()
    values, residuals = ritz.values[:num_values], ritz.residuals[:num_values]
    rounding = 10 * torch.finfo(process.operator.dtype).eps * values[0]
    num_converged = int((residuals <= (tolerance * values).clamp(min=rounding)).sum())
    return LargestSingularValues(process=process, ritz=ritz, num_values=num_values, num_converged=num_converged)
