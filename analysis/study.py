"""What all studies share: a trained network, images to show it, and a folder for the results."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.results import Result, check_folder, provenance
from irevnet.checkpoint import Checkpoint, describe, read_checkpoint
from irevnet.data import LabelledImages, Split, load_data
from irevnet.runs import choose_device, find_checkpoint, study_folder
from irevnet.train import Track, no_progress


@dataclass(frozen=True, kw_only=True)
class Study:
    """A checkpoint opened for study.

    Attributes:
        path: the checkpoint file.
        checkpoint: what it holds, the network on the device to compute on.
        data: name of the data set whose images are looked at.
        out: folder for the results; `None` puts them into the run's folder, or beside a file that belongs to no run.
        seed: of everything random.
        batch_size: images a forward pass.
        workers: processes that load images.
        track: shows progress.
        started: when the study began, in seconds of `time.perf_counter`.
    """

    path: Path
    checkpoint: Checkpoint
    data: str
    out: Path | None = None
    seed: int = 0
    batch_size: int = 256
    workers: int = 0
    track: Track = no_progress
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def open(cls, ckpt: Path | None, *, data: str | None = None, device: str = "auto", **options: Any):
        """Opens a checkpoint file or a run's folder, by default the newest run, and the data it was trained on."""
        path = find_checkpoint(ckpt)
        checkpoint = read_checkpoint(path)
        checkpoint.model.to(choose_device(device))
        return cls(path=path, checkpoint=checkpoint, data=data or checkpoint.data, **options)

    def images(self, split: Split) -> LabelledImages:
        """A split of the data set, as inputs for this network."""
        return load_data(self.data, split, self.checkpoint.transform)

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
        settings = {
            **describe(self.path, self.checkpoint),
            "data": self.data,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "device": str(next(self.checkpoint.model.parameters()).device),
        }
        seconds = time.perf_counter() - self.started
        return result.save(self.folder(type(result)), provenance(command=command, settings=settings, seconds=seconds))
