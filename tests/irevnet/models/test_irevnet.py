import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.feature_extraction import create_feature_extractor

from irevnet import IRevNet, IRevNetConfig
from irevnet.models.squeeze import squeeze


@settings(max_examples=60)
@given(data=st.data())
def test_any_network_inverts_at_every_depth_in_both_directions(data, architectures, tolerance, trained_looking):
    fields, size = data.draw(architectures)
    config = IRevNetConfig(**fields)
    model = trained_looking(IRevNet(config).double())
    images = torch.randn(2, config.input_shape[0], *size, dtype=torch.float64)
    for depth in range(config.num_blocks + 1):
        phi = model.features(images, depth)
        assert tuple(phi.shape[1:]) == config.feature_shape(depth, size)
        assert relative_error(model.inverse(phi, depth), images) < tolerance[torch.float64]
        if config.bijective:
            target = torch.randn_like(phi)
            again = model.features(model.inverse(target, depth), depth)
            assert relative_error(again, target) < tolerance[torch.float64]


def relative_error(result: torch.Tensor, truth: torch.Tensor) -> float:
    return (torch.linalg.vector_norm(result - truth) / torch.linalg.vector_norm(truth)).item()


def test_float32_round_trips_at_every_depth(bijective, tolerance):
    model = bijective.float()
    images = torch.rand(4, 3, 8, 8)
    for depth in range(model.config.num_blocks + 1):
        phi = model.features(images, depth)
        assert relative_error(model.inverse(phi, depth), images) < tolerance[torch.float32]
        assert relative_error(model.features(model.inverse(phi, depth), depth), phi) < tolerance[torch.float32]


def test_jacobian_of_a_bijective_network_has_determinant_one(trained_looking):
    stages = dict(blocks=(1, 2), strides=(1, 2), initial_squeeze=2, kernel_sizes=(3, 3, 3))
    config = IRevNetConfig(input_shape=(2, 8, 8), num_classes=2, squeeze_order="channel", **stages)
    model = trained_looking(IRevNet(config).double())
    image = torch.randn(2, 8, 8, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda x: model.features(x[None]).flatten())(image).reshape(128, 128)
    assert not torch.allclose(jacobian.T @ jacobian, torch.eye(128, dtype=torch.float64))  # not an isometry
    _, logarithm = torch.linalg.slogdet(jacobian)
    assert abs(logarithm.item()) < 1e-10


def test_features_are_those_of_one_pass_from_the_squeezed_image(bijective, injective):
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    calls = []
    bijective.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    found = bijective.features(images, depth=[3, 0, 4])
    assert len(calls) == 1
    assert all(map(torch.equal, found, (bijective.features(images, depth) for depth in (3, 0, 4))))
    assert bijective.features(images, depth=[]) == []
    assert torch.equal(found[1], squeeze(images, 2))
    padded = injective.features(images, 0)
    assert torch.equal(padded[:, :3], images)
    assert torch.equal(padded[:, 3:], torch.zeros(2, 5, 8, 8, dtype=torch.float64))


def test_logits_are_the_head_on_the_last_features(bijective):
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    phi = bijective.features(images)
    norm, linear = bijective.head.norm, bijective.head.classifier
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt())[:, None, None]
    normed = (phi - norm.running_mean[:, None, None]) * scale + norm.bias[:, None, None]
    expected = normed.clamp(min=0).mean(dim=(2, 3)) @ linear.weight.T + linear.bias
    torch.testing.assert_close(bijective(images), expected, rtol=1e-12, atol=1e-12)
    bijective.train()(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in bijective.parameters())


def test_range_residual_tells_features_of_images_from_others(bijective, injective):
    images = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    for model in (bijective, injective):
        assert model.range_residual(model.features(images)).max() < 1e-12
    midpoint = injective.features(images).mean(dim=0, keepdim=True)
    residual = injective.range_residual(midpoint)
    again = injective.features(injective.inverse(midpoint))
    assert residual.item() == pytest.approx(relative_error(again, midpoint), rel=1e-10)
    assert residual > 1e-3
    assert bijective.range_residual(bijective.features(images).mean(dim=0, keepdim=True)) < 1e-12


