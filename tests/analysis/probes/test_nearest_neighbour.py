import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from analysis.probes import nearest_neighbour
from analysis.probes.nearest_neighbour import k_nearest, nearest_neighbours


def search(train: np.ndarray, test: np.ndarray, **options) -> np.ndarray:
    return nearest_neighbours(torch.from_numpy(train), torch.from_numpy(test), **options)


def brute_force(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """In float64, one test point after the other; the lowest row at equal distance."""
    train, test = train.astype(np.float64), test.astype(np.float64)
    return np.array([np.square(train - point).sum(axis=1).argmin() for point in test])


def gaussian(seed: int = 0, *, n: int = 700, m: int = 300, dims: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dims)).astype(np.float32), rng.normal(size=(m, dims)).astype(np.float32)


def near_ties(move: float = 1e-6, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Each training point is there four times, moved a little, and has a test point close to it."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(150, 30))
    train = rng.permutation(np.concatenate([points + move * rng.normal(size=points.shape) for _ in range(4)]))
    test = points + 0.1 * rng.normal(size=points.shape)
    return (train + offset).astype(np.float32), (test + offset).astype(np.float32)


def grid() -> tuple[np.ndarray, np.ndarray]:
    """Small integers: most test points have many training points at the least distance."""
    rng = np.random.default_rng(4)
    return tuple(rng.integers(0, 3, size=(size, 5)).astype(np.float32) for size in (300, 200))


def scaled(train=1.0, test=None, **options) -> tuple[np.ndarray, np.ndarray]:
    factors = train, train if test is None else test
    return tuple((points * factor).astype(np.float32) for points, factor in zip(gaussian(5, **options), factors))


def one(number: int, count: int, value: float, others: float = 1.0) -> np.ndarray:
    """Factors, by which one point of so many is far away."""
    return np.where(np.arange(count) == number, value, others)[:, None]


CASES = {
    "near ties": near_ties(),
    "many at the least distance": grid(),
    "far from the origin, near ties": near_ties(3e-5, offset=1e3),
    "columns of all scales": scaled(np.logspace(-3, 3, 30)),
    "squares overflow": scaled(1e37),
    "subnormal": scaled(1e-43),
    "a training point that hides the others": scaled(one(17, 700, 1e9), 1.0),
    "a test point that makes others vanish": scaled(2e-23, one(5, 300, 1.0, 2e-23)),
    "test points that see few training points": scaled(1e-7, 1e9, dims=1),
    "zeros": (np.zeros((300, 7), np.float32), np.zeros((20, 7), np.float32)),
    "a point and a coordinate": gaussian(11, n=1, m=1, dims=1),
    "more coordinates than points": gaussian(12, n=40, m=30, dims=1000),
}


@pytest.mark.parametrize("case", CASES)
def test_result_is_that_of_a_search_in_float64(case):
    train, test = CASES[case]
    dims = sorted({1, -(-train.shape[1] // 2), train.shape[1]})
    expected = np.stack([brute_force(train[:, :d], test[:, :d]) for d in dims])
    np.testing.assert_array_equal(search(train, test, dims=dims), expected)


@pytest.mark.parametrize("case", ["near ties", "a training point that hides the others"])
def test_scores_without_a_bound_get_some_of_them_wrong(case, monkeypatch):
    monkeypatch.setattr(nearest_neighbour, "_error", lambda d, p, norms, radius: torch.zeros_like(norms))
    assert (search(*CASES[case])[0] != brute_force(*CASES[case])).mean() > 0.1


@settings(max_examples=100)
@given(st.data())
def test_result_is_exact_for_any_finite_points(data):
    """Up to two coordinates, whose squares float64 adds in one way only."""
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    numbers = st.sampled_from([finite, st.floats(-1, 1, width=32), st.integers(-3, 3).map(float)])
    shapes = st.tuples(st.integers(1, 12), st.just(data.draw(st.integers(1, 2))))
    train, test = (data.draw(arrays(np.float32, shapes, elements=data.draw(numbers))) for _ in range(2))
    np.testing.assert_array_equal(search(train, test)[0], brute_force(train, test))


def test_bound_is_nearly_reached_by_the_worst_order_of_sums():
    """x = y = (1, e, ..., e) with e^2 just too small to change a sum of 1: from left to right all but one are lost."""
    d = 10_000
    x = torch.full((d,), 2.0**-12 * 0.99)
    x[0] = 1.0
    square = x.double().square().sum()
    s = np.cumsum(torch.cat((-2 * x * x, square[None].float())).numpy(), dtype=np.float32)[-1]
    error, norm = abs(float(s) - float(-square)), square.sqrt()
    bound = float(nearest_neighbour._error(d, d + 1, norm[None], norm)[0])
    assert 0.6 * bound < error <= bound


@pytest.mark.parametrize("case", CASES)
def test_scores_are_within_the_bound(case, monkeypatch):
    """t_j in float64 from the points as given, of all that the module does before it looks for candidates."""
    train, test = (points[:200] for points in CASES[case])
    seen = []
    original = nearest_neighbour._candidates
    monkeypatch.setattr(
        nearest_neighbour,
        "_candidates",
        lambda s, error, k: (seen.append((s.clone(), error)), original(s, error, k))[1],
    )
    search(train, test)
    ((scores, error),) = seen
    x, y = (points.astype(np.float64) - train.astype(np.float64).mean(axis=0) for points in (test, train))
    t = np.square(y).sum(axis=1) - 2 * x @ y.T
    t *= 0.25 ** (1 + np.frexp(float(max(np.abs(train).max(), np.abs(test).max())))[1])
    assert (np.abs(scores[:, : len(train)].numpy() - t) <= error[:, None].numpy()).all()
    assert (scores[:, len(train) :] > 2.0**99).all()


@pytest.mark.parametrize("k", [2, 5, 40])
@pytest.mark.parametrize("case", ["near ties", "many at the least distance", "zeros", "more coordinates than points"])
def test_the_k_nearest_are_those_of_a_search_in_float64(case, k):
    """With as many blocks of scores as neighbours, or fewer; of points at the same distance the lowest rows."""
    train, test = CASES[case]
    dims = [1, train.shape[1]]
    found = k_nearest(torch.from_numpy(train), torch.from_numpy(test), k, dims=dims)
    for of_dims, d in zip(found, dims):
        x, y = test[:, :d].astype(np.float64), train[:, :d].astype(np.float64)
        expected = np.stack([np.square(y - point).sum(axis=1).argsort(kind="stable")[:k] for point in x])
        np.testing.assert_array_equal(of_dims, expected)


def test_k_from_1_to_all_points_is_searched():
    train, test = (torch.from_numpy(part) for part in gaussian(n=5, m=3))
    assert np.sort(k_nearest(train, test, 5)[0], axis=1).tolist() == [list(range(5))] * 3
    for k in (0, 6):
        with pytest.raises(ValueError, match=f"`k` is {k}; expected 1 to 5 neighbours, the number of training points"):
            k_nearest(train, test, k)


def test_labels_are_those_of_scikit_learn():
    pixels, labels = load_digits(return_X_y=True)
    train, test = pixels[:1000].astype(np.float32), pixels[1000:].astype(np.float32)
    theirs = KNeighborsClassifier(1, algorithm="brute").fit(train, labels[:1000]).predict(test)
    np.testing.assert_array_equal(labels[search(train, test)[0]], theirs)


@pytest.mark.parametrize("case", ["near ties", "many at the least distance"])
@pytest.mark.parametrize("sizes", [{"CHUNK": 1, "BLOCK": 13}, {"CHUNK": 7, "BLOCK": 1}, {"VALUES": 90}])
def test_sizes_of_parts_change_nothing(case, sizes, monkeypatch):
    train, test = (points[:size] for points, size in zip(CASES[case], (120, 40)))
    dims = [1, 2, train.shape[1]]
    whole = search(train, test, dims=dims)
    for name, value in sizes.items():
        monkeypatch.setattr(nearest_neighbour, name, value)
    np.testing.assert_array_equal(search(train, test, dims=dims), whole)


def test_no_test_points_have_no_neighbours():
    train, test = gaussian(m=0)
    assert search(train, test, dims=[1, 5]).shape == (2, 0)


def test_products_are_in_float32_and_settings_are_restored(monkeypatch):
    def fail(*_, **__):
        assert torch.get_float32_matmul_precision() == "highest"
        raise ArithmeticError

    monkeypatch.setattr(torch.Tensor, "addmm_", fail)
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(ArithmeticError):
            search(*near_ties())
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("change", "dims", "message"),
    [
        (lambda x, y: (x[:, :3], y), None, "training points have 3 coordinates, test points 30; expected the same"),
        (lambda x, y: (x[:0], y), None, r"training points have shape \(0, 30\); expected at least one point and one"),
        (lambda x, y: (x, y), [], r"dims=\[\]; expected increasing numbers of coordinates, from 1 to 30"),
        (lambda x, y: (x, y), [0, 2], r"dims=\[0, 2\]; expected increasing"),
        (lambda x, y: (x, y), [2, 2], r"dims=\[2, 2\]; expected increasing"),
        (lambda x, y: (x, y), [2, 31], r"dims=\[2, 31\]; expected increasing"),
        (lambda x, y: (np.where(x == x.max(), np.nan, x), y), None, "1 of 21000 values of the training points are not"),
        (lambda x, y: (x, np.where(y == y.max(), -np.inf, y)), None, "1 of 9000 values of the test points are not"),
    ],
)
def test_points_that_cannot_be_searched_are_refused(change, dims, message):
    with pytest.raises(ValueError, match=message):
        search(*change(*gaussian()), dims=dims)
