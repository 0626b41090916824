"""The block Golub-Kahan-Lanczos process: a linear map on the subspace that its products with random vectors span.

Of A: R^n -> R^m it makes orthonormal vectors V, U, a block of each a step, and a small matrix T with blocks on its
diagonal (B_j) and above it (L_j) only (Golub, Luk and Overton, 1981):

    A V_{j+1} = U_j L_j + U_{j+1} B_{j+1}        A^T U_j = V_j B_j^T + V_{j+1} L_j^T

so that A V = U T, and the singular values of T are those of A on the span of V: they are never larger than the largest
of A, one by one, and approach them fast. In floating point V would soon repeat itself, and T would have singular values
that A has not (ghosts). Here each new block is orthogonalised against all of V twice; U then needs nothing (Simon and
Zha, 2000). V is kept in the precision of the products, T and all that is computed with it in float64.

Where the subspace cannot grow (A has no more singular values, or more copies of one than a block has vectors), random
vectors take the place of what is missing: the coupling to them is zero.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analysis.linalg.linear_operator import LinearMap
from irevnet.utils.files import atomic_write, writing
from irevnet.utils.untrusted import open_arrays

SEGMENT = 1024
"""Vectors of a basis that are kept together; a basis grows by so many at once."""

LARGE = 4096
"""From this size on, the small matrix is not so small any more."""


class Basis:
    """Orthonormal vectors of R^n, the rows of a matrix that grows without being copied."""

    def __init__(self, size: int, *, dtype: torch.dtype, device: torch.device):
        self.size = size
        self._count = 0
        self._segments: list[Tensor] = []
        self._kind = {"dtype": dtype, "device": device}

    def __len__(self) -> int:
        return self._count

    def append(self, vectors: Float[Tensor, "vectors n"]) -> None:
        """Adds vectors, which have to be orthonormal, and orthogonal to those that are there."""
        while len(vectors):
            used = self._count % SEGMENT
            if used == 0:
                self._segments.append(torch.empty(min(SEGMENT, self.size - self._count), self.size, **self._kind))
            fitting = vectors[: len(self._segments[-1]) - used]
            self._segments[-1][used : used + len(fitting)] = fitting
            self._count += len(fitting)
            vectors = vectors[len(fitting) :]

    def fork(self) -> "Basis":
        """Another basis that begins with the same vectors, which take no more room for it."""
        other = Basis(self.size, **self._kind)
        other._count = self._count
        other._segments = [*self._segments[:-1], *(last.clone() for last in self._segments[-1:])]
        return other

    def parts(self, start: int = 0) -> "list[Float[Tensor, '_ n']]":
        """The vectors from one on, in order."""
        return [
            segment[max(0, start - first) : self._count - first]
            for first, segment in zip(range(0, self._count, SEGMENT), self._segments)
            if first + len(segment) > start
        ]

    def project_off(self, vectors: Float[Tensor, "vectors n"]) -> Float[Tensor, "vectors n"]:
        """The part of each vector, in float64, that is orthogonal to the basis, up to the rounding of its precision."""
        for part in self.parts():
            vectors = vectors - ((vectors.to(part.dtype) @ part.T) @ part).double()
        return vectors

    def beyond(self, vectors: Float[Tensor, "vectors n"], *, floor: float) -> tuple[Tensor, Tensor]:
        """Orthonormal rows Q, orthogonal to the basis, and a matrix C, with C Q what vectors have beyond the basis.

        What is below the floor is left out. The basis is projected off twice, the second time from unit vectors: one
        that then loses most of itself was rounding.
        """
        once, first = orthonormalise(self.project_off(vectors), floor=floor)
        twice, second = orthonormalise(self.project_off(once), floor=0.5)
        new = twice.square().sum(dim=1) > 0.5
        return twice[new], (first @ second)[:, new]

    def combine(self, coefficients: Float[Tensor, "vectors count"]) -> Float[Tensor, "vectors n"]:
        """Sums of the basis vectors with these coefficients."""
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
    """Orthonormal rows Q and a matrix C with C Q = vectors; rows whose part in that is below the floor are zero, and
    come last. More vectors than n have n rows."""
    q, r = torch.linalg.qr(vectors.T)
    p, sizes, yh = torch.linalg.svd(r, full_matrices=False)
    kept = (sizes > floor).to(vectors.dtype)
    return kept[:, None] * (q @ p).T, yh.T * (kept * sizes)


@dataclass(frozen=True, eq=False)
class RitzValues:
    """Singular values of A on the subspace.

    Attributes:
        values: in decreasing order, `(count,)`, none larger than that of A in the same place.
        residuals: ||A^T u - s v|| of each value s and its vectors, `(count,)`; A has a singular value no farther
            from s than that, up to the rounding of the products, and far nearer where it is small next to the gaps
            between values.
        right: the right singular vectors of T, `(count, count)`, a row each.
    """

    values: Float[Tensor, " count"]
    residuals: Float[Tensor, " count"]
    right: Float[Tensor, "count count"]


class GolubKahan:
    """The process on a linear map, a block a step.

    Args:
        linear_map: A.
        width: of a block; one finds at most so many copies of a singular value at a time.
        generator: draws the first block and what takes the place of missing vectors, on the CPU.
        locked: vectors that all others are to be orthogonal to: the process then sees A on their complement alone.
    """

    def __init__(
        self,
        linear_map: LinearMap,
        *,
        width: int,
        generator: torch.Generator,
        locked: Basis | None = None,
    ):
        self.map = linear_map
        self.generator = generator
        empty = Basis(linear_map.shape[1], dtype=linear_map.dtype, device=linear_map.device)
        self.basis = empty if locked is None else locked.fork()
        self.num_locked = len(self.basis)
        self.captured = 0.0
        """||A V||_F^2, the squared norm of A on the subspace."""
        self._diagonal: list[Tensor] = []
        self._coupling: list[Tensor] = []
        self._left: Tensor | None = None
        self._scale = 0.0
        self._saved = 0
        none = torch.empty(0, self.map.shape[1], dtype=torch.float64, device=self.map.device)
        self._pending = self._random(width, none)
        self.width = len(self._pending)
        """Of the first block."""

    @property
    def columns(self) -> int:
        """Dimension of the subspace; twice as many products have been computed."""
        return len(self.basis) - self.num_locked

    @property
    def exhausted(self) -> bool:
        """Whether the subspace is all that there is."""
        return len(self._pending) == 0

    @torch.no_grad()
    def extend(self) -> None:
        """One step: another block of V, and of U."""
        block = self._pending
        images = self.map.matvec(block).double()
        self.captured += images.square().sum().item()
        if self._left is not None:
            images = images - self._coupling[-1].T @ self._left
        self._scale = max(self._scale, torch.linalg.vector_norm(images).item())
        floor = 10 * torch.finfo(self.map.dtype).eps * self._scale  # below it there is rounding alone
        self._left, coefficients = orthonormalise(images, floor=floor)
        self.basis.append(block)
        self._diagonal.append(coefficients.T)
        pulled = self.map.rmatvec(self._left).double() - coefficients.T @ block
        found, coupling = self.basis.beyond(pulled, floor=floor)
        self._pending = found[: self._room]
        self._coupling.append(coupling[:, : self._room])
        self._join_random(len(self._left) - len(self._pending))

    def widen(self) -> None:
        """Makes the next block wider by random vectors: where the subspace misses something, such as another copy of a
        value, they are not orthogonal to it."""
        self._join_random(self.width)

    def _join_random(self, count: int) -> None:
        """Random vectors join the next block; the coupling to them is zero."""
        more = self._random(count, self._pending)
        self._pending = torch.cat((self._pending, more))
        coupling = self._coupling[-1]
        self._coupling[-1] = torch.cat((coupling, coupling.new_zeros(len(coupling), len(more))), dim=1)

    @property
    def _room(self) -> int:
        """How many more vectors there can be."""
        return self.basis.size - len(self.basis)

    def _random(self, count: int, beside: Tensor) -> Tensor:
        """Orthonormal random vectors, orthogonal to the basis and to those beside it, as many as there is room for."""
        count = min(count, self._room - len(beside))
        vectors = torch.randn(count, self.basis.size, generator=self.generator, dtype=torch.float64)
        vectors = vectors.to(self.map.device)
        for _ in range(3):  # the last few vectors of a space are nearly all in the span of the others at first
            vectors = self.basis.project_off(vectors)
            vectors = vectors - (vectors @ beside.T) @ beside
            vectors, _ = orthonormalise(vectors, floor=0.0)
        return vectors

    def ritz(self) -> RitzValues:
        """What the process knows of the singular values by now."""
        columns = [0, *np.cumsum([block.shape[1] for block in self._diagonal]).tolist()]
        small = torch.zeros(self.columns, self.columns, dtype=torch.float64, device=self.map.device)
        for j, block in enumerate(self._diagonal):
            small[columns[j] : columns[j] + len(block), columns[j] : columns[j + 1]] = block
        for j, block in enumerate(self._coupling[:-1]):
            small[columns[j] : columns[j] + len(block), columns[j + 1] : columns[j + 2]] = block
        left, values, right = _svd(small)
        last = self._coupling[-1]
        ends = left[columns[-2] : columns[-2] + len(last)]
        return RitzValues(values=values, residuals=torch.linalg.vector_norm(last.T @ ends, dim=0), right=right)

    def right_vectors(self, ritz: RitzValues, count: int) -> Float[Tensor, "count n"]:
        """Approximate right singular vectors of A of the largest values, orthonormal in the precision of the basis."""
        locked = ritz.right.new_zeros(count, self.num_locked)
        return self.basis.combine(torch.cat((locked, ritz.right[:count]), dim=1))

    def save(self, folder: Path) -> None:
        """Writes the state, of which a basis that is there already only grows; killed in between, it loses nothing."""
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
        """Goes on from a state that was saved of the same process; without one, stays at the beginning.

        Raises `ValueError` if it is damaged.
        """
        if not (folder / "state.npz").is_file():
            return
        try:
            self._read(folder)
        except (OSError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{folder} is damaged: {error}; remove the folder that it is in, to begin anew") from error

    def _read(self, folder: Path) -> None:
        self._read_state(folder / "state.npz")
        with open(folder / "basis.bin", "rb") as file:
            kept = np.dtype(str(self.map.dtype).removeprefix("torch."))
            file.seek(len(self.basis) * self.basis.size * kept.itemsize)
            while (missing := self._saved - len(self.basis)) > 0:
                rows = np.fromfile(file, kept, min(missing, SEGMENT) * self.basis.size)
                if rows.size == 0 or rows.size % self.basis.size:
                    raise ValueError(f"{Path(file.name).name} is cut short")
                rows = rows.reshape(-1, self.basis.size)
                with np.errstate(over="ignore", invalid="ignore"):
                    lengths = np.linalg.norm(rows, axis=1)
                if not (abs(lengths - 1) < 1e-3).all():
                    raise ValueError(f"{Path(file.name).name} holds vectors whose length is not 1")
                self.basis.append(torch.tensor(rows, device=self.map.device))

    def _read_state(self, file: Path) -> None:
        """All but the basis; `ValueError` unless blocks, and what comes next, are of sizes that follow each other."""
        kind = {"dtype": torch.float64, "device": self.map.device}
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
            raise ValueError("its blocks are no matrices of numbers that products have")
        widths = [*(block.shape[-1] for block in self._diagonal), len(self._pending)]
        expected = [(len(block), width) for block, width in zip(self._diagonal, widths)]
        expected += [(len(block), width) for block, width in zip(self._diagonal, widths[1:])]
        expected += [(widths[-1], self.map.shape[1]), (len(self._diagonal[-1]) if steps else 0, self.map.shape[0])]
        if [tuple(array.shape) for array in arrays] != expected:
            raise ValueError("its blocks are not of one process on this map")
        if self._saved != self.num_locked + sum(widths[:-1]) or self._saved > self.basis.size:
            raise ValueError(f"it announces {self._saved} vectors, and its blocks are of {sum(widths[:-1])}")
        if not all(isinstance(each, float) for each in (self.captured, self._scale)):
            raise ValueError("its norms are no numbers")
        self.generator.set_state(random)


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular value decomposition; of a large matrix by way of its square, which takes a fraction of the time.

    That costs the values below 1e-8 of the largest, which a subspace of that size is not built for.
    """
    if len(matrix) <= LARGE:
        return torch.linalg.svd(matrix)
    squares, left = torch.linalg.eigh(matrix @ matrix.T)
    values, left = squares.clamp(min=0).sqrt().flip(0), left.flip(1)
    right = (left.T @ matrix) / values.clamp(min=torch.finfo(values.dtype).tiny)[:, None]
    return left, values, right
