"""An experiment: a trained network opened for study, the images it is shown, its features, and a folder for results."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from analysis.cache import Cache
from analysis.features.contents import contents_sha256
from analysis.features.extract import LOGITS, extract
from analysis.features.layers import Layer, network_layers
from analysis.features.outputs import last_linear
from analysis.features.pooling import Pool
from analysis.features.store import FeatureStore
from analysis.probes.network_features import NetworkFeatures
from analysis.probes.pca import MOST_DIMS
from analysis.results import Result, check_folder
from analysis.subjects import FeatureSubject
from irevnet.checkpoints.checkpoint import Checkpoint, describe, plain, weights_sha256
from irevnet.data.images import DataSource, LabelledImages
from irevnet.data.splits import Split, save_split
from irevnet.data.transforms import InputTransform
from irevnet.data.unreadable import save_skipped
from irevnet.training.runs import results_folder, run_folder, study_folder
from irevnet.training.settings import read_settings
from irevnet.utils.files import write_text
from irevnet.utils.modules import device_of
from irevnet.utils.progress import Progress
from irevnet.utils.provenance import provenance


@dataclass(frozen=True, kw_only=True)
class Experiment(FeatureSubject):
    """A network opened for study, as `analysis.opening.open_experiment` returns it.

    Attributes:
        name: name of the network: of its run's folder, of its checkpoint's file, or as torchvision has it.
        path: the checkpoint file; `None` for a network of torchvision whose weights are from no file.
        checkpoint: the network, on the device to compute on, with its input transform and class names.
        source: the data set that the images are from.
        classes: names of the classes studied, some or all of the data set's.
        out: folder for the results; `None` for one in the run's folder, or beside a file that belongs to no run.
        features_root: folder for the features, with one folder for each network; `None` for `features/` in `folder`.
        pool: how the output of a layer becomes one vector an image.
        command: the command line, for the provenance of results.
        seed: seed of everything random.
        batch_size: number of images in a forward pass.
        workers: number of processes that load images.
        progress: how the work shows its progress and is asked to stop.
    """

    name: str
    path: Path | None
    checkpoint: Checkpoint
    source: DataSource
    classes: tuple[str, ...]
    out: Path | None = None
    features_root: Path | None = None
    pool: Pool = "mean"
    command: Sequence[str] = ()
    seed: int = 0
    batch_size: int = 256
    workers: int = 0
    progress: Progress = Progress()

    @property
    def model_name(self) -> str:
        """Name of the architecture where the run has it, else that of the network."""
        run = run_folder(self.path) if self.path else None
        return read_settings(run).model if run else self.name

    @property
    def data_name(self) -> str:
        """Name of the data set that the images are from."""
        return self.source.name

    @property
    def device(self) -> str:
        """The device that the network is on."""
        return str(device_of(self.checkpoint.model))

    @property
    def folder(self) -> Path:
        """The folder of everything that is made of this network: its run's, or one beside its file."""
        return results_folder(self.path) if self.path else Path(f"{self.name}-analysis")

    def results_folder(self, study: str) -> Path:
        """See `Subject.results_folder`; raises `FileExistsError` for one that holds other files."""
        folder = self.out
        if folder is None:
            folder = study_folder(self.path, study) if self.path else self.folder / study
        check_folder(folder, study)
        return folder

    def train_labels(self) -> Sequence[int]:
        """Labels of the training images. Raises `ValueError` if the images have none."""
        self.source.check_labelled("the probes are trained on labels")
        return self.images("train").labels

    def images(self, split: Split, transform: InputTransform | None = None) -> LabelledImages:
        """The images of a split, as inputs of this network, or as another transform makes them."""
        return self.source.images(split, transform or self.checkpoint.transform, classes=self.classes)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The class that each logit stands for; its number, in brackets, where that is unknown."""
        return self.checkpoint.classes or tuple(f"({n})" for n in range(self.checkpoint.config.num_classes))

    @property
    def knows_its_classes(self) -> bool:
        """Whether the network is known to have an output for each of the classes studied."""
        return set(self.classes) <= set(self.output_names)

    def with_network_labels(self, images: LabelledImages) -> LabelledImages | None:
        """The images, labelled by the network's outputs; `None` unless it has one for each of the classes studied."""
        return images.relabelled(self.output_names) if self.knows_its_classes else None

    def layers(self, depths: Sequence[int] | None = None, names: Sequence[str] | None = None) -> list[Layer]:
        """Layers of the network, see `analysis.features.layers.network_layers`."""
        return network_layers(self.checkpoint.model, depths=depths, names=names)

    def store(self) -> FeatureStore:
        """The features of this network on these images, as far as they have been extracted.

        Raises `ValueError` if the folder for them holds those of other weights or images.
        """
        record = {**provenance(self.command), "checkpoint": str(self.path), "data": self.source.name}
        record |= {"device": self.device, "left_out": self.source.skipped}
        folder = self.folder / "features" if self.features_root is None else self.features_root / self.name
        name = self._images_name() if self.pool == "mean" else f"{self._images_name()}+{self.pool}"  # no data have a +
        return FeatureStore(folder / name, self.store_identity(), record=record)

    def store_identity(self) -> dict[str, Any]:
        """What features depend on, as plain values: weights, transform, classes, images, and how they are pooled."""
        return {
            **self.network_identity(),
            "classes": list(self.classes),
            "images_sha256": self.images_sha256(),
        }

    def network_identity(self) -> dict[str, Any]:
        """See `FeatureSubject.network_identity`: weights, transform, and how features are pooled."""
        described = plain(self.checkpoint)
        return {
            "weights_sha256": weights_sha256(self.checkpoint.model),
            **{key: described[key] for key in ("architecture", "config", "transform")},
            **self._pooled,
        }

    @property
    def _pooled(self) -> dict[str, str]:
        """How features are pooled, where they are not averages, of which nothing is said."""
        return {} if self.pool == "mean" else {"pool": self.pool}

    def images_sha256(self, splits: Sequence[Split] = ("train", "test")) -> dict[str, str]:
        """SHA-256 of the contents of each split's images, which are read again only if they were written to."""
        cache = Cache(self.folder / "contents" if self.folder.is_dir() else None)
        track = self.progress.track
        return {
            split: contents_sha256(self.images(split), cache, f"{self._images_name()}-{split}", track)
            for split in splits
            if split in self.source.splits
        }

    def _images_name(self) -> str:
        """Name of the images studied, for files and folders."""
        data = re.sub(r"[^\w.-]+", "-", Path(self.source.name).name)
        if self.classes != self.source.classes:
            digest = hashlib.sha256("\n".join(self.classes).encode()).hexdigest()[:8]
            data = f"{data}-{len(self.classes)}-classes-{digest}"
        if self.source.skipped:
            digest = hashlib.sha256(os.fsencode("\n".join(self.source.skipped))).hexdigest()[:8]
            data = f"{data}-without-{len(self.source.skipped)}-images-{digest}"
        if self.source.split:
            digest = hashlib.sha256(os.fsencode("\n".join(self.source.split.test))).hexdigest()[:8]
            data = f"{data}-split-{digest}"
        return data

    def extract(
        self,
        store: FeatureStore,
        layers: Sequence[Layer],
        *,
        part: tuple[int, int] = (1, 1),
        splits: Sequence[Split] = ("train", "test"),
        most_dims: int | None = None,
    ) -> int:
        """Extracts those features of the splits that the store lacks, and returns the number of images this took.

        Args:
            store: feature store that the features are written to.
            layers: layers of this network.
            part: (k, n) for the k-th of n equal parts of the images.
            splits: splits whose images are looked at, as far as the data have them.
            most_dims: most features of an image at a layer; `None` for any number.
        """
        return sum(
            extract(
                self.checkpoint.model,
                self.images(split),
                store,
                split,
                layers,
                pool=self.pool,
                most_dims=most_dims,
                part=part,
                batch_size=self.batch_size,
                workers=self.workers,
                track=self.progress.track,
            )
            for split in splits
            if split in self.source.splits
        )

    def features(self, layers: Sequence[Layer], study: str, *, label: str) -> NetworkFeatures:
        """The features of these layers, extracted where they are missing.

        Args:
            layers: layers of this network.
            study: name of the study, whose finished parts are kept beside the features.
            label: name of the network in the study's result.
        """
        store = self.store()
        self.extract(store, layers, most_dims=MOST_DIMS)
        known = self.output_names if self.knows_its_classes else None
        return NetworkFeatures(
            name=label,
            layers=[layer.name for layer in layers],
            depths=[layer.depth for layer in layers],
            relative_depths=[layer.relative_depth for layer in layers],
            train={layer.name: store.features("train", layer.name) for layer in layers},
            test={layer.name: store.features("test", layer.name) for layer in layers},
            train_labels=store.labels("train"),
            test_labels=store.labels("test"),
            test_logits=np.asarray(store.features("test", LOGITS)),
            columns=None if known is None else np.array([known.index(name) for name in self.classes]),
            cache=Cache(store.folder / study),
            classifier=last_linear(self.checkpoint.model, store.features("test", LOGITS).shape[1]),
        )

    @classmethod
    def record(cls, subjects: Sequence["Experiment"], result: Result) -> dict[str, Any]:
        """See `Subject.record`: that of the network or, of several, one for each."""
        records = [each._record(result) for each in subjects]
        return records[0] if len(records) == 1 else {"networks": records}

    def _record(self, result: Result) -> dict[str, Any]:
        return {
            **provenance(self.command),
            **describe(self.path, self.checkpoint),
            "data": self.source.name,
            "left_out": len(self.source.skipped or ()) or None,
            "classes_studied": list(self.classes),
            "images_sha256": self.images_sha256(result.SPLITS),
            **self._pooled,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "device": self.device,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        }

    def made(self, provenance: Mapping[str, Any], splits: Sequence[Split]) -> bool:
        """Whether a result with that provenance is up to date: of the same weights, transform, images of these splits,
        classes and seed."""
        described = json.loads(json.dumps(plain(self.checkpoint)))  # as provenance has it
        expected = {
            "weights_sha256": weights_sha256(self.checkpoint.model),
            "transform": described["transform"],
            "classes": described["classes"],
            "data": self.source.name,
            "left_out": len(self.source.skipped or ()) or None,
            "classes_studied": list(self.classes),
            "images_sha256": self.images_sha256(splits),
            "pool": self._pooled.get("pool"),
            "seed": self.seed,
        }
        return all(provenance.get(key) == value for key, value in expected.items())

    def save_beside(self, folder: Path) -> None:
        """Writes the classes studied, one a line, which images were skipped, and how a split was drawn."""
        write_text(folder / "classes.txt", "".join(f"{name}\n" for name in self.classes))
        save_skipped(folder, self.source.skipped)
        save_split(folder, self.source.split)


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Base of the options of studies.

    Attributes:
        MOST_CLASSES: number of classes that the study is sized for; `None` for any number.
        STOPS: whether the study asks `Progress.stop` after each step, so that it saves its work before it stops.
    """

    MOST_CLASSES: ClassVar[int | None] = None
    STOPS: ClassVar[bool] = False

    @classmethod
    def sized(cls, experiment: Experiment):
        """The options that suit the size of a network and its data."""
        return cls()


def only(experiments: Sequence[Experiment], study: str) -> Experiment:
    """The one experiment of a study that compares none; raises `ValueError` for any other number of them."""
    if len(experiments) != 1:
        raise ValueError(f"{len(experiments)} experiments were given; {study} takes one")
    return experiments[0]


def check_comparable(experiments: Sequence[Experiment]) -> None:
    """Raises `ValueError` unless all experiments look at the same classes and splits of the same data."""
    first = experiments[0]
    for other in experiments[1:]:
        if (other.source.name, other.classes) != (first.source.name, first.classes):
            raise ValueError(
                f"{other.name} is studied on {len(other.classes)} classes of {other.source.name}, {first.name} on "
                f"{len(first.classes)} of {first.source.name}; choose the same for all by `data` and `classes`"
            )
        splits = [each.source.split and (each.source.split.train, each.source.split.test) for each in (first, other)]
        if splits[0] != splits[1]:
            raise ValueError(
                f"{other.name} and {first.name} are studied on different splits of {first.source.name}, as each run "
                "keeps its own; train them on one split, or compare them on other data"
            )
