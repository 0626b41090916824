import pytest
import torch
from torch import nn

from irevnet.models.convolution import StridedPointwise
from irevnet.models.coupling import Bottleneck, Coupling

STEP = (nn.BatchNorm2d, nn.ReLU)


def coupling(stride: int, *, order="block", channels=4) -> Coupling:
    bottleneck = Bottleneck(channels, channels * stride**2, stride=stride, kernel_sizes=(3, 3, 3), ratio=4.0)
    return Coupling(bottleneck, stride=stride, squeeze_order=order).double().eval()


@pytest.mark.parametrize("order", ["block", "channel"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_inverse_undoes_forward_and_forward_undoes_inverse(stride, order):
    block = coupling(stride, order=order)
    x, x_tilde = torch.randn(2, 2, 4, 6, 12, dtype=torch.float64)
    for one, other in zip(block.inverse(*block(x, x_tilde)), (x, x_tilde)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    y, y_tilde = torch.randn(2, 2, 4 * stride**2, 3, 2, dtype=torch.float64)
    for one, other in zip(block(*block.inverse(y, y_tilde)), (y, y_tilde)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_is_equation_1_of_the_paper_with_both_streams_squeezed(stride):
    block = coupling(stride)
    x, x_tilde = torch.randn(2, 2, 4, 6, 6, dtype=torch.float64)
    y, y_tilde = block(x, x_tilde)
    assert torch.equal(y[:, :4], x_tilde[:, :, ::stride, ::stride])
    moved = (y_tilde - block.bottleneck(x_tilde))[:, -4:]
    torch.testing.assert_close(moved, x[:, :, stride - 1 :: stride, stride - 1 :: stride], rtol=0, atol=1e-12)


def test_bottleneck_has_three_preactivated_convolutions():
    bottleneck = Bottleneck(4, 16, stride=2, kernel_sizes=(1, 3, 1), ratio=4.0)
    layers = [type(layer) for layer in bottleneck]
    strided, *others = [layer for layer in bottleneck if isinstance(layer, nn.Conv2d)]
    assert layers == [*STEP, StridedPointwise, *STEP, nn.Conv2d, nn.Dropout, *STEP, nn.Conv2d]
    assert [layer.stride for layer in (strided, *others)] == [(2, 2), (1, 1), (1, 1)]
    first = Bottleneck(4, 16, stride=2, kernel_sizes=(1, 3, 1), ratio=4.0, preactivate=False)
    assert [type(layer) for layer in first] == layers[2:]


@pytest.mark.parametrize(("out", "ratio", "middle"), [(6, 4.0, 1), (2, 4.0, 1), (36, 36 / 64, 64)])
def test_width_in_the_middle(out, ratio, middle):
    bottleneck = Bottleneck(4, out, stride=1, kernel_sizes=(1, 3, 1), ratio=ratio)
    widths = [layer.out_channels for layer in bottleneck if isinstance(layer, nn.Conv2d)]
    assert widths == [middle, middle, out]
