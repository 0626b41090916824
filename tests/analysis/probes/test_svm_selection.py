import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import LinearSVC

from analysis.probes import svm_selection as cost
from analysis.probes.pca import principal_components
from analysis.probes.svm import fit_one_vs_rest
from analysis.probes.svm_selection import choose_svm, count_right


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, np.ndarray]:
    """Real data: 600 digits."""
    pixels, labels = load_digits(return_X_y=True)
    features = pixels[:600].astype(np.float32)
    return principal_components(features).transform(features), labels[:600]


@pytest.fixture(scope="module")
def cv_accuracy(digits) -> list[float]:
    """By scikit-learn, for C of 1e-4, 1e-2 and 1."""
    features, labels = digits
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    svms = [LinearSVC(C=C, dual=False) for C in (1e-4, 1e-2, 1.0)]
    return [cross_val_score(svm, features.numpy(), labels, cv=folds).mean() for svm in svms]


def noisy(n: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Three classes that overlap, in 40 dimensions of which 30 say nothing."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    means = np.zeros((3, 40))
    means[:, :10] = rng.normal(size=(3, 10)) * 0.5
    features = (means[labels] + rng.normal(size=(n, 40))).astype(np.float32)
    return torch.from_numpy(features), labels


@pytest.mark.parametrize("solver", ["newton", "sklearn"])
def test_c_is_cross_validated_as_scikit_learn_does(digits, cv_accuracy, solver):
    features, labels = digits
    chosen = choose_svm(features, labels, cost_grid=[1e-4, 1e-2, 1.0], solver=solver)
    np.testing.assert_allclose(chosen.cv_accuracy, cv_accuracy, atol=1.01 / 600)  # an image
    assert chosen.cost == [1e-4, 1e-2, 1.0][chosen.cv_accuracy.argmax()]
    assert np.isnan(chosen.held_out_accuracy).all()  # the small part was all there is
    assert (chosen.gap is None) == (solver == "sklearn")


def test_the_svm_is_fitted_to_all_images_with_the_c_chosen(digits):
    features, labels = digits
    chosen = choose_svm(features, labels, cost_grid=[1e-3, 1e-2])
    expected = fit_one_vs_rest(features, labels, C=chosen.cost)
    np.testing.assert_allclose(chosen.svm.objective, expected.objective, rtol=2e-4)
    assert chosen.gap <= 1e-4
    assert count_right(chosen.svm, features, labels) == np.count_nonzero(chosen.svm.predict(features) == labels)


def test_a_c_that_is_best_for_few_images_only_is_corrected():
    features, labels = noisy(6000)
    grid = [10.0**k for k in range(-6, 1)]
    chosen = choose_svm(features, labels, cost_grid=grid, cv_images=60)
    assert chosen.cost != grid[chosen.cv_accuracy.argmax()]
    assert chosen.cost == grid[np.nanargmax(chosen.held_out_accuracy)]


def test_neighbours_are_tried_until_the_best_lies_between_worse(monkeypatch):
    """By scripted accuracies: cross-validation says the third C, all images the first but one."""
    features, labels = noisy(300)
    held_out = {1e-3: 0.2, 1e-2: 0.9, 1e-1: 0.8, 1.0: 0.7, 10.0: 0.6}
    current = []

    def fit(features, labels, C, *rest, **options):
        current[:] = [C, len(labels)]
        return fit_one_vs_rest(features, labels, C=1e-3)

    def accuracy(svm, features, labels):
        value, count = current
        return held_out[value] if count == 240 else {1.0: 0.9}.get(value, 0.5)

    monkeypatch.setattr(cost, "_fit", fit)
    monkeypatch.setattr(cost, "_accuracy", accuracy)
    chosen = choose_svm(features, labels, cost_grid=list(held_out), cv_images=60)
    assert chosen.cost == 1e-2
    np.testing.assert_equal(chosen.held_out_accuracy, [0.2, 0.9, 0.8, 0.7, 0.6])
    assert not chosen.at_edge
    held_out[1e-3] = 0.95
    assert choose_svm(features, labels, cost_grid=list(held_out), cv_images=60).at_edge
    del held_out[1e-3]
    held_out.update({1e-2: 0.8, 1e-1: 0.8, 1.0: 0.9, 10.0: 0.6})
    chosen = choose_svm(features, labels, cost_grid=list(held_out), cv_images=60)
    np.testing.assert_equal(chosen.held_out_accuracy, [np.nan, 0.8, 0.9, 0.6])  # no more than it takes


@pytest.mark.parametrize(
    ("scores", "best", "at_edge"),
    [([0.9, 0.8, 0.7], 0, True), ([0.9, 0.9, 0.7], 0, False), ([0.7, 0.8, 0.9], 2, True), ([0.7, 0.9, 0.9], 1, False)],
)
def test_an_end_of_the_grid_that_is_best_is_reported(monkeypatch, scores, best, at_edge):
    features, labels = noisy(90)
    monkeypatch.setattr(cost, "_cross_validate", lambda *arguments: np.array(scores))
    chosen = choose_svm(features, labels, cost_grid=[1e-3, 1e-2, 1e-1])
    assert (chosen.cost, chosen.at_edge) == ([1e-3, 1e-2, 1e-1][best], at_edge)


def test_a_grid_of_one_has_no_edge(digits):
    assert not choose_svm(*digits, cost_grid=[1e-2]).at_edge


def test_parts_have_every_class_and_the_expected_sizes(monkeypatch):
    features, labels = noisy(1000)
    sizes = []

    def fit(features, labels, **options):
        sizes.append(len(features))
        assert len(np.unique(labels)) == 3
        return fit_one_vs_rest(features, labels, **options)

    monkeypatch.setattr(cost, "fit_one_vs_rest", fit)
    choose_svm(features, labels, cost_grid=[1e-2], cv_images=30)
    assert sizes == [20, 20, 20, 800, 1000]


def test_a_part_that_spares_less_than_the_classes_is_all():
    features, labels = noisy(302)
    assert np.isnan(choose_svm(features, labels, cost_grid=[1e-2], cv_images=300).held_out_accuracy).all()


def test_the_small_part_has_six_images_of_each_of_many_classes():
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 20
    features = torch.from_numpy((5 * np.eye(20)[labels] + rng.normal(size=(400, 20))).astype(np.float32))
    part = cost._stratified_part(labels, 6 * 20, 0)
    assert np.bincount(labels[part]).tolist() == [6] * 20
    chosen = choose_svm(features, labels, cost_grid=[1e-2], cv_images=10)
    assert chosen.cv_accuracy[0] > 0.8


def test_a_rare_class_is_no_obstacle():
    features, labels = noisy(600)
    labels[:3] = 7
    labels[3:6] = 8
    chosen = choose_svm(features, labels, cost_grid=[1e-2], cv_images=30)
    assert chosen.svm.classes.tolist() == [0, 1, 2, 7, 8]


@pytest.mark.parametrize("labels", [np.zeros(9, dtype=int), np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])])
def test_too_few_images_of_a_class_are_refused(labels):
    with pytest.raises(
        ValueError, match=r"the rarest of \d classes has \d training images; three-fold cross-validation"
    ):
        choose_svm(torch.randn(9, 2), labels)
