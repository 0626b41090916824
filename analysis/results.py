"""Results of the studies, in memory and on disk: arrays (`.npz`), a tidy table (`.csv`) and provenance (`.json`)."""

import dataclasses
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from irevnet.files import atomic_write, write_json


@dataclass(frozen=True, eq=False)
class Result(ABC):
    """What every study returns: a frozen dataclass of NumPy arrays with a name, a table and headline numbers."""

    STUDY: ClassVar[str]

    @abstractmethod
    def table(self) -> pd.DataFrame:
        """The result as a tidy table, one observation a row."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """The headline numbers, as plain values for JSON."""

    def save(self, folder: Path, provenance: Mapping[str, Any]) -> list[Path]:
        """Writes STUDY.npz, STUDY.csv and STUDY.json, each atomically; the last one marks the result as complete.

        Raises `FileExistsError` if the folder holds files but no earlier result of this study.
        """
        check_folder(folder, self.STUDY)
        folder.mkdir(parents=True, exist_ok=True)
        arrays, table, mark = (folder / f"{self.STUDY}.{suffix}" for suffix in ("npz", "csv", "json"))
        mark.unlink(missing_ok=True)
        with atomic_write(arrays) as temporary:
            np.savez(temporary, **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
        with atomic_write(table) as temporary:
            self.table().to_csv(temporary, index=False)
        write_json(mark, {"study": self.STUDY, "summary": self.summary(), "provenance": dict(provenance)})
        return [arrays, table, mark]

    @classmethod
    def load(cls, folder: Path):
        """Reads a saved result.

        Raises `FileNotFoundError` if the folder holds no complete result of this study, `ValueError` if its arrays are
        damaged or not this study's.
        """
        path = folder / f"{cls.STUDY}.npz"
        if not path.is_file() or not (folder / f"{cls.STUDY}.json").is_file():
            raise FileNotFoundError(f"{folder} holds no complete result of {cls.STUDY}; run the study first")
        names = [field.name for field in dataclasses.fields(cls)]
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                return cls(**{name: arrays[name] for name in names})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is damaged, or not a result of {cls.STUDY}: {error}") from error


def check_folder(folder: Path, study: str) -> None:
    """Raises `FileExistsError` unless results of that study can be written to the folder without mixing with others."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; name a folder for the results")
    if folder.is_dir() and any(folder.iterdir()) and not any(folder.glob(f"{study}.*")):
        raise FileExistsError(f"{folder} holds other files; name a folder that is new, empty or of an earlier {study}")


@dataclass(frozen=True, eq=False)
class DepthProbeResult(Result):
    """Accuracy of a linear SVM and of 1-NN on spatially averaged features, against depth (section 5.1, Fig. 6).

    Attributes:
        depths: the blocks j probed, `(J,)`.
        svm_accuracy: share of test images that the linear SVM classifies right, `(J,)`.
        svm_interval: its 95% Wilson interval, lower and upper end, `(J, 2)`.
        nn_accuracy: the same of the nearest neighbour, `(J,)`.
        nn_interval: its 95% Wilson interval, `(J, 2)`.
        svm_cost: the SVM's C, cross-validated at each depth, `(J,)`.
        svm_gap: certified bound of how far, relatively, the SVM's objective lies above its minimum, of the worst class
            at each depth, `(J,)`; NaN where the solver gives none.
        cost_grid: the values of C tried, in increasing order, `(costs,)`.
        cv_accuracy: mean cross-validated accuracy at each depth for each of them, `(J, costs)`.
        channels: of the features, the dimension that the probes see, `(J,)`.
        network_accuracy: the network's own top-1 on the same test images, `()`; NaN where it has other classes.
        num_train: training images, `()`.
        num_test: test images, `()`.
    """

    STUDY: ClassVar[str] = "depth-probe"

    depths: Int[ndarray, " J"]
    svm_accuracy: Float[ndarray, " J"]
    svm_interval: Float[ndarray, "J 2"]
    nn_accuracy: Float[ndarray, " J"]
    nn_interval: Float[ndarray, "J 2"]
    svm_cost: Float[ndarray, " J"]
    svm_gap: Float[ndarray, " J"]
    cost_grid: Float[ndarray, " costs"]
    cv_accuracy: Float[ndarray, "J costs"]
    channels: Int[ndarray, " J"]
    network_accuracy: Float[ndarray, ""]
    num_train: Int[ndarray, ""]
    num_test: Int[ndarray, ""]

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "depth": self.depths,
                "channels": self.channels,
                "svm_accuracy": self.svm_accuracy,
                "svm_accuracy_low": self.svm_interval[:, 0],
                "svm_accuracy_high": self.svm_interval[:, 1],
                "nn_accuracy": self.nn_accuracy,
                "nn_accuracy_low": self.nn_interval[:, 0],
                "nn_accuracy_high": self.nn_interval[:, 1],
                "svm_cost": self.svm_cost,
                "svm_gap": self.svm_gap,
            }
        )

    def summary(self) -> dict[str, Any]:
        return {
            "network_accuracy": None if np.isnan(self.network_accuracy) else float(self.network_accuracy),
            "num_train": int(self.num_train),
            "num_test": int(self.num_test),
            "cost_grid": self.cost_grid.tolist(),
            "depths_at_edge_of_cost_grid": self.depths[self._at_edge()].tolist(),
            "by_depth": self.table().to_dict(orient="records"),
        }

    def _at_edge(self) -> ndarray:
        """Where the least or the largest C beats those between, so that one beyond the grid may be better still."""
        inside = self.cv_accuracy[:, 1:-1].max(axis=1, initial=0)
        first, last = self.cv_accuracy[:, 0], self.cv_accuracy[:, -1]
        return np.maximum(first, last) > inside


