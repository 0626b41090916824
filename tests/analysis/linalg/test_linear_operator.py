import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh, lsqr, svds

from analysis.linalg.linear_operator import LinearOperator, aslinearoperator


def test_products_of_a_matrix_and_its_transpose(generator):
    matrix = torch.randn(5, 3, generator=generator)
    operator = aslinearoperator(matrix)
    vectors, others = torch.randn(4, 3, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    assert (operator.shape, operator.transposed.shape) == ((5, 3), (3, 5))
    torch.testing.assert_close(operator.matvec(vectors), (matrix @ vectors.float().T).T)  # in its own precision
    torch.testing.assert_close(operator.rmatvec(others), (matrix.T @ others.float().T).T)
    torch.testing.assert_close(operator.transposed.matvec(others), operator.rmatvec(others))
    torch.testing.assert_close(operator.dense(width=2), matrix)
    torch.testing.assert_close(operator.transposed.dense(width=2), matrix.T)


def test_a_product_that_is_not_finite_is_refused():
    operator = aslinearoperator(torch.diag(torch.tensor([1.0, torch.inf])))
    for product in (operator.matvec, operator.rmatvec):
        with pytest.raises(ValueError, match="is not finite, in float32; the network's weights or its input are"):
            product(torch.ones(2, 2))


def test_products_are_computed_without_tf32(generator):
    """Whatever the caller has set, which is left as it was."""
    seen = []
    identity = LinearOperator(
        shape=(2, 2),
        matvec=lambda v: seen.append(torch.get_float32_matmul_precision()) or v,
        rmatvec=lambda v: v,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    torch.set_float32_matmul_precision("high")
    try:
        identity.matvec(torch.ones(1, 2))
        assert seen == ["highest"]
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_scipy_has_vectors_in_columns(generator):
    matrix = torch.randn(5, 3, generator=generator)
    operator, dense = aslinearoperator(matrix).to_scipy(), matrix.numpy()
    assert (operator.shape, operator.dtype) == ((5, 3), np.float32)
    columns, others = np.asfortranarray(np.eye(3)[:, ::-1]), np.arange(10, dtype=np.int64).reshape(5, 2)
    for found, expected in (
        (operator.matvec(columns[:, 0]), dense @ columns[:, 0]),
        (operator.matmat(columns[:, :1]), dense @ columns[:, :1]),
        (operator.rmatvec(others[:, 0]), dense.T @ others[:, 0]),
        (operator.matmat(columns), dense @ columns),
        (operator.rmatmat(others), dense.T @ others),
        (operator.T @ others, dense.T @ others),
        (operator @ (columns + 2j * columns), dense @ (columns + 2j * columns)),
        (operator @ columns.astype(">f8"), dense @ columns),
    ):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (operator @ columns).dtype == np.float32


def test_solvers_of_scipy_agree_with_dense_ones(generator):
    matrix = torch.randn(30, 20, generator=generator, dtype=torch.float64)
    operator, dense = aslinearoperator(matrix).to_scipy(), matrix.numpy()
    truth = np.linalg.svd(dense)
    u, values, vh = svds(operator, k=3, v0=np.ones(20))
    np.testing.assert_allclose(values[::-1], truth.S[:3], rtol=1e-10)
    np.testing.assert_allclose(dense @ vh.T, u * values, atol=1e-8)
    squares, _ = eigsh(operator.T @ operator, k=2, v0=np.ones(20))
    np.testing.assert_allclose(squares, truth.S[[1, 0]] ** 2, rtol=1e-10)
    solution = lsqr(operator, np.arange(30.0), atol=1e-12, btol=1e-12)[0]
    np.testing.assert_allclose(solution, np.linalg.lstsq(dense, np.arange(30.0))[0], atol=1e-8)
