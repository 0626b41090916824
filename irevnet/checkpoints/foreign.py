"""Networks of torchvision, with their own pretrained weights, weights from a file, or none."""

import dataclasses
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision.models
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models

from irevnet.checkpoints.architecture import check_shapes
from irevnet.checkpoints.checkpoint import read_weights
from irevnet.data.images import DataSource
from irevnet.data.transforms import IMAGENET_STATISTICS, InputTransform
from irevnet.utils.lookup import find


@dataclass(frozen=True, kw_only=True)
class TorchvisionConfig:
    """Which network it is: its `config`, as that of the networks of this toolkit.

    Attributes:
        name: in torchvision.
        weights: which of torchvision's pretrained weights, or the file they are from; `None` for fresh ones.
        num_classes: its outputs.
    """

    name: str
    weights: str | None
    num_classes: int


def build_torchvision(
    name: str, source: DataSource, *, file: Path | None = None, image_size: int | None = None
) -> tuple[nn.Module, InputTransform]:
    """A network of torchvision in eval mode, and the transform of that data for it.

    Args:
        name: such as `resnet50`, with fresh weights, or `resnet50/DEFAULT` or `resnet50/IMAGENET1K_V2`, with
            pretrained ones, which torchvision fetches if it has not yet.
        source: the data that it will be shown.
        file: a state dict to take the weights from; the network gets as many outputs as it has.
        image_size: height and width of its input; that of the pretrained weights, or 224, by default.

    Raises:
        ValueError: no such network or weights.
        OSError: pretrained weights that cannot be fetched.
    """
    name, _, which = name.partition("/")
    find("network of torchvision", name, {known: known for known in list_models(module=torchvision.models)})
    if file is not None and which:
        raise ValueError(f"torchvision:{name}/{which} names weights and {file} holds others; give one of them")
    weights = find(f"set of weights of {name}", which, get_model_weights(name).__members__) if which else None
    model = _with_weights_of(name, file) if file else _with_weights(name, weights)
    *_, last = model.state_dict().values()
    model.config = TorchvisionConfig(  # type: ignore[assignment]
        name=name, weights=str(file) if file else weights and weights.name, num_classes=len(last)
    )
    return model.eval(), _transform(source, weights.transforms() if weights else None, image_size)


def _with_weights(name: str, weights: Any) -> nn.Module:
    try:
        with redirect_stdout(sys.stderr):  # where torch says that it fetches something, which is no result
            return get_model(name, weights=weights)
    except OSError as error:
        raise OSError(
            f"{weights} cannot be fetched ({error}); save the state dict to a file on another machine, and give that "
            "file"
        ) from error


def _with_weights_of(name: str, file: Path) -> nn.Module:
    state = read_weights(file)
    *_, last = state.values()  # the classifier's bias in all of them
    try:
        with torch.device("meta"):
            check_shapes(get_model(name, num_classes=len(last)), state)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the weights of {file} are not those of a {name}: {reason}") from error
    model = get_model(name, num_classes=len(last))
    model.load_state_dict(state)
    return model


def _transform(source: DataSource, preset: Any, image_size: int | None) -> InputTransform:
    """Images as the pretrained weights were meant to see them; else as those of torchvision usually are."""
    size = image_size or (preset.crop_size[0] if preset else 224)
    transform = source.transform(image_size=size)
    mean, std = (tuple(preset.mean), tuple(preset.std)) if preset else IMAGENET_STATISTICS
    resize = transform.resize
    if preset and resize is not None:  # images that differ in size
        resize = round(size * preset.resize_size[0] / preset.crop_size[0])
    return dataclasses.replace(transform, channels=3, resize=resize, mean=mean, std=std)
