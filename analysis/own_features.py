"""Features of one's own, of which there is no network here, opened for the studies that need none."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray

from analysis.cache import Cache
from analysis.features.arrays import LAYER, LabelledFeatures, labelled_features, read_arrays
from analysis.features.export import LABELS
from analysis.features.layers import NamedLayer, named_layers
from analysis.probes.network_features import NetworkFeatures
from analysis.results import Result, check_folder
from analysis.subjects import FeatureSubject
from irevnet.training.runs import results_folder
from irevnet.utils.distributed import choose_device
from irevnet.utils.files import write_text
from irevnet.utils.progress import Progress
from irevnet.utils.provenance import provenance

Source = str | Path | ndarray | Mapping[str, ndarray]
"""A file of features, one array of them, or several by name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnFeatures(FeatureSubject):
    """Features of one's own, as `open_features` returns them.

    Attributes:
        name: name of the features: of their file without its suffix.
        path: the file that they are from; `None` for arrays in memory.
        classes: names of the classes.
        content: the features and their labels.
        origin: files that they are from, with digests, as plain values.
        out: folder for the results; `None` for one beside the file.
        command: the command line, for the provenance of results.
        seed: seed of everything random, the choice of images for testing included.
        compute_on: device to compute on, `"auto"`, `"cpu"` or `"cuda"`.
        progress: how the work shows its progress.
    """

    name: str
    path: Path | None
    classes: tuple[str, ...]
    content: LabelledFeatures
    origin: Mapping[str, str | None]
    out: Path | None = None
    command: Sequence[str] = ()
    seed: int = 0
    compute_on: str = "auto"
    progress: Progress = Progress()

    @property
    def model_name(self) -> str:
        return self.name

    @property
    def data_name(self) -> str:
        return self.name if self.path is None else str(self.path)

    @property
    def device(self) -> str:
        return choose_device(self.compute_on)

    @property
    def folder(self) -> Path:
        """The folder of everything that is made of these features."""
        return results_folder(self.path or Path(self.name))

    def results_folder(self, study: str) -> Path:
        """See `analysis.subjects.Subject.results_folder`; raises `FileExistsError` for one that holds other files."""
        folder = self.out or self.folder / study
        check_folder(folder, study)
        return folder

    def train_labels(self) -> Sequence[int]:
        return self.content.train_labels.tolist()

    def layers(self, depths: Sequence[int] | None = None, names: Sequence[str] | None = None) -> list[NamedLayer]:
        return named_layers(list(self.content.train), depths=depths, names=names)

    def features(self, layers: Sequence[NamedLayer], study: str, *, label: str) -> NetworkFeatures:
        content = self.content
        return NetworkFeatures(
            name=label,
            layers=[layer.name for layer in layers],
            depths=[layer.depth for layer in layers],
            relative_depths=[layer.relative_depth for layer in layers],
            train=content.train,
            test=content.test,
            train_labels=content.train_labels,
            test_labels=content.test_labels,
            test_logits=np.zeros((len(content.test_labels), 0), dtype=np.float32),
            columns=None,
            cache=Cache(self.path and self.folder / "features" / self._digest() / study),
        )

    def _digest(self) -> str:
        """What the scores of a layer depend on beside the settings of its probes, for the name of a folder."""
        drawn = self.seed if self.content.held_out else None
        digests = self.origin["features_sha256"], self.origin.get("labels_sha256"), drawn
        return hashlib.sha256(str(digests).encode()).hexdigest()[:16]

    @classmethod
    def record(cls, subjects: Sequence["OwnFeatures"], result: Result) -> dict[str, Any]:
        """See `analysis.subjects.Subject.record`: the files of the features in place of a network."""
        records = [each._record() for each in subjects]
        return records[0] if len(records) == 1 else {"networks": records}

    def _record(self) -> dict[str, Any]:
        return {
            **provenance(self.command),
            **self.origin,
            "data": self.data_name,
            "classes": list(self.classes),
            "classes_studied": list(self.classes),
            "held_out": self.content.held_out,
            "seed": self.seed,
            "device": self.device,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        }

    def save_beside(self, folder: Path) -> None:
        """Writes the classes studied, one a line."""
        write_text(folder / "classes.txt", "".join(f"{name}\n" for name in self.classes))


def is_of_features(path: Path) -> bool:
    """Whether a path is that of a file of features, which has to exist only to be read, rather than of a folder."""
    return path.is_file() or path.suffix in (".npz", ".npy")


def open_features(
    features: Source,
    labels: str | Path | ndarray | None = None,
    *,
    name: str = "features",
    device: str = "auto",
    seed: int = 0,
    out: Path | None = None,
    command: Sequence[str] = (),
    progress: Progress = Progress(),
) -> OwnFeatures:
    """Opens features of one's own for `depth_probe`, `pca_sweep` and `measure_geometry`, which they enter like those of
    a network.

    Layers are in the order of the arrays. Without a test split a fifth of each class is held out, drawn by the seed.

    Args:
        features: arrays by name, as `analysis.features.arrays` calls them: `{"train/x": ..., "train/labels": ...,
            "test/x": ..., "test/labels": ...}`, or `{"x": ..., "labels": ...}`; an array `(images, dims)`; or an `.npz`
            or `.npy` file of the same.
        labels: the class of each image by number or name, `(images,)`, or an `.npy` file of it, where that is not
            among the arrays.
        name: name of the features that are in no file.
        device: `"auto"`, `"cpu"` or `"cuda"`.
        seed: seed of everything random.
        out: folder for the results; by default one beside the file.
        command: the command line, for the provenance of results.
        progress: how the work shows its progress.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: arrays are missing, of another kind or shape than the others, or not finite.

    >>> rng = np.random.default_rng(0)
    >>> open_features(rng.normal(size=(20, 3)), rng.permutation(np.arange(20) % 2)).classes
    ('0', '1')
    """
    arrays, origin = _read(features, "features")
    if labels is not None:
        if any(each.rpartition("/")[2] == LABELS for each in arrays):
            raise ValueError("`labels` were given, and the features have labels of their own; give one of them")
        if isinstance(labels, str | Path) and Path(labels).suffix != ".npy":
            raise ValueError(f"{labels} is no .npy file; give `labels` as one array")
        given, of_labels = _read(labels, "labels")
        arrays[LABELS] = given[LAYER]
        origin |= of_labels
    path = Path(features) if isinstance(features, str | Path) else None
    try:
        content = labelled_features(arrays, seed=seed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}" if path else str(error)) from error
    return OwnFeatures(
        name=path.stem if path else name,
        path=path,
        classes=content.classes,
        content=content,
        origin=origin,
        out=out,
        command=command,
        seed=seed,
        compute_on=device,
        progress=progress,
    )


def _read(source: Source, what: str) -> tuple[dict[str, ndarray], dict[str, str | None]]:
    """Arrays by name, and the file that they are from with its digest, or that of the arrays."""
    if isinstance(source, str | Path):
        arrays = read_arrays(Path(source))
        with open(source, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        return arrays, {what: str(source), f"{what}_sha256": digest.hexdigest()}
    arrays = {LAYER: source} if isinstance(source, ndarray) else dict(source)
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return arrays, {what: None, f"{what}_sha256": digest.hexdigest()}
