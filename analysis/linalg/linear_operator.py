"""A linear map that is known by its products with vectors, of which there is no matrix."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from analysis.linalg.precision import true_float32

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearMap:
    """A: R^n -> R^m, as products with blocks of vectors, which are the rows of a matrix: `(vectors, n)`.

    Attributes:
        shape: (m, n).
        push: v -> A v, `(vectors, n)` to `(vectors, m)`.
        pull: u -> A^T u, `(vectors, m)` to `(vectors, n)`.
        dtype: in which the products are computed.
        device: on which they are.

    >>> matrix = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> of_matrix(matrix).matvec(torch.tensor([[1.0, 0.0, 0.0]])).tolist()
    [[1.0, 4.0]]
    """

    shape: tuple[int, int]
    push: Product
    pull: Product
    dtype: torch.dtype
    device: torch.device

    @torch.no_grad()
    def matvec(self, vectors: Float[Tensor, "vectors n"]) -> Float[Tensor, "vectors m"]:
        """A v of each row v. Raises `ValueError` if a product is not finite."""
        return self._checked("A v", self.push, vectors)

    @torch.no_grad()
    def rmatvec(self, vectors: Float[Tensor, "vectors m"]) -> Float[Tensor, "vectors n"]:
        """A^T u of each row u. Raises `ValueError` if a product is not finite."""
        return self._checked("A^T u", self.pull, vectors)

    @property
    def transposed(self) -> "LinearMap":
        """A^T."""
        return replace(self, shape=self.shape[::-1], push=self.pull, pull=self.push)

    def dense(self, *, width: int = 64, step_done: Callable[[], object] = lambda: None) -> Float[Tensor, "m n"]:
        """The matrix, from products with the unit vectors, `width` of them at a time; calls `step_done` after each."""
        products = []
        for part in torch.eye(self.shape[1], dtype=self.dtype, device=self.device).split(width):
            products.append(self.matvec(part))
            step_done()
        return torch.cat(products).T

    def _checked(self, name: str, product: Product, vectors: Tensor) -> Tensor:
        with true_float32():
            result = product(vectors.to(self.dtype))
        if not result.isfinite().all():
            raise ValueError(
                f"a product {name} is not finite, in {str(self.dtype).removeprefix('torch.')}; the network's weights "
                "or its input are broken, or too large for this precision"
            )
        return result


def of_matrix(matrix: Float[Tensor, "m n"]) -> LinearMap:
    """The map of a matrix."""
    m, n = matrix.shape
    return LinearMap(
        shape=(m, n),
        push=lambda vectors: vectors @ matrix.T,
        pull=lambda vectors: vectors @ matrix,
        dtype=matrix.dtype,
        device=matrix.device,
    )
