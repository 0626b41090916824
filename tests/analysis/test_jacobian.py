"""Products with the Jacobian, against automatic differentiation of the whole network and against the dense matrix."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import VisionTransformer

from analysis.jacobian import differentiate, layer_function
from analysis.linearisation import linearise
from irevnet import IRevNet, IRevNetConfig
from irevnet.models.baselines import RevNet
from irevnet.models.config import RevNetConfig


def dense(function, point: torch.Tensor) -> torch.Tensor:
    return torch.func.jacrev(function)(point).reshape(-1, point.numel())


def adjointness(operator, generator) -> float:
    """|<J v, u> - <v, J^T u>| over the product of all lengths."""
    m, n = operator.shape
    v = torch.randn(3, n, generator=generator, dtype=torch.float64)
    u = torch.randn(3, m, generator=generator, dtype=torch.float64)
    forward, backward = operator.matvec(v).double(), operator.rmatvec(u).double()
    return ((forward * u).sum() - (v * backward).sum()).abs().item() / (forward.norm() * u.norm()).item()


@settings(max_examples=20)
@given(data=st.data())
def test_linearised_products_are_those_of_the_dense_jacobian(data, architectures, trained_looking):
    fields, size = data.draw(architectures)
    depth = data.draw(st.integers(0, sum(fields["blocks"])))
    config = IRevNetConfig(**fields)
    # The dense matrices of the largest would take gigabytes.
    assume(torch.Size(config.feature_shape(0, size)).numel() <= 500)
    torch.manual_seed(0)
    model = trained_looking(IRevNet(config).double())
    x = torch.randn(fields["input_shape"][0], *size, dtype=torch.float64)
    jacobian = linearise(model, x, depth=depth)
    expected = dense(lambda image: model.features(image[None], depth)[0], x)
    torch.testing.assert_close(jacobian.forward.dense(), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(jacobian.forward.transposed.dense(), expected.T, rtol=1e-12, atol=1e-12)
    phi = model.features(x[None], depth)[0].detach()
    expected = dense(lambda features: model.inverse(features[None], depth)[0], phi)
    torch.testing.assert_close(jacobian.inverse.dense(), expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(jacobian.inverse.transposed.dense(), expected.T, rtol=1e-11, atol=1e-11)


def test_products_in_float32_agree_and_are_adjoint(bijective, generator):
    model, x = bijective.float(), torch.randn(3, 8, 8, generator=generator)
    quick = linearise(model, x, depth=3)
    slow = differentiate(lambda image: model.features(image[None], 3)[0], x, width=2)
    for each in (quick.forward, quick.inverse, slow):
        assert each.dtype == torch.float32
        assert adjointness(each, generator) < 1e-6
    vectors = torch.randn(5, 192, generator=generator)
    torch.testing.assert_close(quick.forward.matvec(vectors), slow.matvec(vectors), rtol=0, atol=1e-4)
    torch.testing.assert_close(quick.forward.rmatvec(vectors), slow.rmatvec(vectors), rtol=0, atol=1e-4)


def test_products_do_not_change_with_the_network(bijective, generator):
    x = torch.randn(3, 8, 8, generator=generator, dtype=torch.float64)
    jacobian = linearise(bijective, x)
    before = jacobian.forward.dense()
    with torch.no_grad():
        for parameter in bijective.parameters():
            parameter += 1
    bijective.float()
    torch.testing.assert_close(jacobian.forward.dense(), before)


def test_any_network_is_differentiated_at_any_layer(trained_looking, generator):
    config = RevNetConfig(input_shape=(3, 8, 8), num_classes=3, blocks=(1, 1), widths=(16, 32), strides=(1, 2))
    model = trained_looking(RevNet(config).double())
    x = torch.randn(model.config.input_shape, generator=generator, dtype=torch.float64)
    for layer in model.blocks:
        function = layer_function(model, layer)
        operator = differentiate(function, x, width=7)
        assert operator.shape == (function(x).numel(), x.numel())
        torch.testing.assert_close(operator.transposed.dense().T, dense(function, x).detach())
        assert adjointness(operator, generator) < 1e-14
    assert not any(module._forward_hooks for module in model.modules())


def test_attention_is_differentiated_too(generator):
    size = {"image_size": 16, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 12}
    model = VisionTransformer(**size, num_classes=3).double().eval()
    x = torch.randn(3, 16, 16, generator=generator, dtype=torch.float64)
    function = layer_function(model, model.encoder.layers[1])
    operator = differentiate(function, x)
    expected = torch.autograd.functional.jacobian(function, x).reshape(operator.shape)
    torch.testing.assert_close(operator.dense(), expected)
    assert adjointness(operator, generator) < 1e-14
    assert torch.backends.mha.get_fastpath_enabled()


def test_streams_are_the_features_side_by_side(bijective, generator):
    x = torch.randn(3, 8, 8, generator=generator, dtype=torch.float64)
    for depth, block in enumerate(bijective.blocks, start=1):
        torch.testing.assert_close(layer_function(bijective, block)(x), bijective.features(x[None], depth)[0])


class Rounded(nn.Module):
    def forward(self, x):
        return x.argmax(dim=1)


def test_a_layer_without_a_derivative_is_refused(generator):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Rounded())
    with pytest.raises(ValueError, match="the layer is not differentiable with respect to the image"):
        differentiate(layer_function(model, model[1]), torch.randn(3, 4, 4, generator=generator))


def test_networks_without_a_jacobian_are_refused(bijective, generator):
    x = torch.randn(3, 8, 8, generator=generator, dtype=torch.float64)
    with pytest.raises(ValueError, match="exact arithmetic rounds and has no derivative"):
        linearise(bijective.exact(), x)
    with pytest.raises(ValueError, match=r"images of shape \(1, 3, 9, 9\) do not fit"):
        linearise(bijective, torch.randn(3, 9, 9, dtype=torch.float64))
    with pytest.raises(ValueError, match="depth 5 does not exist"):
        linearise(bijective, x, depth=5)
    with pytest.raises(RuntimeError, match="needs eval mode"):
        linearise(bijective.train(), x)
