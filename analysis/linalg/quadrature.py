"""The density of singular values that are not known one by one, by Lanczos quadrature.

For orthonormal probes p drawn evenly from a space of r dimensions, E[p^T f(A^T A) p] = tr f(A^T A) / r. Let W be an
orthonormal basis of a subspace that holds the probes, s the singular values of A W, and q its right singular vectors.
Then p^T f(A^T A) p is nearly the sum of f(s^2) times the square of the component of p along W q (Golub and Meurant,
2010): a quadrature rule with nodes s.

The more of the spectrum W resolves, the better. Here it is spanned by the Krylov subspaces of several operators on the
same space. Those of A and of A^-T together are an extended Krylov subspace (Druskin and Knizhnerman, 1998), which at
the same size resolves far more of the spectrum than that of A alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from analysis.linalg.autosave import Autosave
from analysis.linalg.lanczos import Basis, GolubKahan
from analysis.linalg.linear_operator import LinearOperator

BLOCK = 64
"""Number of vectors multiplied at once."""


@dataclass(frozen=True, eq=False)
class Density:
    """Density of the singular values of an operator: representative values, and how many values each stands for.

    Attributes:
        nodes: representative singular values, in decreasing order, `(nodes,)`.
        weights: number of singular values that each node stands for, estimated from each probe; the sum over the nodes
            is the same for all probes, `(probes, nodes)`.
        num_products: number of products with the operator that were computed.
    """

    nodes: Float[ndarray, " nodes"]
    weights: Float[ndarray, "probes nodes"]
    num_products: int

    def log_sums(self) -> Float[ndarray, " probes"]:
        """Sum of the logarithms of all singular values, estimated from each probe."""
        return self.weights @ np.log(self.nodes)


def lanczos_quadrature(
    operators: Sequence[LinearOperator],
    locked: Basis,
    *,
    num_probes: int,
    steps: int,
    generator: torch.Generator,
    autosave: Autosave | None = None,
) -> list[Density]:
    """Density of the singular values of each operator on the complement of the locked vectors.

    Args:
        operators: linear operators on the same space, whose Krylov subspaces are used together.
        locked: orthonormal vectors of that space, such as the singular vectors that are known.
        num_probes: number of random vectors.
        steps: number of steps of the Lanczos process on each operator, whose blocks have a vector for each probe.
        generator: random number generator on the CPU, whose state is not changed.
        autosave: object that is called after each product, and may interrupt the computation.

    Raises:
        Interrupted: the autosave was asked to stop.
        ValueError: a product is not finite.

    >>> from analysis.linalg.linear_operator import aslinearoperator
    >>> operator = aslinearoperator(torch.diag(torch.tensor([5.0, 3.0, 2.0], dtype=torch.float64)))
    >>> locked = Basis(3, dtype=torch.float64, device=torch.device("cpu"))
    >>> (density,) = lanczos_quadrature([operator], locked, num_probes=2, steps=2, generator=torch.Generator())
    >>> density.nodes.round(6).tolist(), density.weights.sum(axis=1).round(6).tolist()
    ([5.0, 3.0, 2.0], [3.0, 3.0])
    """
    autosave = autosave or Autosave()

    def krylov(operator: LinearOperator) -> GolubKahan:
        # A copy of the generator draws the same probes for each operator: they are the first block.
        process = GolubKahan(operator, width=num_probes, generator=generator.clone_state(), locked=locked)
        while process.columns < steps * num_probes and not process.exhausted:
            process.extend()
            autosave.step_done()
        return process

    # The subspace W in one basis: the locked vectors, the probes, the rest of the first Krylov subspace, and what the
    # other Krylov subspaces add to it. Vectors that are in it up to 1e-3 add little but rounding.
    process = krylov(operators[0])
    basis, width = process.basis, process.width
    num_products = [2 * process.columns]
    for operator in operators[1:]:
        process = krylov(operator)
        num_products.append(2 * process.columns)
        for block in _blocks(process.basis, len(locked) + width):
            new, _ = basis.beyond(block.double(), floor=1e-3)
            basis.append(new)

    densities = []
    num_dims = locked.size - len(locked)  # r, dimensions of the space that the probes are drawn from
    for operator, count in zip(operators, num_products):
        # A W of the unlocked vectors, (columns, m), and its triangular factor R, (columns, columns), which has the same
        # singular values s and, in coordinates of W, the same right singular vectors q.
        images = []
        for block in _blocks(basis, len(locked)):
            images.append(operator.matvec(block).double())
            autosave.step_done()
        r = torch.linalg.qr(torch.cat(images).T, mode="r").R
        _, nodes, right = torch.linalg.svd(r, full_matrices=False)
        # The probes are the first vectors of W, so that their components along W q are the first entries of each q.
        weights = num_dims * right[:, :width].square().T
        densities.append(Density(nodes.cpu().numpy(), weights.cpu().numpy(), count + r.shape[1]))
    return densities


def _blocks(basis: Basis, start: int) -> Iterator[Float[Tensor, "_ n"]]:
    """The vectors of a basis from one on, in blocks that are multiplied at once."""
    for part in basis.parts(start):
        yield from part.split(BLOCK)
