"""Run folders: their files, how a run is resumed, and how later commands find it.

    RUN/config.json   settings and provenance        RUN/last.pt   the newest checkpoint
    RUN/metrics.csv   one line per epoch             RUN/best.pt   the one with the highest test accuracy
    RUN/losses.csv    one line per step              RUN/analysis/ results of the studies
    RUN/classes.txt   class names, one per line      RUN/left-out.json  skipped images, and why
    RUN/split.json    training and test images, where the data have no split of their own
    RUN/kept/         checkpoints without training state, with `keep_every`

Studies use `last.pt`: `best.pt` is chosen by its test accuracy, which is therefore optimistic.
"""

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from irevnet.checkpoints.checkpoint import Checkpoint, plain, read_checkpoint, read_training_state, save_checkpoint
from irevnet.checkpoints.pretrained import checkpoint_file, is_pretrained
from irevnet.data.choices import OnError
from irevnet.data.datasets import choose_classes, load_dataset
from irevnet.data.images import DataSource
from irevnet.data.splits import DrawnSplit, read_split, save_split
from irevnet.data.unreadable import read_skipped, save_skipped
from irevnet.models.zoo import build_model, num_parameters, preset_config
from irevnet.training.kept import KEPT, kept_file, kept_steps
from irevnet.training.settings import RunSettings
from irevnet.training.trainer import EpochMetrics, Training
from irevnet.utils import distributed
from irevnet.utils.files import atomic_write, is_unused, write_json, write_text
from irevnet.utils.progress import Interrupted, Track, never, no_progress
from irevnet.utils.provenance import provenance

SAVE_EVERY = 600.0
"""Seconds after which a run saves within an epoch, and so the most work that can be lost."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run and its folder, into which the first process of a group writes for all.

    Attributes:
        folder: folder of the run.
        training: training in progress.
        checkpoint: network that is trained, with the other content of its checkpoints.
        source: data set that it is trained on.
        keep_every: number of steps after each of which a checkpoint is kept; `None` keeps none.
    """

    folder: Path
    training: Training
    checkpoint: Checkpoint
    source: DataSource
    keep_every: int | None = None

    @property
    def finished(self) -> bool:
        return self.training.finished

    def epochs(self, *, max_steps: int | None = None, stop: Callable[[], bool] = never) -> Iterator[EpochMetrics]:
        """Trains, and yields the metrics of each epoch.

        The folder is brought up to date after each epoch, every `SAVE_EVERY` seconds, and at the end. A run that is
        stopped during the evaluation after an epoch begins with that evaluation when it is resumed.

        With `keep_every`, checkpoints without training state are kept as well (`irevnet.training.kept`); those of steps
        that are done again, after a kill, are written again, with the same content.

        Args:
            max_steps: most steps to take in this call.
            stop: whether to stop, asked after each step and before each batch of an evaluation.

        Raises:
            FloatingPointError: see `irevnet.training.trainer.Training.steps`; `last.pt` stays as it was last saved,
                and the message names it.
        """
        training = self.training
        first, saved = training.step, time.monotonic()
        keeping = {*kept_steps(training.num_steps, self.keep_every)} if self.keep_every else set()
        if training.step == 0 and keeping:
            self._keep()
        steps = training.steps(stop=stop)
        while not self.finished:
            try:
                metrics, interrupted = None, True
                with suppress(Interrupted):
                    metrics, interrupted = next(steps), False
                if not interrupted and training.step in keeping:
                    self._keep()
                end = interrupted or distributed.any_of(stop()) or training.step - first == max_steps
                if metrics or end or distributed.any_of(time.monotonic() - saved > SAVE_EVERY):
                    self._save()
                    saved = time.monotonic()
            except FloatingPointError as error:
                raise FloatingPointError(f"{error}; {self._last_good()}") from error
            if metrics:
                yield metrics
            if end:
                return

    def write_classes(self) -> None:
        """Writes `classes.txt`."""
        write_text(self.folder / "classes.txt", "".join(f"{name}\n" for name in self.checkpoint.classes))

    def _check_finite(self) -> None:
        if not all(bool(tensor.isfinite().all()) for tensor in self.checkpoint.model.state_dict().values()):
            raise FloatingPointError(
                f"a weight is no longer finite after step {self.training.step}; try a lower learning rate"
            )

    def _keep(self) -> None:
        self._check_finite()
        if distributed.rank() > 0:
            return
        step, history = self.training.step, self.training.history
        ended_epoch = bool(history) and history[-1].step == step
        metrics = dataclasses.asdict(history[-1]) if ended_epoch else {"step": step}
        metrics.pop("seconds", None)  # which differ where a run was resumed, in a file that does not otherwise
        path = kept_file(self.folder, step)
        path.parent.mkdir(exist_ok=True)
        save_checkpoint(path, dataclasses.replace(self.checkpoint, metrics=metrics))

    def _save(self) -> None:
        self._check_finite()
        state = self.training.state()
        if distributed.rank() > 0:
            return
        history = self.training.history
        rows = [dataclasses.asdict(metrics) for metrics in history]
        names = [field.name for field in dataclasses.fields(EpochMetrics)]
        with atomic_write(self.folder / "metrics.csv") as temporary:
            pd.DataFrame(rows, columns=names).to_csv(temporary, index=False)
        losses = pd.Series(self.training.losses, name="loss").rename_axis("step")
        losses.index += 1
        with atomic_write(self.folder / "losses.csv") as temporary:
            losses.to_csv(temporary, float_format="%.6g")
        now = dataclasses.replace(self.checkpoint, metrics=rows[-1] if rows else {"step": self.training.step})
        ended_epoch = bool(history) and history[-1].step == self.training.step
        if ended_epoch and history[-1].test_top1 >= max(metrics.test_top1 for metrics in history):
            save_checkpoint(self.folder / "best.pt", now, training=state)  # first: a run resumes from last.pt
        save_checkpoint(self.folder / "last.pt", now, training=state)

    def _last_good(self) -> str:
        path = self.folder / "last.pt"
        if not path.is_file():
            return "no checkpoint has been saved"
        return f"the last good checkpoint is {path}, after step {read_training_state(path)['step']}"


