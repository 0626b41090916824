"""The Lanczos process, against dense decompositions of matrices with known singular values."""

import numpy as np
import pytest
import torch

from analysis.linalg.lanczos import LARGE, Basis, GolubKahan, _svd, orthonormalise
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(30, 30), (42, 30), (30, 42)])
@pytest.mark.parametrize("width", [1, 7, 30])
def test_an_exhausted_process_has_all_singular_values(shape, width, dtype, generator):
    values = np.logspace(1, -2, 30)
    matrix = with_singular_values(values, shape, generator).to(dtype)
    process = extended(GolubKahan(aslinearoperator(matrix), width=width, generator=generator), 100)
    assert process.exhausted
    assert process.columns == shape[1]
    ritz = process.ritz()
    np.testing.assert_allclose(ritz.values[:30], values, atol=EPS[dtype] * values[0])
    np.testing.assert_allclose(ritz.values[30:], 0, atol=EPS[dtype] * values[0])
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
        projected = torch.linalg.svdvals(matrix @ v.T)
        np.testing.assert_allclose(ritz.values, projected, rtol=1e-12)
        assert (ritz.values.numpy() <= values[: len(v)] + 1e-12).all()
        assert (ritz.values.numpy()[: len(before)] >= before - 1e-12).all()
        before = ritz.values.numpy()
        # The residual is what it says, and no singular value is farther away.
        u, s, wh = torch.linalg.svd(matrix @ v.T, full_matrices=False)
        residuals = torch.linalg.vector_norm(matrix.T @ u - (v.T @ wh.T) * s, dim=0)
        np.testing.assert_allclose(ritz.residuals, residuals, atol=1e-12)
        distance = np.abs(values[:, None] - ritz.values.numpy()).min(axis=0)
        assert (distance <= ritz.residuals.numpy() + 1e-12).all()


