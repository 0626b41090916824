"""The singular values of a linear operator from its products: the largest, the smallest, and how dense the others lie.

- The largest k come from the block Golub-Kahan-Lanczos process (`analysis.linalg.lanczos`), the smallest from the same
  process on the inverse, whose largest singular values are their reciprocals.
- The sum of all squares is ||A||_F^2 = ||A V||_F^2 + ||A (1 - V V^T)||_F^2 for the Lanczos vectors V. The first term is
  known, the second is estimated from random vectors (Hutchinson's method after deflation, as in Hutch++ of Meyer et
  al., 2021). It gives E(d), the share of the d largest, an interval.
- The density of the others comes from Lanczos quadrature (Golub and Meurant, 2010) with random vectors orthogonal to
  all singular vectors found. As log is operator concave, its estimate of sum log s is never below the true value for
  these random vectors; the estimate from the inverse is never above it.
- The same quadrature shows what the first process has missed: copies of a value beyond the width of a block.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from analysis.linalg.all_values import spectrum_of_matrix, spectrum_of_subspace
from analysis.linalg.autosave import Autosave
from analysis.linalg.lanczos import Basis, GolubKahan
from analysis.linalg.largest_values import LargestSingularValues, largest_singular_values
from analysis.linalg.linear_operator import LinearOperator
from analysis.linalg.quadrature import Density, lanczos_quadrature
from analysis.linalg.singular_vectors import both_ends
from analysis.results.singular_values import Spectrum, half_width
from irevnet.utils.progress import Report, no_report

Method = Literal["auto", "dense", "lanczos"]

DENSE = 1000
"""Number of rows or columns up to which the matrix itself is computed and decomposed."""


def choose_method(method: str, shape: tuple[int, int]) -> str:
    """`"dense"` or `"lanczos"`; `"auto"` is one of them, by the size of the matrix. Raises `ValueError` for others."""
    if method not in get_args(Method):
        raise ValueError(f"method is {method!r}; expected one of {get_args(Method)}")
    if method != "auto":
        return method
    return "dense" if min(shape) <= DENSE else "lanczos"


def singular_values(
    operator: LinearOperator,
    inverse: LinearOperator | None = None,
    *,
    generator: torch.Generator,
    num_values: int | None = None,
    num_smallest: int = 16,
    num_vectors: int = 0,
    method: str = "auto",
    width: int = 16,
    tolerance: float = 1e-3,
    num_probes: int = 64,
    density_probes: int = 16,
    density_steps: int = 12,
    autosave: Autosave | None = None,
    report: Report = no_report,
) -> Spectrum:
    """The singular values of A.

    Args:
        operator: linear operator A, m x n.
        inverse: linear operator A^-1, if there is one.
        generator: random number generator on the CPU.
        num_values: number k of the largest singular values. By default a fifteenth of all, as the paper's 10^4 of
            150,528. All are computed where the others would be too few to sample from.
        num_smallest: number of the smallest singular values, which need the inverse.
        num_vectors: number of values at each end whose singular vectors are computed too; at the lower end they need
            the inverse.
        method: `"dense"` decomposes the matrix, `"lanczos"` needs only products; `"auto"` is dense if m or n is at most
            1,000.
        width: number of vectors in a block, which are multiplied at once.
        tolerance: relative residual at which a value s has converged, ||A^T u - s v|| <= tolerance s. Its relative
            error is then about the square of that, unless values lie closer together.
        num_probes: number of random vectors for the sum of squares.
        density_probes: number of random vectors for the density.
        density_steps: number of steps of the Lanczos processes for the density, whose blocks have `density_probes`
            vectors.
        autosave: object that saves the Lanczos processes, and may interrupt the computation after each product.
        report: function called with a line of progress.

    Raises:
        ValueError: an option is out of range, more values or vectors are asked for than there are, a saved state is
            damaged, or a product is not finite.
        Interrupted: the autosave was asked to stop.

    >>> from analysis.linalg.linear_operator import aslinearoperator
    >>> matrix = torch.diag(torch.arange(1.0, 5.0, dtype=torch.float64))
    >>> operator, inverse = aslinearoperator(matrix), aslinearoperator(matrix.inverse())
    >>> found = singular_values(operator, inverse, generator=torch.Generator())
    >>> found.largest.round(6).tolist(), round(found.condition, 6), found.energy(np.array([1]))[0].round(4).tolist()
    ([4.0, 3.0, 2.0, 1.0], 4.0, [0.5333, 0.5333, 0.5333])
    """
    m, n = operator.shape
    count = min(m, n)
    k = max(1, round(count / 15)) if num_values is None else num_values
    if not 1 <= k <= count:
        raise ValueError(f"{k} singular values were asked for; a Jacobian of {m} x {n} has 1 to {count}")
    if width < 1 or min(num_probes, density_probes) < 2 or not 0 < tolerance < 1:
        raise ValueError(
            f"width={width}, num_probes={num_probes}, density_probes={density_probes}, tolerance={tolerance}; expected "
            "at least 1, at least 2, at least 2, and a number between 0 and 1"
        )
    autosave = autosave or Autosave()
    dense = choose_method(method, operator.shape) == "dense"
    most = count if dense else k
    if inverse is not None:  # no value is at both ends
        most = min(most, count // 2, *([] if dense else [num_smallest]))
    if not 0 <= num_vectors <= most:
        raise ValueError(
            f"the singular vectors of {num_vectors} values at each end were asked for; of a Jacobian of {m} x {n} with "
            f"{count if dense else k} values found one by one they can be those of 0 to {most}"
        )
    if dense:
        return spectrum_of_matrix(operator, inverse, autosave, num_vectors=num_vectors)
    # A^T has the same singular values. If it is taller than wide, they are all that it has: on the larger space of its
    # outputs random vectors would mostly see its n - m zeros.
    if m < n:
        operator = operator.transposed
    l = 0 if inverse is None else num_smallest  # noqa: E741
    if count - k - l < density_probes:  # too few others to sample from
        k = count

    def begin(name: str, of: LinearOperator, num_values: int) -> partial[LargestSingularValues]:
        # A random number generator of its own: the saved states of the two processes may be some steps apart.
        own = torch.Generator().manual_seed(int(torch.randint(2**63 - 1, (), generator=generator)))
        return partial(
            largest_singular_values,
            autosave.restore(name, GolubKahan(of, width=width, generator=own)),
            num_values=num_values,
            tolerance=tolerance,
            name=name,
            autosave=autosave,
            report=report,
        )

    # Both ends of the spectrum: the k largest values of A, and the l largest of A^-T, whose right singular vectors are
    # those of A, in the same space.
    searches = [begin("largest", operator, k)]
    ends = [searches[0]()]
    if inverse is not None and k < count:
        searches.append(begin("smallest", inverse.transposed, l))
        ends.append(searches[1]())
    # The density of the values between them is sampled on the complement of their singular vectors. If it has a node
    # beyond an end, the process at that end has missed values, and goes on with a wider block.
    while not ends[0].process.exhausted:
        report("the density of the others")
        densities = lanczos_quadrature(
            [end.process.operator for end in ends],
            _singular_vectors(ends),
            num_probes=density_probes,
            steps=density_steps,
            generator=generator,
            autosave=autosave,
        )
        missed = [_larger(others, end, tolerance) for others, end in zip(densities, ends)]
        if not any(missed):
            found = _from_ends(ends, densities, num_probes=num_probes, generator=generator)
            break
        ends = [search(widen=True) if more else end for search, end, more in zip(searches, ends, missed)]
    else:
        found = spectrum_of_subspace(ends[0], square=inverse is not None)
    if num_vectors:
        num_products = found.num_products
        if inverse is not None and len(ends) == 1:  # all values were found from A
            ends.append(begin("smallest", inverse.transposed, num_vectors)())
            num_products += 2 * ends[1].process.columns
        largest, *smallest = (end.pairs(num_vectors) for end in ends)
        vectors = both_ends(largest.transposed if m < n else largest, *smallest)
        found = replace(found, vectors=vectors, num_products=num_products + 2 * num_vectors * len(ends))
    return replace(found, num_outputs=m, num_inputs=n)


def _larger(others: Density, found: LargestSingularValues, tolerance: float) -> bool:
    """Whether the density has a value larger than the least of those found."""
    return bool((others.nodes > (1 + tolerance) * found.values[-1]).any())


def _from_ends(
    ends: Sequence[LargestSingularValues],
    densities: Sequence[Density],
    *,
    num_probes: int,
    generator: torch.Generator,
) -> Spectrum:
    """The spectrum from the values at both ends, or at the upper one, and the density of the values between them."""
    top, inner = ends[0], densities[0]
    process = top.process
    # ||A||_F^2: exact on the Lanczos vectors, sampled on their complement.
    rest = _squared_norms_beyond(process, num_probes, generator)
    smallest, smallest_residuals = np.empty(0), np.empty(0)
    log_volume, error = np.full(2, np.nan), math.nan
    if len(ends) > 1:
        # Values s of A^-1 are values 1 / s of A, with the same relative residuals. The logarithms of all values add up
        # to log |det A|: those at the ends are known, and the others are bounded from above by the density of A, from
        # below by that of A^-1.
        bottom = ends[1]
        smallest, smallest_residuals = 1 / bottom.values, bottom.residuals / bottom.values
        known = np.log(top.values).sum() + np.log(smallest).sum()
        others = inner.log_sums(), -densities[1].log_sums()
        log_volume = known + np.array([samples.mean() for samples in others])
        error = float(max(map(half_width, others)))
    num_products = sum(each.num_products for each in densities)
    num_products += sum(2 * each.process.columns for each in ends) + len(rest)
    return Spectrum(
        num_outputs=process.operator.shape[0],
        num_inputs=process.operator.shape[1],
        method="lanczos",
        largest=top.values,
        largest_residuals=top.residuals,
        smallest=smallest,
        smallest_residuals=smallest_residuals,
        num_converged=top.num_converged,
        squared_norm=process.captured + float(rest.mean()),
        squared_norm_error=float(half_width(rest)),
        nodes=inner.nodes,
        weights=inner.weights,
        log_volume=log_volume,
        log_volume_error=error,
        num_products=num_products,
        loss_of_orthogonality=max(each.process.basis.loss_of_orthogonality() for each in ends),
    )


def _squared_norms_beyond(process: GolubKahan, count: int, generator: torch.Generator) -> Float[ndarray, " probes"]:
    """||A (1 - V V^T) g||^2 of random vectors g, whose expectation is the squared norm of A beyond the subspace."""
    probes = torch.randn(count, process.basis.size, generator=generator, dtype=torch.float64).to(
        process.operator.device
    )
    images = process.operator.matvec(process.basis.project_off(probes)).double()
    return images.square().sum(dim=1).cpu().numpy()


def _singular_vectors(ends: Sequence[LargestSingularValues]) -> Basis:
    """Right singular vectors of all values found, made orthogonal where the vectors of the two ends are not quite."""
    operator = ends[0].process.operator
    basis = Basis(operator.shape[1], dtype=operator.dtype, device=operator.device)
    for each in ends:
        vectors = each.right_vectors()
        if len(basis):
            vectors, _ = basis.beyond(vectors.double(), floor=0.0)
        basis.append(vectors)
    return basis
