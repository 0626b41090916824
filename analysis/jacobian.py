"""The Jacobian of a network's features at an image, and of its inverse, as products with vectors (section 4.1).

For any differentiable function they are computed by automatic differentiation, J v in forward mode and J^T u in reverse
mode (`differentiate`). An i-RevNet in eval mode is piecewise affine (`linearise`): at an image F_j is a chain of
convolutions, between which values are scaled by batch normalisation and set to zero or not by ReLU. With these gains
stored, the derivative F_j' is that chain, and its transpose the chain backwards, and products are computed with them
(equation 1; S is orthogonal):

    J:     (x, x~) -> (S x~, S x + F' x~)            J^T:   (y, y~) -> (S^T y~, S^T y + F'^T y~)
    J^-1:  (y, y~) -> (S^T (y~ - F' S^T y), S^T y)   J^-T:  (x, x~) -> (S (x~ - F'^T S x), S x)
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import conv2d, conv_transpose2d

from analysis.features.layout import images_dimension, shapes_of, streams_of
from analysis.linalg.linear_operator import LinearOperator
from analysis.linalg.precision import true_float32
from irevnet.models.coupling import Coupling, steps_of
from irevnet.models.irevnet import IRevNet

Function = Callable[[Tensor], Tensor]
Image = Float[Tensor, "channels height width"]


def differentiate(function: Function, point: Float[Tensor, "..."], *, width: int = 64) -> LinearOperator:
    """The Jacobian of any differentiable function of torch at a point, by `torch.func`.

    Args:
        function: function of one tensor, which returns one tensor, of any shapes and without side effects.
        point: point at which to differentiate.
        width: number of vectors multiplied at once.

    Raises:
        ValueError: the output does not depend on the point differentiably.
    """
    point = point.detach().contiguous()
    with torch.enable_grad():
        if not function(point.clone().requires_grad_()).requires_grad:
            raise ValueError(
                "the layer is not differentiable with respect to the image: its output is an index, a constant, or "
                "cut off from the graph; name another layer"
            )
    with torch.no_grad(), true_float32(), _plain_attention():
        output, pull_back, *_ = vjp(function, point)

    def matvec(vectors: Tensor) -> Tensor:
        def one(vector: Tensor) -> Tensor:
            return jvp(function, (point,), (vector.reshape(point.shape),))[1].flatten()

        with warnings.catch_warnings(), _plain_attention():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, as it loads its forward-mode rules
            return vmap(one, chunk_size=width)(vectors)

    def rmatvec(vectors: Tensor) -> Tensor:
        return vmap(lambda vector: pull_back(vector.reshape(output.shape))[0].flatten(), chunk_size=width)(vectors)

    shape = output.numel(), point.numel()
    return LinearOperator(shape=shape, matvec=matvec, rmatvec=rmatvec, dtype=point.dtype, device=point.device)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention by operations with derivatives in forward mode, which the fused ones do not have."""
    earlier = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(earlier)


def layer_function(model: nn.Module, module: nn.Module) -> Function:
    """The function from one image `(c, h, w)` to the output of a module of the network, with streams concatenated.

    The dimension of the images in the output is found by passing two and three images through the network.

    The function raises `ValueError` if the module is not called or is called more than once, or if its output is not of
    tensors with a dimension of images.
    """
    layers = {"the layer": module}
    dimensions: list[int] = []

    def function(image: Tensor) -> Tensor:
        if not dimensions:
            two, three = (shapes_of(model, layers, image.new_zeros(n, *image.shape)) for n in (2, 3))
            dimensions.extend(
                images_dimension("the layer", *each) for each in zip(two["the layer"], three["the layer"])
            )
        outputs: list[Tensor] = []

        def keep(_: nn.Module, inputs: tuple, output: Any) -> None:
            # Copies, as a later layer may change the output in place.
            outputs[:] = [stream.clone() for stream in streams_of(output, "the layer")]

        handle = module.register_forward_hook(keep)
        try:
            model(image[None])
        finally:
            handle.remove()
        return torch.cat([output.select(images, 0) for output, images in zip(outputs, dimensions)], dim=0)

    return function


@dataclass(frozen=True, eq=False)
class NetworkJacobian:
    """The Jacobian J of an i-RevNet's features at an image.

    Attributes:
        forward: linear operator J, `(c h w, c h w)` if the network is bijective, with more rows if it is injective.
        inverse: Jacobian of the inverse network at these features: J^-1 if the network is bijective, and if it is
            injective a left inverse of J, though not the pseudoinverse.
    """

    forward: LinearOperator
    inverse: LinearOperator


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