def test_right_vectors_are_singular_vectors(generator):
    matrix = with_singular_values(np.logspace(1, -2, 40), (50, 40), generator)
    process = extended(GolubKahan(aslinearoperator(matrix), width=4, generator=generator), 8)
    found = process.right_vectors(process.ritz(), 3)
    expected = torch.linalg.svd(matrix).Vh[:3]
    torch.testing.assert_close((found * expected).sum(dim=1).abs(), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_widening_finds_copies_of_a_value_beyond_the_width(dtype, generator):
    values = np.concatenate((np.ones(20), np.geomspace(0.8, 0.01, 180)))
    matrix = with_singular_values(values, (200, 200), generator).to(dtype)
    process = extended(GolubKahan(aslinearoperator(matrix), width=8, generator=generator), 4)
    assert (process.ritz().values > 0.9).sum() == 8
    process.widen()
    extended(process, 6)
    assert (process.ritz().values > 0.9).sum() >= 16  # rounding may bring the others in
    process.widen()
    extended(process, 3)
    np.testing.assert_allclose(process.ritz().values[:20], 1, atol=EPS[dtype])
    assert process.basis.loss_of_orthogonality() < EPS[dtype]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("rank", [0, 3, 20])
def test_other_values_of_a_low_rank_operator_are_zero(rank, dtype, generator):
    values = np.linspace(2, 1, rank)
    matrix = with_singular_values(values, (40, 30), generator).to(dtype)
    process = extended(GolubKahan(aslinearoperator(matrix), width=4, generator=generator), 100)
    np.testing.assert_allclose(process.ritz().values, [*values, *[0] * (30 - rank)], atol=EPS[dtype])


def test_singular_values_of_an_isotropic_operator(generator):
    process = extended(GolubKahan(aslinearoperator(3 * torch.eye(30)), width=4, generator=generator), 100)
    np.testing.assert_allclose(process.ritz().values, 3.0, rtol=1e-6)


def test_without_reorthogonalisation_there_are_ghosts(generator, monkeypatch):
    values = np.concatenate(([10.0, 9.0], np.linspace(1, 0.1, 198)))
    matrix = with_singular_values(values, (200, 200), generator).float()
    monkeypatch.setattr(Basis, "project_off", lambda self, vectors: vectors)
    process = extended(GolubKahan(aslinearoperator(matrix), width=2, generator=generator), 40)
    assert (process.ritz().values > 9.99).sum() > 1
    assert process.basis.loss_of_orthogonality() > 0.5
    monkeypatch.undo()
    process = extended(GolubKahan(aslinearoperator(matrix), width=2, generator=generator), 40)
    assert (process.ritz().values > 9.99).sum() == 1
    assert process.basis.loss_of_orthogonality() < 1e-6


def test_locked_vectors_are_excluded(generator):
    values = np.linspace(5, 1, 40)
    matrix = with_singular_values(values, (40, 40), generator)
    locked = Basis(40, dtype=torch.float64, device=torch.device("cpu"))
    locked.append(torch.linalg.svd(matrix).Vh[:10])
    process = extended(GolubKahan(aslinearoperator(matrix), width=6, generator=generator, locked=locked), 100)
    assert process.columns == 30
    np.testing.assert_allclose(process.ritz().values, values[10:], rtol=1e-12)
    assert len(locked) == 10


@pytest.mark.parametrize("count", [0, 4, 6])
def test_a_fork_of_a_basis_grows_by_itself(count, monkeypatch):
    monkeypatch.setattr("analysis.linalg.lanczos.SEGMENT", 4)
    vectors = torch.eye(9, dtype=torch.float64)
    basis = Basis(9, dtype=torch.float64, device=torch.device("cpu"))
    basis.append(vectors[:count])
    other = basis.fork()
    basis.append(vectors[count : count + 2])
    other.append(vectors[7:])
    assert torch.equal(torch.cat([vectors[:0], *basis.parts()]), vectors[: count + 2])
    assert torch.equal(torch.cat([vectors[:0], *other.parts()]), torch.cat((vectors[:count], vectors[7:])))


@pytest.mark.parametrize("steps", [1, 5, 9])
def test_a_restored_process_continues_identically(steps, tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.linalg.lanczos.SEGMENT", 7)  # as if the basis were large
    matrix = with_singular_values(np.logspace(1, -1, 90), (90, 90), torch.Generator().manual_seed(1)).float()

    def begin() -> GolubKahan:
        return GolubKahan(aslinearoperator(matrix), width=4, generator=torch.Generator().manual_seed(2))

    def advance(process: GolubKahan, start: int, stop: int) -> None:
        for step in range(start, stop):
            process.extend()
            if step in (3, 10):
                process.widen()

    whole, first, second = begin(), begin(), begin()
    advance(whole, 0, 12)
    advance(first, 0, steps)
    first.save(tmp_path)
    advance(first, steps, steps + 1)
    if steps == 5:
        first.save(tmp_path)  # the basis that is there already grows
        steps = 6
    second.restore(tmp_path)
    advance(second, steps, 12)
    assert torch.equal(whole.ritz().values, second.ritz().values)
    assert torch.equal(whole.ritz().residuals, second.ritz().residuals)
    assert whole.captured == second.captured
    assert all(map(torch.equal, whole.basis.parts(), second.basis.parts()))
    assert whole.columns == second.columns > 48


@pytest.mark.parametrize("left", [0, 100])
def test_a_state_that_was_cut_short_is_refused(left, tmp_path, generator):
    process = extended(GolubKahan(aslinearoperator(torch.eye(30)), width=2, generator=generator), 4)
    process.save(tmp_path)
    with open(tmp_path / "basis.bin", "r+b") as file:
        file.truncate(left)
    with pytest.raises(ValueError, match=rf"damaged: basis\.bin is cut short; remove {tmp_path.parent} to begin anew"):
        GolubKahan(aslinearoperator(torch.eye(30)), width=2, generator=generator).restore(tmp_path)


def test_without_a_saved_state_a_process_stays_at_its_start(tmp_path, generator):
    process = GolubKahan(aslinearoperator(torch.eye(3)), width=1, generator=generator)
    process.restore(tmp_path / "nothing")
    assert process.columns == 0


def test_a_basis_combines_and_returns_its_vectors(monkeypatch):
    monkeypatch.setattr("analysis.linalg.lanczos.SEGMENT", 4)
    basis = Basis(9, dtype=torch.float64, device=torch.device("cpu"))
    vectors = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64)).Q
    for part in vectors.split(3):
        basis.append(part)
    assert len(basis) == 9
    torch.testing.assert_close(torch.cat(basis.parts()), vectors)
    torch.testing.assert_close(torch.cat(basis.parts(5)), vectors[5:])
    coefficients = torch.randn(2, 9, dtype=torch.float64)
    torch.testing.assert_close(basis.combine(coefficients), coefficients @ vectors)
    torch.testing.assert_close(basis.project_off(torch.randn(2, 9, dtype=torch.float64)), torch.zeros(2, 9).double())
    assert basis.loss_of_orthogonality() < 1e-14


