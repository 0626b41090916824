import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import ResNet50_Weights

from irevnet import IRevNet, build_model
from irevnet.models.zoo import count_multiply_adds, preset_config, small_config


def test_networks_are_those_of_the_paper_and_the_release(models):
    parameters = {
        "irevnet-a": 180_999_016,  # 181M in Table 1
        "irevnet-b": 29_201_092,  # 29M in Table 1
        "irevnet-b-released": 125_120_356,
        "irevnet-cifar": 6_274_826,
        "revnet-56": 27_553_128,  # 28M in Table 1
        "resnet-50": 25_557_032,  # 26M in Table 1
    }
    assert {name: models[name].parameters for name in parameters} == parameters
    injective = {name for name, info in models.items() if info.injective}
    bijective = {name for name, info in models.items() if info.bijective}
    assert injective - bijective == {"irevnet-a", "irevnet-cifar"}
    assert bijective == {"irevnet-b", "irevnet-b-released", "irevnet-cifar-bijective", "irevnet-small"}
    assert models["irevnet-b"].blocks == 100
    invertible, residual = models["irevnet-cifar-bijective"], models["resnet-cifar"]
    assert 4 * invertible.parameters < 8e6  # bytes
    assert residual.multiply_adds == pytest.approx(invertible.multiply_adds, rel=0.03)


def test_depths_and_channels_are_those_of_section_3_2():
    for name, depths in {"irevnet-b": [1, 7, 23, 95], "irevnet-a": [5, 9, 15]}.items():
        strides = preset_config(name).block_strides
        assert [depth for depth, stride in enumerate(strides, start=1) if stride > 1] == depths
    config = preset_config("irevnet-b")
    assert [config.feature_shape(depth)[0] // 2 for depth in (1, 7, 23, 95)] == [24, 96, 384, 1536]
    assert all(torch.Size(config.feature_shape(depth)).numel() == 3 * 224**2 for depth in range(101))


def test_multiply_adds_are_torchvisions_and_those_of_the_layers(models):
    billions = ResNet50_Weights.IMAGENET1K_V1.meta["_ops"]
    assert models["resnet-50"].multiply_adds / 1e9 == pytest.approx(billions, abs=1e-3)
    model = build_model("irevnet-small", image_size=8).train()
    seen = []

    def count(layer, inputs, output):
        seen.append(layer.weight[0].numel() * output[0].numel())

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    assert count_multiply_adds(model, model.config.input_shape) == sum(seen)
    assert model.training


@settings(max_examples=20)
@given(
    channels=st.integers(1, 4),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    num_classes=st.integers(1, 5),
)
def test_the_small_net_takes_images_of_any_size(channels, height, width, num_classes):
    config = small_config((channels, height, width), num_classes)
    model = IRevNet(config).eval()
    image = torch.rand(1, channels, height, width)
    assert model(image).shape == (1, num_classes)
    torch.testing.assert_close(model.inverse(model.features(image)), image, rtol=0, atol=1e-4)
    if channels * height * width % 2 == 1:
        assert not config.bijective  # an odd number of values cannot be halved
    if height % 2 == 0 and width % 2 == 0:
        assert config.bijective


def test_the_small_net_squeezes_large_images_before_its_stages():
    config = small_config((3, 224, 224))
    assert config.feature_shape(config.num_blocks) == (3072, 7, 7)
    assert sum(p.numel() for p in IRevNet(config).parameters()) < 10e6


def test_build_model_takes_sizes_and_classes():
    model = build_model("irevnet-b", num_classes=7, image_size=(32, 64), in_channels=1)
    assert model.config.input_shape == (1, 32, 64)
    assert model.head.classifier.out_features == 7
    assert build_model("irevnet-small", image_size=16).config.input_shape == (1, 16, 16)


def test_build_model_refuses_what_it_cannot_build():
    with pytest.raises(ValueError, match="there is no model 'irevnet-d'; did you mean irevnet-"):
        build_model("irevnet-d")
    with pytest.raises(ValueError, match="there is no model 'vgg'; known: irevnet-a, irevnet-b,"):
        build_model("vgg")
    with pytest.raises(ValueError, match="images of 30 x 30 cannot be squeezed by 32"):
        build_model("irevnet-b", image_size=30)
