"""What all studies share: a trained network, images to show it, their features, and a folder for the results."""

import hashlib
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.cache import Cache
from analysis.features.contents import contents_sha256
from analysis.features.extract import LOGITS, Layer, extract, network_layers
from analysis.features.store import FeatureStore
from analysis.probes.network_features import NetworkFeatures
from analysis.probes.svm_selection import FOLDS
from analysis.results import Result, check_folder
from irevnet.checkpoints.checkpoint import (
    CLASS_NAMES,
    IMAGE_SIZE,
    NORMALISATION,
    Checkpoint,
    describe,
    plain,
    read_checkpoint,
    weights_sha256,
)
from irevnet.checkpoints.foreign import TorchvisionConfig, build_torchvision
from irevnet.data.datasets import choose_classes, load_dataset
from irevnet.data.image_folder import OnError, read_left_out, save_left_out
from irevnet.data.images import DataSource, LabelledImages, Split, is_imagenet
from irevnet.data.transforms import InputTransform
from irevnet.training.runs import find_checkpoint, results_folder, study_folder
from irevnet.training.settings import read_settings
from irevnet.utils.distributed import choose_device
from irevnet.utils.files import write_text
from irevnet.utils.lookup import names_apart
from irevnet.utils.modules import device_of
from irevnet.utils.progress import Track, no_progress
from irevnet.utils.provenance import provenance

