"""Singular values and what is said of them, against dense float64 decompositions."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from analysis.jacobian import linearise
from analysis.linalg.autosave import Autosave
from analysis.linalg.lanczos import Basis, GolubKahan
from analysis.linalg.linear_operator import aslinearoperator
from analysis.linalg.quadrature import lanczos_quadrature
from analysis.linalg.singular_values import choose_method, singular_values
from analysis.results.singular_values import Spectrum, half_width
from irevnet import IRevNet, IRevNetConfig
from irevnet.utils.progress import Interrupted


def matrix_with(values, generator, m=None) -> torch.Tensor:
    n = len(values)
    u = torch.linalg.qr(torch.randn(m or n, n, generator=generator, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    return u @ torch.diag(torch.as_tensor(np.asarray(values), dtype=torch.float64)) @ v


def both_ends(matrix: torch.Tensor, **options) -> Spectrum:
    """By products with a square matrix and with its inverse."""
    options = {"generator": torch.Generator().manual_seed(0), "method": "lanczos", **options}
    return singular_values(
        aslinearoperator(matrix), aslinearoperator(torch.linalg.inv(matrix.double()).to(matrix.dtype)), **options
    )


@pytest.fixture(scope="module")
def network(trained_looking) -> IRevNet:
    """Bijective, with 384 inputs and a condition number of some hundreds."""
    torch.manual_seed(3)
    config = IRevNetConfig(input_shape=(3, 8, 16), num_classes=5, blocks=(2, 3, 2), strides=(1, 2, 2))
    model = trained_looking(IRevNet(config).double())
    with torch.no_grad():
        for block in model.blocks:
            block.bottleneck[-1].weight *= 16
    return model


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.fixture(scope="module")
def truth(network, image) -> np.ndarray:
    jacobian = torch.func.jacrev(lambda x: network.features(x[None])[0])(image).reshape(384, 384)
    return torch.linalg.svdvals(jacobian).detach().numpy()


@pytest.mark.parametrize(
    ("width", "dtype", "tolerance"),
    [(4, torch.float64, 1e-10), (16, torch.float64, 1e-10), (16, torch.float32, 1e-6), (40, torch.float32, 1e-6)],
)
def test_ends_of_a_network_spectrum_are_those_of_the_dense_one(network, image, truth, dtype, tolerance, width):
    jacobian = linearise(copy.deepcopy(network).to(dtype), image.to(dtype))
    found = singular_values(
        jacobian.forward,
        jacobian.inverse,
        generator=torch.Generator().manual_seed(0),
        num_values=25,
        num_smallest=10,
        method="lanczos",
        width=width,
        tolerance=1e-5,
    )
    assert found.num_converged == len(found.largest) == 25
    np.testing.assert_allclose(found.largest, truth[:25], rtol=tolerance)
    np.testing.assert_allclose(found.smallest, truth[::-1][:10], rtol=10 * tolerance)
    assert found.condition == pytest.approx(truth[0] / truth[-1], rel=10 * tolerance)
    assert (found.largest_residuals <= 1e-5 * found.largest).all()
    assert found.loss_of_orthogonality < {torch.float32: 1e-6, torch.float64: 1e-13}[dtype]
    assert truth[0] / truth[-1] > 100  # not too easy


def test_all_values_by_the_matrix_and_by_products(network, image, truth):
    jacobian = linearise(network, image)
    common = {"generator": torch.Generator().manual_seed(0)}
    dense = singular_values(jacobian.forward, jacobian.inverse, **common)
    products = singular_values(jacobian.forward, jacobian.inverse, method="lanczos", num_values=384, **common)
    assert (dense.method, products.method) == ("dense", "lanczos")
    for found in (dense, products):
        np.testing.assert_allclose(found.largest, truth, rtol=1e-9)
        assert found.squared_norm == pytest.approx((truth**2).sum(), rel=1e-12)
        assert found.squared_norm_error == 0
        assert abs(found.log_volume[0]) < found.log_volume_error < 1e-6  # a bijective network keeps volumes
        np.testing.assert_allclose(found.energy(np.array([1, 50, 384]))[:, 0], _energy(truth)[[0, 49, 383]])
        assert found.condition == pytest.approx(truth[0] / truth[-1])
    assert dense.num_products == 384
    assert products.num_products == 768


def _energy(values) -> np.ndarray:
    return np.cumsum(values**2) / (values**2).sum()


def test_the_energy_lies_within_its_interval_as_often_as_it_says(generator):
    """Of 100 seeds about 95; fewer than the number that happens once in a thousand times would be wrong."""
    values = np.geomspace(10, 0.05, 120)
    matrix = matrix_with(values, generator)
    truth = _energy(values)
    dims = np.array([1, 8])
    hits = np.zeros(2, dtype=int)
    for seed in range(100):
        found = singular_values(
            aslinearoperator(matrix),
            generator=torch.Generator().manual_seed(seed),
            method="lanczos",
            num_values=8,
            width=8,
            num_probes=4,
            density_probes=4,
            density_steps=1,
        )
        energy, low, high = found.energy(dims).T
        assert (low <= energy).all()
        assert (energy <= high).all()
        hits += (low <= truth[dims - 1]) & (truth[dims - 1] <= high)
    for count in hits.tolist():
        assert binomtest(count, 100, 0.95, alternative="less").pvalue > 1e-3


def test_energy_error_is_that_beyond_the_lanczos_vectors(network, image, truth):
    found = singular_values(
        linearise(network, image).forward, generator=torch.Generator().manual_seed(1), num_values=26, method="lanczos"
    )
    energy, low, high = found.energy(np.arange(1, 27)).T
    expected = _energy(truth)[:26]
    assert (np.abs(energy - expected) <= high - low).all()  # twice the error: a single draw may miss the 95%
    np.testing.assert_allclose(energy, expected, rtol=0.02)
    assert (high - low).max() < 0.02
    assert found.squared_norm == pytest.approx((truth**2).sum(), abs=2 * found.squared_norm_error)


def test_density_continues_the_known_values(network, image, truth):
    jacobian = linearise(network, image)
    found = singular_values(
        jacobian.forward,
        jacobian.inverse,
        generator=torch.Generator().manual_seed(2),
        num_values=20,
        method="lanczos",
        density_steps=8,
    )
    dims = np.array([30, 60, 150, 300])
    energy, low, high = found.energy(dims).T
    expected = _energy(truth)[dims - 1]
    np.testing.assert_allclose(energy, expected, atol=0.03)
    assert ((low < expected) & (expected < high)).all()
    first, early, late = found.dims_holding(0.97)
    exact = int(np.searchsorted(_energy(truth), 0.97)) + 1
    assert early <= exact <= late
    assert abs(first - exact) < 0.05 * 384
    ranks, values = found.curve()
    assert (np.diff(ranks) > 0).all()
    assert (np.diff(values) <= 1e-12).all()
    assert ranks[[0, -1]].tolist() == [1, 384]
    np.testing.assert_allclose(np.log(values), np.log(np.interp(ranks, np.arange(1, 385), truth)), atol=0.15)


@pytest.mark.parametrize("inverse", [True, False])
def test_energy_intervals_beyond_known_values_hold_the_truth(network, image, truth, inverse):
    """The sampling error of the density does not include the distances of its nodes from the values between them."""
    jacobian = linearise(network, image)
    dims = np.array([25, 50, 75, 100, 150, 200, 250, 300, 350, 384])
    expected = _energy(truth)[dims - 1]
    hits = 0
    for seed in range(4):
        found = singular_values(
            jacobian.forward,
            jacobian.inverse if inverse else None,
            generator=torch.Generator().manual_seed(seed),
            num_values=20,
            method="lanczos",
            density_steps=5,
        )
        energy, low, high = found.energy(dims).T
        assert (np.diff(energy) >= 0).all()
        assert energy[-1] == pytest.approx(1)
        hits += ((low <= expected + 1e-12) & (expected <= high + 1e-12)).sum()
    assert hits >= 38


def test_density_counts_all_unknown_values(network, image):
    jacobian = linearise(network, image)
    found = singular_values(
        jacobian.forward, jacobian.inverse, generator=torch.Generator().manual_seed(2), num_values=20, method="lanczos"
    )
    np.testing.assert_allclose(found.weights.sum(axis=1), 384 - 20 - 16, rtol=1e-6)
    assert (np.diff(found.nodes) <= 0).all()
    assert found.nodes[0] <= found.largest[-1]
    assert found.nodes[-1] >= found.smallest[-1] * (1 - 1e-6)


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


def test_the_volume_of_a_network_is_one_within_its_error(network, image):
    jacobian = linearise(network, image)
    found = singular_values(
        jacobian.forward, jacobian.inverse, generator=torch.Generator().manual_seed(2), method="lanczos"
    )
    high, low = found.log_volume
    assert low <= high < low + 0.5
    assert low - found.log_volume_error < 0 < high + found.log_volume_error


def test_clusters_and_repeated_values_beyond_the_width_are_found(generator):
    values = np.concatenate((np.full(40, 2.0), np.full(3, 1.5), np.geomspace(1.4, 0.1, 250), np.full(30, 0.05)))
    matrix = matrix_with(values, generator)
    found = both_ends(matrix, num_values=50, num_smallest=31, width=8, density_probes=4)
    np.testing.assert_allclose(found.largest, values[:50], rtol=1e-6)
    np.testing.assert_allclose(found.smallest, values[::-1][:31], rtol=1e-6)


@pytest.mark.parametrize("num_smallest", [26, 20, 1])
def test_all_values_are_found_where_few_lie_between_the_ends(num_smallest, generator):
    values = np.geomspace(10, 0.1, 30)
    found = both_ends(matrix_with(values, generator), num_values=14, num_smallest=num_smallest, width=4)
    np.testing.assert_allclose(found.largest, values, rtol=1e-6)
    assert len(found.smallest) == len(found.nodes) == 0
    np.testing.assert_allclose(found.log_volume, np.log(values).sum(), atol=1e-6)
    assert found.dims_holding(0.97)[0] == np.searchsorted(_energy(values), 0.97) + 1


def test_of_an_isometry_nothing_is_contracted():
    found = both_ends(torch.eye(100, dtype=torch.float64), num_values=7)
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
    energy = found.energy(np.array([6, 60]))[:, 0]
    np.testing.assert_allclose(energy, _energy(truth)[[5, 59]], atol=0.05)
    ranks, values = found.curve()
    assert ranks[-1] <= 60.5
    assert (np.diff(values) <= 0).all()


def test_a_singular_operator_has_an_infinite_condition(generator):
    found = singular_values(aslinearoperator(matrix_with([3.0, 1.0, 0.0], generator)), generator=generator)
    assert found.condition == math.inf


def test_an_injective_network_is_taller_than_wide(injective, generator):
    x = torch.randn(3, 8, 8, generator=generator, dtype=torch.float64)
    found = singular_values(linearise(injective, x).forward, generator=generator, method="lanczos", num_values=10)
    jacobian = torch.func.jacrev(lambda image: injective.features(image[None])[0])(x).reshape(-1, 192)
    np.testing.assert_allclose(found.largest, torch.linalg.svdvals(jacobian)[:10].detach(), rtol=1e-6)


def test_an_interrupted_spectrum_resumes_to_the_same_result(network, image, tmp_path):
    jacobian = linearise(network, image)

    def run(autosave: Autosave | None) -> Spectrum:
        return singular_values(
            jacobian.forward,
            jacobian.inverse,
            generator=torch.Generator().manual_seed(4),
            num_values=20,
            method="lanczos",
            autosave=autosave,
        )

    expected = run(None)
    for most in (2, 7, 3, 30):  # the last is within the density
        steps = iter(range(most))
        with pytest.raises(Interrupted):
            run(Autosave(tmp_path, stop=lambda steps=steps: next(steps, None) is None))
    found = run(Autosave(tmp_path))
    for name in ("largest", "smallest", "nodes", "weights", "log_volume"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.squared_norm == expected.squared_norm
    assert found.num_products == expected.num_products


def test_dense_spectrum_stops_between_products(generator):
    operator, asked = aslinearoperator(torch.randn(200, 150, generator=generator)), iter([False, True])
    with pytest.raises(Interrupted, match="stopped"):
        singular_values(operator, generator=generator, method="dense", autosave=Autosave(stop=lambda: next(asked)))
    assert next(asked, None) is None


def test_autosave_limits_the_work_lost_by_a_kill(network, image, tmp_path):
    """A process that ends without a word loses no more than the work of the time since."""

    class Killed(BaseException):
        pass

    def kill() -> bool:
        if next(steps, None) is None:
            raise Killed
        return False

    steps = iter(range(6))
    options = {"num_values": 20, "method": "lanczos"}
    forward = linearise(network, image).forward
    with pytest.raises(Killed):
        singular_values(
            forward,
            generator=torch.Generator().manual_seed(4),
            autosave=Autosave(tmp_path, stop=kill, seconds=0.0),
            **options,
        )
    lines = []
    found = singular_values(
        forward, generator=torch.Generator().manual_seed(4), autosave=Autosave(tmp_path), report=lines.append, **options
    )
    assert "96 vectors" in lines[0]
    expected = singular_values(forward, generator=torch.Generator().manual_seed(4), **options)
    np.testing.assert_allclose(found.largest, expected.largest, rtol=1e-10)


def test_progress_is_reported(network, image):
    lines = []
    singular_values(
        linearise(network, image).forward,
        generator=torch.Generator(),
        num_values=20,
        method="lanczos",
        report=lines.append,
    )
    assert lines[0].endswith("of the 20 largest values, 48 vectors")
    assert any(line.startswith("20 of the 20 largest values") for line in lines)
    assert lines[-1] == "the density of the others"


def test_options_out_of_range_are_refused(generator):
    operator = aslinearoperator(torch.eye(5))
    with pytest.raises(ValueError, match="6 singular values were asked for; a Jacobian of 5 x 5 has 1 to 5"):
        singular_values(operator, generator=generator, num_values=6)
    with pytest.raises(ValueError, match="method is 'svd'; expected one of"):
        singular_values(operator, generator=generator, method="svd")
    with pytest.raises(
        ValueError, match=r"width=0, num_probes=64, density_probes=16, tolerance=0\.001; expected at least 1"
    ):
        singular_values(operator, generator=generator, width=0)


def test_a_product_that_is_not_finite_raises(generator):
    matrix = torch.eye(50)
    matrix[3, 3] = torch.nan
    with pytest.raises(ValueError, match="a product A v is not finite"):
        singular_values(aslinearoperator(matrix), generator=generator, method="lanczos")


def test_small_problems_are_decomposed():
    assert choose_method("auto", (1000, 5000)) == choose_method("dense", (5000, 5000)) == "dense"
    assert choose_method("auto", (1001, 1001)) == choose_method("lanczos", (5, 5)) == "lanczos"


def test_the_interval_of_a_mean_is_students(generator):
    samples = np.random.default_rng(0).normal(size=(2000, 8))
    inside = sum(abs(row.mean()) <= half_width(row) for row in samples)
    assert binomtest(inside, 2000, 0.95).pvalue > 1e-3