def test_train_mode_is_refused_where_it_would_be_wrong(bijective):
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    phi = bijective.features(images)
    bijective.train()
    with pytest.raises(RuntimeError, match=r"features needs eval mode.*call model\.eval\(\)"):
        bijective.features(images)
    with pytest.raises(RuntimeError, match=r"inverse needs eval mode.*call model\.eval\(\)"):
        bijective.inverse(phi)
    phi = bijective.features(images, allow_train=True)
    torch.testing.assert_close(bijective.head(phi), bijective(images), rtol=1e-9, atol=1e-9)


def test_images_and_features_that_do_not_fit_are_refused(bijective):
    for shape in ((3, 8, 8), (2, 1, 8, 8), (2, 3, 8, 10), (2, 3, 6, 8)):
        with pytest.raises(ValueError, match=r"\(batch, 3, height, width\) with height and width multiples of 4"):
            bijective(torch.rand(shape, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"torch\.uint8; expected floating point, such as bytes divided by 255"):
        bijective(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    with pytest.raises(ValueError, match="depth 5 does not exist; this network has depths 0 to 4"):
        bijective.features(images, depth=[1, 5])
    with pytest.raises(ValueError, match="depth -1 does not exist"):
        bijective.inverse(images, -1)
    wanted = r"not of depth 4, where they are \(batch, 48, height, width\); pass the depth"
    with pytest.raises(ValueError, match=wanted):
        bijective.inverse(bijective.features(images, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_shape": (0, 8, 8)}, r"input_shape is \(0, 8, 8\)"),
        ({"num_classes": 0}, "num_classes is 0; expected at least 1"),
        ({"blocks": (2,)}, "one number of blocks and one stride for each stage"),
        ({"blocks": (), "strides": ()}, "at least one stage"),
        ({"blocks": (2, 0)}, "expected positive integers"),
        ({"initial_squeeze": 0}, "expected positive integers"),
        ({"strides": (2, 3)}, "images of 8 x 8 cannot be squeezed by 12 .* resize them to 12 x 12 or lower a stride"),
        ({"kernel_sizes": (1, 2, 1)}, "expected three odd numbers"),
        ({"bottleneck_ratio": (4.0,)}, "or one for each of the 2 stages"),
        ({"bottleneck_ratio": 0.0}, "expected a positive number"),
        ({"initial_squeeze": 1}, "3 channels .* cannot be split .* channels=2 to append zeros"),
        ({"channels": 6}, "no room to append zeros to the 12 channels .* use more than 6"),
        ({"dropout": 1.0}, "dropout is 1.0; expected a probability"),
        ({"squeeze_order": "rows"}, r"squeeze_order is 'rows'; expected one of \('block', 'channel'\)"),
    ],
)
def test_configs_that_cannot_work_are_refused(bijective_config, change, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(bijective_config, **change)


def test_train_mode_drops_and_keeps_statistics_of_the_last_batch(bijective_config):
    model = IRevNet(dataclasses.replace(bijective_config, dropout=0.5))
    images = torch.rand(4, 3, 8, 8)
    assert not torch.equal(model(images), model(images))
    model.head.norm.reset_running_stats()
    phi = model.features(images, allow_train=True)
    model.head(phi)
    torch.testing.assert_close(model.head.norm.running_mean, 0.9 * phi.mean(dim=(0, 2, 3)))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("memory", ["plain", "checkpoint", "reversible"])
def test_traced_networks_are_the_same(bijective, injective, memory, unchecked_types):
    for model in (bijective, injective):
        model.memory = memory
        images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
        assert torch.equal(torch.fx.symbolic_trace(model)(images), model(images))
        with pytest.raises(ValueError, match=r"images of shape \(2, 3, 9, 9\) do not fit"):
            torch.fx.symbolic_trace(model)(torch.rand(2, 3, 9, 9, dtype=torch.float64))
        extractor = create_feature_extractor(model, {"blocks.1": "second", "head.norm": "normalised"})
        assert torch.equal(torch.cat(extractor(images)["second"], dim=1), model.features(images, 2))
        assert torch.equal(extractor(images)["normalised"], model.head.norm(model.features(images)))
