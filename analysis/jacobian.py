"""The Jacobian of a network's features at an image, and of its inverse, as products with vectors (section 4.1).

For any differentiable function they are computed by automatic differentiation, J v in forward mode and J^T u in reverse
mode (`differentiate`). Those of an i-RevNet are chains of convolutions (`analysis.linearisation`), which are faster.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from analysis.features.layers import Layer
from analysis.features.layout import images_dimension, shapes_of, streams_of
from analysis.linalg.linear_operator import LinearOperator
from analysis.linearisation import Image, NetworkJacobian, linearise
from irevnet.models.invertible import Invertible
from irevnet.models.irevnet import IRevNet
from irevnet.utils.precision import true_float32

Function = Callable[[Tensor], Tensor]


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
            warnings.filterwarnings("ignore", "`torch.jit.script` is")  # as torch loads its forward-mode rules
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


def layer_jacobian(
    model: nn.Module, layer: Layer, image: Image, *, width: int = 64
) -> tuple[LinearOperator, LinearOperator | None]:
    """The Jacobian J of a layer's features at an image, and J^-1 if the network has it, see `jacobian_of`.

    Args:
        model: network in eval mode; products are computed in its precision and on its device.
        layer: layer of that network.
        image: input of the network, `(c, h, w)`.
        width: number of vectors multiplied at once, where products are by automatic differentiation.
    """
    if isinstance(model, Invertible) and _is_block(layer):
        jacobian = jacobian_of(model, image, depth=layer.depth, width=width)
        return jacobian.forward, jacobian.inverse if jacobian.bijective else None
    return differentiate(layer_function(model, layer.module), image, width=width), None


def features_function(model: nn.Module, layer: Layer) -> Function:
    """The function from one image `(c, h, w)` to the features of a layer whose Jacobian `layer_jacobian` is."""
    if isinstance(model, Invertible) and _is_block(layer):
        return lambda image: model.features(image[None], layer.depth)[0]
    return layer_function(model, layer.module)


def _is_block(layer: Layer) -> bool:
    """Whether a layer of a network with an inverse is one of its depths, which need not be a module."""
    return layer.name == f"block-{layer.depth}"


@torch.no_grad()
def jacobian_of(model: Invertible, image: Image, *, depth: int, width: int = 64) -> NetworkJacobian:
    """The Jacobian of Phi_depth at an image, and that of the inverse at its features.

    Args:
        model: network in eval mode; products are computed in its precision and on its device.
        image: input of the network, `(c, h, w)`.
        depth: depth of the features.
        width: number of vectors multiplied at once, where products are by automatic differentiation.

    Raises:
        ValueError: the network is in exact arithmetic, the image does not fit, or the inverse does not undo the
            features.
    """
    if isinstance(model, IRevNet):
        return linearise(model, image, depth=depth)
    phi = model.features(image[None], depth)[0]
    found = NetworkJacobian(
        forward=differentiate(lambda x: model.features(x[None], depth)[0], image, width=width),
        inverse=differentiate(lambda y: model.inverse(y[None], depth)[0], phi, width=width),
    )
    again = model.inverse(phi[None], depth)[0]
    probe = torch.randn(1, image.numel(), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(image)
    back = found.inverse.matvec(found.forward.matvec(probe))
    error = max(float((one - other).norm() / one.norm()) for one, other in ((image, again), (probe, back)))
    if not error <= INVERSE_WITHIN[image.dtype]:
        raise ValueError(
            f"the inverse of the {type(model).__name__} does not undo its features at depth {depth}: images and their "
            f"changes come back with a relative error of {error:.1e}, which rounding does not explain below a "
            f"condition number of {INVERSE_WITHIN[image.dtype] / torch.finfo(image.dtype).eps:.0e}; mend it, or use "
            "`precision` float64"
        )
    return found


INVERSE_WITHIN = {torch.float32: 0.1, torch.float64: 1e-4}
"""Relative error of J^-1 J v above which an inverse is refused: rounding alone causes about eps times the condition
number."""
