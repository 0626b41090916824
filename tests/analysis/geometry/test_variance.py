import numpy as np
import pytest
from scipy.stats import linregress
from sklearn.decomposition import PCA

from analysis.geometry import moments
from analysis.geometry.jackknife import deal, jackknife
from analysis.geometry.moments import grouped_moments
from analysis.geometry.variance import (
    dims_holding,
    effective_rank,
    eigenvalues,
    fit_power_law,
    participation_ratio,
)


@pytest.fixture
def features() -> tuple[np.ndarray, np.ndarray]:
    """Three classes of unequal size, far from zero."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [40, 60, 100])
    return 100 + rng.normal(size=(3, 12))[labels] + rng.normal(size=(200, 12)) * np.linspace(0.1, 2, 12), labels


def test_moments_are_those_of_all_images_at_once(features, monkeypatch):
    x, labels = features
    monkeypatch.setattr(moments, "VALUES", 12 * 7)
    groups = deal(labels)
    each = grouped_moments(x.astype(np.float32), labels, groups)
    assert len(each) == 20
    for chosen, found in ((slice(None), sum(each[1:], each[0])), (groups != 4, sum(each[1:], each[0]) - each[4])):
        points, of = x.astype(np.float32).astype(np.float64)[chosen], labels[chosen]
        means = np.array([points[of == k].mean(axis=0) for k in range(3)])
        assert found.images == len(points)
        np.testing.assert_allclose(found.means, means, rtol=1e-13)
        np.testing.assert_allclose(found.covariance, np.cov(points.T, bias=True), atol=1e-12)
        np.testing.assert_allclose(found.within, (points - means[of]).T @ (points - means[of]) / len(of), atol=1e-12)


def test_eigenvalues_are_those_of_principal_components(features):
    x, labels = features
    (found,) = grouped_moments(x, labels, np.zeros(200, dtype=int))
    np.testing.assert_allclose(
        eigenvalues(found.covariance), PCA(svd_solver="full").fit(x).explained_variance_ * 199 / 200, rtol=1e-10
    )


def test_known_spectra_have_their_rank():
    for d in (1, 7, 300):
        for of in (participation_ratio, effective_rank):
            assert of(np.concatenate((np.full(d, 0.3), np.zeros(5)))) == pytest.approx(d)
    two = np.array([0.9, 0.1])
    assert effective_rank(two) == pytest.approx(np.exp(-0.9 * np.log(0.9) - 0.1 * np.log(0.1)))
    assert participation_ratio(two) == pytest.approx(1 / (0.81 + 0.01))
    halves = 0.5 ** np.arange(1, 60)  # the sum of i / 2^i is 2, that of 1 / 4^i a third
    assert effective_rank(halves) == pytest.approx(4)
    assert participation_ratio(halves) == pytest.approx(3)


def test_dims_hold_their_share_and_no_fewer_do():
    variance = np.random.default_rng(0).exponential(size=50)
    variance[::-1].sort()
    for share in (0.5, 0.9, 0.99):
        d = dims_holding(variance, share)
        assert variance[:d].sum() >= share * variance.sum() > variance[: d - 1].sum()
    assert dims_holding(np.ones(10), 0.9) == 9
    assert dims_holding(np.ones(3), 1.0) == 3


def test_power_law_is_the_line_of_another_library():
    ranks = np.arange(1.0, 101)
    variance = ranks**-1.3 * np.exp(0.1 * np.random.default_rng(0).normal(size=100))
    line = linregress(np.log(ranks[2:50]), np.log(variance[2:50]))
    law = fit_power_law(variance, (3, 50))
    assert law.alpha == pytest.approx(-line.slope)
    assert law.scale == pytest.approx(np.exp(line.intercept))
    assert law.r2 == pytest.approx(line.rvalue**2)
    assert fit_power_law(np.ones(20), (1, 20)).alpha == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("ranks", [(0, 5), (5, 5), (3, 11)])
def test_ranks_that_are_not_there_are_refused(ranks):
    with pytest.raises(ValueError, match=r"ranks \d to \d+ were asked for; expected two or more of 1 to 10"):
        fit_power_law(np.concatenate((np.ones(10), np.zeros(9))), ranks)


def test_constant_features_are_refused():
    (found,) = grouped_moments(np.full((9, 3), 0.1), np.zeros(9, dtype=int), np.zeros(9, dtype=int))
    with pytest.raises(ValueError, match="the features are the same of all images; their geometry is not defined"):
        eigenvalues(found.covariance)


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="the features are not finite; the network's weights or inputs are broken"):
        grouped_moments(np.array([[0.0], [np.nan]]), np.array([0, 1]), np.array([0, 1]))


def test_fewer_images_than_dimensions_have_the_rank_of_the_images():
    x = np.random.default_rng(0).normal(size=(6, 40))
    (found,) = grouped_moments(x, np.zeros(6, dtype=int), np.zeros(6, dtype=int))
    variance = eigenvalues(found.covariance)
    assert np.count_nonzero(variance) == 5
    np.testing.assert_allclose(variance[:5], PCA(svd_solver="full").fit(x).explained_variance_[:5] * 5 / 6, rtol=1e-9)


def test_groups_are_even_within_classes():
    labels = np.random.default_rng(0).integers(7, size=333)
    groups = deal(labels, seed=1)
    table = np.array([[np.sum((labels == k) & (groups == g)) for g in range(20)] for k in range(7)])
    assert np.ptp(table, axis=1).max() == np.ptp(table.sum(axis=0)) == 1
    assert not np.array_equal(groups, deal(labels, seed=2))


def test_jackknife_is_students_interval_of_a_mean():
    """Of a mean the jackknife's variance is that of the means of the groups."""
    x = np.random.default_rng(0).normal(size=(20, 10))
    found = jackknife(np.array([x.mean(), *((x.sum() - row.sum()) / 190 for row in x)]))
    error = x.mean(axis=1).std(ddof=1) / np.sqrt(20)
    np.testing.assert_allclose(found, x.mean() + 2.0930240544 * error * np.array([-1, 1]), rtol=1e-9)