TORCHVISION = "torchvision:"
"""What names of torchvision's networks begin with."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A network opened for study.

    Attributes:
        name: of the network: its run's folder, its checkpoint's file, or what torchvision calls it.
        path: the checkpoint file; `None` for a network of torchvision whose weights are from no file.
        checkpoint: what it holds, the network on the device to compute on.
        source: the data whose images are looked at.
        classes: those of its classes that are looked at.
        out: folder for the results; `None` puts them into the run's folder, or beside a file that belongs to no run.
        features_root: folder for the features, in a folder each by network; `None` puts them beside the results.
        command: the command line, for the provenance of results.
        seed: of everything random.
        batch_size: images a forward pass.
        workers: processes that load images.
        track: shows progress.
        started: when the study began, in seconds of `time.perf_counter`.
    """

    name: str
    path: Path | None
    checkpoint: Checkpoint
    source: DataSource
    classes: tuple[str, ...]
    out: Path | None = None
    features_root: Path | None = None
    command: Sequence[str] = ()
    seed: int = 0
    batch_size: int = 256
    workers: int = 0
    track: Track = no_progress
    started: float = field(default_factory=time.perf_counter)

    @property
    def model_name(self) -> str:
        """The architecture's name, where the run tells it."""
        run = self.path is not None and (self.path.parent / "config.json").is_file()
        return read_settings(self.path.parent).model if self.path and run else self.name

    @property
    def device(self) -> str:
        """Where the network is."""
        return str(device_of(self.checkpoint.model))

    @property
    def home(self) -> Path:
        """The folder for all that is made of this network."""
        return results_folder(self.path) if self.path else Path(f"{self.name}-analysis")

    def images(self, split: Split, transform: InputTransform | None = None) -> LabelledImages:
        """A split of the data set, as inputs for this network; by another transform than its own, if one is given."""
        return self.source.images(split, transform or self.checkpoint.transform, classes=self.classes)

    @property
    def knows_its_classes(self) -> bool:
        """Whether the network has an output for each of the classes looked at, as far as its outputs have names."""
        return self._known_classes() is not None

    def with_network_labels(self, images: LabelledImages) -> LabelledImages | None:
        """The images with labels in the order of the network's logits; `None` if it does not know all their classes."""
        known = self._known_classes()
        return None if known is None else images.relabelled(known)

    def _known_classes(self) -> tuple[str, ...] | None:
        """What the network's logits stand for, if these include the classes looked at."""
        known = self.answers()
        return known if set(self.classes) <= set(known) else None

    def answers(self) -> tuple[str, ...]:
        """What the network's logits stand for; their numbers, in brackets, where that is not known."""
        return self.checkpoint.classes or tuple(f"({n})" for n in range(self.checkpoint.config.num_classes))

    def passes(self) -> dict[str, Any]:
        """How images go through the network: options that every function which shows it images takes."""
        return {"batch_size": self.batch_size, "workers": self.workers, "track": self.track}

    def computing(self) -> dict[str, Any]:
        """Where and how the probes compute: options that every function which takes features takes."""
        return {"seed": self.seed, "device": self.device, "track": self.track}

    def layers(self, depths: Sequence[int] | None = None, names: Sequence[str] | None = None) -> list[Layer]:
        """The blocks of the network, see `analysis.features.extract.network_layers`."""
        return network_layers(self.checkpoint.model, depths=depths, names=names)

    def store(self) -> FeatureStore:
        """The features of this network on these images, so far as they have been extracted.

        Raises `ValueError` if the folder for them holds those of other weights or images.
        """
        record = {**provenance(self.command), "checkpoint": str(self.path), "data": self.source.name}
        more = {"device": self.device, "left_out": self.source.left_out}
        folder = self.home / "features" if self.features_root is None else self.features_root / self.name
        return FeatureStore(folder / self._images_name(), self.store_identity(), record=record | more)

    def _images_name(self) -> str:
        """What the images looked at are called in names of files and folders."""
        data = re.sub(r"[^\w.-]+", "-", Path(self.source.name).name)
        if self.classes != self.source.classes:
            digest = hashlib.sha256("\n".join(self.classes).encode()).hexdigest()[:8]
            data = f"{data}-{len(self.classes)}-classes-{digest}"
        if self.source.left_out:
            digest = hashlib.sha256(os.fsencode("\n".join(self.source.left_out))).hexdigest()[:8]
            data = f"{data}-without-{len(self.source.left_out)}-images-{digest}"
        return data

    def images_sha256(self, splits: Sequence[str] = ("train", "test")) -> dict[str, str]:
        """Identifies the images of each split by their contents, of which is kept what they were."""
        kept = {split: self.home / "contents" / f"{self._images_name()}-{split}.json" for split in splits}
        return {split: contents_sha256(self.images(split), kept[split], self.track) for split in kept}  # type: ignore[arg-type]

    def store_identity(self) -> dict[str, Any]:
        """What has to be the same for features to be the same."""
        described = plain(self.checkpoint)
        return {
            "weights_sha256": weights_sha256(self.checkpoint.model),
            **{key: described[key] for key in ("architecture", "config", "transform")},
            "classes": list(self.classes),
            "images_sha256": self.images_sha256(),
        }

    def extract(self, store: FeatureStore, layers: Sequence[Layer], *, part: tuple[int, int] = (1, 1)) -> int:
        """Fills the store with the features of both splits that it does not have; returns how many images that took."""
        model = self.checkpoint.model
        return sum(
            extract(model, self.images(split), store, split, layers, part=part, **self.passes())
            for split in ("train", "test")
        )

    def features(self, layers: Sequence[Layer], result: type[Result], *, label: str) -> NetworkFeatures:
        """The features of these layers, extracted if they are not there.

        Args:
            layers: of the network.
            result: of the study, which keeps what it found at each layer beside the features.
            label: what the network is called in it.
        """
        store = self.store()
        self.extract(store, layers)
        known = self._known_classes()
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
            cache=Cache(store.folder / result.STUDY),
        )

    def folder(self, result: type[Result]) -> Path:
        """The folder for the results; called before the work, it refuses one that they cannot go to."""
        folder = self.out
        if folder is None:
            folder = study_folder(self.path, result.STUDY) if self.path else self.home / result.STUDY
        check_folder(folder, result.STUDY)
        return folder

    def record(self, result: type[Result]) -> dict[str, Any]:
        """The provenance of a result of that class: the network, the data and the settings."""
        return {
            **provenance(self.command),
            **describe(self.path, self.checkpoint),
            "data": self.source.name,
            "left_out": len(self.source.left_out or ()) or None,
            "classes_studied": list(self.classes),
            "images_sha256": self.images_sha256(result.SPLITS),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "device": self.device,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "wall_seconds": round(time.perf_counter() - self.started, 3),
        }

    def save(self, result: Result) -> list[Path]:
        """Saves a result with its provenance, and returns the files."""
        return save_comparison([self], result)


