"""Convolutions that are correct on every processor."""

from torch import Tensor, nn
from torch.nn.functional import conv2d


class StridedPointwise(nn.Conv2d):
    """A 1 x 1 convolution with a stride, computed with stride 1 on the positions that it reads, with the same weights.

    oneDNN (issue 6035; in torch up to at least 2.14) writes past its workspace when it computes the weight gradient of
    such a convolution with few input channels in channels-last memory: depending on the processor, the process crashes,
    hangs, or continues with wrong gradients.

    >>> import torch
    >>> convolution = StridedPointwise(2, 3, 1, stride=2, bias=False)
    >>> x = torch.rand(1, 2, 5, 5)
    >>> torch.allclose(convolution(x), nn.functional.conv2d(x, convolution.weight, stride=2), atol=1e-6)
    True
    """

    def forward(self, input: Tensor) -> Tensor:
        rows, columns = self.stride
        return conv2d(input[..., ::rows, ::columns], self.weight, self.bias)


def convolution(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias and with an odd kernel, padded so that only the stride reduces the size."""
    kind = StridedPointwise if kernel == 1 and stride > 1 else nn.Conv2d
    return kind(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False)