def default_folder(settings: RunSettings) -> Path:
    """A folder for a run, under `runs/`, by data, model and time."""
    data = re.sub(r"[^\w.-]+", "-", Path(settings.data).resolve().name)

    def unused() -> Path:
        name = f"{data}-{settings.model}-{datetime.now():%Y%m%d-%H%M%S}"
        later = (f"{name}-{number}" for number in count(2))  # runs that begin in the same second
        return next(folder for folder in map(Path("runs").joinpath, chain([name], later)) if not folder.exists())

    return distributed.from_first(unused)


def new_run(folder: Path, settings: RunSettings, *, command: Sequence[str] = (), **options: Any) -> Run:
    """A new run, in a folder that is new or empty.

    The command is recorded in the provenance; options are those of `prepare`.

    Raises `FileExistsError` if the folder is not empty: a run is never overwritten.
    """
    distributed.from_first(lambda: _check_unused(folder))
    training, checkpoint, source = prepare(settings, **options)
    run = Run(folder=folder, training=training, checkpoint=checkpoint, source=source, keep_every=settings.keep_every)
    if distributed.rank() == 0:
        _begin_folder(run, settings, command)
    return run


def _check_unused(folder: Path) -> None:
    if (folder / "config.json").exists():
        raise FileExistsError(f"{folder} holds another run; resume that run, or name a folder that is new or empty")
    if not is_unused(folder):
        raise FileExistsError(f"{folder} holds other files; name a folder that is new or empty")


