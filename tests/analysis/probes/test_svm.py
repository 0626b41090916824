import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from sklearn.svm import LinearSVC

from analysis.linalg import parts
from analysis.probes import svm
from analysis.probes.svm import LinearSVMs, fit_one_vs_rest


def losses_and_gradient(v, points, signs, C):
    slack = np.maximum(0, 1 - signs * (points @ v))
    return v @ v / 2 + C * slack @ slack, v - 2 * C * points.T @ (signs * slack)


def with_ones(features) -> np.ndarray:
    return np.column_stack((features.astype(np.float32).astype(np.float64), np.ones(len(features))))


def hessian(v, points, signs, C):
    active = points[signs * (points @ v) < 1]
    return np.eye(len(v)) + 2 * C * active.T @ active


def minima(features, labels, C) -> np.ndarray:
    """The minimum of f of each class in float64, by SciPy's trust region with the exact Hessian."""
    points, found = with_ones(features), []
    for k in np.unique(labels):
        arguments = points, np.where(labels == k, 1.0, -1.0), C
        options = {"gtol": 1e-6, "initial_trust_radius": 1e3, "max_trust_radius": 1e6}
        functions = {"fun": losses_and_gradient, "jac": True, "hess": hessian, "method": "trust-exact"}
        end = minimize(x0=np.zeros(points.shape[1]), args=arguments, options=options, **functions)
        found.append(end.fun - end.jac @ end.jac / 2)  # a bound of the minimum from below
    return np.array(found)


def objectives(fitted: LinearSVMs, features, labels, C) -> np.ndarray:
    weights = np.column_stack((fitted.coef, fitted.intercept))
    signs = [np.where(labels == k, 1.0, -1.0) for k in fitted.classes]
    return np.array([losses_and_gradient(v, with_ones(features), each, C)[0] for v, each in zip(weights, signs)])


