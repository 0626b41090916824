"""What the user says of a network whose file does not, such as one of torchvision or of the authors' release."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from irevnet.checkpoints.checkpoint import IMAGE_SIZE, NORMALISATION, Checkpoint
from irevnet.data.choices import Interpolation
from irevnet.data.images import DataSource


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


def overridden(name: str, checkpoint: Checkpoint, overrides: Overrides) -> Checkpoint:
    """The network, called by that name in errors, with all that is said of it but the size of its images.

    Raises `ValueError` for what its file says itself, and for what does not fit it.
    """
    checkpoint = _with_normalisation(name, checkpoint, overrides.mean, overrides.std)
    checkpoint = _with_interpolation(name, checkpoint, overrides.interpolation)
    names = overrides.class_names
    return checkpoint if names is None else _with_class_names(name, checkpoint, names)


def with_image_size(path: Path, checkpoint: Checkpoint, source: DataSource, size: int | None) -> Checkpoint:
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


def _with_class_names(name: str, checkpoint: Checkpoint, names: Sequence[str]) -> Checkpoint:
    """The network with these names for its outputs."""
    outputs = checkpoint.config.num_classes
    if not checkpoint.has_logits:
        raise ValueError(f"the outputs of {name} are no logits that were trained; leave `class_names` out")
    if len(names) != outputs:
        raise ValueError(f"`class_names` has {len(names)} names, but {name} has {outputs} outputs; give one for each")
    if repeated := sorted({each for each in names if list(names).count(each) > 1}):
        raise ValueError(f"`class_names` has {repeated[0]!r} more than once; give each output a name of its own")
    return replace(checkpoint, classes=tuple(names))


def _without(checkpoint: Checkpoint, guess: str) -> tuple[str, ...]:
    return tuple(each for each in checkpoint.guessed if each != guess)
