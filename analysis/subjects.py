"""What studies look at, where results of it are saved, and the features that the probes see of it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.features.layers import NamedLayer
from analysis.probes.network_features import NetworkFeatures
from analysis.probes.probing import ProbeOptions, check_neighbours
from analysis.results import Result
from irevnet.utils.lookup import names_apart
from irevnet.utils.progress import Progress


class Subject(ABC):
    """What studies look at: an `Experiment`, or the record of a training run."""

    @abstractmethod
    def results_folder(self, study: str) -> Path:
        """The folder for the results of a study, by the study's name."""

    @classmethod
    @abstractmethod
    def record(cls, subjects: Sequence[Any], result: Result) -> dict[str, Any]:
        """The provenance of a result of these subjects, as plain values."""

    def save_beside(self, folder: Path) -> None:  # noqa: B027
        """Writes what belongs beside the results in a folder; by default nothing."""


class FeatureSubject(Subject):
    """What studies of features look at: an `Experiment`, or features without a network
    (`analysis.own_features.OwnFeatures`).

    Attributes:
        name: name of the network or the features.
        classes: names of the classes studied.
        seed: seed of everything random.
        progress: how the work shows its progress and is asked to stop.
    """

    name: str
    classes: tuple[str, ...]
    seed: int
    progress: Progress

    @property
    @abstractmethod
    def model_name(self) -> str:
        """Name of the architecture, where it is known, else `name`."""

    @property
    @abstractmethod
    def data_name(self) -> str:
        """Name of the data that the features are of."""

    @property
    @abstractmethod
    def device(self) -> str:
        """The device to compute on."""

    def network_identity(self) -> dict[str, Any]:
        """What features depend on beside the images, as plain values; nothing where there is no network."""
        return {}

    @abstractmethod
    def train_labels(self) -> Sequence[int]:
        """Labels of the training images, which number the classes."""

    @abstractmethod
    def layers(self, depths: Sequence[int] | None = None, names: Sequence[str] | None = None) -> Sequence[NamedLayer]:
        """The layers, all that there are, those of some depths, or those of some names or patterns."""

    @abstractmethod
    def features(self, layers: Sequence[Any], study: str, *, label: str) -> NetworkFeatures:
        """The features of these layers.

        Args:
            layers: layers among those of `layers`.
            study: name of the study, whose finished parts are kept.
            label: name of the network or the features in the study's result.
        """


def save_result(subjects: Sequence[Subject], result: Result, *, wall_seconds: float | None = None) -> list[Path]:
    """Saves a result with its provenance into the folder of its first subject, and returns the files.

    Args:
        subjects: experiments or training runs of the result, all of one class.
        result: the result.
        wall_seconds: how long the study took, for the provenance.

    Raises `FileExistsError` if the folder holds anything but an earlier result of that study.
    """
    folder = subjects[0].results_folder(result.STUDY)
    record = type(subjects[0]).record(subjects, result)
    if wall_seconds is not None:
        for each in record.get("networks", [record]):
            each["wall_seconds"] = round(wall_seconds, 3)
    files = result.save(folder, record)
    subjects[0].save_beside(folder)
    return files


def labels_of(experiments: Sequence[FeatureSubject]) -> list[str]:
    """Names of the networks in a result: by architecture, or by `Experiment.name` where two share that."""
    return names_apart([each.model_name for each in experiments], [each.name for each in experiments])


def network_features(
    experiments: Sequence[FeatureSubject],
    layers: Sequence[Sequence[NamedLayer]],
    study: str,
    options: ProbeOptions = ProbeOptions(),
    *,
    parts: str | None = None,
) -> list[NetworkFeatures]:
    """The features of several networks, each at its own layers, for a study of that name with these probes.

    Finished parts are kept with those of the study, or with the `parts` of another one that has the same.

    Raises `ValueError` for classes that no probe can separate: a single one, or one with too few training images.
    """
    for each in experiments:
        each.results_folder(study)  # raises before the work begins
        _check_counts(each, options)
    labels = labels_of(experiments)
    kept = parts or study
    return [each.features(chosen, kept, label=label) for each, chosen, label in zip(experiments, layers, labels)]


def _check_counts(experiment: FeatureSubject, options: ProbeOptions) -> None:
    data, classes = experiment.data_name, experiment.classes
    counts = np.bincount(experiment.train_labels(), minlength=len(classes))
    rarest = int(counts.argmin())
    if len(counts) < 2:
        raise ValueError(f"{data} has one class, {classes[0]!r}; the probes need at least two")
    if counts[rarest] < (options.shots or 1):
        wanted = f", but `shots` asks for {options.shots} of each class; lower it" if options.shots else "; add some"
        raise ValueError(
            f"class {classes[rarest]!r} of {data} has {counts[rarest]} training images{wanted}, or leave that class out"
        )
    check_neighbours(counts, options)
