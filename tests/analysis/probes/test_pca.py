import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from analysis.linalg import parts
from analysis.probes import pca
from analysis.probes.pca import dual_components, principal_components


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """Real data, 1,797 x 64; three pixels are constant."""
    return load_digits().data.astype(np.float32)


def test_principal_components_are_those_of_scikit_learn(digits, monkeypatch):
    """With rows in parts; and other images are standardised as those of training."""
    monkeypatch.setitem(parts.ROWS, "cpu", 300)
    train, test = digits[:1000], digits[1000:]
    scaler = StandardScaler().fit(train.astype(np.float64))
    scaled = scaler.transform(train)
    theirs = PCA(svd_solver="full").fit(scaled)
    ours = principal_components(train)
    variance = theirs.explained_variance_ * (len(train) - 1) / len(train)
    np.testing.assert_allclose(ours.variance.numpy(), variance, atol=1e-5 * variance[0])
    assert (ours.variance.diff() <= 0).all()
    np.testing.assert_allclose(ours.explained, theirs.explained_variance_ratio_.cumsum(), atol=1e-5)
    axes = ours.axes.numpy()
    np.testing.assert_allclose(np.abs(np.sum(axes.T[:20] * theirs.components_[:20], axis=1)), 1, atol=1e-4)
    assert (np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0) > 0).all()
    coordinates = ours.transform(train)
    np.testing.assert_allclose(coordinates.T @ coordinates / len(train), torch.diag(ours.variance), atol=1e-5)
    np.testing.assert_allclose(coordinates, scaled @ axes, atol=1e-4)
    np.testing.assert_allclose(ours.transform(test), scaler.transform(test) @ axes, atol=1e-3)


def test_ill_conditioned_features_far_from_the_origin():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) * np.logspace(-4, 4, 6) + 1e3 * np.logspace(-4, 4, 6)
    ours = principal_components(features)
    theirs = PCA().fit(StandardScaler().fit_transform(features))
    np.testing.assert_allclose(ours.explained, theirs.explained_variance_ratio_.cumsum(), atol=1e-5)


def test_few_images_or_constant_features_have_little_variance():
    variance = principal_components(np.random.default_rng(0).normal(size=(5, 20))).variance
    assert (variance[:4] > 0.1).all()
    assert ((variance[4:] >= 0) & (variance[4:] < 1e-5)).all()
    constant = np.full((10, 3), 7.0, dtype=np.float32)
    components = principal_components(constant)
    assert components.variance.tolist() == [0, 0, 0]
    assert components.explained.tolist() == [1, 1, 1]
    assert components.transform(constant[:2]).tolist() == [[0, 0, 0]] * 2


def test_features_that_are_not_finite_are_refused(digits):
    broken = digits[:100].copy()
    broken[3, 4] = np.inf
    for look in (principal_components, principal_components(digits).transform):
        with pytest.raises(ValueError, match="the features are not finite; the network's weights or inputs are broken"):
            look(broken)


@pytest.fixture(scope="module")
def maps() -> torch.Tensor:
    """40 images with 3,000 features, far from the origin, and along each component with half the variance."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(40, 40)) * 2.0 ** -np.arange(40) @ np.linalg.qr(rng.normal(size=(3000, 40))).Q.T
    return torch.from_numpy((points + 5 * rng.normal(size=3000)).astype(np.float32))


def test_dual_components_are_those_of_scikit_learn(maps, monkeypatch):
    """A Gram matrix of sums of d products is off by d eps trace or less, and so are its eigenvalues; its eigenvectors
    are off by that over the distance of their eigenvalue from all others (Davis and Kahan, 1970)."""
    monkeypatch.setattr(pca, "COLUMNS", 701)
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
    points = maps.double()
    torch.testing.assert_close(torch.pdist(components.coordinates), torch.pdist(points))
    again = torch.stack([components.combine(row) for row in components.coordinates])
    torch.testing.assert_close(again, points - points.mean(dim=0), rtol=0, atol=1e-6)
    assert components.coordinates.shape[1] <= 39
    assert len(dual_components(maps[:3].repeat(4, 1)).deviation) == 2  # copies add none


def test_more_features_than_can_be_decomposed_are_refused():
    with pytest.raises(
        ValueError, match=r"there are 16,385 features an image, .* of at most 16,384; give fewer of them"
    ):
        principal_components(np.zeros((2, 16385), dtype=np.float32))
