"""Spectra whose singular values are all known one by one, from the matrix or from a Lanczos process that has ended."""

import math

import numpy as np
import torch
from numpy import ndarray

from analysis.linalg.autosave import Autosave
from analysis.linalg.largest_values import LargestSingularValues
from analysis.linalg.linear_operator import LinearOperator
from analysis.linalg.singular_vectors import SingularPairs, both_ends
from analysis.results.singular_values import SingularVectors, Spectrum


def spectrum_of_matrix(
    operator: LinearOperator, inverse: LinearOperator | None, autosave: Autosave, *, num_vectors: int
) -> Spectrum:
    """The spectrum of a matrix, decomposed in float64.

    Args:
        operator: linear operator whose matrix is computed.
        inverse: inverse of that operator, if there is one.
        autosave: object that may interrupt the computation after each product.
        num_vectors: number of values at each end whose singular vectors are computed too.
    """
    m, n = operator.shape
    matrix = (operator if n <= m else operator.transposed).dense(step_done=autosave.step_done).double()
    vectors = None
    if num_vectors:
        left, values, right = torch.linalg.svd(matrix if n <= m else matrix.T, full_matrices=False)
        found = values, right, left.T
        largest = SingularPairs.of(operator, *(each[:num_vectors] for each in found))
        smallest = None
        if inverse is not None:
            s, v, u = (each[-num_vectors:].flip(0) for each in found)
            smallest = SingularPairs.of(inverse.transposed, 1 / s, v, u)
        vectors = both_ends(largest, smallest)
    else:
        values = torch.linalg.svdvals(matrix)
    return _complete(
        operator,
        values.cpu().numpy(),
        np.full(len(values), np.nan),
        square=inverse is not None,
        method="dense",
        products=min(m, n) + 2 * num_vectors * (1 if inverse is None else 2),
        vectors=vectors,
    )


def spectrum_of_subspace(found: LargestSingularValues, *, square: bool) -> Spectrum:
    """The spectrum from a process that has found all singular values."""
    process, count = found.process, min(found.process.operator.shape)
    values, residuals = (each[:count].cpu().numpy() for each in (found.ritz.values, found.ritz.residuals))
    return _complete(
        process.operator,
        values,
        residuals,
        square=square,
        method="lanczos",
        products=2 * process.columns,
        loss=process.basis.loss_of_orthogonality(),
    )


def _complete(
    operator: LinearOperator,
    values: ndarray,
    residuals: ndarray,
    *,
    square: bool,
    method: str,
    products: int,
    loss: float = 0.0,
    vectors: SingularVectors | None = None,
) -> Spectrum:
    """The spectrum from all singular values, one by one."""
    log_volume, error = math.nan, math.nan
    if square:
        # Rounding changes each value by about eps times the largest, and its logarithm by that over the value.
        with np.errstate(divide="ignore"):
            log_volume = float(np.log(values).sum())
            error = float(torch.finfo(operator.dtype).eps * values[0] * (1 / values).sum())
    none = np.empty(0)
    return Spectrum(
        num_outputs=operator.shape[0],
        num_inputs=operator.shape[1],
        method=method,
        largest=values,
        largest_residuals=residuals,
        smallest=none,
        smallest_residuals=none,
        num_converged=len(values),
        squared_norm=float((values**2).sum()),
        squared_norm_error=0.0,
        nodes=none,
        weights=np.empty((1, 0)),
        log_volume=np.array([log_volume, log_volume]),
        log_volume_error=error,
        num_products=products,
        loss_of_orthogonality=loss,
        vectors=vectors,
    )
