"""The layout of the authors' released weights (pytorch-i-revnet), recognised from its tensors.

`state_dict` has keys `module.stack.{i}.bottleneck_block.{k}.*`, `module.bn1.*` and `module.linear.*`. In block i the
entries k count batch normalisations, ReLUs, convolutions and one dropout in the order in which they are applied; block
0 has no leading batch normalisation and ReLU.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from irevnet.config import IRevNetConfig
from irevnet.presets import preset_config
from irevnet.transforms import CIFAR10_STATISTICS, CIFAR100_STATISTICS, IMAGENET_TRANSFORM, InputTransform
from irevnet.untrusted import brief

_PRESETS = ("irevnet-b-released", "irevnet-b", "irevnet-a", "irevnet-cifar")
_BLOCK_KEY = re.compile(r"stack\.(\d+)\.bottleneck_block\.(\d+)\.(\w+)")


def read_released(path: Path, state: Mapping[str, Tensor]) -> tuple[IRevNetConfig, dict[str, Tensor], InputTransform]:
    """The config that the tensors belong to, the weights under this toolkit's names, and the input transform.

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
    blocks, strides = [], []
    for block in range(len(convolutions)):
        first, _, last = convolutions[block]
        stride = math.isqrt(last[0] // first[1])
        if block == 0 or stride > 1:
            blocks.append(0)
            strides.append(stride)
        blocks[-1] += 1
    if not blocks:
        raise ValueError("no bottleneck blocks")
    first, second, last = convolutions[0]
    seen = {
        "blocks": tuple(blocks),
        "strides": tuple(strides),
        "kernel_sizes": (first[2], second[2], last[2]),
        "bottleneck_ratio": last[0] / first[0],
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
    return IRevNetConfig(
        input_shape=(3, *IMAGENET_TRANSFORM.image_size), num_classes=num_classes, initial_squeeze=squeeze, **seen
    )


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
    """The release's normalisation: ImageNet's or, for the 32 x 32 network, that of CIFAR-10 or CIFAR-100."""
    if config.input_shape[1:] == IMAGENET_TRANSFORM.image_size:
        return IMAGENET_TRANSFORM
    mean, std = CIFAR100_STATISTICS if config.num_classes == 100 else CIFAR10_STATISTICS
    return InputTransform(channels=3, image_size=(32, 32), mean=mean, std=std)
