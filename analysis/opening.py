"""Opens networks for study: finds checkpoint and data, and supplies what a network's file does not say."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from analysis.experiment import Experiment
from analysis.features.outputs import set_output
from analysis.features.pooling import Pool
from analysis.overrides import Overrides, overridden, with_image_size
from irevnet.checkpoints.checkpoint import (
    AVERAGED_OUTPUT,
    CLASS_NAMES,
    FRESH_CLASSIFIER,
    IMAGE_SIZE,
    NORMALISATION,
    Checkpoint,
    ForeignConfig,
    is_own_checkpoint,
    read_checkpoint,
)
from irevnet.checkpoints.foreign import TIMM, TORCHVISION, Preset, build_foreign, is_foreign
from irevnet.data.choices import OnError
from irevnet.data.datasets import choose_classes, load_dataset
from irevnet.data.imagenet import output_names
from irevnet.data.images import DataSource
from irevnet.data.own_code import is_code
from irevnet.data.splits import DrawnSplit, read_split, same_data
from irevnet.data.unreadable import read_skipped
from irevnet.models.foreign_blocks import freia_input
from irevnet.models.invertible import InvertibleChain, as_invertible, begins_invertibly
from irevnet.training.runs import find_checkpoint, results_folder, run_folder
from irevnet.utils.distributed import choose_device
from irevnet.utils.modules import seeded
from irevnet.utils.progress import Progress


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which images an experiment looks at.

    Attributes:
        name: name or path of a data set, see `irevnet.data.datasets.load_dataset`; `None` for the data that the network
            was trained on.
        root: folder of the files of a data set by name.
        download: whether to fetch them if they are not there.
        on_error: what to do about images that cannot be read, see `irevnet.data.datasets.load_dataset`. Images that a
            run skipped are skipped here without being asked for.
        val_fraction: share of each class's images that are tested on, of data that have no split; 0.2 by default. The
            split of a run is kept, and used without being asked for.
        split_of: folder of a run whose split is used if it is one of these data and the network has no own, as when the
            two are compared.
        classes: number of classes to draw, or their names; `None` for all that the network knows or, of data whose
            classes it does not know, all.
        class_seed: seed of that draw.
    """

    name: str | None = None
    root: str | Path = "data"
    download: bool = False
    on_error: OnError = "stop"
    val_fraction: float | None = None
    split_of: Path | None = None
    classes: int | tuple[str, ...] | None = None
    class_seed: int = 0


def is_own(ckpt: str | Path) -> bool:
    """Whether this is a run or a checkpoint of this toolkit, which says all of its network that has to be known.

    Raises `FileNotFoundError` if it is nothing at all.
    """
    return not is_foreign(str(ckpt)) and is_own_checkpoint(find_checkpoint(Path(ckpt)))


def find_split(networks: Sequence[str | Path], data: str | None = None) -> Path | None:
    """The folder of the first run among networks that keeps a split of these data, by default of its own."""
    for each in networks:
        folder = None if is_foreign(str(each)) else run_folder(find_checkpoint(Path(each)))
        split = folder and read_split(folder)
        if split and same_data(data or split.data, split.data):
            return folder
    return None


def open_experiment(
    ckpt: str | Path | None = None,
    *,
    model: str | nn.Module | None = None,
    data: str | DataOptions | None = None,
    overrides: Overrides = Overrides(),
    bits: int | None = None,
    device: str = "auto",
    seed: int = 0,
    batch_size: int = 256,
    workers: int = 0,
    out: Path | None = None,
    features_root: Path | None = None,
    pool: Pool = "mean",
    command: Sequence[str] = (),
    progress: Progress = Progress(),
) -> Experiment:
    """Opens a network and the data that it was trained on, or other data.

    Args:
        ckpt: a checkpoint file, a run's folder, or the name of a network as in `model`; `None` for the newest run
            under `runs/`.
        model: a network that this toolkit did not make, or its name (`irevnet.checkpoints.foreign`), such as
            `torchvision:resnet50`, with weights from the file `ckpt`, or those that it comes with.
        data: the data set, by name or folder, or all that there is to say of it; required for such a network.
        overrides: properties that the file of the network lacks.
        bits: studies the network in exact arithmetic, on a lattice of so many bits (`irevnet.models.exact`).
        device: `"auto"`, `"cpu"` or `"cuda"`.
        seed: seed of everything random.
        batch_size: number of images in a forward pass.
        workers: number of processes that load images.
        out: folder for the results, see `analysis.experiment.Experiment`, as for all that follows.
        features_root: folder for the features.
        pool: how the output of a layer becomes one vector an image (`analysis.features.pooling.Pool`).
        command: the command line, for the provenance of results.
        progress: how the work shows its progress and is asked to stop.

    Raises:
        FileNotFoundError: there is no such checkpoint or data.
        ValueError: what was named does not exist or does not fit together.
    """
    data = DataOptions(name=data) if isinstance(data, str) else data or DataOptions()
    load = functools.partial(
        load_dataset,
        root=data.root,
        download=data.download,
        on_error=data.on_error,
        val_fraction=data.val_fraction,
        workers=workers,
        track=progress.track,
    )
    foreign = model or (ckpt if isinstance(ckpt, str) and is_foreign(ckpt) else None)
    named = ""
    if foreign is None:
        path = find_checkpoint(None if ckpt is None else Path(ckpt))
        checkpoint = read_checkpoint(path)
        if data.name is None and is_code(checkpoint.data):
            raise ValueError(
                f"{path} says that its data are {checkpoint.data!r}, which is code; to run it, name it yourself by "
                "`data`"
            )
        folder, wanted = run_folder(path), data.name or checkpoint.data
        own = folder if same_data(wanted, checkpoint.data) else None
        source = load(wanted, skipped=own and read_skipped(own), split=_kept_split(own, wanted, data))
        checkpoint = with_image_size(path, checkpoint, source, overrides.image_size)
    else:
        named = foreign if isinstance(foreign, str) else type(foreign).__name__
        if data.name is None:
            raise ValueError(f"{named} does not come with a data set; name the images to look at by `data`")
        path = None if ckpt is None or ckpt == foreign else Path(ckpt)
        source = load(data.name, split=_kept_split(None, data.name, data))
        checkpoint = _open_foreign(foreign, source, path, overrides.image_size, seed=seed)
    name = results_folder(path).resolve().name.removesuffix("-analysis") if path else _file_name(named)
    checkpoint = overridden(name, checkpoint, overrides)
    classes = _choose_classes(checkpoint, source, data)
    if not _is_fresh(foreign, checkpoint):
        checkpoint = _with_imagenet_classes(checkpoint, classes)
    if bits is not None:
        checkpoint = replace(checkpoint, model=checkpoint.irevnet.exact(bits=bits))
    checkpoint.model.to(choose_device(device))
    return Experiment(
        name=name,
        path=path,
        checkpoint=checkpoint,
        source=source,
        classes=classes,
        out=out,
        features_root=features_root,
        pool=pool,
        command=command,
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
    )


