"""Bottlenecks in exact arithmetic, with which the inverse of an i-RevNet is bit-exact, on any machine.

In floating point y = x + F(x~) is rounded, so that y - F(x~) is x up to "machine error" only (section 4.2). Here every
number is a whole multiple of a power of two, and small enough for float64 to compute with it exactly:

- streams, and all inputs of convolutions, are multiples of q = 2^-p, the lattice, below 2^(28 - p);
- each batch normalisation is folded into the convolution before it (or, where there is none, becomes a depthwise 1 x 1
  convolution), and each output channel's weights are rounded to multiples of a power of two u such that their absolute
  values sum to less than 2^25 u.

So every partial sum of a convolution is a multiple of q u below 2^53 q u, whatever the order of summation: exact in
float64, and the same for any batch size, number of threads, device or instruction set. The output of a convolution is
rounded to the lattice again. Then F depends on its input alone, x + F and y - F are exact, and the inverse network
undoes the network bit for bit.

The price is one rounding of the weights (relative to their sum, 2^-25) and of the activations (2^-p): the network
becomes a slightly different function, which is evaluated without error.

The head is computed in the same way (`exact_logits`): normalised values and their spatial means are rounded to a finer
lattice, of p + 6 bits, logits to multiples of 2^-p. So logits, too, are the same on any machine, and two images have
the same logits to the last bit if theirs before the last rounding are nearest to the same multiples of 2^-p.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from irevnet.models.coupling import Step, steps_of

NUMBER_BITS, WEIGHT_BITS = 28, 25
"""Bits of an input of a convolution, and of the sum of the weights of an output; together the 53 of float64."""


@dataclass(frozen=True)
class Lattice:
    """The multiples of 2^-bits below 2^(28 - bits) in absolute value.

    Attributes:
        bits: number of bits after the binary point, from 8, with which 8-bit images still differ, to 24.

    Raises `ValueError` for other numbers of bits.

    >>> Lattice(bits=8).round(torch.tensor([0.123]), "x").item() * 2**8
    31.0
    """

    bits: int = 14

    def __post_init__(self):
        if not 8 <= self.bits <= 24:
            raise ValueError(f"bits is {self.bits}; expected 8 to 24")

    @property
    def spacing(self) -> float:
        """Distance between neighbouring points."""
        return 2.0**-self.bits

    @property
    def limit(self) -> float:
        """Upper bound of the absolute values."""
        return 2.0 ** (NUMBER_BITS - self.bits)

    def round(self, x: Float[Tensor, "*shape"], name: str) -> Float[Tensor, "*shape"]:
        """The nearest points of the lattice, ties to even, in float64.

        Raises `ValueError`, with the `name` of the values, for any that are out of range or not finite.
        """
        x = self.nearest(x)
        largest = torch.linalg.vector_norm(x, torch.inf).item()
        if not largest < self.limit:
            raise ValueError(
                f"{name}: values up to {largest:.3g}; on a lattice of {self.bits} bits only values below "
                f"{self.limit:,.0f} are exact, use fewer `bits`"
            )
        return x

    def nearest(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The nearest multiples of 2^-bits, ties to even, in float64, of numbers of any size."""
        return x.double().div(self.spacing).round_().mul_(self.spacing)

    @property
    def finer(self) -> "Lattice":
        """The lattice of 6 bits more, or as many as there may be."""
        return Lattice(min(self.bits + 6, 24))


