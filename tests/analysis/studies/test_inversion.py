import math

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from analysis.studies.inversion import InversionOptions, in_arithmetic, reconstruct, relative_errors
from irevnet.data.transforms import InputTransform

TRANSFORM = InputTransform(channels=3, image_size=(8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.fixture
def images() -> TensorDataset:
    pixels = torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return TensorDataset(TRANSFORM.normalise(pixels), torch.zeros(7, dtype=torch.long))


def measure(model, images, *, batch_size=256, **options):
    options = {"num_noise": 9, "num_images": 3, "depths": [1, 4], **options}
    generator = torch.Generator().manual_seed(0)
    return reconstruct(
        model, images, TRANSFORM, InversionOptions(**options), generator=generator, batch_size=batch_size
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
    one, other = (measure(model, images, batch_size=size, num_shown=9) for size in (2, 9))
    noise = [result.originals[7:][np.argsort(result.shown[7:])] for result in (one, other)]
    np.testing.assert_array_equal(*noise)


def test_pictures_are_pixels_of_the_images_that_came_back_worst(bijective, images):
    result = measure(bijective.float(), images, num_shown=2, batch_size=3)
    assert result.originals.shape == result.reconstructions.shape == (4, 3, 8, 8)
    assert int(result.num_image_shown) == 2
    rows = np.argsort(-result.image_errors)[:2]
    np.testing.assert_array_equal(result.shown[:2], rows)
    np.testing.assert_array_equal(result.shown[2:], np.argsort(-result.noise_errors)[:2])
    np.testing.assert_allclose(result.originals[:2], TRANSFORM.to_pixels(images.tensors[0][rows]).numpy())
    np.testing.assert_allclose(result.reconstructions, result.originals, atol=1e-5)
    np.testing.assert_array_equal(result.shown_errors[:2], result.image_errors[rows])


def test_exact_arithmetic_has_no_error_on_either_set_nor_at_any_depth(bijective, images):
    result = measure(bijective.float(), images, exact=True, bits=12)
    assert str(result.arithmetic) == "exact"
    assert not result.image_errors.any()
    assert not result.noise_errors.any()
    assert not result.depth_errors[result.arithmetics.tolist().index("exact")].any()


def test_a_few_images_are_inverted_from_every_depth_in_every_arithmetic(bijective, injective, images):
    for model in (bijective.float(), injective.float()):
        result = measure(model, images)
        assert result.arithmetics.tolist() == ["float64", "float32", "bfloat16", "float16", "exact"]
        assert result.depth_errors.shape == (5, 2, 3)
        float64, float32, bfloat16, float16, exact = result.mean_depth_errors
        for errors, unit in ((float64, 2**-53), (float32, 2**-24), (float16, 2**-11), (bfloat16, 2**-8)):
            assert (errors < unit * 100).all()
            assert errors[-1] > unit / 100
        assert (exact == 0).all()
    x = injective.double().features(images.tensors[0].double(), 4)
    assert x.dtype == torch.float64  # the model itself stays as it was


def test_an_arithmetic_that_overflows_has_an_infinite_error(bijective, images):
    with torch.no_grad():
        bijective.blocks[1].bottleneck[2].weight *= 1e5
        bijective.blocks[1].bottleneck[9].weight *= 1e5
    model = bijective.float()
    with in_arithmetic(model, "float16", 14) as network:
        assert np.isinf(network.errors(images.tensors[0], 4)[0]).all()
    with in_arithmetic(model, "float32", 14) as network:
        assert np.isfinite(network.errors(images.tensors[0], 4)[0]).all()


def test_float32_is_never_tf32_and_tf32_always(bijective):
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    for name, precision, allowed in (("float32", "highest", False), ("TF32", "high", True)):
        with in_arithmetic(bijective.float(), name, 14):
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == (precision, allowed)
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_amplification_is_of_the_inverse_at_each_depth(bijective, images):
    result = measure(bijective.float(), images, depths=[1, 4], num_images=7)
    assert result.amplification_largest.shape == (2, 4)
    model, x = bijective.double(), images.tensors[0].double()
    for row, depth in enumerate((1, 4)):
        phi = model.features(x, depth).detach()
        expected = []
        for index in range(7):
            jacobian = torch.func.jacrev(lambda f: model.inverse(f[None], depth)[0])(phi[index]).reshape(192, 192)  # noqa: B023
            expected.append((torch.linalg.svdvals(jacobian)[0] * phi[index].norm() / x[index].norm()).item())
        for found in result.amplification_largest[row]:
            assert min(abs(found / value - 1) for value in expected) < 1e-4


def test_unless_asked_all_depths_are_looked_at(bijective, images):
    np.testing.assert_array_equal(measure(bijective.float(), images, depths=None).depths, [1, 2, 3, 4])
    with pytest.raises(ValueError, match="depth 5 does not exist"):
        measure(bijective.float(), images, depths=[5])


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_any_depth_can_be_inverted_from(bijective, images, depth):
    result = measure(bijective.float(), images, depths=[depth])
    assert int(result.depth) == depth
    assert result.image_errors.max() < (1e-5 if depth else 1e-12)


def test_a_black_image_has_no_relative_error(bijective):
    black = TensorDataset(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.long))
    result = measure(bijective.float(), black)
    assert np.isnan(result.image_errors).all()
    assert result.summary()["images"] == {"count": 0, "undefined": 2}
    assert relative_errors(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)).isnan().all()
