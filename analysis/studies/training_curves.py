"""Training loss against iterations, of several runs side by side (section 3.2, Fig. 3)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray

from analysis.experiment import Experiment, StudyOptions
from analysis.results import Result, TrainingCurvesResult, check_folder
from analysis.subjects import Subject
from irevnet.training.settings import RunSettings, read_settings
from irevnet.utils.lookup import names_apart
from irevnet.utils.provenance import provenance

LOSSES = "losses.csv"
"""File of a run with the loss of every iteration."""

WINDOW = 100
"""Iterations of the paper's moving average (section 3.2)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingRun(Subject):
    """The record of a training run.

    Attributes:
        name: name of the run in a result.
        folder: folder of the run.
        losses: training loss of every iteration, in nats, `(iterations,)`.
        epoch_iteration: number of iterations done at the end of each epoch, `(epochs,)`.
        test_accuracy: top-1 accuracy on the test set at the end of each epoch, `(epochs,)`.
        out: folder for the results; `None` for one in the run's folder.
        command: the command line, for the provenance of results.
    """

    name: str
    folder: Path
    losses: Float[ndarray, " iterations"]
    epoch_iteration: Int[ndarray, " epochs"]
    test_accuracy: Float[ndarray, " epochs"]
    out: Path | None = None
    command: Sequence[str] = ()

    def results_folder(self, study: str) -> Path:
        """See `Subject.results_folder`; raises `FileExistsError` for one that holds other files."""
        folder = self.out or self.folder / "analysis" / study
        check_folder(folder, study)
        return folder

    @classmethod
    def record(cls, subjects: Sequence["TrainingRun"], result: Result) -> dict[str, Any]:
        """See `Subject.record`."""
        runs = [describe_run(each.folder) for each in subjects]
        return {**provenance(subjects[0].command), "runs": runs, "window": result.summary()["window"]}


@dataclass(frozen=True, kw_only=True)
class TrainingCurvesOptions(StudyOptions):
    """Options of `training_curves`.

    Attributes:
        window: number of iterations that are averaged; 100 in the paper.
    """

    window: int = WINDOW

    @classmethod
    def sized(cls, experiment: Experiment):
        """A window no longer than the run."""
        losses = experiment.folder / LOSSES
        steps = losses.read_text(encoding="utf-8").count("\n") - 1 if losses.is_file() else 0
        return cls(window=steps) if 0 < steps < WINDOW else cls()


def training_curves(
    runs: Sequence[TrainingRun], options: TrainingCurvesOptions = TrainingCurvesOptions()
) -> TrainingCurvesResult:
    """Training losses as a moving average over the last iterations, and test accuracies after each epoch.

    Args:
        runs: records of the runs to compare, see `open_runs`.
        options: the length of the moving average.

    Raises `ValueError` for a run with fewer iterations than the average is over.
    """
    window = options.window
    for run in runs:
        if len(run.losses) < window:
            raise ValueError(
                f"{run.name} has {len(run.losses)} iterations; a moving average over {window} needs as many, lower "
                "`window`"
            )
    curves = [moving_average(run.losses, window) for run in runs]
    epochs = [len(run.epoch_iteration) for run in runs]
    numbers = np.arange(len(runs))
    return TrainingCurvesResult(
        names=np.array([run.name for run in runs]),
        curve_run=numbers.repeat([len(curve) for curve in curves]),
        iteration=np.concatenate([np.arange(window, window + len(curve)) for curve in curves]),
        loss=np.concatenate(curves),
        epoch_run=numbers.repeat(epochs),
        epoch_iteration=np.concatenate([run.epoch_iteration for run in runs]),
        test_accuracy=np.concatenate([run.test_accuracy for run in runs]),
        window=np.array(window),
    )


def moving_average(values: Float[ndarray, " n"], window: int) -> Float[ndarray, " m"]:
    """The mean of every `window` values in a row, the first one that of the first `window`.

    >>> moving_average(np.array([1.0, 2.0, 6.0, 4.0]), 2).tolist()
    [1.5, 4.0, 5.0]
    """
    return np.lib.stride_tricks.sliding_window_view(values.astype(np.float64), window).mean(axis=1)


def open_runs(folders: Sequence[Path], *, out: Path | None = None, command: Sequence[str] = ()) -> list[TrainingRun]:
    """Reads the records of runs, each named after its network or, where two share that, after its folder.

    Args:
        folders: folders of the runs, finished or not.
        out: folder for the results.
        command: the command line, for the provenance of results.

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
    return [_read_run(folder, name, out, command) for folder, name in zip(folders, names)]


def _data_of(settings: RunSettings) -> str:
    assert isinstance(settings.classes, tuple)
    return f"{len(settings.classes)} classes of {settings.data}"


def _read_run(folder: Path, name: str, out: Path | None, command: Sequence[str]) -> TrainingRun:
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
    return TrainingRun(
        name=name,
        folder=folder,
        losses=losses,
        epoch_iteration=steps.astype(np.int64),
        test_accuracy=accuracy,
        out=out,
        command=command,
    )


def describe_run(folder: Path) -> dict[str, str]:
    """What identifies the record of a run, for the provenance of a result."""
    digest = hashlib.sha256((folder / "losses.csv").read_bytes()).hexdigest()
    return {"run": str(folder), "losses_sha256": digest}
