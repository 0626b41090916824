import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import LinearSVC

from analysis.probes import cost_selection as cost
from analysis.probes.cost_selection import ChosenProbe, choose_logistic, choose_svm
from analysis.probes.logistic import fit_logistic
from analysis.probes.pca import principal_components
from analysis.probes.svm import fit_one_vs_rest


def noisy(n: int, classes: int = 3) -> tuple[torch.Tensor, np.ndarray]:
    """Classes that overlap, in 40 dimensions of which 30 say nothing."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % classes
    means = np.zeros((classes, 40))
    means[:, :10] = rng.normal(size=(classes, 10)) * 0.5
    return torch.from_numpy((means[labels] + rng.normal(size=(n, 40))).astype(np.float32)), labels


def test_c_is_cross_validated_as_scikit_learn_does():
    pixels, labels = load_digits(return_X_y=True)
    pixels, labels, grid = pixels[:600].astype(np.float32), labels[:600], [1e-4, 1e-2, 1.0]
    features = principal_components(pixels).transform(pixels)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    svms = [LinearSVC(C=C, dual=False) for C in grid]
    expected = [cross_val_score(svm, features.numpy(), labels, cv=folds).mean() for svm in svms]
    for solver in ("newton", "sklearn"):
        chosen = choose_svm(features, labels, cost_grid=grid, solver=solver)
        np.testing.assert_allclose(chosen.cv_accuracy, expected, atol=1.01 / 600)  # an image
        assert chosen.cost == grid[chosen.cv_accuracy.argmax()]
        assert np.isnan(chosen.held_out_accuracy).all()  # the small part was all there is
        assert chosen.gap is None if solver == "sklearn" else chosen.gap <= 1e-4
        if solver == "newton":
            whole = fit_one_vs_rest(features, labels, C=chosen.cost)
            np.testing.assert_allclose(chosen.probe.objective, whole.objective, rtol=2e-4)


def test_neighbours_are_tried_until_the_best_lies_between_worse(monkeypatch):
    """By scripted accuracies: cross-validation says a C of 1, all images another."""
    current = []

    def fit(features, labels, cost, **options):
        current[:] = [cost, len(labels)]
        return fit_one_vs_rest(features, labels, C=1e-3)

    def chosen(held_out: dict[float, float]) -> ChosenProbe:
        def accuracy(svm, features, labels):
            value, count = current
            return held_out[value] if count == 240 else {1.0: 0.9}.get(value, 0.5)

        monkeypatch.setattr(cost, "_fit_svm", fit)
        monkeypatch.setattr(cost, "_accuracy", accuracy)
        return choose_svm(*noisy(300), cost_grid=list(held_out), cv_images=60)

    inside = chosen({1e-3: 0.2, 1e-2: 0.9, 1e-1: 0.8, 1.0: 0.7, 10.0: 0.6})
    assert (inside.cost, inside.at_edge) == (1e-2, False)
    np.testing.assert_equal(inside.held_out_accuracy, [0.2, 0.9, 0.8, 0.7, 0.6])
    assert chosen({1e-3: 0.95, 1e-2: 0.9, 1e-1: 0.8, 1.0: 0.7, 10.0: 0.6}).at_edge
    few = chosen({1e-2: 0.8, 1e-1: 0.8, 1.0: 0.9, 10.0: 0.6})
    np.testing.assert_equal(few.held_out_accuracy, [np.nan, 0.8, 0.9, 0.6])  # no more than it takes


@pytest.mark.parametrize(
    ("scores", "best", "at_edge"),
    [
        ([0.9, 0.8, 0.7], 0, True),
        ([0.9, 0.9, 0.7], 0, False),
        ([0.7, 0.8, 0.9], 2, True),
        ([0.7, 0.9, 0.9], 1, False),
    ],
)
def test_an_end_of_the_grid_that_is_best_is_reported(monkeypatch, scores, best, at_edge):
    monkeypatch.setattr(cost, "_cross_validate", lambda *arguments: np.array(scores))
    grid = [1e-3, 1e-2, 1e-1][: len(scores)]
    chosen = choose_svm(*noisy(90), cost_grid=grid)
    assert (chosen.cost, chosen.at_edge) == (grid[best], at_edge)


@pytest.mark.parametrize(
    ("images", "classes", "cv_images", "sizes"),
    [
        (300, 3, 30, [20, 20, 20, 20, 20, 20, 240, 240, 300]),  # two C in each fold
        (400, 20, 10, [80, 80, 80, 80, 80, 80, 320, 320, 400]),  # six images of each class
        (302, 3, 300, [201, 201, 201, 201, 202, 202, 302]),  # too few others
    ],
)
def test_parts_have_every_class_and_the_expected_sizes(monkeypatch, images, classes, cv_images, sizes):
    seen = []

    def fit(features, labels, **options):
        seen.append(len(features))
        assert len(np.unique(labels)) == classes
        return fit_one_vs_rest(features, labels, **options)

    monkeypatch.setattr(cost, "fit_one_vs_rest", fit)
    choose_svm(*noisy(images, classes), cost_grid=[1e-2, 1e-1], cv_images=cv_images)
    assert seen == sizes


def test_a_rare_class_is_no_obstacle():
    features, labels = noisy(600)
    labels[:6] = [7, 7, 7, 8, 8, 8]
    chosen = choose_svm(features, labels, cost_grid=[1e-2, 1e-1], cv_images=30)
    assert chosen.probe.classes.tolist() == [0, 1, 2, 7, 8]


@pytest.mark.parametrize("labels", [[0] * 9, [0, 0, 0, 0, 1, 1, 1, 1, 2]])
def test_too_few_images_of_a_class_are_refused(labels):
    with pytest.raises(
        ValueError, match=r"the rarest of \d classes has \d training images; to choose C takes at least"
    ):
        choose_svm(torch.randn(9, 2), np.array(labels))


@pytest.mark.parametrize("choose", [choose_svm, choose_logistic])
def test_a_single_c_is_used_as_it_is(choose):
    """Also where a class has one image, by which no C could be chosen."""
    features, labels = noisy(10)
    chosen = choose(features, labels, cost_grid=[0.03])
    assert (chosen.cost, chosen.at_edge) == (0.03, False)
    assert np.isnan([chosen.cv_accuracy, chosen.held_out_accuracy]).all()
    fit = fit_one_vs_rest if choose is choose_svm else fit_logistic
    np.testing.assert_array_equal(chosen.probe.coef, fit(features, labels, C=0.03, rotate=False).coef)
    assert choose(features[:3], labels[:3], cost_grid=[0.03]).probe.classes.tolist() == [0, 1, 2]


def test_of_two_images_of_each_class_one_is_left_out_in_turn(monkeypatch):
    """At the same weight of the mean loss against the penalty as all images have."""
    seen = []

    def fit(features, labels, C, **options):
        seen.append((np.bincount(labels).tolist(), C))
        return fit_one_vs_rest(features, labels, C=C)

    monkeypatch.setattr(cost, "fit_one_vs_rest", fit)
    features, labels = noisy(8, classes=4)
    chosen = choose_svm(features, labels, cost_grid=[1e-3, 0.1])
    assert seen == [([1] * 4, 2e-3), ([1] * 4, 0.2)] * 2 + [([2] * 4, chosen.cost)]
    rows = [np.flatnonzero(labels == label) for label in range(4)]
    assert all(len(each) == 2 for each in rows)


def test_logistic_regression_is_cross_validated_as_scikit_learn_does():
    pixels, labels = load_digits(return_X_y=True)
    pixels, labels, grid = pixels[:400].astype(np.float32), labels[:400], [1e-4, 1e-2, 1.0]
    features = principal_components(pixels).transform(pixels)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    fits = [LogisticRegression(C=C, max_iter=5000) for C in grid]
    expected = [cross_val_score(each, features.double().numpy(), labels, cv=folds).mean() for each in fits]
    chosen = choose_logistic(features, labels, cost_grid=grid)
    np.testing.assert_allclose(chosen.cv_accuracy, expected, atol=1.01 / 400)  # an image
    assert chosen.gap <= 1e-4
