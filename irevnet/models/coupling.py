"""One invertible block of the i-RevNet: an additive coupling of two streams around a bottleneck (equation 1)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from irevnet.models.config import SqueezeOrder
from irevnet.models.convolution import StridedPointwise, convolution
from irevnet.models.squeeze import squeeze, unsqueeze


class Bottleneck(nn.Sequential):
    """F_j of the paper: three convolutions without bias, each preceded by batch normalisation and ReLU (section 3.2).

    It need not be invertible. Maps `(n, in_channels, h, w)` to `(n, out_channels, h / stride, w / stride)` through
    `out_channels / ratio` channels, at least one.

    Args:
        in_channels: channels of the stream that it reads.
        out_channels: channels of the stream that its output is added to.
        stride: stride of the first convolution, where the released code has it. With a 1 x 1 first kernel F_j then
            reads one position in stride^2.
        kernel_sizes: the three odd kernel sizes; 1, 3, 1 in the paper, 3, 3, 3 in the released code.
        ratio: output channels over channels in the middle; 4 in the paper, below 1 for an inverted bottleneck.
        dropout: probability of dropping an activation after the second convolution, as in the released code.
        preactivate: whether batch normalisation and ReLU precede the first convolution too. In the first block of the
            released network they do not.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        kernel_sizes: Sequence[int],
        ratio: float,
        dropout: float = 0.0,
        preactivate: bool = True,
    ):
        middle = max(1, int(out_channels / ratio + 1e-6))  # 36 / (36 / 64) may fall just short of 64
        widths = (in_channels, middle, middle, out_channels)
        layers: list[nn.Module] = []
        for i, kernel in enumerate(kernel_sizes):
            if i > 0 or preactivate:
                layers += [nn.BatchNorm2d(widths[i]), nn.ReLU(inplace=True)]
            step = stride if i == 0 else 1
            layers.append(convolution(widths[i], widths[i + 1], kernel, stride=step))
            if i == 1:
                layers.append(nn.Dropout(dropout))
        super().__init__(*layers)


torch.fx.wrap("squeeze")  # functions of shapes are traced as one call
torch.fx.wrap("unsqueeze")
torch.fx.wrap("both")


def both(y: Tensor, y_tilde: Tensor) -> tuple[Tensor, Tensor]:
    """Both streams of a block as its last operation, which makes both the block's output in a traced network."""
    return y, y_tilde


Stream = Float[Tensor, "batch channels height width"]


class Coupling(nn.Module):
    """The block (x, x~) -> (S x~, S x + F x~) and its inverse (equation 1), invertible whatever F computes.

    S is the squeeze by the stride of F, the identity where that is 1.
    """

    def __init__(self, bottleneck: Bottleneck, *, stride: int, squeeze_order: SqueezeOrder):
        super().__init__()
        self.bottleneck = bottleneck
        self.stride = stride
        self.squeeze_order: SqueezeOrder = squeeze_order
        self.path: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
        """Computation that `forward` delegates to while back-propagation saves memory."""

    def forward(self, x: Stream, x_tilde: Stream) -> tuple[Tensor, Tensor]:
        return self.couple(x, x_tilde, self.bottleneck(x_tilde)) if self.path is None else self.path(x, x_tilde)

    def couple(self, x: Stream, x_tilde: Stream, moved: Tensor) -> tuple[Tensor, Tensor]:
        """(S x~, S x + F x~), where `moved` is F x~."""
        return both(self.squeeze(x_tilde), self.squeeze(x) + moved)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, squeeze_order={self.squeeze_order!r}"

    def inverse(self, y: Stream, y_tilde: Stream) -> tuple[Tensor, Tensor]:
        x_tilde = self.unsqueeze(y)
        x = self.unsqueeze(y_tilde - self.bottleneck(x_tilde))
        return x, x_tilde

    def squeeze(self, x: Stream) -> Tensor:
        """S, the squeeze of this block."""
        return squeeze(x, self.stride, self.squeeze_order)

    def unsqueeze(self, x: Stream) -> Tensor:
        """The inverse of S, and its transpose: S is a permutation."""
        return unsqueeze(x, self.stride, self.squeeze_order)


class Step(NamedTuple):
    """A convolution of a bottleneck, and the batch normalisation that precedes it together with a ReLU."""

    norm: nn.BatchNorm2d | nn.SyncBatchNorm | None
    convolution: nn.Conv2d


def steps_of(block: nn.Module, name: str) -> list[Step]:
    """The convolutions of a block in eval mode, each with its batch normalisation.

    For code that takes a bottleneck apart, and would silently ignore any other layer in it.

    Raises `ValueError`, naming the layer, for anything else: another activation, a bias, batch statistics, a hook.
    """
    steps: list[Step] = []
    norm: nn.BatchNorm2d | nn.SyncBatchNorm | None = None
    rectified = False
    if type(block) is not Coupling or type(block.bottleneck) is not Bottleneck:
        inner = block.bottleneck if type(block) is Coupling else block
        raise ValueError(f"{name} is a {type(inner).__name__}; {_ORDINARY}")
    for part in (block, block.bottleneck):
        _refuse_changed(part, name, type(part).__name__)
    for key, layer in block.bottleneck.named_children():
        kind = type(layer)
        fits = not layer.training
        match layer:
            case nn.BatchNorm2d() | nn.SyncBatchNorm() if kind in (nn.BatchNorm2d, nn.SyncBatchNorm):
                fits &= norm is None and layer.affine and layer.running_var is not None
                norm = layer
            case nn.ReLU() if kind is nn.ReLU:
                fits &= norm is not None and not rectified
                rectified = True
            case nn.Conv2d() if kind in (nn.Conv2d, StridedPointwise):
                fits &= (norm is not None) == rectified and (rectified or not steps) and _is_ordinary(layer)
                steps.append(Step(norm, layer))
                norm, rectified = None, False
            case nn.Identity() | nn.Dropout() | nn.Dropout2d() if kind in (nn.Identity, nn.Dropout, nn.Dropout2d):
                pass
            case _:
                fits = False
        if not fits:
            raise ValueError(f"{name} has {layer} as layer {key!r} of its bottleneck; {_ORDINARY}")
        _refuse_changed(layer, name, f"layer {key!r}")
    if norm is not None or not steps:
        raise ValueError(f"{name} does not end with a convolution; {_ORDINARY}")
    return steps


_ORDINARY = "expected, in eval mode, batch normalisation, ReLU and square convolutions without bias, in this order"


def _is_ordinary(layer: nn.Conv2d) -> bool:
    pairs = (layer.kernel_size, layer.stride, layer.padding)
    square = all(isinstance(pair, tuple) and pair[0] == pair[1] for pair in pairs)
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    return square and plain and layer.bias is None


def _refuse_changed(module: nn.Module, name: str, part: str) -> None:
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        raise ValueError(f"{part} of {name} has a forward hook or a forward of its own; {_ORDINARY}")
