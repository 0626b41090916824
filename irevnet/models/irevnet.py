"""The i-RevNet (Jacobsen, Smeulders, Oyallon, ICLR 2018): a network that is invertible up to its last layer."""

import copy
from collections.abc import Sequence
from typing import TypeGuard, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from irevnet.models.config import IRevNetConfig
from irevnet.models.coupling import Bottleneck, Coupling
from irevnet.models.exact import ExactBottleneck, Lattice, exact_logits
from irevnet.models.memory.mode import MemoryMode
from irevnet.models.memory.reversible import run_blocks
from irevnet.models.squeeze import squeeze, unsqueeze
from irevnet.utils.lookup import check_depth

Images = Float[Tensor, "batch channels height width"]
Features = Float[Tensor, "batch feature_channels feature_height feature_width"]


torch.fx.wrap("squeeze")  # functions of shapes are traced as one call
torch.fx.wrap("check_images")


def check_images(images: Tensor, channels: int, stride: int) -> None:
    """Raises `ValueError` unless images are a batch with that number of channels, and of a multiple of that stride."""
    if images.ndim != 4 or images.shape[1] != channels or images.shape[2] % stride or images.shape[3] % stride:
        raise ValueError(
            f"images of shape {tuple(images.shape)} do not fit; this network takes (batch, {channels}, height, width) "
            f"with height and width multiples of {stride}"
        )
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}; expected floating point, such as bytes divided by 255")


class RectifiedMean(nn.Module):
    """The spatial mean of max(x, 0): what a `Head`'s linear projection sees, as a module of its own to be studied."""

    def forward(self, x: Features) -> Float[Tensor, "batch feature_channels"]:
        return x.relu().mean(dim=(2, 3))


class Head(nn.Module):
    """Logits from Phi x: batch normalisation, ReLU, spatial mean, linear projection.

    As in the released code; the text (section 3.1) takes the mean before the ReLU.
    """

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, momentum=0.9)  # the release's momentum, in PyTorch's sense
        self.average = RectifiedMean()
        self.classifier = nn.Linear(channels, num_classes)
        self.lattice: Lattice | None = None
        """Lattice of exact arithmetic; `None` in floating point."""

    def forward(self, phi: Features) -> Float[Tensor, "batch classes"]:
        if self.lattice is not None:
            return exact_logits(phi, self.norm, self.classifier, self.lattice)
        return self.classifier(self.average(self.norm(phi)))


def is_ordinary_head(head: nn.Module) -> TypeGuard[Head]:
    """Whether a head computes what `Head` does in eval mode, of which there is a closed form."""
    parts = [*head.modules()] if type(head) is Head else []
    hooked = any(part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in parts)
    kinds = tuple(type(part) for part in parts[1:])
    ordinary = kinds in tuple((norm, RectifiedMean, nn.Linear) for norm in (nn.BatchNorm2d, nn.SyncBatchNorm))
    return ordinary and not hooked and head.norm.affine and head.norm.running_var is not None  # pyright: ignore


