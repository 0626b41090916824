"""The singular values of a linear map from its products: the largest, the smallest, and how dense the others lie.

- The largest k by the block Golub-Kahan-Lanczos process (`analysis.linalg.lanczos`); the smallest from the inverse,
  whose largest they are the reciprocals of.
- The sum of all squares, ||A||_F^2 = ||A V||_F^2 + ||A (1 - V V^T)||_F^2 for the Lanczos vectors V: the first term is
  known, the second is estimated from random vectors (Hutchinson's method, with a sketch taken off, as in Hutch++ of
  Meyer et al., 2021). By it E(d), the share of the d largest, has an interval.
- The others by Lanczos quadrature (Golub and Meurant, 2010), from random vectors that are orthogonal to all singular
  vectors found. As log is operator concave, what it makes of sum log s is never below the truth for these random
  vectors; from the inverse it is never above it.
- The same quadrature shows what the first process missed: copies of a value beyond the width of a block.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from analysis.linalg.lanczos import Basis, GolubKahan
from analysis.linalg.linear_operator import LinearMap
from analysis.linalg.quadrature import Density, Quadrature
from analysis.linalg.search import Keeper, Search
from analysis.results.singular_values import Spectrum, half_width
from irevnet.utils.progress import Report, no_report

Method = Literal["auto", "dense", "lanczos"]

DENSE = 1000
"""Up to so many rows or columns the matrix itself is made and decomposed."""


def choose_method(method: str, shape: tuple[int, int]) -> str:
    """`"dense"` or `"lanczos"`, which `"auto"` chooses by the size of the matrix; `ValueError` for another."""
    if method not in get_args(Method):
        raise ValueError(f"method is {method!r}; expected one of {get_args(Method)}")
    if method != "auto":
        return method
    return "dense" if min(shape) <= DENSE else "lanczos"


def spectrum(
    linear_map: LinearMap,
    inverse: LinearMap | None = None,
    *,
    generator: torch.Generator,
    num_values: int | None = None,
    num_smallest: int = 16,
    method: str = "auto",
    width: int = 16,
    tolerance: float = 1e-3,
    num_probes: int = 64,
    density_probes: int = 16,
    density_steps: int = 12,
    keeper: Keeper | None = None,
    report: Report = no_report,
) -> Spectrum:
    """The singular values of A.

    Args:
        linear_map: A, m x n.
        inverse: A^-1, if there is one.
        generator: draws the random vectors, on the CPU.
        num_values: k, how many of the largest; a fifteenth of them by default, as the paper's 10^4 of 150,528; all of
            them where too few would be left to be sampled.
        num_smallest: how many of the smallest, from the inverse.
        method: `"dense"` decomposes the matrix, `"lanczos"` needs only products; `"auto"` is dense if m or n is no
            more than 1,000.
        width: vectors a block, which are multiplied at once.
        tolerance: a value s has converged if ||A^T u - s v|| <= tolerance s. Its relative error is then about the
            square of that, unless values lie closer together.
        num_probes: random vectors for the sum of squares.
        density_probes: random vectors for the density.
        density_steps: of the processes that it comes from, each with a block of as many vectors.
        keeper: keeps the Lanczos vectors on the disk, and is asked after each product whether to stop.
        report: is told how far it is.

    Raises:
        ValueError: options that do not fit, more values than there are, or a product that is not finite.
        Interrupted: the keeper was asked to stop.

    >>> from analysis.linalg.linear_operator import of_matrix
    >>> matrix = torch.diag(torch.arange(1.0, 5.0, dtype=torch.float64))
    >>> found = spectrum(of_matrix(matrix), of_matrix(matrix.inverse()), generator=torch.Generator())
    >>> found.largest.round(6).tolist(), round(found.condition, 6), found.energy(np.array([1]))[0].round(4).tolist()
    ([4.0, 3.0, 2.0, 1.0], 4.0, [0.5333, 0.5333, 0.5333])
    """
    count = min(linear_map.shape)
    k = max(1, round(count / 15)) if num_values is None else num_values
    if not 1 <= k <= count:
        m, n = linear_map.shape
        raise ValueError(f"{k} singular values were asked for; a Jacobian of {m} x {n} has 1 to {count}")
    if width < 1 or min(num_probes, density_probes) < 2 or not 0 < tolerance < 1:
        raise ValueError(
            f"width={width}, num_probes={num_probes}, density_probes={density_probes}, tolerance={tolerance}; expected "
            "at least 1, at least 2, at least 2, and a number between 0 and 1"
        )
    keeper = keeper or Keeper()
    if choose_method(method, linear_map.shape) == "dense":
        return _by_matrix(linear_map, keeper, square=inverse is not None)
    l = 0 if inverse is None else num_smallest  # noqa: E741
    if count - k - l < density_probes:  # too few are left to be sampled
        k = count

    def search(name: str, of: LinearMap, wanted: int) -> Search:
        # Random numbers of its own: if it is killed, one of two searches may be kept a step further than the other.
        own = torch.Generator().manual_seed(int(torch.randint(2**63 - 1, (), generator=generator)))
        process = keeper.open(name, GolubKahan(of, width=width, generator=own))
        return Search(name, process, wanted=wanted, tolerance=tolerance, keeper=keeper, report=report)

    searches = [search("largest", linear_map, k)]
    if inverse is not None and k < count:
        # Of A^-T, so that its right singular vectors are those of A, in the same space.
        searches.append(search("smallest", inverse.transposed, l))
    while not searches[0].process.exhausted:
        report("the density of the others")
        maps = [each.process.map for each in searches]
        locked = _locked(searches)
        quadrature = Quadrature(
            maps, locked, num_probes=density_probes, steps=density_steps, generator=generator, keeper=keeper
        )
        densities = [quadrature.density(number) for number in range(len(maps))]
        missed = [each for each, others in zip(searches, densities) if _larger(others, each)]
        if not missed:
            products = quadrature.num_products
            return _joined(searches, densities, products, num_probes=num_probes, generator=generator)
        for each in missed:
            each.widen()
    return _exhausted(searches[0], square=inverse is not None)


def _by_matrix(linear_map: LinearMap, keeper: Keeper, *, square: bool) -> Spectrum:
    m, n = linear_map.shape
    matrix = (linear_map if n <= m else linear_map.transposed).dense(step_done=keeper.step_done)
    values = torch.linalg.svdvals(matrix.double()).cpu().numpy()
    return _complete(
        linear_map, values, np.full(len(values), np.nan), square=square, method="dense", products=min(m, n)
    )


def _exhausted(search: Search, *, square: bool) -> Spectrum:
    """Of a process that found all that there is."""
    process, count = search.process, min(search.process.map.shape)
    values, residuals = (each[:count].cpu().numpy() for each in (search.ritz.values, search.ritz.residuals))
    return _complete(
        process.map,
        values,
        residuals,
        square=square,
        method="lanczos",
        products=2 * process.columns,
        loss=process.basis.loss_of_orthogonality(),
    )


def _complete(
    linear_map: LinearMap,
    values: ndarray,
    residuals: ndarray,
    *,
    square: bool,
    method: str,
    products: int,
    loss: float = 0.0,
) -> Spectrum:
    """Of all singular values, one by one."""
    log_volume, error = math.nan, math.nan
    if square:
        # Rounding moves each value by some eps times the largest, and its logarithm by that over the value.
        with np.errstate(divide="ignore"):
            log_volume = float(np.log(values).sum())
            error = float(torch.finfo(linear_map.dtype).eps * values[0] * (1 / values).sum())
    none = np.empty(0)
    return Spectrum(
        num_outputs=linear_map.shape[0],
        num_inputs=linear_map.shape[1],
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
    )


def _larger(others: Density, search: Search) -> bool:
    """Whether there is a value that is larger than those found."""
    return bool((others.nodes > (1 + search.tolerance) * search.values[-1]).any())


def _joined(
    searches: Sequence[Search],
    densities: Sequence[Density],
    num_products: int,
    *,
    num_probes: int,
    generator: torch.Generator,
) -> Spectrum:
    """Of both ends, and of what lies between."""
    top, inner = searches[0], densities[0]
    process = top.process
    rest = _squared_norms_beyond(process, num_probes, generator)
    smallest, smallest_residuals = np.empty(0), np.empty(0)
    log_volume, error = np.full(2, np.nan), math.nan
    if len(searches) > 1:
        bottom = searches[1]
        smallest, smallest_residuals = 1 / bottom.values, bottom.residuals / bottom.values
        known = np.log(top.values).sum() + np.log(smallest).sum()
        others = inner.log_sums(), -densities[1].log_sums()
        log_volume = known + np.array([samples.mean() for samples in others])
        error = float(max(map(half_width, others)))
    num_products += sum(2 * each.process.columns for each in searches) + len(rest)
    return Spectrum(
        num_outputs=process.map.shape[0],
        num_inputs=process.map.shape[1],
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
        loss_of_orthogonality=max(each.process.basis.loss_of_orthogonality() for each in searches),
    )


def _squared_norms_beyond(process: GolubKahan, count: int, generator: torch.Generator) -> Float[ndarray, " probes"]:
    """||A (1 - V V^T) g||^2 of random vectors g, which on average is the squared norm of A beyond the subspace."""
    probes = torch.randn(count, process.basis.size, generator=generator, dtype=torch.float64).to(process.map.device)
    images = process.map.matvec(process.basis.project_off(probes)).double()
    return images.square().sum(dim=1).cpu().numpy()


def _locked(searches: Sequence[Search]) -> Basis:
    """The right singular vectors found, of both ends, which are orthonormal among themselves up to their errors."""
    linear_map = searches[0].process.map
    basis = Basis(linear_map.shape[1], dtype=linear_map.dtype, device=linear_map.device)
    for each in searches:
        vectors = each.vectors()
        if len(basis):
            vectors, _ = basis.beyond(vectors.double(), floor=0.0)
        basis.append(vectors)
    return basis
