"""The Jacobian of an i-RevNet's features as chains of convolutions (section 4.1).

An i-RevNet in eval mode is piecewise affine: at an image F_j is a chain of convolutions, between which values are
scaled by batch normalisation and set to zero or not by ReLU. With these gains stored, the derivative F_j' is that
chain, and its transpose the chain backwards, and products are computed with them (equation 1; S is orthogonal):

    J:     (x, x~) -> (S x~, S x + F' x~)            J^T:   (y, y~) -> (S^T y~, S^T y + F'^T y~)
    J^-1:  (y, y~) -> (S^T (y~ - F' S^T y), S^T y)   J^-T:  (x, x~) -> (S (x~ - F'^T S x), S x)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d

from analysis.linalg.linear_operator import LinearOperator
from irevnet.models.coupling import Coupling, steps_of
from irevnet.models.irevnet import IRevNet
from irevnet.utils.precision import true_float32

Image = Float[Tensor, "channels height width"]


@dataclass(frozen=True, eq=False)
class NetworkJacobian:
    """The Jacobian J of a network's features at an image.

    Attributes:
        forward: linear operator J, `(c h w, c h w)` if the network is bijective, with more rows if it is injective.
        inverse: Jacobian of the inverse network at these features: J^-1 if the network is bijective, and if it is
            injective a left inverse of J, though not the pseudoinverse.
    """

    forward: LinearOperator
    inverse: LinearOperator

    @property
    def bijective(self) -> bool:
        """Whether there are as many features as inputs."""
        return self.forward.shape[0] == self.forward.shape[1]


@torch.no_grad()
@true_float32()
def linearise(model: IRevNet, image: Image, *, depth: int | None = None) -> NetworkJacobian:
    """The Jacobian of Phi_depth at an image, as chains of convolutions.

    Args:
        model: i-RevNet in eval mode; products are computed in its precision and on its device.
        image: input of the network, `(c, h, w)`.
        depth: number of the block whose features are differentiated; the last by default.

    Raises:
        RuntimeError: the network is in train mode.
        ValueError: the network is in exact arithmetic, or has other layers than it was built with (`differentiate`
            takes any), or the image does not fit.
    """
    if model.lattice is not None:
        raise ValueError(
            "a network in exact arithmetic rounds and has no derivative; linearise the network that it was made from"
        )
    depth = model.check_depth(depth)
    x, x_tilde = model.features(image[None], 0).chunk(2, dim=1)
    blocks = []
    for number, coupling in enumerate(list(model.blocks)[:depth], start=1):
        blocks.append(_LinearBlock.at(coupling, x_tilde, f"block {number}"))  # type: ignore[arg-type]
        x, x_tilde = coupling(x, x_tilde)
    network = _LinearNetwork(model, tuple(image.shape), (2 * x.shape[1], *x.shape[2:]), blocks)
    kind = {"dtype": image.dtype, "device": image.device}
    m, n = 2 * x.numel(), image.numel()
    return NetworkJacobian(
        forward=LinearOperator(shape=(m, n), matvec=network.jvp, rmatvec=network.vjp, **kind),
        inverse=LinearOperator(shape=(n, m), matvec=network.inverse_jvp, rmatvec=network.inverse_vjp, **kind),
    )


@dataclass(frozen=True, eq=False)
class _LinearConvolution:
    """The derivative of a convolution after batch normalisation and ReLU, v -> weight * (gain v).

    Attributes:
        gain: derivative of batch normalisation and ReLU at the image, `None` where the convolution comes first.
        weight: weight of the convolution.
        stride: stride of the convolution.
        padding: padding of the convolution.
        input_size: height and width of its input.
    """

    gain: Tensor | None
    weight: Tensor
    stride: int
    padding: int
    input_size: tuple[int, int]

    def jvp(self, v: Tensor) -> Tensor:
        return conv2d(v if self.gain is None else self.gain * v, self.weight, stride=self.stride, padding=self.padding)

    def vjp(self, u: Tensor) -> Tensor:
        # With a stride the last rows and columns of the input may not be used: their derivatives are zero.
        kernel, overlap = self.weight.shape[2], 2 * self.padding
        reached = [(size - 1) * self.stride + kernel - overlap for size in u.shape[2:]]
        unused = [size - end for size, end in zip(self.input_size, reached)]
        v = conv_transpose2d(u, self.weight, stride=self.stride, padding=self.padding, output_padding=unused)
        return v if self.gain is None else self.gain * v


@dataclass(frozen=True, eq=False)
class _LinearBlock:
    """A coupling block, and the derivative of its bottleneck at a point as a chain of convolutions."""

    coupling: Coupling
    convolutions: Sequence[_LinearConvolution]

    @classmethod
    def at(cls, coupling: Coupling, x_tilde: Tensor, name: str) -> "_LinearBlock":
        convolutions: list[_LinearConvolution] = []
        x = x_tilde
        for norm, convolution in steps_of(coupling, name):
            gain: Tensor | None = None
            if norm is not None:
                assert isinstance(norm.running_var, Tensor)
                x = norm(x)
                gain = (x > 0) * (norm.weight / (norm.running_var + norm.eps).sqrt()).reshape(-1, 1, 1)
                x = x.relu()
            size, padding = (x.shape[2], x.shape[3]), int(convolution.padding[0])
            weight = convolution.weight.clone()  # the network may be trained or converted later
            convolutions.append(_LinearConvolution(gain, weight, convolution.stride[0], padding, size))
            x = convolution(x)
        return cls(coupling, convolutions)

    def bottleneck(self, v: Tensor) -> Tensor:
        """F' v."""
        for convolution in self.convolutions:
            v = convolution.jvp(v)
        return v

    def bottleneck_transposed(self, u: Tensor) -> Tensor:
        """F'^T u."""
        for convolution in reversed(self.convolutions):
            u = convolution.vjp(u)
        return u


