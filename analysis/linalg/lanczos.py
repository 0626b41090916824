"""The block Golub-Kahan-Lanczos process: a linear operator on the subspace that its products with random vectors span.

Of A: R^n -> R^m it computes orthonormal vectors V and U, a block of each a step, and a small matrix T whose only blocks
are on its diagonal (B_j) and above it (L_j) (Golub, Luk and Overton, 1981):

    A V_{j+1} = U_j L_j + U_{j+1} B_{j+1}        A^T U_j = V_j B_j^T + V_{j+1} L_j^T

so that A V = U T, and the singular values of T are those of A on the span of V: they are never larger than the largest
of A, one by one, and converge to them fast. In floating point V would soon repeat itself, and T would have singular
values that A has not (ghosts). Here each new block is orthogonalised against all of V twice; U then needs nothing
(Simon and Zha, 2000). V is stored in the precision of the products, T and all that is computed with it in float64.

Where the subspace cannot grow (A has no more singular values, or more copies of one than a block has vectors), random
vectors replace the missing ones; their coupling L to the previous block is zero.

In the formulas vectors are columns, in the code they are rows: V is `(columns, n)`, and A V is `(columns, m)`.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analysis.linalg.linear_operator import LinearOperator
from irevnet.utils.files import atomic_write, writing
from irevnet.utils.untrusted import open_arrays

SEGMENT = 1024
"""Number of vectors in each segment of a basis; a basis grows by one segment at a time."""

LARGE = 4096
"""Size of T up to which it is decomposed by a singular value decomposition, above it by an eigendecomposition."""


class Basis:
    """Orthonormal vectors of R^n, as the rows of a matrix that grows without being copied."""

    def __init__(self, size: int, *, dtype: torch.dtype, device: torch.device):
        self.size = size
        self._count = 0
        self._segments: list[Tensor] = []
        self._kind = {"dtype": dtype, "device": device}

    def __len__(self) -> int:
        return self._count

    def append(self, vectors: Float[Tensor, "vectors n"]) -> None:
        """Appends vectors, which must be orthonormal and orthogonal to the vectors of the basis."""
        while len(vectors):
            used = self._count % SEGMENT
            if used == 0:
                self._segments.append(torch.empty(min(SEGMENT, self.size - self._count), self.size, **self._kind))
            fitting = vectors[: len(self._segments[-1]) - used]
            self._segments[-1][used : used + len(fitting)] = fitting
            self._count += len(fitting)
            vectors = vectors[len(fitting) :]

    def fork(self) -> "Basis":
        """A basis that begins with the same vectors, without copying them, and grows independently."""
        other = Basis(self.size, **self._kind)
        other._count = self._count
        other._segments = [*self._segments[:-1], *(last.clone() for last in self._segments[-1:])]
        return other

    def parts(self, start: int = 0) -> "list[Float[Tensor, '_ n']]":
        """The vectors from index `start` on, in order, as blocks of rows."""
        return [
            segment[max(0, start - first) : self._count - first]
            for first, segment in zip(range(0, self._count, SEGMENT), self._segments)
            if first + len(segment) > start
        ]

    def project_off(self, vectors: Float[Tensor, "vectors n"]) -> Float[Tensor, "vectors n"]:
        """The component of each vector orthogonal to the basis, in float64, up to the rounding of the basis."""
        for part in self.parts():
            vectors = vectors - ((vectors.to(part.dtype) @ part.T) @ part).double()
        return vectors

    def beyond(self, vectors: Float[Tensor, "vectors n"], *, floor: float) -> tuple[Tensor, Tensor]:
        """Orthonormal rows Q, orthogonal to the basis, and a matrix C with C Q = vectors - projections on the basis.

        Directions in which C Q is shorter than the floor are dropped.
        """
        # "Twice is enough": after one projection, vectors nearly in the span of the basis are orthogonal to it only up
        # to the rounding of what was subtracted. The second time unit vectors are projected: one that loses more than
        # half of itself was nothing but this rounding, and is dropped.
        once, first = orthonormalise(self.project_off(vectors), floor=floor)
        twice, second = orthonormalise(self.project_off(once), floor=0.5)
        new = twice.square().sum(dim=1) > 0.5
        return twice[new], (first @ second)[:, new]

    def combine(self, coefficients: Float[Tensor, "vectors count"]) -> Float[Tensor, "vectors n"]:
        """Linear combinations of the basis vectors."""
        total = torch.zeros(len(coefficients), self.size, **self._kind)
        start = 0
        for part in self.parts():
            total += coefficients[:, start : start + len(part)].to(part.dtype) @ part
            start += len(part)
        return total

    def loss_of_orthogonality(self) -> float:
        """The largest entry of |V V^T - 1|, in float64."""
        parts = self.parts()
        worst = 0.0
        for number, part in enumerate(parts):
            for other in parts[: number + 1]:
                products = part.double() @ other.double().T
                if other is part:
                    products.diagonal().sub_(1)
                worst = max(worst, products.abs().max().item())
        return worst


def orthonormalise(vectors: Float[Tensor, "vectors n"], *, floor: float) -> tuple[Tensor, Tensor]:
    """Orthonormal rows Q, `(k, n)`, and a matrix C, `(vectors, k)`, with C Q = vectors; k is the smaller of both sizes.

    Rows of Q are in the order of the singular values of the vectors; those with a value below the floor are zero.
    """
    # With vectors^T = q r and r = p diag(sizes) y^T, vectors = y diag(sizes) (q p)^T: unlike QR, this orders the
    # directions by their sizes, so that those of rounding alone can be dropped.
    q, r = torch.linalg.qr(vectors.T)
    p, sizes, yh = torch.linalg.svd(r, full_matrices=False)
    above = (sizes > floor).to(vectors.dtype)
    return above[:, None] * (q @ p).T, yh.T * (above * sizes)


@dataclass(frozen=True, eq=False)
class RitzValues:
    """Singular values of A on the subspace.

    Attributes:
        values: singular values in decreasing order, none larger than the value of A at the same index, `(count,)`.
        residuals: residual ||A^T u - s v|| of each value s and its singular vectors, `(count,)`. A has a singular value
            within that distance of s, up to the rounding of the products, and far closer where the residual is small
            next to the gaps between values.
        right: right singular vectors of T, one in each row, `(count, count)`.
    """

    values: Float[Tensor, " count"]
    residuals: Float[Tensor, " count"]
    right: Float[Tensor, "count count"]


class GolubKahan:
    """The Lanczos process on a linear operator, a block of vectors a step.

    Args:
        operator: linear operator A.
        width: number of vectors in a block, and so of copies of a singular value that are found at once.
        generator: random number generator on the CPU, for the first block and for missing vectors.
        locked: orthonormal vectors that all others are made orthogonal to: the process then sees A on their complement.
    """

    def __init__(
        self,
        operator: LinearOperator,
        *,
        width: int,
        generator: torch.Generator,
        locked: Basis | None = None,
    ):
        self.operator = operator
        self.generator = generator
        empty = Basis(operator.shape[1], dtype=operator.dtype, device=operator.device)
        self.basis = empty if locked is None else locked.fork()
        self.num_locked = len(self.basis)
        self.captured = 0.0
        """Squared norm of A on the subspace, ||A V||_F^2."""
        self._diagonal: list[Tensor] = []
        self._coupling: list[Tensor] = []
        self._left: Tensor | None = None
        self._scale = 0.0
        self._saved = 0
        none = torch.empty(0, self.operator.shape[1], dtype=torch.float64, device=self.operator.device)
        self._pending = self._random(width, none)
        self.width = len(self._pending)
        """Number of vectors in the first block."""

    @property
    def columns(self) -> int:
        """Dimension of the subspace, which is half the number of products computed."""
        return len(self.basis) - self.num_locked

    @property
    def exhausted(self) -> bool:
        """Whether the subspace is the whole space, so that the process cannot go on."""
        return len(self._pending) == 0

    @torch.no_grad()
    def extend(self) -> None:
        """One step: appends a block to V, and computes the next block of U and of T."""
        # The next block V_{j+1}, (b, n), and its image A V_{j+1}, (b, m). As V is orthonormal, squared norms add up.
        block = self._pending
        images = self.operator.matvec(block).double()
        self.captured += images.square().sum().item()
        # A V_{j+1} - U_j L_j = U_{j+1} B_{j+1}: the component orthogonal to U_j, which is orthogonal to the earlier
        # blocks of U by itself, is split into orthonormal vectors and B^T. What is below the floor is rounding alone,
        # and would be a random direction at full length.
        if self._left is not None:
            images = images - self._coupling[-1].T @ self._left
        self._scale = max(self._scale, torch.linalg.vector_norm(images).item())
        floor = 10 * torch.finfo(self.operator.dtype).eps * self._scale
        self._left, coefficients = orthonormalise(images, floor=floor)
        self.basis.append(block)
        self._diagonal.append(coefficients.T)
        # A^T U_{j+1} - V_{j+1} B_{j+1}^T = V_{j+2} L_{j+1}^T, (b, n), is orthogonalised against all of V: in exact
        # arithmetic this would change nothing, in floating point it keeps ghosts away.
        pulled = self.operator.rmatvec(self._left).double() - coefficients.T @ block
        found, coupling = self.basis.beyond(pulled, floor=floor)
        # At the end of the space there may be fewer vectors left than a block has; within it, random vectors replace
        # those that were dropped, so that blocks keep their width.
        self._pending = found[: self._room]
        self._coupling.append(coupling[:, : self._room])
        self._join_random(len(self._left) - len(self._pending))

    def widen(self) -> None:
        """Adds random vectors to the next block.

        They find what the subspace is orthogonal to, such as more copies of a singular value than a block has vectors.
        """
        self._join_random(self.width)

    def _join_random(self, count: int) -> None:
        """Adds random vectors to the next block, with a coupling of zero to the present one."""
        more = self._random(count, self._pending)
        self._pending = torch.cat((self._pending, more))
        coupling = self._coupling[-1]
        self._coupling[-1] = torch.cat((coupling, coupling.new_zeros(len(coupling), len(more))), dim=1)

    @property
    def _room(self) -> int:
        """Number of vectors by which the basis can still grow."""
        return self.basis.size - len(self.basis)

    def _random(self, count: int, others: Tensor) -> Tensor:
        """Random orthonormal vectors, orthogonal to the basis and to others; fewer than `count` if there is no room."""
        count = min(count, self._room - len(others))
        vectors = torch.randn(count, self.basis.size, generator=self.generator, dtype=torch.float64)
        vectors = vectors.to(self.operator.device)
        for _ in range(3):  # the last vectors of a space lie almost in the span of the others when they are drawn
            vectors = self.basis.project_off(vectors)
            vectors = vectors - (vectors @ others.T) @ others
            vectors, _ = orthonormalise(vectors, floor=0.0)
        return vectors

    def ritz(self) -> RitzValues:
        """The singular values of T."""
        # T, (columns, columns): B_j on the diagonal, L_j to its right.
        columns = [0, *np.cumsum([block.shape[1] for block in self._diagonal]).tolist()]
        small = torch.zeros(self.columns, self.columns, dtype=torch.float64, device=self.operator.device)
        for j, block in enumerate(self._diagonal):
            small[columns[j] : columns[j] + len(block), columns[j] : columns[j + 1]] = block
        for j, block in enumerate(self._coupling[:-1]):
            small[columns[j] : columns[j] + len(block), columns[j + 1] : columns[j + 2]] = block
        left, values, right = _svd(small)
        # With T = P diag(s) Q^T, u = U p and v = V q: A^T u - s v = V_{next} L^T p_last, as the process has not got
        # further than V_{next}; its length is that of L^T times the last block of p.
        last = self._coupling[-1]
        ends = left[columns[-2] : columns[-2] + len(last)]
        return RitzValues(values=values, residuals=torch.linalg.vector_norm(last.T @ ends, dim=0), right=right)

    def right_vectors(self, ritz: RitzValues, count: int) -> Float[Tensor, "count n"]:
        """Approximate right singular vectors of the largest values, orthonormal up to the rounding of the basis."""
        locked = ritz.right.new_zeros(count, self.num_locked)
        return self.basis.combine(torch.cat((locked, ritz.right[:count]), dim=1))

    def save(self, folder: Path) -> None:
        """Saves the state of the process.

        Of the basis only vectors that are not saved yet are written, and until all of the new state is there, the
        earlier one stays valid.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "basis.bin"
        with writing(path), open(path, "r+b" if self._saved else "wb") as file:
            for part in self.basis.parts(self._saved):
                file.seek(self._saved * self.basis.size * part.element_size())
                part.cpu().numpy().tofile(file)
                self._saved += len(part)
            file.flush()
            os.fsync(file.fileno())
        arrays = {"pending": self._pending, "left": self._left, "random": self.generator.get_state()}
        arrays |= {f"diagonal-{j}": block for j, block in enumerate(self._diagonal)}
        arrays |= {f"coupling-{j}": block for j, block in enumerate(self._coupling)}
        numbers = {"count": self._saved, "captured": self.captured, "scale": self._scale}
        with atomic_write(folder / "state.npz") as temporary:
            np.savez(temporary, **numbers, **{name: value.cpu().numpy() for name, value in arrays.items()})

    def restore(self, folder: Path) -> None:
        """Restores a saved state of the same process; without one, the process stays at its beginning.

        Raises `ValueError` if the state is damaged.
        """
        if not (folder / "state.npz").is_file():
            return
        try:
            self._read(folder)
        except (OSError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{folder} is damaged: {error}; remove {folder.parent} to begin anew") from error

    def _read(self, folder: Path) -> None:
        self._read_state(folder / "state.npz")
        with open(folder / "basis.bin", "rb") as file:
            dtype = np.dtype(str(self.operator.dtype).removeprefix("torch."))
            file.seek(len(self.basis) * self.basis.size * dtype.itemsize)
            while (missing := self._saved - len(self.basis)) > 0:
                rows = np.fromfile(file, dtype, min(missing, SEGMENT) * self.basis.size)
                if rows.size == 0 or rows.size % self.basis.size:
                    raise ValueError(f"{Path(file.name).name} is cut short")
                rows = rows.reshape(-1, self.basis.size)
                with np.errstate(over="ignore", invalid="ignore"):
                    lengths = np.linalg.norm(rows, axis=1)
                if not (abs(lengths - 1) < 1e-3).all():
                    raise ValueError(f"{Path(file.name).name} holds vectors whose length is not 1")
                self.basis.append(torch.tensor(rows, device=self.operator.device))

    def _read_state(self, file: Path) -> None:
        """Reads all but the basis. Raises `ValueError` unless the shapes of consecutive blocks match."""
        kind = {"dtype": torch.float64, "device": self.operator.device}
        with open_arrays(file) as state:
            steps = range(sum(name.startswith("diagonal-") for name in state.names))
            self._diagonal = [torch.tensor(state[f"diagonal-{j}"], **kind) for j in steps]
            self._coupling = [torch.tensor(state[f"coupling-{j}"], **kind) for j in steps]
            self._pending, self._left = (torch.tensor(state[name], **kind) for name in ("pending", "left"))
            self.captured, self._scale = state["captured"].item(), state["scale"].item()
            self._saved = state["count"].item()
            random = torch.tensor(state["random"])
        arrays = [*self._diagonal, *self._coupling, self._pending, self._left]
        if any(array.ndim != 2 for array in arrays) or not all((array.abs() < 1e100).all() for array in arrays):
            raise ValueError("a block is not a matrix of finite numbers")
        widths = [*(block.shape[-1] for block in self._diagonal), len(self._pending)]
        expected = [(len(block), width) for block, width in zip(self._diagonal, widths)]
        expected += [(len(block), width) for block, width in zip(self._diagonal, widths[1:])]
        expected += [
            (widths[-1], self.operator.shape[1]),
            (len(self._diagonal[-1]) if steps else 0, self.operator.shape[0]),
        ]
        if [tuple(array.shape) for array in arrays] != expected:
            raise ValueError("the shapes of its blocks do not match each other and the operator")
        if self._saved != self.num_locked + sum(widths[:-1]) or self._saved > self.basis.size:
            raise ValueError(f"it counts {self._saved} vectors, but its blocks have {sum(widths[:-1])}")
        if not all(isinstance(each, float) for each in (self.captured, self._scale)):
            raise ValueError("its norms are not numbers")
        self.generator.set_state(random)


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular value decomposition; of a large matrix by the eigenvectors of its square, in a fraction of the time.

    Values below 1e-8 of the largest, the square root of the rounding, are lost; subspaces of that size are not built to
    find them.
    """
    if len(matrix) <= LARGE:
        return torch.linalg.svd(matrix)
    squares, left = torch.linalg.eigh(matrix @ matrix.T)
    values, left = squares.clamp(min=0).sqrt().flip(0), left.flip(1)
    right = (left.T @ matrix) / values.clamp(min=torch.finfo(values.dtype).tiny)[:, None]
    return left, values, right
