import math

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from analysis.inversion import reconstruction_error, relative_errors
from irevnet.transforms import InputTransform

TRANSFORM = InputTransform(channels=3, image_size=(8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.fixture
def images() -> TensorDataset:
    pixels = torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return TensorDataset(TRANSFORM.normalise(pixels), torch.zeros(7, dtype=torch.long))


def measure(model, images, **options):
    return reconstruction_error(
        model, images, TRANSFORM, generator=torch.Generator().manual_seed(0), **{"num_noise": 9, **options}
    )


def test_errors_are_the_papers_on_the_networks_input(bijective, images):
    model = bijective.float()
    result = measure(model, images, batch_size=3)
    x = images.tensors[0]
    again = torch.cat([model.inverse(model.features(part)) for part in x.split(3)])
    expected = [
        math.dist(a.flatten().tolist(), b.flatten().tolist()) / math.hypot(*a.flatten().tolist())
        for a, b in zip(x, again)
    ]
    np.testing.assert_allclose(result.image_errors, expected, rtol=1e-9)
    assert 0 < result.image_errors.max() < 1e-5
    assert result.summary()["images"]["mean"] == pytest.approx(np.mean(expected))
    assert result.summary()["images"]["max"] == pytest.approx(max(expected))


def test_noise_is_uniform_before_it_is_normalised(bijective, images):
    result = measure(bijective.float(), images, num_noise=500, num_shown=500)
    noise = result.originals[7:]
    assert len(result.noise_errors) == len(noise) == 500
    assert noise.min() + 1e-6 >= 0
    assert noise.max() - 1e-6 <= 1
    np.testing.assert_allclose(noise.mean(axis=(0, 2, 3)), 0.5, atol=0.01)
    np.testing.assert_allclose(noise.var(axis=(0, 2, 3)), 1 / 12, atol=0.005)


def test_the_seed_and_not_the_batch_size_sets_the_noise(bijective, images):
    model = bijective.float()
    one, other = (measure(model, images, batch_size=size, num_shown=9).originals[7:] for size in (2, 9))
    np.testing.assert_array_equal(one, other)


def test_pictures_are_pixels_of_the_first_images_and_their_reconstructions(bijective, images):
    result = measure(bijective.float(), images, num_shown=2)
    assert result.originals.shape == result.reconstructions.shape == (4, 3, 8, 8)
    assert int(result.num_image_shown) == 2
    np.testing.assert_allclose(result.originals[:2], TRANSFORM.to_pixels(images.tensors[0][:2]).numpy())
    np.testing.assert_allclose(result.reconstructions, result.originals, atol=1e-5)
    np.testing.assert_array_equal(result.shown_errors, [*result.image_errors[:2], *result.noise_errors[:2]])


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_any_depth_can_be_inverted_from(bijective, images, depth):
    result = measure(bijective.float(), images, depth=depth)
    assert int(result.depth) == depth
    assert result.image_errors.max() < (1e-5 if depth else 1e-12)


def test_a_black_image_has_no_relative_error(bijective):
    black = TensorDataset(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.long))
    result = measure(bijective.float(), black)
    assert np.isnan(result.image_errors).all()
    assert result.summary()["images"] == {"count": 0, "undefined": 2}
    assert relative_errors(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)).isnan().all()
