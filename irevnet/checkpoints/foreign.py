"""Networks of torchvision, with pretrained weights, weights from a file, or fresh ones."""

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
    """The `config` of a network of torchvision, as networks of this toolkit have one.

    Attributes:
        name: name in torchvision.
        weights: name of torchvision's pretrained weights, or path of the file of weights; `None` for fresh weights.
        num_classes: number of outputs.
    """

    name: str
    weights: str | None
    num_classes: int


def build_torchvision(
    name: str, source: DataSource, *, file: Path | None = None, image_size: int | None = None
) -> tuple[nn.Module, InputTransform]:
    """A network of torchvision in eval mode, and the transform of a data set for it.

    Args:
        name: name of the network, such as `resnet50` with fresh weights, or `resnet50/DEFAULT` or
            `resnet50/IMAGENET1K_V2` with pretrained ones, which torchvision downloads and keeps.
        source: data set of the images.
        file: file of a state dict with the weights; it determines the number of outputs.
        image_size: height and width of the input; by default that of the pretrained weights, or 224.

    Raises:
        ValueError: an unknown network or set of weights, or weights of another network.
        OSError: pretrained weights that cannot be downloaded.
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
        with redirect_stdout(sys.stderr):  # for torch's messages on downloads
            return get_model(name, weights=weights)
    except OSError as error:
        raise OSError(
            f"{weights} cannot be fetched ({error}); save its state dict to a file on another machine, and give "
            "that file"
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
    """The transform that the pretrained weights are meant for, or else torchvision's usual one."""
    size = image_size or (preset.crop_size[0] if preset else 224)
    transform = source.transform(image_size=size)
    mean, std = (tuple(preset.mean), tuple(preset.std)) if preset else IMAGENET_STATISTICS
    resize = transform.resize
    if preset and resize is not None:  # images that differ in size
        resize = round(size * preset.resize_size[0] / preset.crop_size[0])
    return dataclasses.replace(transform, channels=3, resize=resize, mean=mean, std=std)
