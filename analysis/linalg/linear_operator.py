"""A linear operator known by its products with vectors, without a matrix in memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor

from irevnet.utils.precision import true_float32

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

    def to_scipy(self) -> scipy.sparse.linalg.LinearOperator:
        """A for SciPy's solvers, such as `svds`, `eigsh` and `lsqr`: of NumPy arrays, with a vector in each column.

        Its products `matvec`, `rmatvec`, `matmat` and `rmatmat` are computed and returned in the precision of A, on its
        device, whatever the precision of the vectors. Complex vectors are multiplied part by part.

        >>> matrix = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        >>> aslinearoperator(matrix).to_scipy() @ np.eye(3)
        array([[1., 2., 3.],
               [4., 5., 6.]], dtype=float32)
        """
        dtype = np.dtype(str(self.dtype).removeprefix("torch."))
        forward, transposed = self._on_columns(self.matvec, dtype), self._on_columns(self.rmatvec, dtype)
        products: dict[str, Any] = {"matvec": forward, "matmat": forward, "rmatvec": transposed, "rmatmat": transposed}
        return scipy.sparse.linalg.LinearOperator(shape=self.shape, dtype=dtype, **products)

    def _on_columns(self, product: Product, dtype: np.dtype) -> Callable[[ndarray], ndarray]:
        """A product of rows as one of columns, or of a single vector without a second dimension."""

        def multiply(vectors: Shaped[ndarray, "..."]) -> Shaped[ndarray, "..."]:
            if np.iscomplexobj(vectors):
                return multiply(np.real(vectors)) + 1j * multiply(np.imag(vectors))
            rows = np.ascontiguousarray(np.atleast_2d(vectors.T), dtype)
            result = product(torch.tensor(rows, device=self.device)).cpu().numpy()
            return result[0] if vectors.ndim == 1 else result.T

        return multiply

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
