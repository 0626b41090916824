"""The studies that need an inverse, of networks that others made invertible, against dense answers."""

import FrEIA.framework
import FrEIA.modules
import memcnn
import numpy as np
import pytest
import torch
from torch import nn

from analysis import (
    InterpolationOptions,
    InversionOptions,
    SpectrumOptions,
    interpolate,
    invert,
    open_experiment,
    spectrum,
)
from analysis.jacobian import jacobian_of
from irevnet.models.invertible import InvertibleChain


def convolutions(channels_in, channels_out):
    return nn.Sequential(nn.Conv2d(channels_in, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, channels_out, 3, padding=1))


def freia():
    network = FrEIA.framework.SequenceINN(1, 8, 8)
    network.append(FrEIA.modules.HaarDownsampling)
    for _ in range(2):
        network.append(FrEIA.modules.RNVPCouplingBlock, subnet_constructor=convolutions)
    return network


def memcnn_network():
    couplings = (memcnn.AdditiveCoupling(convolutions(2, 2), convolutions(2, 2)) for _ in range(2))
    return nn.Sequential(nn.PixelUnshuffle(2), *map(memcnn.InvertibleModuleWrapper, couplings))


class OneOwn(nn.Module):
    """Three attributes are all that is asked for; its features have other names than depths."""

    num_blocks = 2

    def __init__(self):
        super().__init__()
        self.scales = nn.Parameter(torch.linspace(0.5, 2, 64))
        self.classifier = nn.Linear(64, 10)

    def features(self, images, depth):
        return images if depth == 0 else images.flatten(1) * self.scales**depth

    def inverse(self, phi, depth):
        return phi if depth == 0 else (phi / self.scales**depth).reshape(-1, 1, 8, 8)

    def forward(self, images):
        return self.classifier(self.features(images, 2))


@pytest.fixture(params=[freia, memcnn_network, OneOwn])
def experiment(request, tmp_path):
    torch.manual_seed(0)
    return open_experiment(model=request.param(), data="digits", out=tmp_path)


def test_both_ends_of_the_spectrum_are_those_of_the_dense_jacobian(experiment):
    options = SpectrumOptions(num_images=1, method="lanczos", num_values=5, precision="float64", block_width=4)
    found = spectrum([experiment], options).spectrum(0)
    model = experiment.checkpoint.model
    generator = torch.Generator().manual_seed(experiment.seed)
    row = torch.randperm(len(experiment.images("test")), generator=generator)[0]
    x = experiment.images("test")[int(row)][0].double()
    model.double()
    dense = torch.func.jacrev(lambda each: model.features(each[None], model.num_blocks)[0].flatten())(x)
    values = torch.linalg.svdvals(dense.detach().reshape(64, 64)).numpy()
    np.testing.assert_allclose(found.largest[:5], values[:5], rtol=1e-5)
    assert len(found.smallest) > 0
    np.testing.assert_allclose(np.sort(found.smallest), np.sort(values)[: len(found.smallest)], rtol=1e-5)
    low, high = sorted(found.log_volume)
    error = found.log_volume_error
    assert low - error <= np.log(values).sum() <= high + error


def test_images_come_back_to_rounding(experiment):
    found = invert([experiment], InversionOptions(num_noise=3, num_images=2))
    assert found.image_errors.max() < 1e-6
    assert found.arithmetics.tolist() == ["float64", "float32", "bfloat16", "float16"]
    assert found.depth == experiment.checkpoint.model.num_blocks


def test_lines_of_features_begin_and_end_at_the_images(experiment):
    found = interpolate([experiment], InterpolationOptions(num_pairs=1, steps=3))
    assert bool(found.bijective)
    np.testing.assert_allclose(found.images[0, 0, [0, -1]], found.images[1, 0, [0, -1]], atol=1e-5)
    assert found.residual.max() < 1e-5
    assert np.isnan(found.probability).all() == (experiment.checkpoint.model.__class__ is InvertibleChain)


def test_exact_arithmetic_is_that_of_irevnets(experiment):
    with pytest.raises(ValueError, match="has no exact arithmetic, which is that of an i-RevNet"):
        invert([experiment], InversionOptions(num_noise=1, num_images=1, exact=True))


def test_an_inverse_that_undoes_nothing_is_refused():
    class Wrong(nn.Module):
        def forward(self, x):
            return 2 * x

        def inverse(self, y):
            return y / 2.1

    chain = InvertibleChain([Wrong()]).eval()
    with pytest.raises(ValueError, match=r"inverse of the InvertibleChain does not undo .* error of 4\.8e-02"):
        jacobian_of(chain, torch.rand(1, 2, 2, dtype=torch.float64), depth=1)


def test_a_matrix_in_float64_needs_no_inverse_that_is_right_in_float32(tmp_path):
    class Mixing(nn.Module):
        """A symmetric matrix of condition number 1e9, which float32 cannot invert."""

        def __init__(self):
            super().__init__()
            vectors, _ = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).double())
            matrix = vectors * torch.logspace(0, -9, 64, dtype=torch.float64) @ vectors.T
            self.register_buffer("matrix", matrix)

        def forward(self, x):
            return (x.flatten(1) @ self.matrix.to(x)).reshape(x.shape)

        def inverse(self, y):
            return torch.linalg.solve(self.matrix.to(y), y.flatten(1).T).T.reshape(y.shape)

    network = InvertibleChain([Mixing()])
    with pytest.raises(ValueError, match="does not undo its features at depth 1"):
        jacobian_of(network.eval(), torch.rand(1, 8, 8), depth=1)
    experiment = open_experiment(model=network, data="digits", out=tmp_path)
    found = spectrum([experiment], SpectrumOptions(num_images=1)).spectrum(0)
    np.testing.assert_allclose(found.largest, np.logspace(0, -9, 64), rtol=1e-5)
