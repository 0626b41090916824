"""Run folders: what a training run leaves behind, and how later commands find it.

    RUN/config.json   the run as it was asked for        RUN/last.pt   the checkpoint after the last epoch
    RUN/metrics.csv   a line an epoch                    RUN/best.pt   the one with the highest test accuracy
    RUN/classes.txt   class names, one a line            RUN/analysis/ results of the studies

Studies use `last.pt`: choosing `best.pt` by its test accuracy makes that accuracy an optimistic one.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from irevnet.checkpoint import Checkpoint, plain, save_checkpoint
from irevnet.data import InputTransform, data_info, load_data
from irevnet.files import atomic_write, write_json, write_text
from irevnet.presets import build_model
from irevnet.train import EpochMetrics, Track, TrainConfig, fit, no_progress


def _create_run(folder: Path, checkpoint: Checkpoint, settings: dict[str, Any]) -> None:
    """Makes the folder of a new run with its `config.json`, which has the settings and the network, and `classes.txt`.

    Raises `FileExistsError` if anything is there already: a run is never written over.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        held = "another run" if (folder / "config.json").exists() else "other files"
        raise FileExistsError(f"{folder} holds {held}; name a folder that is new or empty")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", {**settings, **plain(checkpoint)})
    write_text(folder / "classes.txt", "".join(f"{name}\n" for name in checkpoint.classes))


def train_run(
    folder: Path | None,
    *,
    model: str,
    data: str,
    config: TrainConfig,
    image_size: int | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int = 0,
    track: Track = no_progress,
) -> tuple[Path, Iterator[EpochMetrics]]:
    """Trains a network by name on a data set by name, into a run folder.

    Returns the folder and the epochs: each is trained, and the run folder brought up to date, as its metrics are asked
    for.

    Args:
        folder: the run's folder, new or empty; `None` names one under `runs/` after the data, the model and the time.
        model: a name of `irevnet.list_models()`; built for the data's classes, channels and size.
        data: a name that `irevnet.data.data_info` knows.
        config: how to train.
        image_size: height and width to resize the images to; their own by default.
        seed: of the order of the images. Initial weights and dropout are drawn from torch's global generator.
        device: `"auto"`, `"cpu"` or `"cuda"`.
        workers: processes that load images.
        track: shows progress.
    """
    info = data_info(data)
    channels, height, width = info.image_shape
    size = (height, width) if image_size is None else (image_size, image_size)
    network = build_model(model, num_classes=len(info.classes), image_size=size, in_channels=channels)
    network.to(choose_device(device))
    transform = InputTransform(channels=channels, image_size=size)
    checkpoint = Checkpoint(model=network, transform=transform, data=data, classes=info.classes, metrics={})
    folder = folder or Path("runs") / f"{data}-{model}-{datetime.now():%Y%m%d-%H%M%S}"
    epochs = fit(
        network,
        load_data(data, "train", transform),
        load_data(data, "test", transform),
        config,
        generator=torch.Generator().manual_seed(seed),
        workers=workers,
        track=track,
    )
    _create_run(folder, checkpoint, {"model": model, "seed": seed, "training": dataclasses.asdict(config)})
    return folder, _record(folder, epochs, checkpoint)


def _record(folder: Path, epochs: Iterable[EpochMetrics], checkpoint: Checkpoint) -> Iterator[EpochMetrics]:
    """Passes the epochs on, after writing each to `metrics.csv`, `last.pt` and, if it is the best yet, `best.pt`.

    `checkpoint` holds the network that is being trained.
    """
    rows: list[dict[str, float]] = []
    for metrics in epochs:
        rows.append(dataclasses.asdict(metrics))
        with atomic_write(folder / "metrics.csv") as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False)
        now = dataclasses.replace(checkpoint, metrics=rows[-1])
        save_checkpoint(folder / "last.pt", now)
        if metrics.test_top1 >= max(row["test_top1"] for row in rows):
            save_checkpoint(folder / "best.pt", now)
        yield metrics


def find_checkpoint(path: Path | None, root: Path = Path("runs")) -> Path:
    """The checkpoint file meant by `path`: a file, or a run's folder; `None` means the newest run under `root`.

    Raises `FileNotFoundError` where there is none.
    """
    if path is None:
        checkpoints = sorted(root.glob("*/last.pt"), key=lambda file: file.stat().st_mtime)
        if not checkpoints:
            raise FileNotFoundError(f"there is no run under {root}/; train one with 'irevnet train', or give --ckpt")
        return checkpoints[-1]
    if path.is_dir():
        if not (path / "last.pt").is_file():
            raise FileNotFoundError(f"{path} holds no last.pt; give a run's folder or a checkpoint file")
        return path / "last.pt"
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    return path


def choose_device(name: str) -> str:
    """`"cpu"`, `"cuda"` or, for `"auto"`, the latter where there is one; `ValueError` if it is asked for in vain."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch finds no CUDA device here; compute on the cpu instead")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def study_folder(checkpoint: Path, study: str) -> Path:
    """Where the results of a study of that checkpoint go: into its run or, unless it is the run's last, beside it."""
    if checkpoint.name == "last.pt" and (checkpoint.parent / "config.json").is_file():
        return checkpoint.parent / "analysis" / study
    return checkpoint.parent / f"{checkpoint.stem}-analysis" / study
