"""Features without a network, real data at one layer and noise at another; and runs without a network."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

from analysis.cache import Cache
from analysis.probes.network_features import NetworkFeatures
from analysis.results import TrainingCurvesResult


@pytest.fixture
def iris() -> Callable[..., NetworkFeatures]:
    """The 150 flowers, nearly but not wholly separable, and noise; `cache`, `name` and arrays may be replaced."""
    data = load_iris()
    x, x_test, y, y_test = train_test_split(data.data, data.target, test_size=0.4, stratify=data.target, random_state=0)
    noise = np.random.default_rng(0)
    logits = np.eye(4)[np.where(np.arange(60) % 10 == 0, 3, y_test + 0)] + 0.5 * np.eye(4)[y_test]

    def make(**changes) -> NetworkFeatures:
        fields = {
            "name": "flowers",
            "layers": ["block-1", "block-2"],
            "depths": [1, 2],
            "relative_depths": [0.5, 1.0],
            "train": {"block-1": x, "block-2": noise.normal(size=(90, 2))},
            "test": {"block-1": x_test, "block-2": noise.normal(size=(60, 2))},
            "train_labels": y,
            "test_labels": y_test,
            "test_logits": logits,
            "columns": np.array([0, 1, 2]),
            "cache": Cache(),
        }
        return NetworkFeatures(**{**fields, **changes})

    return make


@pytest.fixture(scope="session")
def curves() -> Callable[..., TrainingCurvesResult]:
    """Runs of 100 iterations whose losses fall in a straight line from 2 to their ends."""

    def make(*ends: float) -> TrainingCurvesResult:
        runs = np.arange(len(ends))
        return TrainingCurvesResult(
            names=np.array([f"run-{number}" for number in runs]),
            curve_run=np.repeat(runs, 100),
            iteration=np.tile(np.arange(1, 101), len(ends)),
            loss=np.concatenate([np.linspace(2, end, 100) for end in ends]),
            epoch_run=runs,
            epoch_iteration=np.full(len(ends), 100),
            test_accuracy=np.full(len(ends), 0.5),
            window=np.array(1),
        )

    return make
