"""The networks by name: those of the paper, of the authors' release and of this toolkit."""

import dataclasses
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from irevnet.models.baselines import ResNet, RevNet
from irevnet.models.config import Config, IRevNetConfig, ResNetConfig, RevNetConfig
from irevnet.models.irevnet import IRevNet
from irevnet.utils.lookup import find
from irevnet.utils.modules import as_input, device_of, in_eval_mode

Network = IRevNet | RevNet | ResNet


def small_config(
    input_shape: tuple[int, int, int] = (1, 8, 8), num_classes: int = 10, *, blocks_per_stage: int = 4
) -> IRevNetConfig:
    """`irevnet-small`: at most three stages for images of any size, bijective wherever a bijective network exists.

    The image is squeezed by prime factors of its size: by 2 or 3 up to three times, and further, by 5 or 7 too, while
    it is wider than 8 pixels. Each of the last two squeezes begins a stage, the others come first. An odd number of
    values cannot be split into two equal streams: zeros are then appended, and the network is injective. Each
    bottleneck has 64 channels inside, whatever its streams.
    """
    channels, height, width = input_shape
    factors: list[int] = []
    while len(factors) < 3 or min(height, width) > 8:
        primes = (2, 3, 5, 7) if min(height, width) > 8 else (2, 3)
        factor = next((p for p in primes if height % p == 0 and width % p == 0), None)
        if factor is None:
            break
        factors.append(factor)
        height, width = height // factor, width // factor
    first = len(factors) - min(2, max(0, len(factors) - 1))
    initial_squeeze = math.prod(factors[:first])
    strides = (1, *factors[first:])
    squeezed = channels * initial_squeeze**2
    padded = max(16, (squeezed + 1) // 2) if squeezed % 2 else None
    streams = [(padded or squeezed // 2) * math.prod(strides[: i + 1]) ** 2 for i in range(len(strides))]
    return IRevNetConfig(
        input_shape=input_shape,
        num_classes=num_classes,
        blocks=(blocks_per_stage,) * len(strides),
        strides=strides,
        initial_squeeze=initial_squeeze,
        kernel_sizes=(3, 3, 3),
        bottleneck_ratio=tuple(stream / 64 for stream in streams),
        channels=padded,
        preactivate=False,  # a ReLU would hide half of a stream that is thin as it is
    )


_IMAGENET_B = IRevNetConfig(
    input_shape=(3, 224, 224), num_classes=1000, blocks=(6, 16, 72, 6), strides=(2, 2, 2, 2), initial_squeeze=2
)

_PRESETS: dict[str, tuple[Config, str]] = {
    "irevnet-a": (
        IRevNetConfig(
            input_shape=(3, 224, 224),
            num_classes=1000,
            blocks=(4, 4, 6, 4),
            strides=(1, 2, 2, 2),
            initial_squeeze=4,
            channels=96,  # "from 48 to 96 by adding 0": 96 a stream gives Table 1's 181M, 48 a stream would give 48M
        ),
        "paper, section 3.2 and Table 1",
    ),
    "irevnet-b": (_IMAGENET_B, "paper, section 3.2 and Table 1"),
    "irevnet-b-released": (dataclasses.replace(_IMAGENET_B, kernel_sizes=(3, 3, 3)), "authors' release, ImageNet"),
    "irevnet-cifar": (
        IRevNetConfig(
            input_shape=(3, 32, 32),
            num_classes=10,
            blocks=(18, 18, 18),
            strides=(1, 2, 2),
            initial_squeeze=1,
            kernel_sizes=(3, 3, 3),
            channels=16,
            dropout=0.1,
        ),
        "authors' release, CIFAR",
    ),
    "irevnet-cifar-bijective": (
        IRevNetConfig(
            input_shape=(3, 32, 32),
            num_classes=10,
            blocks=(4, 8, 4),
            strides=(1, 2, 2),
            kernel_sizes=(3, 3, 3),
            # Streams of 6, 24 and 96 channels are thin; 32, 64 and 128 inside the bottlenecks restore the capacity.
            bottleneck_ratio=(6 / 32, 24 / 64, 96 / 128),
            preactivate=False,
        ),
        "this toolkit, for CIFAR",
    ),
    "irevnet-small": (small_config(), "this toolkit, any image size"),
    "revnet-56": (RevNetConfig(), "Gomez et al. 2017; paper, Table 1"),
    "resnet-50": (ResNetConfig(), "He et al. 2016; paper, Table 1"),
    "resnet-cifar": (
        ResNetConfig(
            input_shape=(3, 32, 32),
            num_classes=10,
            blocks=(2, 2, 2, 2),
            widths=(22, 44, 88, 176),
            block="basic",
            stem="cifar",
        ),
        "this toolkit, as much arithmetic as irevnet-cifar-bijective",
    ),
}


def build_model(
    name: str,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
) -> Network:
    """The network of that name, with fresh weights drawn from torch's global generator.

    Args:
        name: name of one of `list_models()`.
        num_classes: number of classes; by default the network's own (1000 or 10).
        image_size: height and width, or one number for both; by default the network's own.
        in_channels: channels of the images; by default the network's own.

    Raises:
        ValueError: an unknown name, or a size that is no multiple of the network's strides.
    """
    return build_network(preset_config(name, num_classes=num_classes, image_size=image_size, in_channels=in_channels))


def preset_config(
    name: str,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
) -> Config:
    """The config behind `build_model(name, ...)`, without building the network."""
    config, _ = find("model", name, _PRESETS)
    c, h, w = config.input_shape
    if image_size is not None:
        h, w = map(operator.index, image_size if isinstance(image_size, Sequence) else (image_size, image_size))
    shape = (c if in_channels is None else operator.index(in_channels), h, w)
    classes = config.num_classes if num_classes is None else operator.index(num_classes)
    if name == "irevnet-small":  # the only preset whose stages follow from the image
        return small_config(shape, classes)
    return dataclasses.replace(config, input_shape=shape, num_classes=classes)


def build_network(config: Config) -> Network:
    """The network that a config of any of the architectures describes, with fresh weights."""
    match config:
        case IRevNetConfig():
            return IRevNet(config)
        case RevNetConfig():
            return RevNet(config)
        case ResNetConfig():
            return ResNet(config)


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One row of the table of networks.

    Attributes:
        name: name that `build_model` takes.
        injective: whether distinct images have distinct features, by construction.
        bijective: whether every feature is also the feature of some image.
        blocks: number of blocks, and the largest depth.
        parameters: number of trainable parameters.
        multiply_adds: number of multiply-accumulate operations of a forward pass over one image of `input_shape`.
        input_shape: channels, height and width of the images.
        source: origin of the architecture.
    """

    name: str
    injective: bool
    bijective: bool
    blocks: int
    parameters: int
    multiply_adds: int
    input_shape: tuple[int, int, int]
    source: str


def list_models() -> list[ModelInfo]:
    """All named networks, counted on torch's meta device, without weights."""
    rows = []
    for name, (config, source) in _PRESETS.items():
        with torch.device("meta"):
            model = build_network(config)
        rows.append(
            ModelInfo(
                name=name,
                injective=isinstance(config, IRevNetConfig),
                bijective=isinstance(config, IRevNetConfig) and config.bijective,
                blocks=config.num_blocks,
                parameters=num_parameters(model),
                multiply_adds=count_multiply_adds(model, config.input_shape),
                input_shape=config.input_shape,
                source=source,
            )
        )
    return rows


def num_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_multiply_adds(model: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Number of multiply-accumulate operations of a forward pass over one image, in convolutions and matrix products.

    Batch normalisation, additions and pooling are not counted, as usual.
    """
    with in_eval_mode(model), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(as_input(torch.empty(1, *input_shape, device=device_of(model)), model))
    return counter.get_total_flops() // 2  # torch counts a multiply and an add as two operations