def rotation_errors(fitted: LinearSVMs, features, labels, C) -> np.ndarray:
    """About the largest relative error of each objective from features rotated in float32, u = eps / 2.

    With A the axes and z = A'v, a coordinate of x~_i, a sum of d rounded products, is off by u sqrt(d) |x~_i| . |a_j|
    (Higham and Mary, 2019), a margin by m_i = u sqrt(d) |x~_i| . |A| |z|, and C sum l_i^2 by C sum (2 l_i m_i + m_i^2),
    where the first have either sign, and |l m| is what is summed. That of A itself is the same for all images, whose
    sum 2 C l_i y_i x~_i is v at the minimum: it adds u |v| . |A| |z|.
    """
    points = with_ones(features)
    axes = np.linalg.eigh(points.T @ points).eigenvectors
    unit = np.finfo(np.float32).eps / 2
    errors = []
    for v, k, objective in zip(np.column_stack((fitted.coef, fitted.intercept)), fitted.classes, fitted.objective):
        loss = np.maximum(0, 1 - np.where(labels == k, 1, -1) * (points @ v))
        coordinates = np.abs(axes) @ np.abs(axes.T @ v)
        margins = unit * np.sqrt(len(v)) * np.abs(points) @ coordinates
        of_axes = unit * np.abs(v) @ coordinates
        errors.append((C * (2 * np.linalg.norm(loss * margins) + margins @ margins) + of_axes) / objective)
    return np.array(errors)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Real data: 64 pixels of 600 digits, standardised (some of them are constant)."""
    pixels, labels = (part[:600] for part in load_digits(return_X_y=True))
    return ((pixels - pixels.mean(axis=0)) / np.maximum(pixels.std(axis=0), 1e-9)).astype(np.float32), labels


def blobs(seed: int = 0, *, n: int = 600, dims: int = 20, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return (rng.normal(size=(classes, dims))[labels] + 1.5 * rng.normal(size=(n, dims))).astype(np.float32), labels


def ill_conditioned() -> tuple[np.ndarray, np.ndarray]:
    """Features that are mixtures of one another, of sizes from 1e-3 to 1e3, far from the origin."""
    features, labels = blobs(1)
    mixing = np.random.default_rng(2).normal(size=(20, 20))
    return (features @ mixing * np.logspace(-3, 3, 20) + 5).astype(np.float32), labels


CASES = {
    "ill-conditioned": ill_conditioned(),
    "fewer images than dimensions": blobs(3, n=30, dims=80, classes=3),
    "a constant and a repeated feature, and a class with one image": (
        np.column_stack((blobs(4)[0], np.ones(600, np.float32), blobs(4)[0][:, :1])),
        np.where(np.arange(600) == 7, 9, blobs(4)[1]),
    ),
    "two classes": blobs(6, classes=2),
    "separable": (blobs(7)[0] + 8 * np.eye(20, dtype=np.float32)[blobs(7)[1]], blobs(7)[1]),
}


@pytest.mark.parametrize("C", [1e-3, 100.0])
@pytest.mark.parametrize("case", CASES)
def test_the_certificate_holds_against_another_optimiser(case, C):
    features, labels = CASES[case]
    fitted = fit_one_vs_rest(features, labels, C=C)
    truth = minima(features, labels, C)
    errors = rotation_errors(fitted, features, labels, C)
    assert (errors <= 5e-5).all()  # or what follows says little
    objective = objectives(fitted, features, labels, C)
    assert (np.abs(fitted.objective / objective - 1) <= errors).all()
    excess = objective / truth - 1
    assert (excess >= -1e-9).all()  # all in float64
    assert (excess <= fitted.gap + 2 * errors).all()  # the gap is the rotated problem's, whose minimum is off too
    assert (fitted.gap <= 1e-4).all()


@pytest.mark.parametrize(("C", "in_parts"), [(1e-4, True), (1.0, False)])
def test_svms_are_those_of_linear_svc(digits, C, in_parts, monkeypatch):
    if in_parts:
        monkeypatch.setitem(parts.ROWS, "cpu", 100)
        monkeypatch.setattr(svm, "CLASSES", 3)
    features, labels = digits
    theirs = LinearSVC(C=C, dual=False, tol=1e-9, max_iter=100_000).fit(features.astype(np.float64), labels)
    ours = fit_one_vs_rest(features, labels, C=C, tolerance=1e-10)
    np.testing.assert_array_equal(ours.classes, theirs.classes_)
    scale = np.abs(theirs.coef_).max()
    np.testing.assert_allclose(ours.coef, theirs.coef_, atol=1e-4 * scale)
    np.testing.assert_allclose(ours.intercept, theirs.intercept_, atol=1e-4 * scale)
    decisions = theirs.decision_function(features)
    np.testing.assert_allclose(ours.decision_function(features), decisions, atol=1e-3 * np.abs(decisions).max())
    assert (ours.predict(features) == theirs.predict(features)).mean() > 0.999


def test_two_classes_mirror_each_other():
    features, labels = CASES["two classes"]
    fitted = fit_one_vs_rest(features, np.where(labels == 1, 40, -3), C=0.1, tolerance=1e-12)
    assert fitted.classes.tolist() == [-3, 40]
    np.testing.assert_allclose(fitted.coef[0], -fitted.coef[1], atol=1e-5)
    theirs = LinearSVC(C=0.1, dual=False, tol=1e-9).fit(features, labels)
    np.testing.assert_array_equal(fitted.predict(features) == 40, theirs.predict(features) == 1)


def test_a_start_near_the_optimum_is_used(digits, monkeypatch):
    features, labels = digits
    near = fit_one_vs_rest(features, labels, C=1e-2)
    monkeypatch.setattr(svm._Problem, "_solve_by_cg", None)  # no step is made
    again = fit_one_vs_rest(features, labels, C=1e-2, start=near)
    np.testing.assert_allclose(again.coef, near.coef, atol=1e-6)


def test_the_worst_class_is_named_if_not_converged(monkeypatch):
    monkeypatch.setattr(svm, "CG_STEPS", 1)
    monkeypatch.setattr(svm, "DIRECT_STEPS", 0)
    message = r"class \d has a relative distance of up to .* from its minimum; expected at most 1\.0e-04; lower C=1\.0"
    with pytest.raises(RuntimeError, match=message):
        fit_one_vs_rest(*CASES["ill-conditioned"], C=1.0)


@pytest.mark.parametrize(
    ("change", "C", "message"),
    [
        (lambda x, y: (x, np.zeros_like(y)), 1.0, "there is one class among 600 labels; expected two or more"),
        (lambda x, y: (x, y), 0.0, "C=0.0; expected a positive number"),
        (lambda x, y: (np.where(x > 3, np.inf, x), y), 1.0, "the features are not finite"),
    ],
)
def test_inputs_that_cannot_be_fitted_are_refused(change, C, message):
    with pytest.raises(ValueError, match=message):
        fit_one_vs_rest(*change(*CASES["two classes"]), C=C)