class IRevNet(MemoryMode):
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
                preactivate=config.preactivate and len(blocks) > 0,
            )
            blocks.append(Coupling(bottleneck, stride=stride, squeeze_order=config.squeeze_order))
            channels *= stride**2
        self.blocks = nn.ModuleList(blocks)
        self.head = Head(2 * channels, config.num_classes)
        self.lattice: Lattice | None = None
        """Lattice of exact arithmetic; `None` in floating point."""

    @property
    def num_blocks(self) -> int:
        """Number J of blocks, the depth of the last features."""
        return self.config.num_blocks

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(n, classes)` of images `(n, c, h, w)`: the module `head` applied to the last features."""
        (phi,) = self._encode(images, [self.num_blocks])
        return self.head(phi)

    @overload
    def features(self, images: Tensor, depth: int | None = None, *, allow_train: bool = False) -> Features: ...

    @overload
    def features(self, images: Tensor, depth: Sequence[int], *, allow_train: bool = False) -> list[Tensor]: ...

    def features(
        self, images: Tensor, depth: int | Sequence[int] | None = None, *, allow_train: bool = False
    ) -> Tensor | list[Tensor]:
        """Phi_depth of images `(n, c, h, w)`, of `config.feature_shape(depth, (h, w))`; the last layer by default.

        Args:
            images: batch of images, `(n, c, h, w)`.
            depth: one depth or, for the features of one forward pass, a sequence of depths in any order.
            allow_train: whether train mode is allowed, to train on features: they are normalised by the statistics of
                this batch, gradients come by way of `memory`, and `inverse` does not invert them.

        Raises `RuntimeError` in train mode unless that is allowed: batch normalisation uses the statistics of the
        batch, and an inverse, with those of another batch, would silently be wrong.
        """
        if not allow_train:
            self._require_eval("features")
        if depth is None or isinstance(depth, int):
            return self._encode(images, [self.check_depth(depth)])[0]
        return self._encode(images, [self.check_depth(each) for each in depth])

    def inverse(self, phi: Tensor, depth: int | None = None) -> Images:
        """The images whose Phi_depth is `phi`: the inverse of `features` if the network is bijective (equation 1).

        If it is injective, a left inverse: the channels that S~ appended are dropped, so the features of the result
        differ from `phi` where that is off the network's range; `range_residual` measures by how much.
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

        On the range, which is everywhere if the network is bijective, this is rounding error. Elsewhere, such as at the
        midpoint of two features of an injective network, it bounds the relative distance to the range from above.
        """
        again = self.features(self.inverse(phi, depth), depth)
        return torch.linalg.vector_norm(again - phi, dim=(1, 2, 3)) / torch.linalg.vector_norm(phi, dim=(1, 2, 3))

    @torch.no_grad()
    def exact(self, *, bits: int = 14) -> "IRevNet":
        """This network in exact arithmetic (`irevnet.models.exact`): `inverse(features(x, j), j)` is x to the last bit.

        For a bijective network the other round trip is exact as well. Inputs, images or features, are first rounded to
        multiples of 2^-bits; outputs are float64. The network cannot be trained. Logits are multiples of 2^-bits; those
        of a head of one's own are computed in float64, with its rounding.

        Args:
            bits: number of bits after the binary point; fewer bits leave room for larger numbers.

        Raises:
            RuntimeError: the network is in train mode.
            ValueError: the network is in exact arithmetic already, its weights are not finite, `bits` is out of range,
                or a block has other layers than the network was built with.
        """
        self._require_eval("exact")
        if self.lattice is not None:
            raise ValueError(f"the network is in exact arithmetic already, of {self.lattice.bits} bits")
        exact = copy.deepcopy(self).double().requires_grad_(False)
        exact.lattice = Lattice(bits)
        for depth, block in enumerate(exact._couplings, start=1):
            block.register_module("bottleneck", ExactBottleneck(block, exact.lattice, f"block {depth}"))
        if is_ordinary_head(exact.head):
            exact.head.lattice = exact.lattice
        return exact.eval()

    def train(self, mode: bool = True) -> "IRevNet":
        """Puts the network into train mode, or eval mode; `RuntimeError` if it cannot be trained."""
        if mode and self.lattice is not None:
            raise RuntimeError("a network in exact arithmetic cannot be trained; train the one that it was made from")
        return super().train(mode)

    def _on_lattice(self, x: Tensor, name: str) -> Tensor:
        return x if self.lattice is None else self.lattice.round(x, name)

    def _encode(self, images: Tensor, depths: Sequence[int]) -> list[Tensor]:
        """Phi at each depth."""
        check_images(images, self.config.input_shape[0], self.config.total_stride)
        x, x_tilde = self._split(self._on_lattice(images, "images"))
        streams = [(x, x_tilde)]
        blocks = self._couplings[: max(depths, default=0)]
        if not self._saves_memory() or isinstance(images, torch.fx.Proxy):
            for block in blocks:
                x, x_tilde = block(x, x_tilde)
                streams.append((x, x_tilde))
        else:
            self._begin_saving_memory(images)
            options = {"memory": self.memory, "outputs": set(depths), "report": self._note_reconstruction}
            streams += run_blocks(blocks, x, x_tilde, **options)  # pyright: ignore[reportCallIssue]
        return [self._on_lattice(torch.cat(streams[depth], dim=1), "features") for depth in depths]

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

    def check_depth(self, depth: int | None) -> int:
        """The depth, or the last one for `None`; raises `ValueError` if the network has no such depth."""
        return check_depth(self.num_blocks if depth is None else depth, self.num_blocks)

    def _require_eval(self, method: str) -> None:
        if self.training:
            raise RuntimeError(
                f"{method} needs eval mode: in train mode batch normalisation depends on the batch, and the inverse "
                "would be wrong; call model.eval() first (training goes through model(images))"
            )
