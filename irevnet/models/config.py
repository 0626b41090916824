"""The configs of the architectures: frozen, of plain values, and without torch."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

MOST_BLOCKS = 10_000
"""Most blocks of a network; the paper's deepest has 100."""

SqueezeOrder = Literal["block", "channel"]
"""How the r^2 sub-pixels of c channels are laid out in the c r^2 output channels.

- `"block"`: sub-pixel first, index `(dy * r + dx) * c + channel`. The order of the authors' release, and our default:
  the initial split of an image then sends its even rows to one stream and its odd rows to the other (r = 2).
- `"channel"`: channel first, index `channel * r^2 + dy * r + dx`. The order of `torch.nn.functional.pixel_unshuffle`
  and of Shi et al. (2016), whom the paper cites.
"""

Memory = Literal["plain", "checkpoint", "reversible"]
"""How back-propagation gets the activations inside the blocks.

- `"plain"`: all are stored.
- `"checkpoint"`: only the stream that each bottleneck reads is stored, the rest is computed again.
- `"reversible"`: none is stored; the streams are rebuilt by the inverse, the rest is computed again. In mixed precision
  streams are multiples of 2^-16, so that they are rebuilt to the last bit.
"""


@dataclass(frozen=True, kw_only=True)
class IRevNetConfig:
    """The architecture of an i-RevNet. Stage k has `blocks[k]` blocks, the first of which down-samples by `strides[k]`.

    Raises `ValueError`, naming the field, for values of which no network can be built.

    Attributes:
        input_shape: channels, height and width of the images. The network also accepts other heights and widths that
            are multiples of `total_stride`.
        num_classes: number of outputs of the final linear projection.
        blocks: number of blocks in each stage.
        strides: down-sampling factor of S_j at the first block of each stage; 1 for none.
        initial_squeeze: down-sampling factor of the splitting operator S~, before the split into two streams.
        kernel_sizes: kernel sizes of the three convolutions of a bottleneck (section 3.2: 1, 3, 1).
        bottleneck_ratio: output channels of a bottleneck over the channels in its middle (section 3.2: 4); one number,
            or one for each stage. Below 1 it is an inverted bottleneck, which widens F_j where streams are thin
            without giving up the bijection.
        channels: channels of each stream after S~, more than those of the squeezed image, to which zeros are then
            appended; this makes the network injective (section 3.1). `None` appends none: the network is bijective,
            and its width follows from the input. In both cases a stage has stride^2 times the channels of the last.
        dropout: dropout probability after the second convolution of each bottleneck.
        squeeze_order: layout of the channels after a squeeze, see `irevnet.models.config.SqueezeOrder`.
        preactivate: whether batch normalisation and ReLU precede the first convolution of a bottleneck too, but for the
            network's first block (section 3.2, and the release). Without them F_j reads both signs of its stream, which
            matters where streams are thin.
    """

    input_shape: tuple[int, int, int]
    num_classes: int
    blocks: tuple[int, ...]
    strides: tuple[int, ...]
    initial_squeeze: int = 2
    kernel_sizes: tuple[int, int, int] = (1, 3, 1)
    bottleneck_ratio: float | tuple[float, ...] = 4.0
    channels: int | None = None
    dropout: float = 0.0
    squeeze_order: SqueezeOrder = "block"
    preactivate: bool = True

    def __post_init__(self):
        c, h, w = self.input_shape
        if min(c, h, w) < 1:
            raise ValueError(f"input_shape is {self.input_shape}; channels, height and width must be at least 1")
        if self.num_classes < 1:
            raise ValueError(f"num_classes is {self.num_classes}; expected at least 1")
        if not self.blocks or len(self.blocks) != len(self.strides):
            raise ValueError(
                f"blocks={self.blocks} and strides={self.strides}; expected one number of blocks and one stride for "
                "each stage, and at least one stage"
            )
        if min(*self.blocks, *self.strides, self.initial_squeeze) < 1:
            raise ValueError(
                f"blocks={self.blocks}, strides={self.strides}, initial_squeeze={self.initial_squeeze}; "
                "expected positive integers"
            )
        _check_blocks(self.blocks)
        if h % self.total_stride or w % self.total_stride:
            raise ValueError(
                f"images of {h} x {w} cannot be squeezed by {self.total_stride} (initial_squeeze={self.initial_squeeze}"
                f", strides={self.strides}); resize them to {_nearest_multiple(h, self.total_stride)} x "
                f"{_nearest_multiple(w, self.total_stride)} or lower a stride"
            )
        if len(self.kernel_sizes) != 3 or any(k < 1 or k % 2 == 0 for k in self.kernel_sizes):
            raise ValueError(f"kernel_sizes is {self.kernel_sizes}; expected three odd numbers, such as (1, 3, 1)")
        if len(self.stage_ratios) != len(self.blocks) or not all(0 < r < math.inf for r in self.stage_ratios):
            raise ValueError(
                f"bottleneck_ratio is {self.bottleneck_ratio}; expected a positive number, or one for each of the "
                f"{len(self.blocks)} stages"
            )
        squeezed = c * self.initial_squeeze**2
        if self.channels is None and squeezed % 2:
            raise ValueError(
                f"{squeezed} channels after the initial squeeze cannot be split into two equal streams; use an even "
                f"initial_squeeze, or channels={(squeezed + 1) // 2} to append zeros"
            )
        if self.channels is not None and 2 * self.channels <= squeezed:
            raise ValueError(
                f"channels={self.channels} leaves no room to append zeros to the {squeezed} channels of the squeezed "
                f"input; leave channels out for a bijective network, or use more than {squeezed // 2}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; expected a probability from 0 up to, but not including, 1")
        if self.squeeze_order not in get_args(SqueezeOrder):
            raise ValueError(f"squeeze_order is {self.squeeze_order!r}; expected one of {get_args(SqueezeOrder)}")

    @property
    def bijective(self) -> bool:
        """Whether Phi is onto its feature space; otherwise it is injective, and its inverse a left inverse."""
        return self.channels is None

    @property
    def num_blocks(self) -> int:
        """J, the number of blocks and the largest depth."""
        return int(sum(self.blocks))

    @property
    def total_stride(self) -> int:
        """Down-sampling factor from the image to the features, along each side."""
        return self.initial_squeeze * math.prod(self.strides)

    @property
    def initial_stream_channels(self) -> int:
        """Channels of each stream after S~ and before the first block."""
        return self.channels or self.input_shape[0] * self.initial_squeeze**2 // 2

    @property
    def stage_ratios(self) -> tuple[float, ...]:
        """`bottleneck_ratio` of each stage."""
        ratio = self.bottleneck_ratio
        return ratio if isinstance(ratio, tuple) else (ratio,) * len(self.blocks)

    @property
    def stem_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each stream after S~."""
        _, h, w = self.feature_shape(0)
        return self.initial_stream_channels, h, w

    @property
    def stage_widths(self) -> tuple[tuple[int, int], ...]:
        """Channels of each stage's streams, and inside its bottlenecks."""
        channels, widths = self.initial_stream_channels, []
        for stride, ratio in zip(self.strides, self.stage_ratios):
            channels *= stride**2
            inner = max(1, int(channels / ratio + 1e-6))  # rounded as in `irevnet.models.coupling.Bottleneck`
            widths.append((channels, inner))
        return tuple(widths)

    @property
    def stages(self) -> tuple[int, ...]:
        """Stage of each block, counted from 0."""
        return tuple(stage for stage, count in enumerate(self.blocks) for _ in range(count))

    @property
    def block_strides(self) -> tuple[int, ...]:
        """Down-sampling factor of each block."""
        return tuple(s for count, stride in zip(self.blocks, self.strides) for s in (stride,) + (1,) * (count - 1))

    def feature_shape(self, depth: int, image_size: tuple[int, int] | None = None) -> tuple[int, int, int]:
        """Channels (of both streams), height and width of Phi_depth for images of `image_size` (height, width)."""
        stride = math.prod(self.block_strides[:depth])
        h, w = image_size or self.input_shape[1:]
        scale = stride * self.initial_squeeze
        return 2 * self.initial_stream_channels * stride**2, h // scale, w // scale


