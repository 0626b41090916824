"""What all studies share: a trained network, images to show it, and a folder for the results."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.results import Result, check_folder
from irevnet.checkpoint import Checkpoint, describe, read_checkpoint
from irevnet.data import DataSource, LabelledImages, Split, choose_classes, open_data
from irevnet.provenance import provenance
from irevnet.runs import choose_device, find_checkpoint, study_folder
from irevnet.train import Track, no_progress


@dataclass(frozen=True, kw_only=True)
class Study:
    """A checkpoint opened for study.

    Attributes:
        path: the checkpoint file.
        checkpoint: what it holds, the network on the device to compute on.
        source: the data whose images are looked at.
        classes: those of its classes that are looked at.
        out: folder for the results; `None` puts them into the run's folder, or beside a file that belongs to no run.
        seed: of everything random.
        batch_size: images a forward pass.
        workers: processes that load images.
        track: shows progress.
        started: when the study began, in seconds of `time.perf_counter`.
    """

    path: Path
    checkpoint: Checkpoint
    source: DataSource
    classes: tuple[str, ...]
    out: Path | None = None
    seed: int = 0
    batch_size: int = 256
    workers: int = 0
    track: Track = no_progress
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def open(
        cls,
        ckpt: Path | None,
        *,
        data: str | None = None,
        data_root: str | Path = "data",
        download: bool = False,
        classes: int | tuple[str, ...] | None = None,
        class_seed: int = 0,
        device: str = "auto",
        **options: Any,
    ):
        """Opens a checkpoint file or a run's folder, by default the newest run, and its data or other.

        The classes looked at are those that the network knows or, of data whose classes it does not know, all; or some
        of these, by number or by name.
        """
        path = find_checkpoint(ckpt)
        checkpoint = read_checkpoint(path)
        checkpoint.model.to(choose_device(device))
        source = open_data(data or checkpoint.data, root=data_root, download=download)
        known = checkpoint.classes if set(checkpoint.classes) <= set(source.classes) else ()
        known = known or source.classes
        chosen = known if classes is None else choose_classes(source, classes, seed=class_seed, among=known)
        return cls(path=path, checkpoint=checkpoint, source=source, classes=chosen, **options)

    def images(self, split: Split) -> LabelledImages:
        """A split of the data set, as inputs for this network."""
        return self.source.images(split, self.checkpoint.transform, classes=self.classes)

    def with_network_labels(self, images: LabelledImages) -> LabelledImages | None:
        """The images with labels in the order of the network's logits; `None` if it does not know all their classes.

        Weights that do not say what their classes are called are taken to know those of any data that has as many.
        """
        known = self.checkpoint.classes
        if not known:
            return images if len(images.classes) == self.checkpoint.model.config.num_classes else None
        return images.relabelled(known) if set(images.classes) <= set(known) else None

    def passes(self) -> dict[str, Any]:
        """How images go through the network: options that every function which shows it images takes."""
        return {"batch_size": self.batch_size, "workers": self.workers, "track": self.track}

    def folder(self, result: type[Result]) -> Path:
        """The folder for the results; called before the work, it refuses one that they cannot go to."""
        folder = self.out or study_folder(self.path, result.STUDY)
        check_folder(folder, result.STUDY)
        return folder

    def save(self, result: Result, command: list[str]) -> list[Path]:
        """Saves a result with its provenance, and returns the files."""
        record = {
            **provenance(command),
            **describe(self.path, self.checkpoint),
            "data": self.source.name,
            "classes_studied": list(self.classes),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "device": str(next(self.checkpoint.model.parameters()).device),
            "wall_seconds": round(time.perf_counter() - self.started, 3),
        }
        return result.save(self.folder(type(result)), record)
