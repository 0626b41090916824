import pytest
import torch

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
