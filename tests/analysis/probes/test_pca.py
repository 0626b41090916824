import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from analysis.linalg import precision as products
from analysis.probes import pca
from analysis.probes.pca import dual_components, principal_components


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """Real data, 1,797 x 64; three pixels are constant."""
    return load_digits().data.astype(np.float32)


def test_principal_components_are_those_of_scikit_learn(digits):
    scaled = StandardScaler().fit_transform(digits.astype(np.float64))
    theirs = PCA(svd_solver="full").fit(scaled)
    ours = principal_components(digits)
    variance = theirs.explained_variance_ * (len(digits) - 1) / len(digits)
    np.testing.assert_allclose(ours.variance.numpy(), variance, atol=1e-5 * variance[0])
    np.testing.assert_allclose(ours.explained, theirs.explained_variance_ratio_.cumsum(), atol=1e-5)
    alignment = np.abs(np.sum(ours.axes.numpy().T[:20] * theirs.components_[:20], axis=1))
    np.testing.assert_allclose(alignment, 1, atol=1e-4)
    np.testing.assert_allclose(
        np.abs(ours.transform(digits)[:, :10].numpy()), np.abs(theirs.transform(scaled)[:, :10]), atol=2e-3
    )


def test_the_coordinates_keep_distances_and_are_uncorrelated(digits):
    components = principal_components(digits)
    coordinates = components.transform(digits).double()
    standardised = torch.from_numpy(StandardScaler().fit_transform(digits.astype(np.float64)))
    np.testing.assert_allclose(
        torch.cdist(coordinates[:50], coordinates), torch.cdist(standardised[:50], standardised), atol=1e-4
    )
    gram = coordinates.T @ coordinates / len(digits)
    np.testing.assert_allclose(gram, torch.diag(components.variance), atol=1e-5)
    assert (components.variance.diff() <= 0).all()


def test_other_features_are_standardised_as_training_features(digits):
    components = principal_components(digits[:1000])
    mean, std = digits[:1000].mean(axis=0), digits[:1000].std(axis=0)
    scaled = (digits[1000:] - mean) / np.where(std > 0, std, 1)
    np.testing.assert_allclose(components.transform(digits[1000:]), scaled @ components.axes.numpy(), atol=1e-3)


def test_the_sign_of_an_axis_makes_its_largest_entry_positive(digits):
    axes = principal_components(digits).axes
    assert (axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)) > 0).all()


def test_parts_of_rows_change_nothing(digits, monkeypatch):
    components = principal_components(digits)
    coordinates = components.transform(digits)
    monkeypatch.setitem(products.ROWS, "cpu", 100)
    np.testing.assert_allclose(principal_components(digits).variance, components.variance, atol=1e-5)
    np.testing.assert_allclose(components.transform(digits), coordinates, atol=1e-5)


def test_ill_conditioned_features_far_from_the_origin():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) * np.logspace(-4, 4, 6) + 1e3 * np.logspace(-4, 4, 6)
    ours = principal_components(features)
    theirs = PCA().fit(StandardScaler().fit_transform(features))
    np.testing.assert_allclose(ours.explained, theirs.explained_variance_ratio_.cumsum(), atol=1e-5)


def test_few_images_have_variance_in_few_directions():
    features = np.random.default_rng(0).normal(size=(5, 20))
    components = principal_components(features)
    assert (components.variance[:4] > 0.1).all()
    assert (components.variance[4:] < 1e-5).all()
    assert components.transform(features).shape == (5, 20)


def test_constant_features_have_no_variance():
    components = principal_components(np.full((10, 3), 7.0, dtype=np.float32))
    assert components.variance.tolist() == [0, 0, 0]
    assert components.explained.tolist() == [1, 1, 1]
    assert components.transform(np.full((2, 3), 7.0, dtype=np.float32)).tolist() == [[0, 0, 0]] * 2


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(digits, value):
    broken = digits.copy()
    broken[3, 4] = value
    with pytest.raises(ValueError, match="the features are not finite; the network's weights or inputs are broken"):
        principal_components(broken)
    with pytest.raises(ValueError, match="the features are not finite"):
        principal_components(digits).transform(broken)


@pytest.fixture(scope="module")
def maps() -> torch.Tensor:
    """40 images with 3,000 features, far from the origin, and along each component with half the variance."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(40, 40)) * 2.0 ** -np.arange(40) @ np.linalg.qr(rng.normal(size=(3000, 40))).Q.T
    return torch.from_numpy((points + 5 * rng.normal(size=3000)).astype(np.float32))


def test_dual_components_are_those_of_scikit_learn(maps):
    """A Gram matrix of sums of d products is off by d eps trace or less, and so are its eigenvalues; its eigenvectors
    are off by that over the distance of their eigenvalue from all others (Davis and Kahan, 1970)."""
    theirs = PCA(svd_solver="full").fit(maps.double().numpy())
    ours = dual_components(maps)
    squares = 39 * theirs.explained_variance_[:15]
    error = 3000 * np.finfo(np.float64).eps * 39 * theirs.explained_variance_.sum()
    gaps = np.minimum(-np.diff(squares), np.abs(np.diff(squares, prepend=np.inf))[:-1])
    for number, (square, gap) in enumerate(zip(squares, gaps)):
        assert 40 * ours.deviation[number].item() ** 2 == pytest.approx(square, abs=2 * error)
        axis = ours.combine(torch.eye(len(ours.deviation), dtype=torch.float64)[number]).numpy()
        apart = np.linalg.norm(axis * np.sign(axis @ theirs.components_[number]) - theirs.components_[number])
        assert apart <= 4 * error / gap < 1e-2


def test_dual_coordinates_have_the_distances_of_the_features(maps):
    components = dual_components(maps)
    assert components.coordinates.shape[1] <= 39
    points = maps.double()
    torch.testing.assert_close(torch.pdist(components.coordinates), torch.pdist(points))
    again = torch.stack([components.combine(row) for row in components.coordinates])
    torch.testing.assert_close(again, points - points.mean(dim=0), rtol=0, atol=1e-6)


def test_dual_components_do_not_depend_on_parts_of_columns(maps, monkeypatch):
    whole = dual_components(maps)
    monkeypatch.setattr(pca, "COLUMNS", 701)
    parts = dual_components(maps)
    torch.testing.assert_close(parts.deviation, whole.deviation)
    first = torch.eye(len(whole.deviation), dtype=torch.float64)[0]
    torch.testing.assert_close(parts.combine(first).abs(), whole.combine(first).abs())


def test_copies_of_images_add_no_dual_components(maps):
    assert len(dual_components(maps[:3].repeat(4, 1)).deviation) == 2


def test_products_are_of_true_float32_whatever_was_set_before():
    torch.set_float32_matmul_precision("high")
    try:
        with products.true_float32():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
