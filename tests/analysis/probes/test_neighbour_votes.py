import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from analysis.probes import neighbour_votes
from analysis.probes.neighbour_votes import classify

NUMBERS = [1, 4, 20]


@pytest.fixture(scope="module")
def digits():
    """1,000 digits to vote, and 500 others; pixels that vary most come first, so that few points are the same."""
    pixels, labels = load_digits(return_X_y=True)
    pixels = pixels[:, np.argsort(-pixels.std(axis=0))]
    points = ((pixels - pixels.mean(axis=0)) / np.maximum(pixels.std(axis=0), 1e-9)).astype(np.float32)
    return points[:1000], labels[:1000], points[1000:1500]


def ours(train, labels, test, **options):
    return classify(torch.from_numpy(train), labels, torch.from_numpy(test), neighbours=NUMBERS, **options)


@pytest.mark.parametrize("dims", [[64], [8, 20, 64]])
def test_votes_by_angle_are_those_of_scikit_learn(digits, dims):
    train, labels, test = digits
    found = ours(train, labels, test, metric="cosine", dims=dims)
    for of_dims, d in zip(found, dims, strict=True):
        for predicted, k in zip(of_dims, NUMBERS, strict=True):
            weights = {"metric": "cosine", "weights": lambda distance: np.exp((1 - distance) / 0.07)}
            theirs = KNeighborsClassifier(k, algorithm="brute", **weights).fit(train[:, :d].astype(np.float64), labels)
            np.testing.assert_array_equal(predicted, theirs.predict(test[:, :d].astype(np.float64)))


def test_votes_by_distance_are_those_of_scikit_learn_but_for_ties(digits):
    train, labels, test = digits
    ((_, *found),) = ours(train, labels, test)
    for predicted, k in zip(found, NUMBERS[1:], strict=True):
        theirs = KNeighborsClassifier(k, algorithm="brute").fit(train.astype(np.float64), labels)
        shares = np.sort(theirs.predict_proba(test.astype(np.float64)), axis=1)
        clear = shares[:, -1] > shares[:, -2]
        assert 0.9 < clear.mean() < 1
        np.testing.assert_array_equal(predicted[clear], theirs.predict(test.astype(np.float64))[clear])


def test_a_tie_goes_to_the_class_of_the_nearest():
    train = np.array([[1.0], [2.0], [3.0], [4.0], [9.0]], dtype=np.float32)
    ((one, four, _),) = classify(
        torch.from_numpy(train), np.array([5, 2, 2, 5, 2]), torch.zeros(1, 1), neighbours=[1, 4, 5]
    )
    assert (one.tolist(), four.tolist()) == ([5], [5])


def test_points_at_the_origin_have_cosine_zero_with_all():
    """Beside them a right angle votes the same, and an acute one more."""
    train = torch.tensor([[0.0, 0.0], [0.0, 2.0], [3.0, 0.1]])
    labels = np.array([0, 1, 2])
    found = classify(
        train, labels, torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]), neighbours=[1], metric="cosine"
    )
    assert found[0, 0].tolist() == [2, 0, 0]  # of the same cosine the first


def test_the_length_of_a_point_changes_no_angle():
    rng = np.random.default_rng(0)
    train, test = (torch.from_numpy(rng.normal(size=(n, 5)).astype(np.float32)) for n in (60, 20))
    labels = rng.integers(0, 3, 60)
    plain = classify(train, labels, test, neighbours=[7], metric="cosine")
    powers = torch.from_numpy(2.0 ** rng.integers(-60, 60, 60).astype(np.float32))
    np.testing.assert_array_equal(
        classify(train * powers[:, None], labels, test * 2.0**50, neighbours=[7], metric="cosine"), plain
    )


def test_sizes_of_parts_change_no_votes(digits, monkeypatch):
    train, labels, test = (part[:200] for part in digits)
    whole = [ours(train, labels, test, metric=metric) for metric in ("euclidean", "cosine")]
    monkeypatch.setattr(neighbour_votes, "CHUNK", 7)
    monkeypatch.setattr(neighbour_votes, "VALUES", 3000)
    parts = [ours(train, labels, test, metric=metric) for metric in ("euclidean", "cosine")]
    np.testing.assert_array_equal(parts, whole)