@dataclass(frozen=True, eq=False)
class _LinearNetwork:
    """Products with J, J^T, J^-1 and J^-T, block by block.

    The split S~ of the image into streams is orthogonal, except for the zeros that it may append.
    """

    model: IRevNet
    image_shape: tuple[int, ...]
    feature_shape: tuple[int, ...]
    blocks: Sequence[_LinearBlock]

    def jvp(self, vectors: Tensor) -> Tensor:
        x, x_tilde = self._split(vectors)
        for block in self.blocks:
            squeeze = block.coupling.squeeze
            x, x_tilde = squeeze(x_tilde), squeeze(x) + block.bottleneck(x_tilde)
        return torch.cat((x, x_tilde), dim=1).flatten(1)

    def vjp(self, vectors: Tensor) -> Tensor:
        y, y_tilde = self._streams(vectors)
        for block in reversed(self.blocks):
            unsqueeze = block.coupling.unsqueeze
            y, y_tilde = unsqueeze(y_tilde), unsqueeze(y) + block.bottleneck_transposed(y_tilde)
        return self._merge(y, y_tilde)

    def inverse_jvp(self, vectors: Tensor) -> Tensor:
        y, y_tilde = self._streams(vectors)
        for block in reversed(self.blocks):
            unsqueeze = block.coupling.unsqueeze
            x_tilde = unsqueeze(y)
            y, y_tilde = unsqueeze(y_tilde - block.bottleneck(x_tilde)), x_tilde
        return self._merge(y, y_tilde)

    def inverse_vjp(self, vectors: Tensor) -> Tensor:
        x, x_tilde = self._split(vectors)
        for block in self.blocks:
            squeeze = block.coupling.squeeze
            y_tilde = squeeze(x)
            x, x_tilde = squeeze(x_tilde - block.bottleneck_transposed(y_tilde)), y_tilde
        return torch.cat((x, x_tilde), dim=1).flatten(1)

    def _split(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """S~ v."""
        x, x_tilde = self.model.features(vectors.reshape(-1, *self.image_shape), 0).chunk(2, dim=1)
        return x, x_tilde

    def _merge(self, x: Tensor, x_tilde: Tensor) -> Tensor:
        """S~^T u, which is also the inverse of S~, or its left inverse."""
        return self.model.inverse(torch.cat((x, x_tilde), dim=1), 0).flatten(1)

    def _streams(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        y, y_tilde = vectors.reshape(-1, *self.feature_shape).chunk(2, dim=1)
        return y, y_tilde