def open_experiment(
    ckpt: str | Path | None = None,
    *,
    model: str | None = None,
    data: str | None = None,
    data_root: str | Path = "data",
    download: bool = False,
    on_error: OnError = "stop",
    classes: int | tuple[str, ...] | None = None,
    class_seed: int = 0,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    exact: bool = False,
    bits: int = 14,
    device: str = "auto",
    **options: Any,
) -> Experiment:
    """Opens a network and its data or other.

    The classes looked at are those that the network knows or, of data whose classes it does not know, all; or some
    of these, by number or by name.

    Args:
        ckpt: a checkpoint file, a run's folder, or a network of torchvision as in `model`; `None` for the newest
            run.
        model: a network of torchvision, `torchvision:resnet50`; with weights from the file `ckpt`, pretrained as
            in `torchvision:resnet50/DEFAULT`, or fresh ones.
        data: the data to look at; for networks of torchvision it has to be given.
        data_root: where the files of a data set by name are.
        download: fetch them if they are not there.
        on_error: what to do about images that cannot be read, see `irevnet.data.datasets.load_dataset`. Those that a
            run left out of its data are left out here without being asked for.
        classes: how many classes to look at, or which.
        class_seed: of their draw.
        image_size: height and width of the images shown to a network that does not say it: one of torchvision, or
            of the authors' release.
        mean: subtracted from each channel, in units of [0, 1], for a network that does not say it.
        std: divides each channel after that.
        class_names: what the outputs of the network stand for, in their order.
        exact: study the network in exact arithmetic, on a lattice of `bits` bits (`irevnet.models.exact`).
        bits: of that lattice.
        device: where to compute.
        options: other attributes of a study.

    Raises:
        FileNotFoundError: there is no such checkpoint or data.
        ValueError: what was named does not exist or does not fit.
    """
    if model is not None and not model.startswith(TORCHVISION):
        raise ValueError(
            f"--model {model} is no network of torchvision, such as torchvision:resnet50; those of this toolkit "
            "come with their checkpoint, --ckpt"
        )
    reading: dict[str, Any] = {"root": data_root, "download": download, "on_error": on_error}
    reading |= {name: options[name] for name in ("workers", "track") if name in options}
    foreign = model or (ckpt if isinstance(ckpt, str) and ckpt.startswith(TORCHVISION) else None)
    if foreign is None:
        path = find_checkpoint(None if ckpt is None else Path(ckpt))
        checkpoint = read_checkpoint(path)
        name = checkpoint.data if data is None else data
        if name == checkpoint.data:
            reading["left_out"] = read_left_out(results_folder(path))
        source = load_dataset(name, **reading)
        if image_size is not None:
            checkpoint = _with_image_size(path, checkpoint, source, image_size)
    else:
        if data is None:
            raise ValueError(f"{foreign} was trained by others; name the images to look at with --data")
        path = None if ckpt is None or ckpt == foreign else Path(ckpt)
        source = load_dataset(data, **reading)
        checkpoint = _open_torchvision(foreign, source, path, image_size, seed=options.get("seed", 0))
    name = results_folder(path).resolve().name.removesuffix("-analysis") if path else foreign or ""
    name = name.removeprefix(TORCHVISION).replace("/", "-")
    checkpoint = _with_normalisation(name, checkpoint, mean, std)
    checkpoint = _with_class_names(name, checkpoint, source, class_names)
    if exact:
        checkpoint = replace(checkpoint, model=checkpoint.irevnet.exact(bits=bits))
    checkpoint.model.to(choose_device(device))
    known = checkpoint.classes if set(checkpoint.classes) <= set(source.classes) else ()
    known = known or source.classes
    chosen = known if classes is None else choose_classes(source, classes, seed=class_seed, among=known)
    return Experiment(name=name, path=path, checkpoint=checkpoint, source=source, classes=chosen, **options)