def _kept_split(own: Path | None, wanted: str, data: DataOptions) -> DrawnSplit | None:
    """The split of the network's own run or, without one, of the run that was named, if it is of the wanted data."""
    split = own and read_split(own)
    if split or data.split_of is None:
        return split or None
    split = read_split(data.split_of)
    if split is None:
        raise FileNotFoundError(f"{data.split_of} keeps no split; name the folder of a run that does by `split_of`")
    return split if same_data(split.data, wanted) else None


def _file_name(network: str) -> str:
    """A name for the files of a network that has no file itself: `net-resnet` for `nets/net.py:resnet`."""
    name = network.removeprefix(TORCHVISION).removeprefix(TIMM)
    if ".py:" in name:
        name = Path(name).name.replace(".py:", "-")
    return re.sub(r"[^\w.-]+", "-", name)


def _choose_classes(checkpoint: Checkpoint, source: DataSource, data: DataOptions) -> tuple[str, ...]:
    """The classes asked for, of those that the network knows or, where it does not know the data's, of all."""
    known = checkpoint.classes if set(checkpoint.classes) <= set(source.classes) else ()
    known = known or source.classes
    return known if data.classes is None else choose_classes(source, data.classes, seed=data.class_seed, among=known)


def _usual(source: DataSource) -> Preset:
    """How a network of one's own code may take images: in the size of the data, normalised as the data usually are."""
    mean, std = source.statistics
    size = source.image_shape[1]
    return Preset(mean=mean, std=std) if size is None else Preset(image_size=size, resize=size, mean=mean, std=std)


def _channels(model: nn.Module, source: DataSource) -> int:
    """Channels of the images that a network takes: those that it says, or of its first convolution if that takes one or
    three; of a network of invertible blocks, whose convolutions see some of the channels, those of the data."""
    shape = freia_input(model)
    if shape is not None and len(shape) == 3:
        return shape[0]
    first = next((each.in_channels for each in model.modules() if isinstance(each, nn.Conv2d)), 0)
    return first if first in (1, 3) and not begins_invertibly(model) else source.image_shape[0]


def _open_foreign(
    network: str | nn.Module, source: DataSource, file: Path | None, image_size: int | None, *, seed: int
) -> Checkpoint:
    """A network that this toolkit did not make, as if it were that of a checkpoint; fresh weights are drawn by the
    seed."""
    with seeded(seed):
        found = build_foreign(network, file)
    preset = found.preset or _usual(source)
    size = image_size or preset.image_size
    transform = source.transform(image_size=size)
    resize = transform.resize and round(size * preset.resize / preset.image_size)
    channels = _channels(found.model, source)
    model = as_invertible(found.model, (channels, size, size))
    fits = len(preset.mean) in (1, channels)  # the statistics of coloured images say nothing of grey ones
    mean, std = (preset.mean, preset.std) if fits else ((0.0,), (1.0,))
    transform = replace(
        transform, channels=channels, resize=resize, mean=mean, std=std, interpolation=preset.interpolation
    )
    num_outputs, are_logits = set_output(model, found.name, torch.empty(channels, size, size))
    are_logits &= not isinstance(model, InvertibleChain) or model.head is not None
    guessed = () if file is None and found.preset else (NORMALISATION,) if image_size else (IMAGE_SIZE, NORMALISATION)
    guessed += (FRESH_CLASSIFIER,) * bool(found.classifier) + (AVERAGED_OUTPUT,) * (not are_logits)
    return Checkpoint(
        model=model,
        transform=transform,
        data=source.name,
        classes=(),
        metrics={},
        guessed=guessed,
        foreign=ForeignConfig(name=found.name, weights=found.weights, num_classes=num_outputs),
    )


def _is_fresh(network: str | nn.Module | None, checkpoint: Checkpoint) -> bool:
    """Whether this is a network of another package with weights that were drawn."""
    named = isinstance(network, str) and network.startswith((TORCHVISION, TIMM))
    return named and checkpoint.foreign is not None and checkpoint.foreign.weights is None


def _with_imagenet_classes(checkpoint: Checkpoint, classes: Sequence[str]) -> Checkpoint:
    """The network with the names of ImageNet's classes, if it has as many outputs, and is studied on some of these."""
    names = output_names(classes)
    if checkpoint.classes or not checkpoint.has_logits or not names or checkpoint.config.num_classes != len(names):
        return checkpoint
    return replace(checkpoint, classes=names, guessed=(*checkpoint.guessed, CLASS_NAMES))
