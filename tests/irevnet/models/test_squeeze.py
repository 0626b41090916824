import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import pixel_unshuffle

from irevnet.models.squeeze import squeeze, unsqueeze

shapes = st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))


@given(shape=shapes, factor=st.integers(1, 4))
def test_squeezes_are_those_of_the_paper_and_of_torch(shape, factor):
    n, c, h, w = shape
    x = torch.rand(n, c, h * factor, w * factor)
    y = squeeze(x, factor)
    sub_pixels = [x[:, :, dy::factor, dx::factor] for dy in range(factor) for dx in range(factor)]
    assert torch.equal(y, torch.cat(sub_pixels, dim=1))
    assert torch.equal(unsqueeze(y, factor), x)
    y = squeeze(x, factor, "channel")
    assert torch.equal(y, pixel_unshuffle(x, factor))
    assert torch.equal(unsqueeze(y, factor, "channel"), x)


def test_refuses_sizes_that_the_factor_does_not_divide():
    with pytest.raises(ValueError, match="5 x 4 cannot be squeezed by 2"):
        squeeze(torch.rand(1, 1, 5, 4), 2)
    with pytest.raises(ValueError, match="6 channels cannot be unsqueezed by 2; they must be a multiple of 4"):
        unsqueeze(torch.rand(1, 6, 2, 2), 2)
