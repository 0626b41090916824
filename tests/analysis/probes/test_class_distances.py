import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analysis.probes.class_distances import distance_ratio


def by_pairs(points: np.ndarray, labels: np.ndarray) -> float:
    squares = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    same = labels[:, None] == labels[None]
    upper = np.triu(np.ones_like(same), k=1)
    return math.sqrt(squares[same & upper].mean() / squares[~same & upper].mean())


@given(seed=st.integers(0, 2**16), n=st.integers(5, 40), origin=st.sampled_from([0.0, 1e7]))
def test_distance_ratio_is_that_of_all_pairs(seed, n, origin):
    rng = np.random.default_rng(seed)
    labels = np.concatenate(([0, 0, 2], rng.integers(0, 4, n - 3)))  # a label may be absent
    points = rng.normal(size=(n, 3)) + labels[:, None] + origin
    assert distance_ratio(torch.from_numpy(points), labels) == pytest.approx(by_pairs(points, labels), rel=1e-6)


def test_ratio_of_points_is_0_and_nan_without_pairs_or_distances():
    labels = np.arange(1000) % 4
    assert distance_ratio(torch.eye(4)[labels], labels) == 0
    assert math.isnan(distance_ratio(torch.randn(3, 2), np.array([0, 1, 2])))
    assert math.isnan(distance_ratio(torch.ones(4, 2), np.array([0, 0, 1, 1])))
