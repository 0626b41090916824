"""A linear operator known by its products with vectors, without a matrix in memory."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from analysis.linalg.precision import true_float32

Product = Callable[[Tensor], Tensor]


class LinearOperator:
    """A: R^n -> R^m, as products with blocks of vectors, which are the rows of a matrix: `(vectors, n)`.

    Like SciPy's `LinearOperator`, but of tensors, with a vector in each row, and with a check that products are finite.

    Args:
        shape: number of outputs and number of inputs, (m, n).
        matvec: function that computes A v of each row v, `(vectors, n)` to `(vectors, m)`.
        rmatvec: function that computes A^T u of each row u, `(vectors, m)` to `(vectors, n)`.
        dtype: precision in which the products are computed.
        device: device on which the products are computed.

    >>> matrix = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> aslinearoperator(matrix).matvec(torch.tensor([[1.0, 0.0, 0.0]])).tolist()
    [[1.0, 4.0]]
    """

    def __init__(
        self, *, shape: tuple[int, int], matvec: Product, rmatvec: Product, dtype: torch.dtype, device: torch.device
    ):
        self.shape = shape
        self.dtype = dtype
        self.device = device
        self._matvec = matvec
        self._rmatvec = rmatvec

    @torch.no_grad()
    def matvec(self, vectors: Float[Tensor, "vectors n"]) -> Float[Tensor, "vectors m"]:
        """A v of each row v. Raises `ValueError` if a product is not finite."""
        return self._checked("A v", self._matvec, vectors)

    @torch.no_grad()
    def rmatvec(self, vectors: Float[Tensor, "vectors m"]) -> Float[Tensor, "vectors n"]:
        """A^T u of each row u. Raises `ValueError` if a product is not finite."""
        return self._checked("A^T u", self._rmatvec, vectors)

    @property
    def transposed(self) -> "LinearOperator":
        """A^T."""
        m, n = self.shape
        return LinearOperator(
            shape=(n, m), matvec=self._rmatvec, rmatvec=self._matvec, dtype=self.dtype, device=self.device
        )

    def dense(self, *, width: int = 64, step_done: Callable[[], object] = lambda: None) -> Float[Tensor, "m n"]:
        """The matrix of A, from products with the unit vectors.

        Args:
            width: number of unit vectors multiplied at once.
            step_done: function called after each product.
        """
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


def aslinearoperator(matrix: Float[Tensor, "m n"]) -> LinearOperator:
    """A matrix as a linear operator."""
    m, n = matrix.shape
    return LinearOperator(
        shape=(m, n),
        matvec=lambda vectors: vectors @ matrix.T,
        rmatvec=lambda vectors: vectors @ matrix,
        dtype=matrix.dtype,
        device=matrix.device,
    )
