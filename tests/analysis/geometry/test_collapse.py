import numpy as np
import pytest

from analysis.geometry.collapse import centred_means, duality, nearest_means, simplex, variability
from analysis.geometry.moments import grouped_moments


def corners(classes: int, dims: int) -> np.ndarray:
    """The corners of a simplex in general position, away from zero."""
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(dims, classes)))[0].T
    return 3 * (turned - turned.mean(axis=0)) + np.arange(dims)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_simplex_has_collapsed(classes):
    labels = np.repeat(np.arange(classes), np.arange(2, classes + 2))  # of unequal size
    (found,) = grouped_moments(corners(classes, 16)[labels], labels, np.zeros(len(labels), dtype=int))
    means = found.means
    assert variability(found.within, means) == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(simplex(means), 0, atol=1e-12)
    assert duality(5 * (means - means.mean(axis=0)), means) == pytest.approx(0, abs=1e-12)


def test_it_is_the_definition_in_float64():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 30)
    x = 2 * rng.normal(size=(5, 12))[labels] + rng.normal(size=(150, 12)) + 7
    weights = rng.normal(size=(5, 12))
    (found,) = grouped_moments(x, labels, np.zeros(150, dtype=int))
    means = np.array([x[labels == k].mean(axis=0) for k in range(5)])
    overall = x.mean(axis=0)
    within = np.mean([np.outer(row - means[k], row - means[k]) for row, k in zip(x, labels)], axis=0)
    between = np.mean([np.outer(mean - overall, mean - overall) for mean in means], axis=0)
    expected = np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / 5
    assert variability(found.within, found.means) == pytest.approx(expected, rel=1e-9)
    norms = [np.linalg.norm(mean - overall) for mean in means]
    cosines = [
        (means[j] - overall) @ (means[k] - overall) / norms[j] / norms[k] for j in range(5) for k in range(5) if j != k
    ]
    spread, angles, deviation = simplex(found.means)
    assert spread == pytest.approx(np.std(norms) / np.mean(norms))
    assert angles == pytest.approx(np.std(cosines))
    assert deviation == pytest.approx(np.mean([abs(cosine + 1 / 4) for cosine in cosines]))
    of_weights, of_means = weights / np.sqrt((weights**2).sum()), (means - overall) / np.sqrt(np.square(norms).sum())
    assert duality(weights, found.means) == pytest.approx(np.sqrt(((of_weights - of_means) ** 2).sum()))


def test_more_classes_than_dimensions_are_right():
    rng = np.random.default_rng(0)
    means, within = rng.normal(size=(9, 4)), np.diag([1.0, 2, 3, 4])
    centred = means - means.mean(axis=0)
    expected = np.trace(within @ np.linalg.inv(centred.T @ centred / 9)) / 9
    assert variability(within, means) == pytest.approx(expected)


@pytest.mark.parametrize("shift", [0, 10, 1e3, 1e6])
@pytest.mark.parametrize("classes", [2, 10, 30])
def test_features_far_from_zero_have_the_same_variation(classes, shift):
    """The means of K classes have the rank K - 1: rounding, which grows with the shift, adds none."""
    rng = np.random.default_rng(0)
    labels = np.arange(600) % classes
    x = rng.normal(size=(classes, 16))[labels] + 0.5 * rng.normal(size=(600, 16))
    near, far = (
        grouped_moments(each, labels, np.zeros(600, dtype=int))[0] for each in (x, x + shift * np.arange(1, 17))
    )
    centred = near.means - near.means.mean(axis=0)
    expected = np.trace(near.within @ np.linalg.pinv(centred.T @ centred / classes, rcond=1e-10)) / classes
    assert variability(far.within, far.means) == pytest.approx(expected, rel=1e-7)


def test_fewer_images_than_dimensions_are_right():
    rng = np.random.default_rng(0)
    labels = np.arange(9) % 3
    x = 100 + 5 * rng.normal(size=(3, 40))[labels] + rng.normal(size=(9, 40))
    (found,) = grouped_moments(x, labels, np.zeros(9, dtype=int))
    means = np.array([x[labels == k].mean(axis=0) for k in range(3)])
    centred, within = means - means.mean(axis=0), np.cov((x - means[labels]).T, bias=True)
    expected = np.trace(within @ np.linalg.pinv(centred.T @ centred / 3, rcond=1e-10)) / 3
    assert variability(found.within, found.means) == pytest.approx(expected, rel=1e-9)


def test_one_image_a_class_has_no_variation_within():
    x = np.random.default_rng(0).normal(size=(5, 8)) + 3
    (found,) = grouped_moments(x, np.arange(5), np.zeros(5, dtype=int))
    assert np.array_equal(found.counts, np.ones(5))
    assert variability(found.within, found.means) == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(found.means, x, rtol=1e-13)


def test_opposite_weights_are_at_distance_2():
    means = corners(4, 6)
    assert duality(-(means - means.mean(axis=0)), means) == pytest.approx(2)


def test_nearest_mean_is_that_of_all_distances():
    rng = np.random.default_rng(0)
    x, means = 1e3 + rng.normal(size=(200, 8)), 1e3 + rng.normal(size=(6, 8))
    expected = np.square(x[:, None] - means).sum(axis=2).argmin(axis=1)
    assert np.array_equal(nearest_means(x.astype(np.float64), means), expected)


def test_one_class_and_equal_classes_are_refused():
    with pytest.raises(ValueError, match="there is one class; neural collapse is of two or more"):
        centred_means(np.ones((1, 3)))
    with pytest.raises(ValueError, match="all classes have the same mean; neural collapse is not defined"):
        simplex(np.full((3, 2), 0.1))


def test_a_class_at_the_centre_has_no_angle():
    with pytest.raises(ValueError, match="the mean of class 1 is that of all classes; it has no angle"):
        simplex(np.array([[-1.0], [0.0], [1.0]]))
    with pytest.raises(ValueError, match="the mean of class 1 is that of all classes; it has no angle"):
        simplex(np.array([[-1.0], [0.0], [1.0]]) + 0.7)  # but for rounding


def test_weights_of_zero_are_refused():
    with pytest.raises(ValueError, match="the weights of the classifier are all 0; it has no direction"):
        duality(np.zeros((3, 4)), corners(3, 4))