@dataclass(frozen=True, kw_only=True)
class RevNetConfig:
    """The architecture of a RevNet; by default the one of 56 layers and 28M parameters (Gomez et al., 2017; Table 1).

    Attributes:
        input_shape: channels, height and width of the images; the network accepts other sizes too.
        num_classes: number of outputs of the final linear projection.
        blocks: number of residual units in each stage.
        widths: channels of both streams together after each stage; a bottleneck has an eighth of them inside.
        strides: down-sampling factor of the first unit of each stage.
    """

    input_shape: tuple[int, int, int] = (3, 224, 224)
    num_classes: int = 1000
    blocks: tuple[int, ...] = (2, 2, 3, 2)
    widths: tuple[int, ...] = (512, 1024, 2048, 3328)
    strides: tuple[int, ...] = (1, 2, 2, 2)

    def __post_init__(self):
        _check_sizes(self.input_shape, self.num_classes)
        if not len(self.blocks) == len(self.widths) == len(self.strides) > 0:
            raise ValueError(
                f"blocks={self.blocks}, widths={self.widths}, strides={self.strides}; expected one of each per stage"
            )
        if min(*self.blocks, *self.strides) < 1 or any(width < 8 or width % 2 for width in self.widths):
            raise ValueError(
                f"blocks={self.blocks}, widths={self.widths}, strides={self.strides}; expected even widths of at "
                "least 8, and otherwise positive integers"
            )
        _check_blocks(self.blocks)

    @property
    def num_blocks(self) -> int:
        """Number of residual units, the largest depth."""
        return int(sum(self.blocks))

    @property
    def stem_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each stream after the stem."""
        return 64, *_reduced(self.input_shape[1:], 4)

    @property
    def stage_widths(self) -> tuple[tuple[int, int], ...]:
        """Channels of each stage's streams, and inside its bottlenecks."""
        return tuple((width // 2, width // 8) for width in self.widths)


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """The architecture of a ResNet; by default ResNet-50 with 26M parameters (Table 1).

    Attributes:
        input_shape: channels, height and width of the images; the network accepts other sizes too.
        num_classes: number of outputs of the final linear projection.
        blocks: number of residual blocks in each stage; each stage but the first halves the resolution.
        widths: channels of the convolutions in each stage; a bottleneck block has four times as many outputs.
        block: kind of block, `"bottleneck"` (1, 3, 1 kernels) or `"basic"` (3, 3).
        stem: kind of stem, `"imagenet"`, a 7 x 7 convolution and a pooling of stride 2 each, or `"cifar"`, a 3 x 3
            convolution.
    """

    input_shape: tuple[int, int, int] = (3, 224, 224)
    num_classes: int = 1000
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    block: Literal["bottleneck", "basic"] = "bottleneck"
    stem: Literal["imagenet", "cifar"] = "imagenet"

    def __post_init__(self):
        _check_sizes(self.input_shape, self.num_classes)
        if not len(self.blocks) == len(self.widths) > 0:
            raise ValueError(f"blocks={self.blocks}, widths={self.widths}; expected one of each per stage")
        if min(*self.blocks, *self.widths) < 1:
            raise ValueError(f"blocks={self.blocks}, widths={self.widths}; expected positive integers")
        _check_blocks(self.blocks)

    @property
    def num_blocks(self) -> int:
        """Number of residual blocks, the largest depth."""
        return int(sum(self.blocks))

    @property
    def strides(self) -> tuple[int, ...]:
        """Down-sampling factor of the first block of each stage."""
        return 1, *(2 for _ in self.blocks[1:])

    @property
    def stem_shape(self) -> tuple[int, int, int]:
        """Channels, height and width after the stem."""
        return self.widths[0], *_reduced(self.input_shape[1:], 4 if self.stem == "imagenet" else 1)

    @property
    def stage_widths(self) -> tuple[tuple[int, int], ...]:
        """Channels of each stage's blocks, and of the convolutions inside them."""
        return tuple((width * (4 if self.block == "bottleneck" else 1), width) for width in self.widths)


Config = IRevNetConfig | RevNetConfig | ResNetConfig

ARCHITECTURES: dict[str, type[Config]] = {"IRevNet": IRevNetConfig, "RevNet": RevNetConfig, "ResNet": ResNetConfig}
"""The config class of each network class, by the name in checkpoints and runs."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The blocks of a network that have one resolution.

    Attributes:
        first: number of the first block, counted from 1 over the network.
        blocks: number of blocks.
        stride: down-sampling factor of the first block; 1 for none.
        shape: channels, height and width after each block; of one stream where there are two.
        inner: channels between the convolutions of a block.
    """

    first: int
    blocks: int
    stride: int
    shape: tuple[int, int, int]
    inner: int


def stages_of(config: Config) -> list[Stage]:
    """The stages of a network, from its input on.

    >>> [stage.shape for stage in stages_of(ResNetConfig())]
    [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]
    """
    stages, first = [], 1
    size = config.stem_shape[1:]
    for blocks, stride, (channels, inner) in zip(config.blocks, config.strides, config.stage_widths):
        size = _reduced(size, stride)
        stages.append(Stage(first=first, blocks=blocks, stride=stride, shape=(channels, *size), inner=inner))
        first += blocks
    return stages


def _reduced(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Height and width after convolutions of that stride, which pad and so round up."""
    return -(-size[0] // stride), -(-size[1] // stride)


def _check_sizes(input_shape: tuple[int, int, int], num_classes: int) -> None:
    if min(*input_shape, num_classes) < 1:
        raise ValueError(f"input_shape={input_shape}, num_classes={num_classes}; expected positive integers")


def _check_blocks(blocks: tuple[int, ...]) -> None:
    if sum(blocks) > MOST_BLOCKS:
        raise ValueError(f"blocks={blocks} add up to {sum(blocks):,}; expected at most {MOST_BLOCKS:,}")


def _nearest_multiple(size: int, factor: int) -> int:
    return max(1, round(size / factor)) * factor
