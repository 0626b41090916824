import pytest
import torch
import torchvision

from irevnet import build_model
from irevnet.models.baselines import ResNet, RevNet
from irevnet.models.config import ResNetConfig, RevNetConfig


def test_resnet_50_is_torchvisions(trained_looking):
    reference = trained_looking(torchvision.models.resnet50()).double()
    model = ResNet(ResNetConfig()).double().eval()
    weights = [value for key, value in reference.state_dict().items()]
    model.load_state_dict(dict(zip(model.state_dict(), weights, strict=True)))
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(model(images), reference(images), rtol=1e-10, atol=1e-10)


def test_resnet_for_small_images_keeps_resolution_at_first():
    model = build_model("resnet-cifar", num_classes=4).eval()
    shapes = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 4)
    assert shapes[::2] == [(22, 32, 32), (44, 16, 16), (88, 8, 8), (176, 4, 4)]


def test_revnet_units_add_f_of_one_stream_and_g_of_the_other(trained_looking):
    model = trained_looking(RevNet(RevNetConfig(num_classes=3)).double())
    shapes = []
    for unit in model.blocks:
        unit.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output[1].shape[1:])))
    assert model(torch.rand(1, 3, 64, 64, dtype=torch.float64)).shape == (1, 3)
    assert shapes == [(256, 16, 16)] * 2 + [(512, 8, 8)] * 2 + [(1024, 4, 4)] * 3 + [(1664, 2, 2)] * 2
    unit = model.blocks[1]  # of constant width, so that its projections are the identity
    x, x_tilde = torch.rand(2, 1, 256, 4, 4, dtype=torch.float64)
    y, y_tilde = unit(x, x_tilde)
    torch.testing.assert_close(y, x + unit.f(x_tilde), rtol=0, atol=1e-12)
    torch.testing.assert_close(y_tilde, x_tilde + unit.g(y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["revnet-56", "resnet-cifar"])
def test_images_with_other_channels_are_refused(name):
    with pytest.raises(ValueError, match=r"this network takes \(batch, 3, height, width\)"):
        build_model(name).eval()(torch.rand(1, 1, 32, 32))


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (RevNetConfig, {"blocks": (1, 1)}, r"blocks=\(1, 1\), widths=.*expected one of each per stage"),
        (ResNetConfig, {"blocks": (1,)}, r"blocks=\(1,\), widths=.*expected one of each per stage"),
        (ResNetConfig, {"num_classes": 0}, "num_classes=0; expected positive integers"),
        (RevNetConfig, {"input_shape": (3, 0, 8)}, r"input_shape=\(3, 0, 8\)"),
        (RevNetConfig, {"widths": (512, 1024, 2048, 3)}, "expected even widths of at least 8"),
        (RevNetConfig, {"strides": (1, 2, 2, 0)}, "even widths of at least 8, and otherwise positive integers"),
        (RevNetConfig, {"blocks": (2, 2, 3, 10**9)}, "expected at most 10,000"),
        (ResNetConfig, {"widths": (0, 1, 1, 1)}, r"widths=\(0, 1, 1, 1\); expected positive integers"),
    ],
)
def test_configs_of_no_network_are_refused(kind, fields, message):
    with pytest.raises(ValueError, match=message):
        kind(**fields)
