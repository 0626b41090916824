import numpy as np
import pytest

from analysis.geometry import similarity
from analysis.geometry.similarity import debiased_cka, unbiased_hsic


def dense_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al. (2012), equation 5, with both Gram matrices."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    one = np.ones(n)
    total = (
        np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)
    )
    return total / (n * (n - 3))


@pytest.fixture
def layers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of 90 images at two layers with something in common, far from zero; and groups."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 7)) * np.linspace(0.1, 3, 7) + 2
    return x, x[:, :4] @ rng.normal(size=(4, 11)) + rng.normal(size=(90, 11)), rng.permutation(90) % 20


@pytest.mark.parametrize("rows", [4096, 13], ids=["at-once", "in-parts"])
@pytest.mark.parametrize("values", [2**25, 20 * 11 * 3], ids=["whole", "by-columns"])
def test_hsic_is_its_definition_with_and_without_each_group(layers, monkeypatch, rows, values):
    x, y, groups = layers
    monkeypatch.setattr(similarity, "ROWS", rows)
    monkeypatch.setattr(similarity, "VALUES", values)
    expected = [dense_hsic(x[kept], y[kept]) for kept in (groups >= 0, *(groups != g for g in range(20)))]
    np.testing.assert_allclose(unbiased_hsic(x, y, groups), expected, rtol=1e-9)


def test_cka_is_its_definition(layers):
    x, y, groups = layers
    expected = dense_hsic(x, y) / np.sqrt(dense_hsic(x, x) * dense_hsic(y, y))
    assert debiased_cka(x, y, groups).value == pytest.approx(expected, rel=1e-9)
    assert debiased_cka(y, x, groups).value == pytest.approx(expected, rel=1e-9)


def test_rotation_scale_and_shift_change_nothing(layers):
    x, y, groups = layers
    turned = 0.01 * x @ np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0] + 3
    assert debiased_cka(turned, y, groups).value == pytest.approx(debiased_cka(x, y, groups).value, rel=1e-9)
    assert debiased_cka(x, turned, groups).value == pytest.approx(1, rel=1e-9)


def test_it_has_no_bias_where_dimensions_outnumber_images():
    """Independent features: CKA with a bias is 0.9 here."""
    rng = np.random.default_rng(0)
    found = [debiased_cka(rng.normal(size=(40, 400)), rng.normal(size=(40, 400)), np.zeros(40, int)) for _ in range(20)]
    values = [each.value for each in found]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(20)
    assert all(np.isnan(each.interval).all() for each in found)  # one group tells nothing of the spread


def test_interval_is_that_of_images_drawn_anew():
    """The spread over 60 draws of images, within a factor that 60 draws leave open."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 5))
    drawn = []
    for _ in range(60):
        x = rng.normal(size=(300, 3))
        drawn.append(debiased_cka(x, x @ mixing + rng.normal(size=(300, 5)), np.arange(300) % 20))
    spread = np.std([each.value for each in drawn])
    half = np.median([np.ptp(each.interval) / 2 for each in drawn])
    assert half / 2.09 == pytest.approx(spread, rel=0.35)


def test_degenerate_features_have_no_similarity(layers):
    x, _, groups = layers
    assert np.isnan(debiased_cka(x, np.ones((90, 2)), groups).value)
    assert np.isnan(debiased_cka(x[:3], x[:3], np.arange(3)).value)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 7.7])
def test_constant_features_have_no_similarity_by_rounding(value):
    """Their mean differs from them in the last bit: HSIC would be above 0, and CKA 1."""
    x, constant = np.random.default_rng(0).normal(size=(100, 4)), np.full((100, 3), value) * [1, 2, 3.3]
    assert np.any(constant.mean(axis=0) != constant[0])
    groups = np.arange(100) % 20
    assert np.isnan(debiased_cka(constant, constant, groups).value)
    assert np.isnan(debiased_cka(x, constant, groups).value)
    both = debiased_cka(np.hstack((x, constant)), x, groups)
    assert both.value == pytest.approx(1, rel=1e-12)


@pytest.mark.usefixtures("unchecked_types")
def test_features_of_other_images_are_refused(layers):
    x, y, groups = layers
    with pytest.raises(ValueError, match="features of 90 and of 89 images; expected the same images"):
        unbiased_hsic(x, y[1:], groups)
