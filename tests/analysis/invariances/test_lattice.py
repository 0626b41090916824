import pytest
import torch

from analysis.invariances.lattice import on_lattice_with_logits
from analysis.invariances.nearest import MeanHead, nearest_features


@pytest.mark.parametrize("bits", [10, 14, 24])
@torch.no_grad()
def test_logits_are_the_wanted_ones_to_the_last_bit(bijective, bits):
    exact = bijective.exact(bits=bits)
    phi = exact.features(torch.rand(12, 3, 8, 8, dtype=torch.float64))
    logits = exact.head(phi)[:6]
    nearest = nearest_features(MeanHead.of(exact.head), phi[6:], logits)
    found = on_lattice_with_logits(exact.head, nearest.features, logits, exact.lattice)
    images = exact.inverse(found)
    assert torch.equal(exact(images), logits)
    assert not torch.equal(images, exact.inverse(phi[:6]))
    assert (found - nearest.features).abs().max() <= 257 * exact.lattice.spacing
