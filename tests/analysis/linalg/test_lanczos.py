"""The Lanczos process, against dense decompositions of matrices with known singular values."""

import numpy as np
import pytest
import torch

from analysis.linalg.lanczos import Basis, GolubKahan, _svd, orthonormalise
from analysis.linalg.linear_operator import aslinearoperator

EPS = {torch.float64: 1e-13, torch.float32: 1e-5}


def with_singular_values(values, shape, generator) -> torch.Tensor:
    """A random matrix of that shape with these singular values, in float64."""
    u, v = (torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q for size in shape)
    k = len(values)
    return u[:, :k] @ torch.diag(torch.as_tensor(np.asarray(values), dtype=torch.float64)) @ v[:k]


def extended(process: GolubKahan, steps: int) -> GolubKahan:
    for _ in range(steps):
        if not process.exhausted:
            process.extend()
    return process


@pytest.mark.parametrize(
    ("values", "shape", "width", "dtype"),
    [
        (np.logspace(1, -2, 30), (30, 30), 7, torch.float32),
        (np.logspace(1, -2, 30), (42, 30), 1, torch.float64),
        (np.logspace(1, -2, 30), (30, 42), 30, torch.float32),
        (np.linspace(2, 1, 20), (40, 30), 4, torch.float32),  # of a rank of 20
        (np.linspace(2, 1, 3), (40, 30), 4, torch.float64),
        (np.zeros(0), (40, 30), 4, torch.float32),
        (np.full(30, 3.0), (30, 30), 4, torch.float64),  # isotropic
    ],
)
def test_an_exhausted_process_has_all_singular_values(values, shape, width, dtype, generator):
    matrix = with_singular_values(values, shape, generator).to(dtype)
    process = extended(GolubKahan(aslinearoperator(matrix), width=width, generator=generator), 100)
    assert process.exhausted
    assert process.columns == shape[1]
    ritz, expected = process.ritz(), [*values, *[0] * (shape[1] - len(values))]
    np.testing.assert_allclose(ritz.values, expected, atol=EPS[dtype] * max([1, *values]))
    assert process.basis.loss_of_orthogonality() < EPS[dtype]
    assert process.captured == pytest.approx((values**2).sum(), rel=EPS[dtype])
    assert (ritz.residuals == 0).all()


def test_ritz_values_approach_singular_values_from_below(generator):
    values = np.linspace(10, 1, 60)
    matrix = with_singular_values(values, (60, 60), generator)
    process = GolubKahan(aslinearoperator(matrix), width=5, generator=generator)
    before = np.zeros(0)
    for _ in range(8):
        process.extend()
        ritz = process.ritz()
        v = torch.cat(process.basis.parts())
        u, s, wh = torch.linalg.svd(matrix @ v.T, full_matrices=False)
        np.testing.assert_allclose(ritz.values, s, rtol=1e-12)
        assert (ritz.values.numpy() <= values[: len(v)] + 1e-12).all()
        assert (ritz.values.numpy()[: len(before)] >= before - 1e-12).all()
        before = ritz.values.numpy()
        found, expected = process.right_vectors(ritz, 3), wh[:3] @ v
        torch.testing.assert_close((found * expected).sum(dim=1).abs(), torch.ones(3, dtype=torch.float64))
        # The residual is what it says, and no singular value is farther away.
        residuals = torch.linalg.vector_norm(matrix.T @ u - (v.T @ wh.T) * s, dim=0)
        np.testing.assert_allclose(ritz.residuals, residuals, atol=1e-12)
        distance = np.abs(values[:, None] - ritz.values.numpy()).min(axis=0)
        assert (distance <= ritz.residuals.numpy() + 1e-12).all()


def test_vectors_nearly_in_the_span_become_orthogonal_to_it(generator):
    """As one projection leaves them only up to eps / 1e-9, the rounding of what was subtracted over what is left."""
    v = torch.linalg.qr(torch.randn(30, 30, generator=generator, dtype=torch.float64)).Q
    basis = Basis(30, dtype=torch.float64, device=torch.device("cpu"))
    basis.append(v[:20])
    beyond = 1e-9 * v[20:22]
    new, coefficients = basis.beyond(
        torch.randn(2, 20, generator=generator, dtype=torch.float64) @ v[:20] + beyond, floor=1e-12
    )
    assert (new @ v[:20].T).abs().max() < 30 * torch.finfo(torch.float64).eps
    torch.testing.assert_close(coefficients @ new, beyond, rtol=0, atol=100 * torch.finfo(torch.float64).eps)