def test_orthonormalise_keeps_the_product_above_the_floor(generator):
    vectors = torch.randn(5, 20, generator=generator, dtype=torch.float64)
    vectors[4] = vectors[0] + 1e-9 * vectors[4]
    rows, coefficients = orthonormalise(vectors, floor=1e-6)
    torch.testing.assert_close(coefficients @ rows, vectors, rtol=0, atol=1e-8)
    torch.testing.assert_close(rows @ rows.T, torch.diag(torch.tensor([1.0, 1, 1, 1, 0], dtype=torch.float64)))


def test_svd_of_the_square_is_the_same_decomposition(generator, monkeypatch):
    matrix = with_singular_values(np.logspace(0, -5, 30), (30, 30), generator)
    expected = torch.linalg.svdvals(matrix)
    monkeypatch.setattr("analysis.linalg.lanczos.LARGE", 10)
    assert LARGE > 10
    left, values, right = _svd(matrix)
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(left * values @ right, matrix)
    torch.testing.assert_close((right @ right.T)[:15, :15], torch.eye(15, dtype=torch.float64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": np.array(7)}, "it counts 7 vectors, but its blocks have 8"),
        ({"count": np.array(10**9)}, "it counts 1000000000 vectors"),
        ({"pending": np.zeros((1, 30))}, "the shapes of its blocks do not match each other and the operator"),
        ({"diagonal-0": np.zeros(())}, "a block is not a matrix of finite numbers"),
        ({"left": np.full((2, 30), np.nan)}, "a block is not a matrix of finite numbers"),
        ({"captured": np.array("much")}, "its norms are not numbers"),
        ({"random": np.zeros(3, dtype=np.uint8)}, "remove .* to begin anew"),
    ],
)
def test_a_state_of_another_kind_is_refused(change, message, tmp_path, generator):
    def begin() -> GolubKahan:
        return GolubKahan(aslinearoperator(torch.eye(30)), width=2, generator=generator)

    extended(begin(), 4).save(tmp_path)
    with np.load(tmp_path / "state.npz") as state:
        arrays = dict(state)
    np.savez(tmp_path / "state.npz", **arrays | change)
    with pytest.raises(ValueError, match=rf"is damaged: .*{message}"):
        begin().restore(tmp_path)


def test_vectors_that_are_not_of_length_one_are_refused(tmp_path, generator):
    process = extended(GolubKahan(aslinearoperator(torch.eye(30)), width=2, generator=generator), 4)
    process.save(tmp_path)
    with open(tmp_path / "basis.bin", "r+b") as file:
        file.write(np.full(2, 1e30, dtype=np.float32).tobytes())
    with pytest.raises(ValueError, match=r"holds vectors whose length is not 1; remove .* to begin anew"):
        GolubKahan(aslinearoperator(torch.eye(30)), width=2, generator=generator).restore(tmp_path)
