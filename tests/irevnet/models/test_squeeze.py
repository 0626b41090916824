import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from irevnet.models.squeeze import squeeze, unsqueeze

shapes = st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))


@given(shape=shapes, factor=st.integers(1, 4))
def test_block_order_takes_sub_pixels_row_by_row(shape, factor):
    n, c, h, w = shape
    x = torch.rand(n, c, h * factor, w * factor)
    sub_pixels = [x[:, :, dy::factor, dx::factor] for dy in range(factor) for dx in range(factor)]
    assert torch.equal(squeeze(x, factor), torch.cat(sub_pixels, dim=1))


@given(shape=shapes, factor=st.integers(1, 4))
def test_channel_order_is_pixel_unshuffle(shape, factor):
    n, c, h, w = shape
    x = torch.rand(n, c, h * factor, w * factor)
    y = squeeze(x, factor, "channel")
    assert torch.equal(y, pixel_unshuffle(x, factor))
    assert torch.equal(unsqueeze(y, factor, "channel"), pixel_shuffle(y, factor))


@given(shape=shapes, factor=st.integers(1, 4), order=st.sampled_from(["block", "channel"]))
def test_round_trips_in_both_directions(shape, factor, order):
    n, c, h, w = shape
    x = torch.rand(n, c, h * factor, w * factor)
    assert torch.equal(unsqueeze(squeeze(x, factor, order), factor, order), x)
    y = torch.rand(n, c * factor**2, h, w)
    assert torch.equal(squeeze(unsqueeze(y, factor, order), factor, order), y)


def test_halves_of_an_rgb_image_are_its_even_and_odd_rows():
    x = torch.rand(1, 3, 4, 4)
    even, odd = squeeze(x, 2).chunk(2, dim=1)
    assert set(even.flatten().tolist()) == set(x[:, :, ::2].flatten().tolist())
    assert set(odd.flatten().tolist()) == set(x[:, :, 1::2].flatten().tolist())


@pytest.mark.parametrize("order", ["block", "channel"])
def test_is_a_permutation(order):
    identity = torch.eye(3 * 4 * 6).reshape(-1, 3, 4, 6)
    matrix = squeeze(identity, 2, order).reshape(len(identity), -1)
    assert torch.equal(matrix @ matrix.T, torch.eye(len(identity)))
    assert set(matrix.flatten().tolist()) == {0.0, 1.0}


def test_refuses_sizes_that_the_factor_does_not_divide():
    with pytest.raises(ValueError, match="5 x 4 cannot be squeezed by 2"):
        squeeze(torch.rand(1, 1, 5, 4), 2)
    with pytest.raises(ValueError, match="6 channels cannot be unsqueezed by 2; they must be a multiple of 4"):
        unsqueeze(torch.rand(1, 6, 2, 2), 2)
