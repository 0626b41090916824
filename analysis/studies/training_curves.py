"""Training loss against iterations, of several runs side by side (section 3.2, Fig. 3)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray

from analysis.results import TrainingCurvesResult
from irevnet.training.settings import RunSettings, read_settings
from irevnet.utils.lookup import names_apart


@dataclass(frozen=True, eq=False)
class History:
    """What a run recorded.

    Attributes:
        name: of the run.
        losses: training loss of every iteration, in nats, `(iterations,)`.
        epoch_iteration: iterations done at the end of each epoch, `(epochs,)`.
        test_accuracy: top-1 on the test set then, `(epochs,)`.
    """

    name: str
    losses: Float[ndarray, " iterations"]
    epoch_iteration: Int[ndarray, " epochs"]
    test_accuracy: Float[ndarray, " epochs"]


WINDOW = 100
"""Iterations of the paper's moving average (section 3.2)."""


def training_curves(histories: Sequence[History], *, window: int = WINDOW) -> TrainingCurvesResult:
    """The losses as a moving average over the last `window` iterations (100 in the paper).

    Raises `ValueError` for a run with fewer iterations than that.
    """
    for history in histories:
        if len(history.losses) < window:
            raise ValueError(
                f"{history.name} has {len(history.losses)} iterations; a moving average over {window} needs as many, "
                "take a smaller window"
            )
    curves = [moving_average(history.losses, window) for history in histories]
    epochs = [len(history.epoch_iteration) for history in histories]
    runs = np.arange(len(histories))
    return TrainingCurvesResult(
        names=np.array([history.name for history in histories]),
        curve_run=runs.repeat([len(curve) for curve in curves]),
        iteration=np.concatenate([np.arange(window, window + len(curve)) for curve in curves]),
        loss=np.concatenate(curves),
        epoch_run=runs.repeat(epochs),
        epoch_iteration=np.concatenate([history.epoch_iteration for history in histories]),
        test_accuracy=np.concatenate([history.test_accuracy for history in histories]),
        window=np.array(window),
    )


def moving_average(values: Float[ndarray, " n"], window: int) -> Float[ndarray, " m"]:
    """The mean of every `window` values in a row, the first one that of the first `window`.

    >>> moving_average(np.array([1.0, 2.0, 6.0, 4.0]), 2).tolist()
    [1.5, 4.0, 5.0]
    """
    return np.lib.stride_tricks.sliding_window_view(values.astype(np.float64), window).mean(axis=1)


def read_histories(folders: Sequence[Path]) -> list[History]:
    """What the runs in these folders recorded; each is called by its network or, where two share it, by its folder.

    Raises:
        FileNotFoundError: a folder holds no run, or one that has recorded nothing.
        ValueError: the runs were not trained on the same classes of the same data.
    """
    settings = [read_settings(folder) for folder in folders]
    for folder, other in zip(folders, settings):
        if (other.data, other.classes) != (settings[0].data, settings[0].classes):
            raise ValueError(
                f"{folder} was trained on {_data_of(other)}, {folders[0]} on {_data_of(settings[0])}; give runs on the "
                "same data"
            )
    names = names_apart([each.model for each in settings], [folder.resolve().name for folder in folders])
    return [_read_history(folder, name) for folder, name in zip(folders, names)]


def _data_of(settings: RunSettings) -> str:
    assert isinstance(settings.classes, tuple)
    return f"{len(settings.classes)} classes of {settings.data}"


def _read_history(folder: Path, name: str) -> History:
    tables = {}
    for file, columns in {"losses.csv": ["loss"], "metrics.csv": ["step", "test_top1"]}.items():
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder} holds no {file}: that run has recorded nothing yet; go on with it")
        try:
            table = pd.read_csv(folder / file, index_col=False)
            tables[file] = [table[name].to_numpy(np.float64) for name in columns]
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{folder / file} is damaged: {error}") from error
    (losses,), (steps, accuracy) = tables["losses.csv"], tables["metrics.csv"]
    if not (abs(steps) < 2**53).all():
        raise ValueError(f"{folder / 'metrics.csv'} is of no run: expected a number of steps in every line")
    return History(name=name, losses=losses, epoch_iteration=steps.astype(np.int64), test_accuracy=accuracy)


def describe_run(folder: Path) -> dict[str, str]:
    """What identifies the record of a run, for the provenance of a result."""
    digest = hashlib.sha256((folder / "losses.csv").read_bytes()).hexdigest()
    return {"run": str(folder), "losses_sha256": digest}