@dataclass(frozen=True, eq=False)
class InversionResult(Result):
    """Relative reconstruction error ||x - Phi^-1 Phi x|| / ||x|| of network inputs x (section 4.2).

    Attributes:
        image_errors: of each test image, `(images,)`; NaN for an image that is exactly zero, which has no relative
            error.
        noise_errors: of each image of uniform noise, `(noises,)`.
        originals: pixel values in [0, 1] of the images pictured, test images first, `(shown, c, h, w)`.
        reconstructions: of the same images, from their features, `(shown, c, h, w)`.
        shown_errors: relative errors of the images pictured, `(shown,)`.
        num_image_shown: how many of them are test images, the others being noise, `()`.
        depth: the depth inverted from, `()`.
    """

    STUDY: ClassVar[str] = "invert"

    image_errors: Float[ndarray, " images"]
    noise_errors: Float[ndarray, " noises"]
    originals: Float[ndarray, "shown c h w"]
    reconstructions: Float[ndarray, "shown c h w"]
    shown_errors: Float[ndarray, " shown"]
    num_image_shown: Int[ndarray, ""]
    depth: Int[ndarray, ""]

    def table(self) -> pd.DataFrame:
        errors = {"test images": self.image_errors, "uniform noise": self.noise_errors}
        return pd.concat(
            [
                pd.DataFrame({"set": name, "index": np.arange(len(values)), "relative_error": values})
                for name, values in errors.items()
            ],
            ignore_index=True,
        )

    def summary(self) -> dict[str, Any]:
        return {
            "depth": int(self.depth),
            "images": _statistics(self.image_errors),
            "noise": _statistics(self.noise_errors),
        }


@dataclass(frozen=True, eq=False)
class TrainingCurvesResult(Result):
    """Training loss against iterations, and test accuracy after each epoch, of several runs on the same data (Fig. 3).

    Attributes:
        names: of the runs, `(runs,)`.
        curve_run: to which run each point of the curves belongs, `(points,)`.
        iteration: the iterations done at that point, `(points,)`.
        loss: mean cross-entropy of the last `window` iterations up to it, in nats, `(points,)`.
        epoch_run: to which run each epoch belongs, `(epochs,)`.
        epoch_iteration: the iterations done at its end, `(epochs,)`.
        test_accuracy: top-1 on the test set then, `(epochs,)`.
        window: iterations that are averaged, `()`.
    """

    STUDY: ClassVar[str] = "training-curves"

    names: Shaped[ndarray, " runs"]
    curve_run: Int[ndarray, " points"]
    iteration: Int[ndarray, " points"]
    loss: Float[ndarray, " points"]
    epoch_run: Int[ndarray, " epochs"]
    epoch_iteration: Int[ndarray, " epochs"]
    test_accuracy: Float[ndarray, " epochs"]
    window: Int[ndarray, ""]

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(
            {"run": self.names[self.curve_run], "iteration": self.iteration, f"loss_mean_{self.window}": self.loss}
        )

    def summary(self) -> dict[str, Any]:
        return {"window": int(self.window), "runs": [self._summary_of(run) for run in range(len(self.names))]}

    def _summary_of(self, run: int) -> dict[str, Any]:
        """The loss at each quarter of the run, and the last test accuracy; `None` before the end of the first epoch."""
        loss = self.loss[self.curve_run == run]
        quarters = [round(part * len(loss)) - 1 for part in (0.25, 0.5, 0.75, 1)]
        accuracy = self.test_accuracy[self.epoch_run == run]
        return {
            "name": str(self.names[run]),
            "iterations": int(self.iteration[self.curve_run == run][-1]),
            "loss_at_quarters": [float(loss[max(0, at)]) for at in quarters],
            "test_accuracy": float(accuracy[-1]) if len(accuracy) else None,
        }


def _statistics(errors: Shaped[ndarray, " n"]) -> dict[str, float | int]:
    defined = errors[~np.isnan(errors)].astype(np.float64)
    if len(defined) == 0:
        return {"count": 0, "undefined": len(errors)}
    return {
        "count": len(defined),
        "undefined": len(errors) - len(defined),
        "mean": float(defined.mean()),
        "median": float(np.median(defined)),
        "max": float(defined.max()),
    }
