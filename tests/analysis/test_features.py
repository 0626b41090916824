import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from analysis.features import averaged_features, spatial_mean
from irevnet import build_model


@pytest.fixture
def images() -> TensorDataset:
    return TensorDataset(torch.rand(10, 3, 8, 8, dtype=torch.float64), torch.arange(10))


@pytest.mark.parametrize("batch_size", [3, 10, 64])
def test_features_are_the_spatial_means_of_phi_j(bijective, images, batch_size):
    depths = [1, 3, 4]
    features, labels = averaged_features(bijective, images, depths, batch_size=batch_size)
    assert labels.tolist() == list(range(10))
    for depth, found in zip(depths, features):
        expected = bijective.features(images.tensors[0], depth).mean(dim=(2, 3))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_the_network_is_left_as_it_was(bijective, images):
    bijective.train()
    before = {key: value.clone() for key, value in bijective.state_dict().items()}
    averaged_features(bijective, images, [1])
    assert bijective.training
    assert all(torch.equal(before[key], value) for key, value in bijective.state_dict().items())
    assert not any(block._forward_hooks for block in bijective.blocks)


@pytest.mark.parametrize(("name", "channels"), [("resnet-cifar", 224), ("revnet-56", 3328)])
def test_networks_that_are_not_invertible_have_features_too(name, channels):
    data = TensorDataset(torch.rand(2, 3, 32, 32), torch.zeros(2, dtype=torch.long))
    model = build_model(name)
    features, _ = averaged_features(model, data, [model.config.num_blocks])
    assert features[0].shape == (2, channels)


def test_two_streams_are_put_side_by_side():
    x, x_tilde = torch.rand(2, 3, 2, 4, 5)
    assert torch.equal(spatial_mean((x, x_tilde)), spatial_mean(torch.cat((x, x_tilde), dim=1)))