def _begin_folder(run: Run, settings: RunSettings, command: Sequence[str]) -> None:
    folder, training, checkpoint, source = run.folder, run.training, run.checkpoint, run.source
    folder.mkdir(parents=True, exist_ok=True)
    save_skipped(folder, source.skipped)
    save_split(folder, source.split)
    environment = {
        "device": str(training.device),
        "processes": distributed.size(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    content = {
        **dataclasses.asdict(settings),
        **plain(checkpoint),
        "parameters": num_parameters(checkpoint.model),
        "left_out": len(source.skipped or ()) or None,
        "provenance": provenance(command) | environment,
    }
    write_json(folder / "config.json", content)
    run.write_classes()


def resume_run(folder: Path, settings: RunSettings, **options: Any) -> Run:
    """The run of a folder, as it was when `last.pt` was saved; without `last.pt` it starts again.

    `settings` are those that `irevnet.training.settings.read_settings` reads from the folder; options are those of
    `prepare`. The images that were skipped at its start are skipped again, and a split that was drawn is kept.
    """
    skipped = read_skipped(folder)
    if skipped is None and options.get("on_error") == "skip":
        raise ValueError(f"{folder} was started with all images; repair those that cannot be read, or start a new run")
    kept = {"on_error": "stop", "skipped": skipped, "split": read_split(folder)}
    training, checkpoint, source = prepare(settings, **{**options, **kept})
    last = folder / "last.pt"
    if last.is_file():
        saved = read_checkpoint(last)
        if plain(saved) | {"metrics": {}} != plain(checkpoint):
            raise ValueError(f"{last} has another network or other data than {folder / 'config.json'} says")
        checkpoint.model.load_state_dict(saved.model.state_dict())
        training.restore(read_training_state(last))
    run = Run(folder=folder, training=training, checkpoint=checkpoint, source=source, keep_every=settings.keep_every)
    if distributed.rank() == 0 and not (folder / "classes.txt").is_file():
        run.write_classes()
    return run


def prepare(
    settings: RunSettings,
    *,
    data_root: str | Path = "data",
    download: bool = False,
    on_error: OnError = "stop",
    skipped: Mapping[str, str] | None = None,
    split: DrawnSplit | None = None,
    device: str = "auto",
    workers: int = 0,
    track: Track = no_progress,
) -> tuple[Training, Checkpoint, DataSource]:
    """The training that the settings describe, the content of its checkpoints, and its data set.

    Nothing is written, and no step is taken.

    Args:
        settings: settings of the run.
        data_root: folder that holds the files of a data set by name.
        download: whether to download the files if they are missing.
        on_error: what to do about unreadable images, see `irevnet.data.datasets.load_dataset`.
        skipped: images to skip, by path, with the reasons that an earlier check found.
        split: split that the run keeps, of data that have none.
        device: device to train on, `"auto"`, `"cpu"` or `"cuda"`.
        workers: number of processes that load images.
        track: wrapper of loops over images, to show their progress.
    """
    device = distributed.choose_device(device)
    reading: dict[str, Any] = {"on_error": on_error, "skipped": skipped, "workers": workers, "track": track}
    drawing: dict[str, Any] = {"val_fraction": settings.val_fraction, "split": split}
    source = load_dataset(settings.data, root=data_root, download=download, **reading, **drawing)
    source.check_labelled("a network is trained on labels")
    classes = source.classes
    if settings.classes is not None:
        classes = choose_classes(source, settings.classes, seed=settings.class_seed)
    transform = source.transform(image_size=_image_size(settings, source), normalise=settings.training.normalise)
    network = build_model(
        settings.model, num_classes=len(classes), image_size=transform.image_size, in_channels=transform.channels
    )
    training = Training(
        network.to(device),
        source.images("train", transform, classes=classes),
        source.images("test", transform, classes=classes),
        settings.training,
        seed=settings.seed,
        workers=workers,
        track=track,
    )
    checkpoint = Checkpoint(model=network, transform=transform, data=settings.data, classes=classes, metrics={})
    return training, checkpoint, source


def _image_size(settings: RunSettings, source: DataSource) -> int | tuple[int, int] | None:
    """The size of the settings; else `None` for the images' own or, where images differ in size, the network's own.

    `irevnet-small` has no size of its own, and takes the data's.
    """
    if settings.image_size is not None or source.image_shape[1] is not None or settings.model == "irevnet-small":
        return settings.image_size
    return preset_config(settings.model).input_shape[1:]


def find_checkpoint(path: Path | None, root: Path = Path("runs")) -> Path:
    """The checkpoint file for `path`: a file, a run's folder, or `pretrained:NAME`; `None` is the newest run under
    `root`.

    Raises `FileNotFoundError` if there is none, and `ValueError` for an unknown name.
    """
    if path is None:
        checkpoints = sorted(root.glob("*/last.pt"), key=lambda file: file.stat().st_mtime)
        if not checkpoints:
            raise FileNotFoundError(
                f"there is no run under {root}/; train a network with 'irevnet train', or give a checkpoint file, or a "
                "trained network by name, such as pretrained:cifar10-irevnet"
            )
        return checkpoints[-1]
    path = checkpoint_file(path)
    if path.is_dir():
        if not (path / "last.pt").is_file():
            raise FileNotFoundError(f"{path} holds no last.pt; give a run's folder or a checkpoint file")
        return path / "last.pt"
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}; give a run's folder or a checkpoint file")
    return path


def study_folder(checkpoint: Path, study: str) -> Path:
    """Folder for the results of a study of a checkpoint: in its run or, unless it is the run's last, beside it."""
    folder = results_folder(checkpoint)
    return folder / "analysis" / study if _is_run(checkpoint) else folder / study


def results_folder(checkpoint: Path) -> Path:
    """Folder for everything computed from a checkpoint: its run or, unless it is the run's last, one beside it; of a
    network that comes with this package, in the working folder."""
    if is_pretrained(checkpoint):
        return Path(f"{checkpoint.stem}-analysis")
    return checkpoint.parent if _is_run(checkpoint) else checkpoint.parent / f"{checkpoint.stem}-analysis"


def run_folder(checkpoint: Path) -> Path | None:
    """Folder of the run that a checkpoint was saved by, or kept by; `None` if it is in none."""
    folder = checkpoint.parent.parent if checkpoint.parent.name == KEPT else checkpoint.parent
    return folder if (folder / "config.json").is_file() else None


def _is_run(checkpoint: Path) -> bool:
    return checkpoint.name == "last.pt" and run_folder(checkpoint) == checkpoint.parent