def _open_torchvision(
    name: str, source: DataSource, file: Path | None, image_size: int | None, *, seed: int
) -> Checkpoint:
    """A network of torchvision, as if it were that of a checkpoint; weights that are fresh are drawn by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network, transform = build_torchvision(name.removeprefix(TORCHVISION), source, file=file, image_size=image_size)
    guessed = () if file is None else (NORMALISATION,) if image_size else (IMAGE_SIZE, NORMALISATION)
    return Checkpoint(model=network, transform=transform, data=source.name, classes=(), metrics={}, guessed=guessed)


def _without(checkpoint: Checkpoint, guess: str) -> tuple[str, ...]:
    return tuple(each for each in checkpoint.guessed if each != guess)


def _with_image_size(path: Path, checkpoint: Checkpoint, source: DataSource, size: int) -> Checkpoint:
    """The network of a file that does not say how large its images are."""
    if IMAGE_SIZE not in checkpoint.guessed:
        height, width = checkpoint.transform.image_size
        raise ValueError(f"{path} says that its images are {height} x {width}; leave --image-size out")
    model = checkpoint.irevnet
    model.config = replace(model.config, input_shape=(model.config.input_shape[0], size, size))
    resize = source.transform(image_size=size).resize
    transform = replace(checkpoint.transform, image_size=(size, size), resize=resize)
    return replace(checkpoint, transform=transform, guessed=_without(checkpoint, IMAGE_SIZE))


def _with_normalisation(
    name: str, checkpoint: Checkpoint, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Checkpoint:
    """The network with another mean and deviation of its input, if it does not say them."""
    if mean is None and std is None:
        return checkpoint
    if mean is None or std is None:
        raise ValueError("--mean and --std belong together; give both, in units of [0, 1]")
    if NORMALISATION not in checkpoint.guessed and not isinstance(checkpoint.config, TorchvisionConfig):
        raise ValueError(f"{name} says by what its images are normalised; leave --mean and --std out")
    transform = replace(checkpoint.transform, mean=tuple(mean), std=tuple(std))
    return replace(checkpoint, transform=transform, guessed=_without(checkpoint, NORMALISATION))


def _with_class_names(name: str, checkpoint: Checkpoint, source: DataSource, names: Sequence[str] | None) -> Checkpoint:
    """The network with these names for its outputs; without any, those of ImageNet's folders, if the data are these."""
    outputs = checkpoint.config.num_classes
    if names is None:
        if checkpoint.classes or outputs != len(source.classes) or not is_imagenet(source.classes):
            return checkpoint
        guessed = (*checkpoint.guessed, CLASS_NAMES)
        return replace(checkpoint, classes=tuple(sorted(source.classes)), guessed=guessed)
    if len(names) != outputs:
        raise ValueError(f"--class-names lists {len(names)} names, but {name} has {outputs} outputs; list one for each")
    if repeated := sorted({each for each in names if list(names).count(each) > 1}):
        raise ValueError(f"--class-names lists {repeated[0]!r} more than once; tell the outputs apart")
    return replace(checkpoint, classes=tuple(names))


def check_comparable(studies: Sequence[Experiment]) -> None:
    """Raises `ValueError` unless all look at the same classes of the same data."""
    first = studies[0]
    for other in studies[1:]:
        if (other.source.name, other.classes) != (first.source.name, first.classes):
            raise ValueError(
                f"{other.name} looks at {len(other.classes)} classes of {other.source.name}, {first.name} at "
                f"{len(first.classes)} of {first.source.name}; name the same for all with --data and --classes"
            )


def network_features(
    studies: Sequence[Experiment], layers: Sequence[Sequence[Layer]], result: type[Result]
) -> list[NetworkFeatures]:
    """The features of several networks, each at its own layers, called by the model where no two share it.

    Raises `ValueError` for classes that cannot be told apart: a single one, or too few training images of one.
    """
    for study in studies:
        study.folder(result)  # refuses one that results cannot go to before the work begins
        _check_counts(study)
    labels = names_apart([study.model_name for study in studies], [study.name for study in studies])
    return [study.features(at, result, label=label) for study, at, label in zip(studies, layers, labels)]


def _check_counts(study: Experiment) -> None:
    counts = np.bincount(study.images("train").labels, minlength=len(study.classes))
    rarest = int(counts.argmin())
    if len(counts) < 2:
        raise ValueError(f"{study.source.name} has one class, {study.classes[0]!r}; the probes tell two or more apart")
    if counts[rarest] < FOLDS:
        raise ValueError(
            f"{study.classes[rarest]!r} of {study.source.name} has {counts[rarest]} of the {FOLDS} training images "
            "that cross-validation needs of each class; add some, or choose other classes with --classes"
        )


def save_comparison(studies: Sequence[Experiment], result: Result) -> list[Path]:
    """Saves a result of one or several networks in the folder of the first, and returns the files.

    The classes looked at are written beside it, as a file that `--classes` takes, and so are images that were left out.
    """
    records = [study.record(type(result)) for study in studies]
    folder = studies[0].folder(type(result))
    files = result.save(folder, records[0] if len(records) == 1 else {"networks": records})
    write_text(folder / "classes.txt", "".join(f"{name}\n" for name in studies[0].classes))
    save_left_out(folder, studies[0].source.left_out)
    return files
