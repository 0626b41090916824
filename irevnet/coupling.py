"""One invertible block of the i-RevNet: an additive coupling of two streams around a bottleneck (equation 1)."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from irevnet.config import SqueezeOrder
from irevnet.squeeze import squeeze, unsqueeze


class Bottleneck(nn.Sequential):
    """F_j of the paper: three convolutions without bias, each preceded by batch normalisation and ReLU (section 3.2).

    It need not be invertible. Maps `(n, in_channels, h, w)` to `(n, out_channels, h / stride, w / stride)` through
    `out_channels / ratio` channels, at least one.

    Args:
        in_channels: channels of the stream it reads.
        out_channels: channels of the stream it is added to.
        stride: stride of the first convolution, where the released code has it. With a 1 x 1 first kernel F_j then
            reads one position in stride^2.
        kernel_sizes: the three odd kernel sizes; 1, 3, 1 in the paper, 3, 3, 3 in the released code.
        ratio: output channels over channels in the middle; 4 in the paper, below 1 for an inverted bottleneck.
        dropout: probability of dropping an activation after the second convolution, as in the released code.
        preactivate: whether batch normalisation and ReLU precede the first convolution too. The released network
            leaves them out of its very first block.
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
            layers.append(nn.Conv2d(widths[i], widths[i + 1], kernel, stride=step, padding=kernel // 2, bias=False))
            if i == 1:
                layers.append(nn.Dropout(dropout))
        super().__init__(*layers)


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

    def forward(self, x: Stream, x_tilde: Stream) -> tuple[Tensor, Tensor]:
        y = self.squeeze(x_tilde)
        y_tilde = self.squeeze(x) + self.bottleneck(x_tilde)
        return y, y_tilde

    def inverse(self, y: Stream, y_tilde: Stream) -> tuple[Tensor, Tensor]:
        x_tilde = self.unsqueeze(y)
        x = self.unsqueeze(y_tilde - self.bottleneck(x_tilde))
        return x, x_tilde

    def squeeze(self, x: Stream) -> Tensor:
        """S of this block."""
        return squeeze(x, self.stride, self.squeeze_order)

    def unsqueeze(self, x: Stream) -> Tensor:
        """The inverse of S, which is its transpose as well: S moves values and computes none."""
        return unsqueeze(x, self.stride, self.squeeze_order)
