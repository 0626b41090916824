"""The i-RevNet (Jacobsen, Smeulders, Oyallon, ICLR 2018): a network that is inverted up to its last layer."""

import copy
import math
from dataclasses import dataclass
from typing import cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from irevnet.coupling import Bottleneck, Coupling
from irevnet.exact import ExactBottleneck, Lattice
from irevnet.reversible import Memory, run_checkpointed, run_reversibly
from irevnet.squeeze import SqueezeOrder, squeeze, unsqueeze

Images = Float[Tensor, "batch channels height width"]
Features = Float[Tensor, "batch feature_channels feature_height feature_width"]


@dataclass(frozen=True, kw_only=True)
class IRevNetConfig:
    """An architecture. Stage k has `blocks[k]` blocks, the first of which down-samples by `strides[k]`.

    Raises `ValueError` where no network can be built, saying which field is wrong and how to mend it.

    Attributes:
        input_shape: channels, height and width of the images it is meant for. Other heights and widths are accepted
            by the network as long as `total_stride` divides them.
        num_classes: outputs of the final linear projection.
        blocks: number of blocks in each stage.
        strides: down-sampling factor of S_j at the first block of each stage; 1 for none.
        initial_squeeze: down-sampling factor of the splitting operator S~, before the split into two streams.
        kernel_sizes: of the three convolutions of a bottleneck (section 3.2: 1, 3, 1).
        bottleneck_ratio: output channels of a bottleneck over the channels in its middle (section 3.2: 4); one number,
            or one for each stage. Below 1 it is an inverted bottleneck, which widens F_j where streams are thin
            without giving up the bijection.
        channels: channels of each stream after S~ where zeros are appended to the squeezed image, which makes the
            network injective (section 3.1). `None` appends none: the network is bijective, its width follows from the
            input. Later stages follow in both cases: times stride^2.
        dropout: probability, after the second convolution of each bottleneck.
        squeeze_order: layout of the channels after a squeeze, see `irevnet.squeeze.SqueezeOrder`.
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
                "expected integers from 1 on"
            )
        if h % self.total_stride or w % self.total_stride:
            raise ValueError(
                f"images of {h} x {w} cannot be squeezed by {self.total_stride} (initial_squeeze={self.initial_squeeze}"
                f", strides={self.strides}); resize them to {_nearest_multiple(h, self.total_stride)} x "
                f"{_nearest_multiple(w, self.total_stride)} or lower a stride"
            )
        if len(self.kernel_sizes) != 3 or any(k < 1 or k % 2 == 0 for k in self.kernel_sizes):
            raise ValueError(f"kernel_sizes is {self.kernel_sizes}; expected three odd numbers, such as (1, 3, 1)")
        if len(self.stage_ratios) != len(self.blocks) or min(self.stage_ratios) <= 0:
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
        """Whether Phi maps images onto its feature space; if not, it is injective and its inverse a left inverse."""
        return self.channels is None

    @property
    def num_blocks(self) -> int:
        """J, the number of blocks and the largest depth."""
        return sum(self.blocks)

    @property
    def total_stride(self) -> int:
        """Factor by which the features are smaller than the image, along each side."""
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


class Head(nn.Module):
    """Logits from Phi x: batch normalisation, ReLU, spatial mean, linear projection.

    As in the released code; the text (section 3.1) takes the mean before the ReLU.
    """

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, momentum=0.9)  # the release's momentum, in PyTorch's sense
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, phi: Features) -> Float[Tensor, "batch classes"]:
        return self.classifier(self.norm(phi).relu().mean(dim=(2, 3)))


class IRevNet(nn.Module):
    """Phi = Phi_J, a cascade of J invertible blocks, and a linear classifier on its spatial average (section 3).

    Phi_0 x = S~ x is the squeezed (and zero-padded) image, Phi_j x the features after block j: the two streams, one
    after the other along the channels.

    >>> config = IRevNetConfig(input_shape=(3, 32, 32), num_classes=10, blocks=(2, 2), strides=(1, 2))
    >>> model = IRevNet(config).eval()
    >>> x = torch.rand(4, 3, 32, 32)
    >>> phi = model.features(x)
    >>> tuple(phi.shape)  # as many numbers as the image has
    (4, 48, 8, 8)
    >>> bool(torch.allclose(model.inverse(phi), x, atol=1e-5))
    True
    """

    def __init__(self, config: IRevNetConfig):
        super().__init__()
        self.config = config
        channels = config.initial_stream_channels
        blocks = []
        for stage, stride in zip(config.stages, config.block_strides):
            bottleneck = Bottleneck(
                channels,
                channels * stride**2,
                stride=stride,
                kernel_sizes=config.kernel_sizes,
                ratio=config.stage_ratios[stage],
                dropout=config.dropout,
                preactivate=len(blocks) > 0,
            )
            blocks.append(Coupling(bottleneck, stride=stride, squeeze_order=config.squeeze_order))
            channels *= stride**2
        self.blocks = nn.ModuleList(blocks)
        self.head = Head(2 * channels, config.num_classes)
        self.lattice: Lattice | None = None
        """Of exact arithmetic, or `None` for floating point."""
        self.memory = "plain"
        self.reconstruction_error: Tensor | None = None
        """Of the last reversible back-propagation: the relative error of the input stream that it rebuilt."""

    @property
    def memory(self) -> Memory:
        """How back-propagation gets its activations in train mode: `"plain"`, `"checkpoint"` or `"reversible"`.

        See `irevnet.reversible.Memory`. Gradients are the same up to rounding; memory and time differ. In eval mode,
        and without gradients, the path is always the plain one.
        """
        return self._memory

    @memory.setter
    def memory(self, memory: str) -> None:
        if memory not in get_args(Memory):
            raise ValueError(f"memory is {memory!r}; expected one of {get_args(Memory)}")
        self._memory: Memory = cast(Memory, memory)

    def forward(self, images: Tensor) -> Float[Tensor, "batch classes"]:
        """Logits `(n, classes)` of images `(n, c, h, w)`."""
        return self.head(self._encode(images, self.config.num_blocks))

    def features(self, images: Tensor, depth: int | None = None) -> Features:
        """Phi_depth of images `(n, c, h, w)`, of `config.feature_shape(depth, (h, w))`; the last layer by default.

        Raises `RuntimeError` in train mode: batch normalisation would use the statistics of this batch, and the
        inverse, which uses those of another, would be wrong without a word.
        """
        self._require_eval("features")
        return self._encode(images, self.check_depth(depth))

    def inverse(self, phi: Tensor, depth: int | None = None) -> Images:
        """The images whose Phi_depth is `phi`: the inverse of `features` if the network is bijective (equation 1).

        If it is injective, a left inverse: the channels that S~ appended are dropped, so features off the network's
        range are not reproduced when the result is encoded again; `range_residual` tells by how much.
        Raises `RuntimeError` in train mode, `ValueError` if `phi` cannot be features of that depth.
        """
        self._require_eval("inverse")
        depth = self.check_depth(depth)
        channels = self.config.feature_shape(depth)[0]
        if phi.ndim != 4 or phi.shape[1] != channels:
            raise ValueError(
                f"features of shape {tuple(phi.shape)} are not of depth {depth}, where they are (batch, {channels}, "
                "height, width); pass the depth at which they were taken"
            )
        x, x_tilde = self._on_lattice(phi, "features").chunk(2, dim=1)
        for block in reversed(self._couplings[:depth]):
            x, x_tilde = block.inverse(x, x_tilde)
        squeezed = torch.cat((x, x_tilde), dim=1)[:, : self._squeezed_channels]
        return unsqueeze(squeezed, self.config.initial_squeeze, self.config.squeeze_order)

    def range_residual(self, phi: Tensor, depth: int | None = None) -> Float[Tensor, " batch"]:
        """How far each feature lies off the network's range: ||Phi Phi^+ phi - phi|| / ||phi|| at that depth.

        Rounding error on the range (everywhere, if the network is bijective). Elsewhere, as for the midpoint of two
        features of an injective network, an upper bound on the relative distance to the range.
        """
        again = self.features(self.inverse(phi, depth), depth)
        return torch.linalg.vector_norm(again - phi, dim=(1, 2, 3)) / torch.linalg.vector_norm(phi, dim=(1, 2, 3))

    @torch.no_grad()
    def exact(self, *, bits: int = 14) -> "IRevNet":
        """This network in exact arithmetic (`irevnet.exact`): `inverse(features(x, j), j)` is x to the last bit.

        Of a bijective network the other round trip is exact as well. What it takes, images or features, is rounded to
        multiples of 2^-bits first; what it returns is float64. It cannot be trained.

        Args:
            bits: fewer leave room for larger numbers.

        Raises:
            RuntimeError: the network is in train mode.
            ValueError: it is in exact arithmetic already, its weights are not finite, or there is no such lattice.
        """
        self._require_eval("exact")
        if self.lattice is not None:
            raise ValueError(f"the network is in exact arithmetic already, of {self.lattice.bits} bits")
        exact = copy.deepcopy(self).double().requires_grad_(False)
        exact.lattice = Lattice(bits)
        for depth, block in enumerate(exact._couplings, start=1):
            block.register_module("bottleneck", ExactBottleneck(block.bottleneck, exact.lattice, f"block {depth}"))
        return exact.eval()

    def train(self, mode: bool = True) -> "IRevNet":
        """Puts the network into train mode, or eval mode; `RuntimeError` if it cannot be trained."""
        if mode and self.lattice is not None:
            raise RuntimeError("a network in exact arithmetic cannot be trained; train the one that it was made from")
        return super().train(mode)

    def _on_lattice(self, x: Tensor, name: str) -> Tensor:
        return x if self.lattice is None else self.lattice.round(x, name)

    def _note_reconstruction(self, error: Tensor) -> None:
        self.reconstruction_error = error

    def _encode(self, images: Tensor, depth: int) -> Tensor:
        self._check_images(images)
        x, x_tilde = self._split(self._on_lattice(images, "images"))
        blocks = self._couplings[:depth]
        if self.memory == "plain" or not self.training or not torch.is_grad_enabled():
            for block in blocks:
                x, x_tilde = block(x, x_tilde)
        elif self.memory == "checkpoint":
            x, x_tilde = run_checkpointed(blocks, x, x_tilde)
        else:
            x, x_tilde = run_reversibly(blocks, x, x_tilde, self._note_reconstruction)
        return self._on_lattice(torch.cat((x, x_tilde), dim=1), "features")

    def _split(self, images: Images) -> tuple[Tensor, Tensor]:
        """S~: squeeze, append zeros where the network is injective, split the channels in halves."""
        squeezed = squeeze(images, self.config.initial_squeeze, self.config.squeeze_order)
        appended = 2 * self.config.initial_stream_channels - self._squeezed_channels
        x, x_tilde = nn.functional.pad(squeezed, (0, 0, 0, 0, 0, appended)).chunk(2, dim=1)
        return x, x_tilde

    @property
    def _couplings(self) -> list[Coupling]:
        return list(self.blocks)  # type: ignore[return-value]

    @property
    def _squeezed_channels(self) -> int:
        return self.config.input_shape[0] * self.config.initial_squeeze**2

    def _check_images(self, images: Tensor) -> None:
        c, stride = self.config.input_shape[0], self.config.total_stride
        if images.ndim != 4 or images.shape[1] != c or images.shape[2] % stride or images.shape[3] % stride:
            raise ValueError(
                f"images of shape {tuple(images.shape)} do not fit; this network takes (batch, {c}, height, width) "
                f"with height and width multiples of {stride}"
            )
        if not images.is_floating_point():
            raise ValueError(f"images are {images.dtype}; expected floating point, such as bytes divided by 255")

    def check_depth(self, depth: int | None) -> int:
        """The depth, which is the last if it is `None`; `ValueError` if the network has no such depth."""
        last = self.config.num_blocks
        if depth is None:
            return last
        if not 0 <= depth <= last:
            raise ValueError(f"depth {depth} does not exist; this network has depths 0 (its input) to {last}")
        return depth

    def _require_eval(self, method: str) -> None:
        if self.training:
            raise RuntimeError(
                f"{method} needs eval mode: in train mode batch normalisation depends on the batch, and the inverse "
                "would be wrong; call model.eval() first (training goes through model(images))"
            )


def _nearest_multiple(size: int, factor: int) -> int:
    return max(1, round(size / factor)) * factor
