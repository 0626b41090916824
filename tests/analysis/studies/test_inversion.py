import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from analysis.studies.inversion import InversionOptions, in_arithmetic, reconstruct, relative_errors
from irevnet import IRevNet
from irevnet.data.transforms import InputTransform

TRANSFORM = InputTransform(channels=3, image_size=(8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.fixture
def images() -> TensorDataset:
    pixels = torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return TensorDataset(TRANSFORM.normalise(pixels), torch.zeros(7, dtype=torch.long))


@pytest.fixture
def model(bijective) -> IRevNet:
    return bijective.float()


def measure(model, images, *, batch_size=256, **options):
    options = InversionOptions(**{"num_noise": 9, "num_images": 3, "depths": [1, 4], **options})
    generator = torch.Generator().manual_seed(0)
    return reconstruct(model, images, TRANSFORM, options, generator=generator, batch_size=batch_size)


def test_errors_are_the_papers_on_the_networks_input(model, images):
    result = measure(model, images, batch_size=3)
    x = images.tensors[0]
    again = torch.cat([model.inverse(model.features(part)) for part in x.split(3)])
    norms = [torch.linalg.vector_norm(each.double(), dim=(1, 2, 3)) for each in (x.double() - again.double(), x)]
    expected = (norms[0] / norms[1]).detach().numpy()
    np.testing.assert_allclose(result.image_errors, expected, rtol=1e-9)
    assert 0 < result.image_errors.max() < 1e-5
    assert result.summary()["images"]["mean"] == pytest.approx(expected.mean())
    assert result.summary()["images"]["max"] == pytest.approx(expected.max())


def test_noise_is_uniform_before_it_is_normalised(model, images):
    result = measure(model, images, num_noise=500, num_shown=500)
    noise = result.originals[7:]
    assert len(result.noise_errors) == len(noise) == 500
    assert -1e-6 <= noise.min() < noise.max() <= 1 + 1e-6
    np.testing.assert_allclose(noise.mean(axis=(0, 2, 3)), 0.5, atol=0.01)
    np.testing.assert_allclose(noise.var(axis=(0, 2, 3)), 1 / 12, atol=0.005)


def test_the_seed_and_not_the_batch_size_sets_the_noise(model, images):
    one, other = (measure(model, images, batch_size=size, num_shown=9) for size in (2, 9))
    noise = [result.originals[7:][np.argsort(result.shown[7:])] for result in (one, other)]
    np.testing.assert_array_equal(*noise)


def test_pictures_are_pixels_of_the_images_that_came_back_worst(model, images):
    result = measure(model, images, num_shown=2, batch_size=3)
    assert result.originals.shape == result.reconstructions.shape == (4, 3, 8, 8)
    assert int(result.num_image_shown) == 2
    rows = np.argsort(-result.image_errors)[:2]
    np.testing.assert_array_equal(result.shown, [*rows, *np.argsort(-result.noise_errors)[:2]])
    np.testing.assert_allclose(result.originals[:2], TRANSFORM.to_pixels(images.tensors[0][rows]).numpy())
    np.testing.assert_allclose(result.reconstructions, result.originals, atol=1e-5)
    np.testing.assert_array_equal(result.shown_errors[:2], result.image_errors[rows])


def test_exact_arithmetic_has_no_error_on_either_set(model, images):
    result = measure(model, images, exact=True, bits=12)
    assert str(result.arithmetic) == "exact"
    assert not result.image_errors.any()
    assert not result.noise_errors.any()


def test_a_few_images_are_inverted_from_every_depth(bijective, injective, images):
    units = {"float64": 2**-53, "float32": 2**-24, "bfloat16": 2**-8, "float16": 2**-11, "exact": 0}
    for model in (bijective.float(), injective.float()):
        result = measure(model, images)
        assert result.arithmetics.tolist() == list(units)
        assert result.depth_errors.shape == (5, 2, 3)
        for errors, unit in zip(result.mean_depth_errors, units.values()):
            assert (errors <= unit * 100).all()
            assert errors[-1] >= unit / 100
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}  # it stays as it was


def test_an_arithmetic_that_overflows_has_an_infinite_error(model, images):
    for layer in (2, 9):
        model.blocks[1].bottleneck[layer].weight.data *= 1e5
    for arithmetic, finite in (("float16", False), ("float32", True)):
        with in_arithmetic(model, arithmetic, 14) as network:
            errors = network.errors(images.tensors[0], 4)[0]
            assert (np.isfinite(errors) if finite else np.isinf(errors)).all()


def test_float32_is_never_tf32_and_tf32_always(model):
    def settings() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = settings()
    for name, expected in (("float32", ("highest", False)), ("TF32", ("high", True))):
        with in_arithmetic(model, name, 14):
            assert settings() == expected
    assert settings() == before


def test_amplification_is_of_the_inverse_at_each_depth(bijective, images):
    result = measure(bijective.float(), images, num_images=7)
    assert result.amplification_largest.shape == (2, 4)
    model, x = bijective.double(), images.tensors[0].double()
    for row, depth in enumerate((1, 4)):
        phi = model.features(x, depth).detach()
        inverse = torch.func.jacrev(lambda f: model.inverse(f[None], depth)[0])  # noqa: B023
        expected = torch.stack(
            [torch.linalg.svdvals(inverse(f).reshape(192, 192))[0] * f.norm() / each.norm() for f, each in zip(phi, x)]
        ).detach()
        for found in result.amplification_largest[row]:
            assert (found / expected - 1).abs().min() < 1e-4


def test_unless_asked_all_depths_are_looked_at(model, images):
    np.testing.assert_array_equal(measure(model, images, depths=None).depths, [1, 2, 3, 4])
    result = measure(model, images, depths=[0])
    assert int(result.depth) == 0
    assert result.image_errors.max() < 1e-12
    with pytest.raises(ValueError, match="depth 5 does not exist"):
        measure(model, images, depths=[5])


def test_a_black_image_has_no_relative_error(model):
    black = TensorDataset(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.long))
    result = measure(model, black)
    assert np.isnan(result.image_errors).all()
    assert result.summary()["images"] == {"count": 0, "undefined": 2}
    assert relative_errors(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)).isnan().all()
