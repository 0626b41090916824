"""How dense the singular values lie that are not known one by one: Lanczos quadrature, with the help of the inverse."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from analysis.linalg.lanczos import Basis, GolubKahan
from analysis.linalg.linear_operator import LinearMap
from analysis.linalg.search import Keeper

MANY = 64
"""Vectors that are multiplied at once."""


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
                new, _ = self.basis.beyond(block.double(), floor=1e-3)
                self.basis.append(new)

    def density(self, number: int) -> Density:
        """Of the map of that number."""
        images = []
        for part in self.basis.parts(self._start):
            for block in part.split(MANY):
                images.append(self._maps[number].matvec(block).double())
                self._keeper.step_done()
        r = torch.linalg.qr(torch.cat(images).T, mode="r").R
        self.num_products += r.shape[1]
        _, values, right = torch.linalg.svd(r, full_matrices=False)
        weights = self._room * right[:, : self._probes].square().T
        return Density(values.cpu().numpy(), weights.cpu().numpy())
