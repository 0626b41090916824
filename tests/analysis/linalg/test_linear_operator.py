import pytest
import torch

from analysis.linalg.linear_operator import LinearOperator, aslinearoperator


def test_products_of_a_matrix_and_its_transpose(generator):
    matrix = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    operator = aslinearoperator(matrix)
    vectors, others = torch.randn(4, 3, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    assert operator.shape == (5, 3)
    torch.testing.assert_close(operator.matvec(vectors), (matrix @ vectors.T).T)
    torch.testing.assert_close(operator.rmatvec(others), (matrix.T @ others.T).T)
    assert operator.transposed.shape == (3, 5)
    torch.testing.assert_close(operator.transposed.matvec(others), operator.rmatvec(others))


@pytest.mark.parametrize("width", [1, 2, 64])
def test_the_matrix_comes_back_from_its_products(generator, width):
    matrix = torch.randn(5, 3, generator=generator)
    torch.testing.assert_close(aslinearoperator(matrix).dense(width=width), matrix)
    torch.testing.assert_close(aslinearoperator(matrix).transposed.dense(width=width), matrix.T)


def test_products_are_in_the_precision_of_the_operator():
    assert aslinearoperator(torch.eye(3)).matvec(torch.ones(1, 3, dtype=torch.float64)).dtype == torch.float32


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_product_that_is_not_finite_is_refused(broken):
    operator = aslinearoperator(torch.diag(torch.tensor([1.0, broken])))
    for product in (operator.matvec, operator.rmatvec):
        with pytest.raises(
            ValueError, match="is not finite, in float32; the network's weights or its input are broken"
        ):
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