@pytest.mark.parametrize("count", [0, 4, 6])
def test_a_basis_combines_and_returns_its_vectors(count, monkeypatch):
    """A fork grows by itself."""
    monkeypatch.setattr("analysis.linalg.lanczos.SEGMENT", 4)
    vectors = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64)).Q
    basis = Basis(9, dtype=torch.float64, device=torch.device("cpu"))
    basis.append(vectors[:count])
    other = basis.fork()
    other.append(vectors[7:])
    for part in vectors[count:].split(3):
        basis.append(part)
    assert torch.equal(torch.cat(other.parts()), torch.cat((vectors[:count], vectors[7:])))
    assert torch.equal(torch.cat(basis.parts()), vectors)
    assert torch.equal(torch.cat(basis.parts(5)), vectors[5:])
    coefficients = torch.randn(2, 9, dtype=torch.float64)
    torch.testing.assert_close(basis.combine(coefficients), coefficients @ vectors)
    torch.testing.assert_close(basis.project_off(coefficients), torch.zeros(2, 9).double())
    assert basis.loss_of_orthogonality() < 1e-14


def test_orthonormalise_keeps_the_product_above_the_floor(generator):
    vectors = torch.randn(5, 20, generator=generator, dtype=torch.float64)
    vectors[4] = vectors[0] + 1e-9 * vectors[4]
    rows, coefficients = orthonormalise(vectors, floor=1e-6)
    torch.testing.assert_close(coefficients @ rows, vectors, rtol=0, atol=1e-8)
    torch.testing.assert_close(rows @ rows.T, torch.diag(torch.tensor([1.0, 1, 1, 1, 0], dtype=torch.float64)))


def test_svd_of_the_square_is_the_same_decomposition(generator, monkeypatch):
    matrix = with_singular_values(np.logspace(0, -5, 30), (30, 30), generator)
    monkeypatch.setattr("analysis.linalg.lanczos.LARGE", 10)
    left, values, right = _svd(matrix)
    torch.testing.assert_close(values, torch.linalg.svdvals(matrix), rtol=1e-5, atol=0)
    torch.testing.assert_close(left * values @ right, matrix)
    torch.testing.assert_close((right @ right.T)[:15, :15], torch.eye(15, dtype=torch.float64))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda saved: b"", r"basis\.bin is cut short; remove .* to begin anew"),
        (lambda saved: saved[:100], r"basis\.bin is cut short"),
        (lambda saved: np.full(2, 1e30, np.float32).tobytes() + saved[8:], "holds vectors whose length is not 1"),
        ({"count": np.array(7)}, "it counts 7 vectors, but its blocks have 8"),
        ({"pending": np.zeros((1, 30))}, "the shapes of its blocks do not match each other and the operator"),
        ({"diagonal-0": np.zeros(())}, "a block is not a matrix of finite numbers"),
        ({"left": np.full((2, 30), np.nan)}, "a block is not a matrix of finite numbers"),
        ({"captured": np.array("much")}, "its norms are not numbers"),
        ({"random": np.zeros(3, dtype=np.uint8)}, "remove .* to begin anew"),
    ],
)
def test_a_damaged_state_is_refused(damage, message, tmp_path, generator):
    """By a change of the basis, or by other arrays."""

    def begin() -> GolubKahan:
        return GolubKahan(aslinearoperator(torch.eye(30)), width=2, generator=generator)

    extended(begin(), 4).save(tmp_path)
    basis, state = tmp_path / "basis.bin", tmp_path / "state.npz"
    if callable(damage):
        basis.write_bytes(damage(basis.read_bytes()))
    else:
        with np.load(state) as saved:
            arrays = dict(saved)
        np.savez(state, **arrays | damage)
    with pytest.raises(ValueError, match=rf"is damaged: .*{message}"):
        begin().restore(tmp_path)
