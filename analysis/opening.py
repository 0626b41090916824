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
from irevnet.data.choices import Interpolation
from irevnet.data.datasets import choose_classes, load_dataset
from irevnet.data.image_folder import OnError, read_skipped
from irevnet.data.images import DataSource, is_imagenet
from irevnet.models.foreign_blocks import freia_input
from irevnet.models.invertible import InvertibleChain, as_invertible, begins_invertibly
from irevnet.training.runs import find_checkpoint, results_folder
from irevnet.utils.distributed import choose_device
from irevnet.utils.modules import seeded
from irevnet.utils.progress import Progress


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which images an experiment looks at.

    Attributes:
        name: name of a data set, or a folder; `None` for the data that the network was trained on.
        root: folder of the files of a data set by name.
        download: whether to fetch them if they are not there.
        on_error: what to do about images that cannot be read, see `irevnet.data.datasets.load_dataset`. Images that a
            run skipped are skipped here without being asked for.
        classes: number of classes to draw, or their names; `None` for all that the network knows or, of data whose
            classes it does not know, all.
        class_seed: seed of that draw.
    """

    name: str | None = None
    root: str | Path = "data"
    download: bool = False
    on_error: OnError = "stop"
    classes: int | tuple[str, ...] | None = None
    class_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What the file of a network may not say, such as one of torchvision or of the authors' release.

    Attributes:
        image_size: height and width of the images shown to the network.
        mean: values subtracted from each channel, in units of [0, 1], `(channels,)`.
        std: values that divide each channel after that, `(channels,)`.
        interpolation: how images are resized, `"bilinear"` or `"bicubic"`.
        class_names: names of the network's outputs, in their order.
    """

    image_size: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    interpolation: Interpolation | None = None
    class_names: Sequence[str] | None = None


def is_own(ckpt: str | Path) -> bool:
    """Whether this is a run or a checkpoint of this toolkit, which says all of its network that has to be known.

    Raises `FileNotFoundError` if it is nothing at all.
    """
    return not is_foreign(str(ckpt)) and is_own_checkpoint(find_checkpoint(Path(ckpt)))


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
        workers=workers,
        track=progress.track,
    )
    foreign = model or (ckpt if isinstance(ckpt, str) and is_foreign(ckpt) else None)
    named = ""
    if foreign is None:
        path = find_checkpoint(None if ckpt is None else Path(ckpt))
        checkpoint = read_checkpoint(path)
        own = data.name in (None, checkpoint.data)
        source = load(data.name or checkpoint.data, skipped=read_skipped(results_folder(path)) if own else None)
        checkpoint = _with_image_size(path, checkpoint, source, overrides.image_size)
    else:
        named = foreign if isinstance(foreign, str) else type(foreign).__name__
        if data.name is None:
            raise ValueError(f"{named} does not come with a data set; name the images to look at by `data`")
        path = None if ckpt is None or ckpt == foreign else Path(ckpt)
        source = load(data.name)
        checkpoint = _open_foreign(foreign, source, path, overrides.image_size, seed=seed)
    name = results_folder(path).resolve().name.removesuffix("-analysis") if path else _file_name(named)
    checkpoint = _with_normalisation(name, checkpoint, overrides.mean, overrides.std)
    checkpoint = _with_interpolation(name, checkpoint, overrides.interpolation)
    checkpoint = _with_class_names(name, checkpoint, source, overrides.class_names)
    if bits is not None:
        checkpoint = replace(checkpoint, model=checkpoint.irevnet.exact(bits=bits))
    checkpoint.model.to(choose_device(device))
    return Experiment(
        name=name,
        path=path,
        checkpoint=checkpoint,
        source=source,
        classes=_choose_classes(checkpoint, source, data),
        out=out,
        features_root=features_root,
        pool=pool,
        command=command,
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
    )


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


def _without(checkpoint: Checkpoint, guess: str) -> tuple[str, ...]:
    return tuple(each for each in checkpoint.guessed if each != guess)


def _with_image_size(path: Path, checkpoint: Checkpoint, source: DataSource, size: int | None) -> Checkpoint:
    """The network for images of this size, if its file does not say how large they are."""
    if size is None:
        return checkpoint
    if IMAGE_SIZE not in checkpoint.guessed:
        height, width = checkpoint.transform.image_size
        raise ValueError(f"{path} says that its images are {height} x {width}; leave `image_size` out")
    model = checkpoint.irevnet
    model.config = replace(model.config, input_shape=(model.config.input_shape[0], size, size))
    resize = source.transform(image_size=size).resize
    transform = replace(checkpoint.transform, image_size=(size, size), resize=resize)
    return replace(checkpoint, transform=transform, guessed=_without(checkpoint, IMAGE_SIZE))


def _with_normalisation(
    name: str, checkpoint: Checkpoint, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Checkpoint:
    """The network with another mean and deviation of its input, if its file does not say them."""
    if mean is None and std is None:
        return checkpoint
    if mean is None or std is None:
        raise ValueError("`mean` and `std` belong together; give both, in units of [0, 1]")
    if NORMALISATION not in checkpoint.guessed and checkpoint.foreign is None:
        raise ValueError(f"{name} says how its images are normalised; leave `mean` and `std` out")
    transform = replace(checkpoint.transform, mean=tuple(mean), std=tuple(std))
    return replace(checkpoint, transform=transform, guessed=_without(checkpoint, NORMALISATION))


def _with_interpolation(name: str, checkpoint: Checkpoint, interpolation: Interpolation | None) -> Checkpoint:
    """The network with images that are resized in another way, if its file does not say how."""
    if interpolation is None:
        return checkpoint
    if IMAGE_SIZE not in checkpoint.guessed and checkpoint.foreign is None:
        raise ValueError(f"{name} says how its images are resized; leave `interpolation` out")
    return replace(checkpoint, transform=replace(checkpoint.transform, interpolation=interpolation))


def _with_class_names(name: str, checkpoint: Checkpoint, source: DataSource, names: Sequence[str] | None) -> Checkpoint:
    """The network with these names for its outputs; without any, with those of ImageNet's folders for such data."""
    outputs = checkpoint.config.num_classes
    if names is None:
        if (
            not checkpoint.has_logits
            or checkpoint.classes
            or outputs != len(source.classes)
            or not is_imagenet(source.classes)
        ):
            return checkpoint
        guessed = (*checkpoint.guessed, CLASS_NAMES)
        return replace(checkpoint, classes=tuple(sorted(source.classes)), guessed=guessed)
    if not checkpoint.has_logits:
        raise ValueError(f"the outputs of {name} are no logits that were trained; leave `class_names` out")
    if len(names) != outputs:
        raise ValueError(f"`class_names` has {len(names)} names, but {name} has {outputs} outputs; give one for each")
    if repeated := sorted({each for each in names if list(names).count(each) > 1}):
        raise ValueError(f"`class_names` has {repeated[0]!r} more than once; give each output a name of its own")
    return replace(checkpoint, classes=tuple(names))
