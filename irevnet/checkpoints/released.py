"""The layout of the authors' released weights (pytorch-i-revnet), recognised from its tensors.

`state_dict` has keys `module.stack.{i}.bottleneck_block.{k}.*`, `module.bn1.*` and `module.linear.*`. In block i the
entries k count batch normalisations, ReLUs, convolutions and one dropout in the order in which they are applied; block
0 has no leading batch normalisation and ReLU.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from irevnet.data.transforms import CIFAR10_STATISTICS, CIFAR100_STATISTICS, IMAGENET_TRANSFORM, InputTransform
from irevnet.models.config import IRevNetConfig
from irevnet.models.zoo import preset_config
from irevnet.utils.untrusted import brief

_PRESETS = ("irevnet-b-released", "irevnet-b", "irevnet-a", "irevnet-cifar")
LARGEST_STRIDE_AT_32 = 8
"""Largest total stride of networks for images of 32 x 32, of which at least 4 x 4 positions then remain."""
_BLOCK_KEY = re.compile(r"stack\.(\d+)\.bottleneck_block\.(\d+)\.(\w+)")


def read_released(path: Path, state: Mapping[str, Tensor]) -> tuple[IRevNetConfig, dict[str, Tensor], InputTransform]:
    """The config that the tensors belong to, the weights under this toolkit's names, and the input transform.

    Image size and normalisation do not follow from the tensors: both are guessed from the architecture.

    Raises `ValueError` if the tensors are not those of an i-RevNet.
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    try:
        config = _recognise(state)
    except (KeyError, IndexError, AttributeError, ValueError, ArithmeticError) as error:
        raise ValueError(
            f"the tensors of {path} are not those of an i-RevNet in the authors' layout ({error}); "
            f"they start with {', '.join(map(brief, [*state][:2]))}"
        ) from error
    return config, _rename(state), _transform(config)


def _recognise(state: Mapping[str, Tensor]) -> IRevNetConfig:
    """The config, from the shapes of the convolutions: `(middle, in, k, k)`, `(middle, middle, k, k)`, `(out, ...)`."""
    convolutions: dict[int, list[torch.Size]] = {}
    for key, tensor in state.items():
        if (match := _BLOCK_KEY.match(key)) and tensor.ndim == 4:
            convolutions.setdefault(int(match[1]), []).append(tensor.shape)
    blocks, strides, widths = [], [], []
    for block in range(len(convolutions)):
        first, _, last = convolutions[block]
        stride = math.isqrt(last[0] // first[1])
        if block == 0 or stride > 1:
            blocks.append(0)
            strides.append(stride)
            widths.append((last[0], first[0]))
        blocks[-1] += 1
    if not blocks:
        raise ValueError("no bottleneck blocks")
    first, second, last = convolutions[0]
    seen = {
        "blocks": tuple(blocks),
        "strides": tuple(strides),
        "kernel_sizes": (first[2], second[2], last[2]),
        "bottleneck_ratio": _ratio(widths),
    }
    streams, num_classes = first[1], state["linear.weight"].shape[0]
    for name in _PRESETS:
        preset = preset_config(name, num_classes=num_classes)
        assert isinstance(preset, IRevNetConfig)
        if streams == preset.initial_stream_channels and all(getattr(preset, key) == seen[key] for key in seen):
            return preset
    squeeze = math.isqrt(2 * streams // 3)
    if 3 * squeeze**2 != 2 * streams:
        raise ValueError(f"no squeeze of an RGB image has two streams of {streams} channels")
    total_stride = squeeze * math.prod(strides)
    size = IMAGENET_TRANSFORM.image_size[0] if total_stride > LARGEST_STRIDE_AT_32 else 32
    return IRevNetConfig(input_shape=(3, size, size), num_classes=num_classes, initial_squeeze=squeeze, **seen)


def _ratio(widths: Sequence[tuple[int, int]]) -> float | tuple[float, ...]:
    """Output channels of bottlenecks over those inside, of each stage: the release's 4, which it rounds down, if that
    matches."""
    if all(max(1, out // 4) == inside for out, inside in widths):
        return 4.0
    return tuple(out / inside for out, inside in widths)


def _rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, tensor in state.items():
        key = key.replace("stack.", "blocks.", 1).replace("bottleneck_block.", "bottleneck.", 1)
        key = key.replace("bn1.", "head.norm.", 1).replace("linear.", "head.classifier.", 1)
        if key.endswith("running_mean"):  # files written before PyTorch 0.4.1 do not count the batches
            renamed.setdefault(key.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
        renamed[key] = tensor
    return renamed


def _transform(config: IRevNetConfig) -> InputTransform:
    """The release's normalisation: ImageNet's or, for 32 x 32, that of CIFAR-100 for 100 classes, else of CIFAR-10."""
    if config.input_shape[1:] == IMAGENET_TRANSFORM.image_size:
        return IMAGENET_TRANSFORM
    mean, std = CIFAR100_STATISTICS if config.num_classes == 100 else CIFAR10_STATISTICS
    return InputTransform(channels=3, image_size=(32, 32), mean=mean, std=std)
