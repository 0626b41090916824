import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from analysis.linalg import parts
from analysis.probes import logistic
from analysis.probes.logistic import fit_logistic


def value_and_gradient(v, features, targets, C):
    """Of scikit-learn's objective in float64; of two classes that of one vector."""
    classes = targets.max() + 1
    weights = v.reshape(-1, features.shape[1] + 1)
    logits = features @ weights[:, :-1].T + weights[:, -1]
    if classes == 2:
        logits = np.column_stack((np.zeros(len(logits)), logits))
    excess = softmax(logits, axis=1) - np.eye(classes)[targets]
    if classes == 2:
        excess = excess[:, 1:]
    gradient = np.column_stack((weights[:, :-1] + C * excess.T @ features, C * excess.sum(axis=0)))
    loss = -log_softmax(logits, axis=1)[np.arange(len(targets)), targets].sum()
    return np.square(weights[:, :-1]).sum() / 2 + C * loss, gradient.ravel()


def as_vector(coef, intercept) -> np.ndarray:
    """Of two classes the difference of their weights."""
    weights = np.column_stack((coef, intercept))
    return (weights[1:] - weights[:1] if len(weights) == 2 else weights).ravel()


def blobs(seed: int = 0, *, n: int = 300, dims: int = 15, classes: int = 4, apart: float = 1.0):
    rng = np.random.default_rng(seed)
    labels = np.concatenate((np.arange(classes), rng.integers(0, classes, n - classes)))
    means = apart * rng.normal(size=(classes, dims))
    return (means[labels] + 1.5 * rng.normal(size=(n, dims))).astype(np.float32), labels


CASES = {
    "blobs": blobs(),
    "two classes": blobs(1, classes=2),
    "far from the origin": (blobs(2)[0] + 30, blobs(2)[1]),
    "fewer images than dimensions": blobs(3, n=20, dims=60),
    "separable": blobs(4, apart=20.0),
    "a class with one image": (blobs(5)[0], np.where(np.arange(300) == 7, 4, blobs(5)[1])),
    "columns of all scales": (blobs(6)[0] * np.logspace(-2, 2, 15, dtype=np.float32), blobs(6)[1]),
}


@pytest.mark.parametrize("C", [1e-4, 0.1, 30.0])
@pytest.mark.parametrize("case", CASES)
def test_the_certificate_holds_against_another_optimiser(case, C):
    """That one starts where this one ends, to which it adds what is missing, in float64 and on features as given.

    Here features are rotated in float32: logits z are off by about eps sqrt(d) |x| |w|, and so is f, relative to C n.
    """
    features, labels = CASES[case]
    fitted = fit_logistic(features, labels, C=C)
    arguments = features.astype(np.float64), labels, C
    found = value_and_gradient(as_vector(fitted.coef, fitted.intercept), *arguments)[0]
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 50}
    start = as_vector(fitted.coef, fitted.intercept)
    truth = minimize(value_and_gradient, start, arguments, jac=True, method="L-BFGS-B", options=options).fun
    assert fitted.objective[0] == pytest.approx(found, rel=1e-5)
    assert -1e-12 <= found / truth - 1 <= fitted.gap[0] + 1e-5
    assert fitted.gap[0] <= 1e-4


@pytest.mark.parametrize("case", ["blobs", "two classes"])
def test_the_objective_is_that_of_scikit_learn(case, monkeypatch):
    monkeypatch.setitem(parts.ROWS, "cpu", 70)
    features, labels = CASES[case]
    ours = fit_logistic(features, labels, C=0.5, tolerance=1e-9)
    theirs = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit(features.astype(np.float64), labels)
    arguments = features.astype(np.float64), labels, 0.5
    vectors = as_vector(ours.coef, ours.intercept), np.column_stack((theirs.coef_, theirs.intercept_)).ravel()
    objectives = [value_and_gradient(each, *arguments)[0] for each in vectors]
    assert objectives[0] == pytest.approx(objectives[1], rel=1e-9)
    np.testing.assert_array_equal(ours.predict(features), theirs.predict(features))


def test_logits_are_those_of_scikit_learn():
    pixels, labels = (part[:400] for part in load_digits(return_X_y=True))
    features = (pixels / 16).astype(np.float32)
    ours = fit_logistic(features, 3 * labels - 5, C=1.0, tolerance=1e-10)
    theirs = LogisticRegression(tol=1e-8, max_iter=10_000).fit(features.astype(np.float64), labels)
    assert ours.classes.tolist() == [3 * label - 5 for label in range(10)]
    logits = [each - each.mean(axis=1, keepdims=True) for each in (ours.decision_function(features),
                                                                   theirs.decision_function(features))]  # fmt: skip
    np.testing.assert_allclose(*logits, atol=1e-3)


@pytest.mark.parametrize("case", ["blobs", "far from the origin", "a class with one image"])
def test_the_bound_is_below_the_minimum_wherever_it_is_taken(case):
    """Also where the gradient of the intercepts is not zero."""
    features, labels = CASES[case]
    points = torch.from_numpy(np.column_stack((features, np.ones(len(features), np.float32))))
    problem = logistic._Problem(points, torch.from_numpy(labels), len(set(labels)), 0.1)
    least = fit_logistic(features, labels, C=0.1, tolerance=1e-8).objective[0]
    generator, bounds = torch.Generator().manual_seed(0), []
    end = torch.zeros(points.shape[1], len(set(labels)), dtype=torch.float64)
    problem.minimise(end, 1e-6)
    for size in (0.0, 1e-4, 1e-3, 1e-2, 0.3):
        noise = torch.randn(end.shape, dtype=torch.float64, generator=generator)
        *_, bound = problem._evaluate(end + size * noise)
        bounds.append(bound / least)
    assert max(bounds) <= 1 + 1e-6
    assert bounds[0] >= 1 - 1e-4
    assert bounds[-1] < 0.99


def test_a_start_that_is_near_saves_steps(monkeypatch):
    features, labels = CASES["blobs"]
    steps = []
    original = logistic._Problem._solve
    monkeypatch.setattr(logistic._Problem, "_solve", lambda *a: (steps.append(1), original(*a))[1])
    near = fit_logistic(features, labels, C=1.0, tolerance=1e-6)
    fresh = len(steps)
    again = fit_logistic(features, labels, C=1.05, start=near)
    assert len(steps) - fresh < fresh / 2
    assert again.gap[0] <= 1e-4


def test_two_classes_mirror_each_other():
    features, labels = CASES["two classes"]
    fitted = fit_logistic(features, labels, C=0.1)
    np.testing.assert_allclose(fitted.coef[0], -fitted.coef[1], atol=1e-12)


@pytest.mark.parametrize(
    ("change", "C", "message"),
    [
        (lambda x, y: (np.where(x == x.max(), np.nan, x), y), 1.0, "the features are not finite"),
        (lambda x, y: (x, np.zeros_like(y)), 1.0, "there is one class among 300 labels; expected two or more"),
        (lambda x, y: (x, y), 0.0, r"C=0\.0; expected a positive number"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, C, message):
    with pytest.raises(ValueError, match=message):
        fit_logistic(*change(*CASES["blobs"]), C=C)


def test_a_minimum_that_is_not_reached_is_refused(monkeypatch):
    monkeypatch.setattr(logistic, "STEPS", 2)
    message = (
        r"the objective of logistic regression has a relative distance of up to .* from its minimum; .*lower C=1\.0"
    )
    with pytest.raises(RuntimeError, match=message):
        fit_logistic(*CASES["blobs"], C=1.0)