class _ExactConvolution(nn.Module):
    """A convolution and the batch normalisation after it, as one convolution with a bias that rounds no sum.

    Args:
        weight: weights in float64, `(out, in / groups, k, k)`.
        bias: biases in float64, `(out,)`.
        lattice: lattice of the inputs.
        stride: stride of the convolution.
        padding: number of zeros on each side.
        groups: number of groups of channels.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor, lattice: Lattice, *, stride: int = 1, padding: int = 0, groups: int = 1
    ):
        super().__init__()
        # A bias is a weight on one more input, as large as an input can be.
        summands = torch.cat((weight.flatten(1), bias[:, None] / lattice.limit), dim=1).abs()
        # One bit fewer than there are: rounding adds up to half a unit to each weight.
        unit = _power_of_two_above_sum(summands) / 2 ** (WEIGHT_BITS - 1)
        self.register_buffer("weight", _to_multiples(weight, unit.reshape(-1, 1, 1, 1)))
        self.register_buffer("bias", _to_multiples(bias, unit * lattice.spacing).reshape(-1, 1, 1))
        self.stride = stride
        self.padding = padding
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        # Without cuDNN, whose transforms (Winograd, FFT) add up other numbers than the products.
        with torch.backends.cudnn.flags(enabled=False):
            x = nn.functional.conv2d(x, self.weight, None, self.stride, self.padding, groups=self.groups)
        return x + self.bias


def _power_of_two_above_sum(x: Float[Tensor, "rows summands"]) -> Float[Tensor, " rows"]:
    """A power of two above the sum of each row, from a sum of integers, which does not depend on the order."""
    _, largest = torch.frexp(x.amax(dim=1))  # x < 2^largest
    whole = torch.ldexp(x, NUMBER_BITS - largest[:, None]).ceil()
    _, exponent = torch.frexp(whole.sum(dim=1))
    return torch.ldexp(torch.ones_like(x[:, 0]), exponent + largest - NUMBER_BITS)


def _to_multiples(x: Tensor, unit: Tensor) -> Tensor:
    return (x / unit).round() * unit


class ExactBottleneck(nn.Module):
    """F_j from the lattice to the lattice, computed without error.

    Args:
        block: coupling in eval mode.
        lattice: lattice of the streams.
        name: name of the block, for errors.

    Raises `ValueError` for weights that are not finite, and for unknown layers.
    """

    def __init__(self, block: nn.Module, lattice: Lattice, name: str):
        super().__init__()
        self.lattice = lattice
        self.name = name
        steps = steps_of(block, name)
        if not all(tensor.isfinite().all() for tensor in block.state_dict().values()):
            raise ValueError(f"{name}: weights or batch-norm statistics are not finite")
        self.convolutions = nn.ModuleList(_fold(conv, norm, lattice) for conv, norm in _pairs(steps))

    def forward(self, x: Tensor) -> Tensor:
        x = self.lattice.round(x, self.name)
        for index, convolution in enumerate(self.convolutions):
            x = convolution(x)
            if index + 1 < len(self.convolutions):
                x = x.relu_()
            x = self.lattice.round(x, self.name)
        return x


def _pairs(steps: Sequence[Step]) -> list[tuple[nn.Conv2d | None, nn.Module | None]]:
    """Each convolution with the batch normalisation after it; first, one that precedes all convolutions."""
    leading = [(None, steps[0].norm)] if steps[0].norm is not None else []
    following = [*(step.norm for step in steps[1:]), None]
    return [*leading, *((step.convolution, norm) for step, norm in zip(steps, following))]


def _fold(conv: nn.Conv2d | None, norm: nn.Module | None, lattice: Lattice) -> _ExactConvolution:
    """norm(conv(x)), of which one may be `None`, as one convolution."""
    if norm is None:
        assert conv is not None
        weight = conv.weight.double()
        scale, shift = weight.new_ones(len(weight)), weight.new_zeros(len(weight))
    else:
        numbers = {name: value.double() for name, value in norm.state_dict().items()}
        scale = numbers["weight"] / (numbers["running_var"] + norm.eps).sqrt()  # type: ignore[operator]
        shift = numbers["bias"] - numbers["running_mean"] * scale
    per_channel = scale.reshape(-1, 1, 1, 1)
    if conv is None:
        return _ExactConvolution(per_channel, shift, lattice, groups=len(scale))
    weight, padding = conv.weight.double() * per_channel, int(conv.padding[0])
    return _ExactConvolution(weight, shift, lattice, stride=conv.stride[0], padding=padding)


def exact_logits(
    phi: Float[Tensor, "images channels height width"], norm: nn.Module, classifier: nn.Linear, lattice: Lattice
) -> Float[Tensor, "images classes"]:
    """The linear projection of the spatial mean of ReLU(norm phi), for features on the lattice, without error but for
    three roundings: of normalised values, of their means and of the logits.

    Raises `ValueError` for values that are too large for the lattice, and for weights that are not finite.
    """
    return lattice.nearest(unrounded_logits(phi, norm, classifier, lattice))


def unrounded_logits(
    phi: Float[Tensor, "images channels height width"], norm: nn.Module, classifier: nn.Linear, lattice: Lattice
) -> Float[Tensor, "images classes"]:
    """What `exact_logits` rounds to multiples of 2^-bits, exactly."""
    finer = lattice.finer
    if not all(tensor.isfinite().all() for part in (norm, classifier) for tensor in part.state_dict().values()):
        raise ValueError("head: weights or batch-norm statistics are not finite")
    normalised = finer.round(_fold(None, norm, lattice)(phi).relu(), "head")
    # Sums of multiples of 2^-(p + 6) are exact in any order; the quotient is rounded once.
    means = finer.round(normalised.sum(dim=(2, 3), keepdim=True) / phi[0, 0].numel(), "head")
    weight, bias = classifier.weight.double(), classifier.bias
    bias = weight.new_zeros(len(weight)) if bias is None else bias.double()
    return _ExactConvolution(weight[:, :, None, None], bias, finer)(means).flatten(1)
