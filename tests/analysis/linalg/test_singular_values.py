"""Singular values and what is said of them, against dense float64 decompositions."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from scipy.stats import binomtest

from analysis.linalg.autosave import Autosave
from analysis.linalg.lanczos import Basis, GolubKahan
from analysis.linalg.linear_operator import aslinearoperator
from analysis.linalg.quadrature import lanczos_quadrature
from analysis.linalg.singular_values import choose_method, singular_values
from analysis.linalg.singular_vectors import SingularPairs
from analysis.results.singular_values import Spectrum, half_width
from irevnet import IRevNet, IRevNetConfig
from irevnet.utils.progress import Interrupted


def matrix_with(values, generator) -> torch.Tensor:
    n = len(values)
    u = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    return u @ torch.diag(torch.as_tensor(np.asarray(values), dtype=torch.float64)) @ v


@pytest.fixture(scope="module")
def jacobian(trained_looking) -> torch.Tensor:
    """Of a bijective network, 384 x 384, with a condition number of some hundreds."""
    torch.manual_seed(3)
    config = IRevNetConfig(input_shape=(3, 8, 16), num_classes=5, blocks=(2, 3, 2), strides=(1, 2, 2))
    model = trained_looking(IRevNet(config).double())
    for block in model.blocks:
        block.bottleneck[-1].weight.data *= 16
    image = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return torch.func.jacrev(lambda x: model.features(x[None])[0])(image).reshape(384, 384).detach()


@pytest.fixture(scope="module")
def truth(jacobian) -> np.ndarray:
    return torch.linalg.svdvals(jacobian).numpy()


def found_of(matrix: torch.Tensor, seed: int = 0, *, inverse: bool = True, **options) -> Spectrum:
    """By products with a square matrix and with its inverse."""
    inverted = aslinearoperator(torch.linalg.inv(matrix.double()).to(matrix.dtype)) if inverse else None
    options = {"num_values": 20, "method": "lanczos", "generator": torch.Generator().manual_seed(seed), **options}
    return singular_values(aslinearoperator(matrix), inverted, **options)


@pytest.mark.parametrize(("width", "dtype", "tolerance"), [(4, torch.float64, 1e-10), (40, torch.float32, 1e-6)])
def test_ends_of_a_network_spectrum_are_those_of_the_dense_one(jacobian, truth, dtype, tolerance, width):
    options = {"num_values": 25, "num_smallest": 10, "width": width, "tolerance": 1e-5}
    found = found_of(jacobian.to(dtype), **options)
    assert found.num_converged == len(found.largest) == 25
    np.testing.assert_allclose(found.largest, truth[:25], rtol=tolerance)
    np.testing.assert_allclose(found.smallest, truth[::-1][:10], rtol=10 * tolerance)
    assert found.condition == pytest.approx(truth[0] / truth[-1], rel=10 * tolerance)
    assert (found.largest_residuals <= 1e-5 * found.largest).all()
    assert found.loss_of_orthogonality < {torch.float32: 1e-6, torch.float64: 1e-13}[dtype]
    assert truth[0] / truth[-1] > 100  # not too easy


def test_all_values_by_the_matrix_and_by_products(jacobian, truth):
    for method, products in (("auto", 384), ("lanczos", 768)):
        found = found_of(jacobian, method=method, num_values=384)
        assert (found.method, found.num_products) == ("dense" if method == "auto" else method, products)
        np.testing.assert_allclose(found.largest, truth, rtol=1e-9)
        assert found.squared_norm == pytest.approx((truth**2).sum(), rel=1e-12)
        assert found.squared_norm_error == 0
        assert abs(found.log_volume[0]) < found.log_volume_error < 1e-6  # a bijective network keeps volumes
        np.testing.assert_allclose(found.energy(np.array([1, 50, 384]))[:, 0], _energy(truth)[[0, 49, 383]])
        assert found.condition == pytest.approx(truth[0] / truth[-1])


@pytest.mark.usefixtures("unchecked_types")  # to be quick
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"method": "dense"}, 1e-9),
        ({"num_values": 20, "tolerance": 1e-8}, 1e-6),
        (
            {"num_values": 384, "tolerance": 1e-8},
            1e-6,
        ),  # from A all values are found, and still the ends of its inverse
    ],
)
def test_vectors_at_both_ends_are_those_of_the_matrix(jacobian, options, tolerance):
    left, values, right = torch.linalg.svd(jacobian)
    found = found_of(jacobian, num_vectors=4, **options).vectors
    for end, picked in enumerate((slice(4), slice(-4, None))):
        np.testing.assert_allclose(np.sort(found.values[end]), np.sort(values[picked].numpy()), rtol=1e-8)
        for vectors, truth in ((found.right[end], right[picked]), (found.left[end], left.T[picked])):
            np.testing.assert_allclose(vectors @ vectors.T, np.eye(4), atol=10 * tolerance)
            assert subspace_angles(vectors.T, truth.numpy().T).max() < tolerance
        assert (np.take_along_axis(found.right[end], abs(found.right[end]).argmax(1)[:, None], 1) > 0).all()
    for s, v, u in zip(found.values.ravel(), found.right.reshape(8, -1), found.left.reshape(8, -1)):
        np.testing.assert_allclose(jacobian.numpy() @ v, s * u, atol=1e-6 * max(s, 1))
    assert 0 < found.residuals.max() < 10 * tolerance


def test_vectors_of_wide_and_of_tall_matrices_have_no_lower_end(generator):
    matrix = torch.randn(30, 60, generator=generator, dtype=torch.float64)
    for of, method in itertools.product((matrix, matrix.T), ("dense", "lanczos")):
        options = {"num_values": 10, "method": method, "inverse": False, "tolerance": 1e-9}
        found = found_of(of, num_vectors=3, **options).vectors
        left, values, right = torch.linalg.svd(of, full_matrices=False)
        np.testing.assert_allclose(found.values[0], values[:3].numpy())
        np.testing.assert_allclose(abs(found.right[0] @ right[:3].T.numpy()), np.eye(3), atol=1e-6)
        np.testing.assert_allclose(abs(found.left[0] @ left[:, :3].numpy()), np.eye(3), atol=1e-6)
        assert found.residuals[0].max() < 1e-7
        assert (found.right[0].max(axis=1) == abs(found.right[0]).max(axis=1)).all()
        assert np.isnan(found.right[1]).all()
        assert np.isnan(found.residuals[1]).all()


def test_a_vector_that_is_none_has_a_large_residual(jacobian, generator):
    """At the lower end too, where the residual of A itself would be small."""
    left, values, right = torch.linalg.svd(jacobian)
    operator, inverse = aslinearoperator(jacobian), aslinearoperator(torch.linalg.inv(jacobian))
    off = torch.nn.functional.normalize(right[-2:] + 0.1 * torch.randn(2, 384, generator=generator) / 384**0.5)
    smallest = SingularPairs.of(inverse.transposed, 1 / values[-2:], off)
    assert (smallest.residuals.max(dim=1).values > 0.05).all()
    (exact,) = SingularPairs.of(operator, values[:1], right[:1], left.T[:1]).residuals
    assert exact.max() < 1e-12


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"num_vectors": 17}, "with 20 values found one by one they can be those of 0 to 16"),  # of the inverse
        ({"num_vectors": 21, "inverse": False}, "0 to 20"),
        ({"num_vectors": 193, "method": "dense"}, "with 384 values found one by one they can be those of 0 to 192"),
        ({"num_vectors": -1}, "of -1 values at each end were asked for"),
    ],
)
def test_vectors_of_values_that_are_not_found_are_refused(jacobian, options, most):
    with pytest.raises(ValueError, match=most):
        found_of(jacobian, **options)


def _energy(values) -> np.ndarray:
    return np.cumsum(values**2) / (values**2).sum()


@pytest.mark.usefixtures("unchecked_types")  # to be quick
def test_the_energy_lies_within_its_interval_as_often_as_it_says(generator):
    """Of 60 seeds about 57; fewer than the number that happens once in a thousand times would be wrong."""
    values = np.geomspace(10, 0.05, 120)
    operator = aslinearoperator(matrix_with(values, generator))
    options = {"num_values": 8, "width": 8, "num_probes": 4, "density_probes": 4, "density_steps": 1}
    dims = np.array([1, 8])
    truth, hits = _energy(values)[dims - 1], np.zeros(2, dtype=int)
    for seed in range(60):
        own = torch.Generator().manual_seed(seed)
        energy, low, high = singular_values(operator, generator=own, method="lanczos", **options).energy(dims).T
        assert ((low <= energy) & (energy <= high)).all()
        hits += (low <= truth) & (truth <= high)
    for count in hits.tolist():
        assert binomtest(count, 60, 0.95, alternative="less").pvalue > 1e-3


def test_density_continues_the_known_values(jacobian, truth):
    found = found_of(jacobian, 2)
    dims = np.array([1, 15, 30, 60, 150, 300])
    energy, low, high = found.energy(dims).T
    expected = _energy(truth)[dims - 1]
    np.testing.assert_allclose(energy, expected, atol=0.03)
    assert (np.abs(energy - expected) <= high - low).all()  # twice the error: a single draw may miss the 95%
    assert (high - low)[:2].max() < 0.02
    assert found.squared_norm == pytest.approx((truth**2).sum(), abs=2 * found.squared_norm_error)
    first, early, late = found.dims_holding(0.97)
    exact = int(np.searchsorted(_energy(truth), 0.97)) + 1
    assert early <= exact <= late
    assert abs(first - exact) < 0.05 * 384
    ranks, values = found.curve()
    assert (np.diff(ranks) > 0).all()
    assert (np.diff(values) <= 1e-12).all()
    assert ranks[[0, -1]].tolist() == [1, 384]
    np.testing.assert_allclose(np.log(values), np.log(np.interp(ranks, np.arange(1, 385), truth)), atol=0.15)
    np.testing.assert_allclose(found.weights.sum(axis=1), 384 - 20 - 16, rtol=1e-6)  # all that are not known
    assert (np.diff(found.nodes) <= 0).all()
    assert found.nodes[0] <= found.largest[-1]
    assert found.nodes[-1] >= found.smallest[-1] * (1 - 1e-6)
    high, low = found.log_volume
    assert low <= high < low + 0.5
    assert low - found.log_volume_error < 0 < high + found.log_volume_error


@pytest.mark.parametrize("shape", [(80, 400), (400, 80)])
def test_map_to_few_dimensions_has_that_many_values(shape, generator):
    """And none of the zeros on the other dimensions of its inputs."""
    values = np.geomspace(10, 0.1, 80)
    few, many = (
        torch.linalg.qr(torch.randn(size, 80, generator=generator, dtype=torch.float64)).Q for size in (80, 400)
    )
    matrix = few @ torch.diag(torch.as_tensor(values)) @ many.T
    operator = aslinearoperator(matrix if shape == (80, 400) else matrix.T)
    found = singular_values(operator, generator=generator, method="lanczos", num_values=8, width=8, density_probes=4)
    assert (found.num_outputs, found.num_inputs, found.count) == (*shape, 80)
    np.testing.assert_allclose(found.largest, values[:8], rtol=1e-6)
    np.testing.assert_allclose(found.weights.sum(axis=1), 72, rtol=1e-9)
    ranks, curve = found.curve()
    assert ranks[-1] <= 80
    np.testing.assert_allclose(np.log(curve), np.log(np.interp(ranks, np.arange(1, 81), values)), atol=0.2)


@pytest.mark.parametrize("inverse", [True, False])
def test_energy_intervals_beyond_known_values_hold_the_truth(jacobian, truth, inverse):
    """The sampling error of the density does not include the distances of its nodes from the values between them."""
    dims = np.array([25, 50, 75, 100, 150, 200, 250, 300, 350, 384])
    expected = _energy(truth)[dims - 1]
    hits = 0
    for seed in range(4):
        energy, low, high = found_of(jacobian, seed, inverse=inverse, density_steps=5).energy(dims).T
        assert (np.diff(energy) >= 0).all()
        assert energy[-1] == pytest.approx(1)
        hits += ((low <= expected + 1e-12) & (expected <= high + 1e-12)).sum()
    assert hits >= 38


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_quadrature_brackets_sums_of_logarithms(steps, generator):
    """p^T log(A^T A) p of the dense matrix, for every single probe p, between those by A and by its inverse."""
    values = np.geomspace(20, 0.01, 150)
    matrix = matrix_with(values, generator)
    right = torch.linalg.svd(matrix).Vh
    operators = aslinearoperator(matrix), aslinearoperator(torch.linalg.inv(matrix)).transposed
    locked = Basis(150, dtype=torch.float64, device=torch.device("cpu"))
    locked.append(torch.cat((right[:5], right[-5:])))
    densities = lanczos_quadrature(operators, locked, num_probes=4, steps=steps, generator=generator)
    high, low = densities[0].log_sums(), -densities[1].log_sums()
    process = GolubKahan(operators[0], width=4, generator=generator.clone_state(), locked=locked)
    process.extend()
    probes = torch.cat(process.basis.parts(10))  # its first block, from the same random numbers
    truth = 140 * ((probes @ right.T) ** 2).numpy() @ np.log(values)
    assert (low <= truth + 1e-9).all()
    assert (truth <= high + 1e-9).all()
    np.testing.assert_allclose(densities[0].weights.sum(axis=1), 140)
    assert (high - low).max() < {1: 1000, 3: 200, 6: 50}[steps]
    if steps > 1:  # both together are better than the one with twice the steps
        (alone,) = lanczos_quadrature(operators[:1], locked, num_probes=4, steps=2 * steps, generator=generator)
        assert (alone.log_sums() - truth).mean() > (high - truth).mean()


def test_clusters_and_repeated_values_beyond_the_width_are_found(generator):
    values = np.concatenate((np.full(40, 2.0), np.full(3, 1.5), np.geomspace(1.4, 0.1, 250), np.full(30, 0.05)))
    found = found_of(matrix_with(values, generator), num_values=50, num_smallest=31, width=8, density_probes=4)
    np.testing.assert_allclose(found.largest, values[:50], rtol=1e-6)
    np.testing.assert_allclose(found.smallest, values[::-1][:31], rtol=1e-6)


def test_all_values_are_found_where_few_lie_between_the_ends(generator):
    values = np.geomspace(10, 0.1, 30)
    found = found_of(matrix_with(values, generator), num_values=14, num_smallest=1, width=4)
    np.testing.assert_allclose(found.largest, values, rtol=1e-6)
    assert len(found.smallest) == len(found.nodes) == 0
    np.testing.assert_allclose(found.log_volume, np.log(values).sum(), atol=1e-6)
    assert found.dims_holding(0.97)[0] == np.searchsorted(_energy(values), 0.97) + 1


def test_of_an_isometry_nothing_is_contracted(generator):
    found = found_of(matrix_with(np.ones(100), generator), num_values=7)
    np.testing.assert_allclose(found.largest, 1, rtol=1e-12)
    energy, low, high = found.energy(np.array([7, 50, 100])).T
    assert ((low <= energy) & (energy <= high)).all()
    np.testing.assert_allclose(energy, [0.07, 0.5, 1], atol=0.02)
    np.testing.assert_allclose(found.log_volume, 0, atol=1e-9)
    assert found.condition == pytest.approx(1)


@pytest.mark.parametrize("shape", [(90, 60), (60, 90)])
@pytest.mark.parametrize("method", ["dense", "lanczos"])
def test_rectangular_operators_have_no_inverse_and_no_volume(shape, method, generator):
    matrix = torch.randn(shape, generator=generator, dtype=torch.float64)
    truth = torch.linalg.svdvals(matrix).numpy()
    found = singular_values(aslinearoperator(matrix), generator=generator, num_values=6, method=method)
    np.testing.assert_allclose(found.largest[:6], truth[:6], rtol=1e-6)
    assert (found.count, found.num_outputs, found.num_inputs) == (60, *shape)
    assert np.isnan(found.log_volume).all()
    assert len(found.smallest) == 0
    assert math.isnan(found.condition) == (len(found.largest) < 60)
    np.testing.assert_allclose(found.energy(np.array([6, 60]))[:, 0], _energy(truth)[[5, 59]], atol=0.05)
    ranks, values = found.curve()
    assert ranks[-1] <= 60.5
    assert (np.diff(values) <= 0).all()


def test_a_singular_operator_has_an_infinite_condition(generator):
    operator = aslinearoperator(matrix_with([3.0, 1.0, 0.0], generator))
    assert singular_values(operator, generator=generator).condition == math.inf


def test_an_interrupted_spectrum_resumes_to_the_same_result(jacobian, tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.linalg.lanczos.SEGMENT", 50)  # as if the bases were large
    expected = found_of(jacobian, 4)
    for most in (2, 7, 30):  # the last is within the density
        steps = iter(range(most))
        autosave = Autosave(tmp_path, stop=lambda steps=steps: next(steps, None) is None)
        with pytest.raises(Interrupted):
            found_of(jacobian, 4, autosave=autosave)
    found = found_of(jacobian, 4, autosave=Autosave(tmp_path))
    for name in ("largest", "smallest", "nodes", "weights", "log_volume", "squared_norm", "num_products"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_dense_spectrum_stops_between_products(generator):
    operator, asked = aslinearoperator(torch.randn(200, 150, generator=generator)), iter([False, True])
    with pytest.raises(Interrupted, match="stopped"):
        singular_values(operator, generator=generator, method="dense", autosave=Autosave(stop=lambda: next(asked)))
    assert next(asked, None) is None


def test_autosave_limits_the_work_lost_by_a_kill(jacobian, truth, tmp_path):
    """A process that ends without a word loses no more than the work of the time since."""

    class Killed(BaseException):
        pass

    def kill() -> bool:
        if next(steps, None) is None:
            raise Killed
        return False

    steps = iter(range(6))
    with pytest.raises(Killed):
        found_of(jacobian, inverse=False, autosave=Autosave(tmp_path, stop=kill, seconds=0.0))
    lines = []
    found = found_of(jacobian, inverse=False, autosave=Autosave(tmp_path), report=lines.append)
    np.testing.assert_allclose(found.largest, truth[:20], rtol=1e-6)
    assert lines[0].endswith("of the 20 largest values, 96 vectors")
    assert any(line.startswith("20 of the 20 largest values") for line in lines)
    assert lines[-1] == "the density of the others"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_values": 6}, "6 singular values were asked for; a Jacobian of 5 x 5 has 1 to 5"),
        ({"method": "svd"}, "method is 'svd'; expected one of"),
        ({"width": 0}, r"width=0, num_probes=64, density_probes=16, tolerance=0\.001; expected at least 1"),
    ],
)
def test_options_out_of_range_are_refused(generator, options, message):
    with pytest.raises(ValueError, match=message):
        singular_values(aslinearoperator(torch.eye(5)), generator=generator, **options)


def test_small_problems_are_decomposed():
    assert choose_method("auto", (1000, 5000)) == choose_method("dense", (5000, 5000)) == "dense"
    assert choose_method("auto", (1001, 1001)) == choose_method("lanczos", (5, 5)) == "lanczos"


def test_the_interval_of_a_mean_is_students(generator):
    samples = np.random.default_rng(0).normal(size=(2000, 8))
    inside = sum(abs(row.mean()) <= half_width(row) for row in samples)
    assert binomtest(inside, 2000, 0.95).pvalue > 1e-3
