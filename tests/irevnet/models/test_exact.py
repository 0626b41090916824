import copy
import hashlib
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_images
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from analysis.linearisation import linearise
from irevnet import IRevNet, IRevNetConfig, build_model, load_checkpoint
from irevnet.models.exact import Lattice, _ExactConvolution


def on_lattice(shape: tuple[int, ...], bits: int) -> torch.Tensor:
    return torch.randint(-(2**bits), 2**bits + 1, shape).double() / 2**bits


@settings(max_examples=25)
@given(data=st.data(), bits=st.integers(8, 24))
def test_any_network_inverts_bit_for_bit_at_every_depth(data, bits, architectures, trained_looking):
    fields, size = data.draw(architectures)
    config = IRevNetConfig(**fields)
    exact = trained_looking(IRevNet(config)).exact(bits=bits)
    images = on_lattice((3, config.input_shape[0], *size), bits)
    for depth in range(config.num_blocks + 1):
        phi = exact.features(images, depth)
        assert torch.equal(exact.inverse(phi, depth), images)
        assert torch.equal(torch.cat([exact.features(image[None], depth) for image in images]), phi)
        assert torch.equal(phi * 2**bits, (phi * 2**bits).round())
        if config.bijective:
            target = on_lattice(tuple(phi.shape), bits)
            assert torch.equal(exact.features(exact.inverse(target, depth), depth), target)


def integer_convolution(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """Computed with Python's integers of any size."""
    padding = weight.shape[2] // 2
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding))).astype(object)
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, weight.astype(object)) + bias[:, None, None].astype(object)


@pytest.mark.parametrize("bits", [8, 24])
@pytest.mark.parametrize("sizes", [(9, 2, 3, 2), (2, 5, 1, 2), (2, 9, 3, 1), (1, 1, 5, 1)])
def test_no_sum_is_rounded_not_even_of_the_largest_numbers(bits, sizes):
    lattice, (out_channels, in_channels, kernel, stride) = Lattice(bits), sizes
    weight = torch.randn(out_channels, in_channels, kernel, kernel).exp().double() * torch.randn(out_channels, 1, 1, 1)
    bias = lattice.limit * torch.randn(out_channels).double()
    convolution = _ExactConvolution(weight, bias, lattice, stride=stride, padding=kernel // 2)
    largest = 2**28 - 1
    x = torch.randint(0, 2, (2, in_channels, 8, 8)).mul(2).sub(1).mul(largest)  # makes the sums as large as possible
    x[1] = torch.randint(-largest, largest + 1, x[1].shape)
    total = weight.abs().sum(dim=(1, 2, 3)) + bias.abs() / lattice.limit
    unit = 2.0 ** (np.floor(np.log2(total.numpy())) + 1 - 24)
    whole_weight = np.rint(weight.numpy() / unit[:, None, None, None]).astype(np.int64)
    whole_bias = np.rint(bias.numpy() / unit * 2**bits).astype(np.int64)
    expected = integer_convolution(x.numpy(), whole_weight, whole_bias, stride)
    assert 2**47 < abs(expected).max() < 2**53
    result = convolution(x.double() / 2**bits).numpy() / unit[:, None, None] * 2**bits
    assert (result.astype(object) == expected).all()
    torch.testing.assert_close(convolution.weight, weight, rtol=0, atol=float(unit.max()) / 2)


def test_exact_network_is_close_to_the_original(bijective, injective):
    images = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    for model in (bijective, injective):
        for bits, bound in ((10, 2e-2), (14, 1e-3), (24, 2e-6)):
            exact = model.exact(bits=bits)
            assert (exact.features(images) - model.features(images)).abs().max() < bound
            assert (exact(images) - model(images)).abs().max() < bound
            assert exact(images).dtype == torch.float64


@torch.no_grad()
def test_exact_logits_depend_on_no_order_of_values_or_images(bijective):
    """Not on the order of positions, nor on the batch: sums are exact. They are multiples of 2^-bits."""
    for bits in (8, 14, 24):
        exact = bijective.exact(bits=bits)
        phi = exact.features(torch.rand(5, 3, 8, 8, dtype=torch.float64))
        logits = exact.head(phi)
        assert torch.equal(logits * 2**bits, (logits * 2**bits).round())
        assert torch.equal(exact.head(phi.flip(2)), logits)
        assert torch.equal(exact.head(phi.flatten(2)[:, :, [2, 0, 3, 1]].reshape(phi.shape)), logits)
        assert torch.equal(torch.cat([exact.head(each[None]) for each in phi]), logits)
        # Activations are rounded to 2^-bits, weights to 2^-25 of their sums.
        sums = bijective.head.classifier.weight.abs().sum(dim=1).max()
        largest = bijective.head.norm(phi).abs().max()
        assert (logits - bijective.head(phi)).abs().max() <= (2.0**-bits + 2.0**-23 * (1 + largest)) * (1 + sums)


@torch.no_grad()
def test_exact_networks_keep_a_head_of_ones_own(bijective):
    class Own(nn.Module):
        def __init__(self, head: nn.Module):
            super().__init__()
            self.head = head

        def forward(self, phi: torch.Tensor) -> torch.Tensor:
            return 2 * self.head(phi)

    head = bijective.head
    bijective.head = Own(head)
    exact = bijective.exact()
    phi = exact.features(torch.rand(2, 3, 8, 8))
    assert torch.equal(exact.head(phi), 2 * head.double()(phi))


@torch.no_grad()
def test_heads_that_are_not_finite_are_refused(bijective):
    bijective.head.norm.weight[0] = math.nan
    with pytest.raises(ValueError, match="head: weights or batch-norm statistics are not finite"):
        bijective.exact()(torch.rand(1, 3, 8, 8))


def test_values_between_lattice_points_are_rounded(bijective):
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    grey_levels = torch.arange(256).repeat(3).reshape(4, 3, 8, 8)
    for bits in (8, 14, 24):
        exact = bijective.exact(bits=bits)
        for values in (images, images.float(), grey_levels / 255):
            again = exact.inverse(exact.features(values))
            assert torch.equal(again, (values.double() * 2**bits).round() / 2**bits)
        assert torch.equal((255 * again).round().long(), grey_levels)
        phi = exact.features(images)
        assert torch.equal(exact.inverse(phi + 2.0 ** (-3 - bits)), exact.inverse(phi))


def test_exact_results_do_not_depend_on_threads_layout_or_batch(bijective):
    exact = bijective.exact()
    images = on_lattice((6, 3, 8, 8), 14)
    phi = exact.features(images)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert torch.equal(exact.features(images), phi)
            assert torch.equal(torch.cat([exact.inverse(each[None]) for each in phi]), images)
            assert torch.equal(exact.inverse(phi.contiguous(memory_format=torch.channels_last)), images)
            assert torch.equal(exact.inverse(phi.repeat_interleave(2, dim=3)[..., ::2]), images)
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def test_features_and_logits_have_these_bits_on_any_machine(generator):
    """Computed with PyTorch 2.14 on a CPU; with 2.11 on another and on an H200 they were the same."""
    exact = load_checkpoint("pretrained:cifar10-irevnet").exact()
    images = (255 * torch.rand(16, 3, 32, 32, generator=generator)).round() / 255
    found = [exact.features(images), exact(images)]
    digests = [hashlib.sha256((values + 0.0).numpy()).hexdigest()[:16] for values in found]  # with no negative zeros
    assert digests == ["dca1dc073d10bff5", "2c0f3aba0b2b0abd"]


@pytest.mark.slow
@pytest.mark.parametrize("averaged", [False, True])
@torch.no_grad()
def test_paper_network_is_exact_at_full_size(averaged):
    """(b) with fresh weights and batch-norm statistics of photographs, after one update or averaged: then it magnifies
    errors a hundred thousand times, and float32 cannot invert it."""
    photos = [torch.tensor(photo).permute(2, 0, 1) / 255 for photo in load_sample_images().images]
    corners = ((0, 0), (150, 300))
    photographs = torch.stack([photo[:, y : y + 224, x : x + 224] for photo in photos for y, x in corners])
    model = build_model("irevnet-b")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and averaged:
            module.momentum = None
    model.train()(photographs)
    model.eval()
    noise = torch.rand(2, 3, 224, 224)
    of_the_paper = [(photographs[1:3], 1e-8, 3e-6), (noise, 1e-8, 5e-6)]
    cases = [(photographs[1:3], 1e-4, math.inf)] if averaged else of_the_paper
    for images, low, high in cases:
        error = torch.linalg.vector_norm(model.inverse(model.features(images)) - images)
        assert low < error / torch.linalg.vector_norm(images) < high
    images = Lattice().round(torch.cat([images[:1] for images, _, _ in cases]), "images")
    exact = model.exact()
    phi = exact.features(images)
    assert torch.equal(exact.inverse(phi), images)
    assert torch.equal(exact.inverse(phi[:1]), images[:1])


def test_values_beyond_the_lattice_are_reported(bijective):
    exact = bijective.exact(bits=20)
    with pytest.raises(ValueError, match="images: values up to 300; on a lattice of 20 bits only values below 256 are"):
        exact.features(torch.full((1, 3, 8, 8), 300.0))
    with pytest.raises(ValueError, match="features: values up to nan"):
        exact.inverse(torch.full((1, 48, 2, 2), math.nan))
    with torch.no_grad():
        bijective.blocks[2].bottleneck[2].weight *= 1e6
    with pytest.raises(ValueError, match=r"block 3: values up to .*; on a lattice of 20 bits .* use fewer `bits`"):
        bijective.exact(bits=20).features(torch.rand(1, 3, 8, 8))


def test_features_that_no_block_reads_are_checked_too(bijective):
    """One stream of the last block is a sum, which may be too large although both summands are not."""
    last = bijective.blocks[0].bottleneck
    images = torch.full((1, 3, 8, 8), 250.0, dtype=torch.float64)
    with torch.no_grad():
        last[-3].weight.zero_()
        last[-3].bias.fill_(1)
        last[-1].weight.fill_(100 / last[-1].in_channels)  # F is 100 everywhere
    exact = bijective.exact(bits=20)  # below 256
    with pytest.raises(ValueError, match="features: values up to 350; on a lattice of 20 bits only values below 256"):
        exact.features(images, depth=1)
    assert torch.equal(exact.inverse(exact.features(images / 2, depth=1), depth=1), images / 2)


def test_networks_that_cannot_be_exact_are_refused(bijective):
    for bits in (7, 25):
        with pytest.raises(ValueError, match=f"bits is {bits}; expected 8 to 24"):
            bijective.exact(bits=bits)
    exact = bijective.exact()
    assert not exact.training
    with pytest.raises(ValueError, match="the network is in exact arithmetic already, of 14 bits"):
        exact.exact()
    with pytest.raises(RuntimeError, match="exact arithmetic cannot be trained; train the one that it was made from"):
        exact.train()
    bijective.blocks[1].bottleneck[0].running_var.fill_(math.nan)
    with pytest.raises(ValueError, match="block 2: weights or batch-norm statistics are not finite"):
        bijective.exact()
    with pytest.raises(RuntimeError, match=r"exact needs eval mode"):
        bijective.train().exact()


def test_weights_of_zero_are_fine(bijective):
    for parameter in bijective.blocks.parameters():
        nn.init.zeros_(parameter)
    images = on_lattice((2, 3, 8, 8), 14)
    exact = bijective.exact()
    assert torch.equal(exact.inverse(exact.features(images)), images)


def test_synchronised_batch_normalisation_is_folded_too(bijective):
    images = torch.rand(2, 3, 8, 8)
    expected = bijective.exact().features(images)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(bijective).eval()
    assert torch.equal(converted.exact().features(images), expected)


def test_exact_leaves_the_original_network_unchanged(bijective):
    before = copy.deepcopy(bijective.state_dict())
    state = torch.get_rng_state()
    exact = bijective.exact()
    exact.features(torch.rand(1, 3, 8, 8, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in bijective.state_dict().items())
    assert all(parameter.requires_grad for parameter in bijective.parameters())
    assert not any(parameter.requires_grad for parameter in exact.parameters())


def exchange(layer: nn.Module, position: int) -> Callable[[IRevNet], None]:
    def change(model: IRevNet) -> None:
        model.blocks[1].bottleneck[position] = layer

    return change


OTHERS: dict[str, tuple[Callable[[IRevNet], object], str]] = {
    "activation": (exchange(nn.GELU(), 1), "has GELU.* as layer '1'"),
    "no activation": (exchange(nn.Identity(), 1), "has Conv2d.* as layer '2'"),
    "no normalisation": (exchange(nn.Identity(), 3), "has ReLU.* as layer '4'"),
    "statistics of the batch": (exchange(nn.BatchNorm2d(1, track_running_stats=False), 3), "has BatchNorm2d"),
    "statistics in train mode": (lambda model: model.blocks[1].bottleneck[3].train(), "has BatchNorm2d"),
    "no scale": (exchange(nn.BatchNorm2d(1, affine=False).eval(), 3), "has BatchNorm2d"),
    "bias": (exchange(nn.Conv2d(6, 1, 1), 2), "has Conv2d.* as layer '2'"),
    "dilation": (exchange(nn.Conv2d(1, 1, 3, dilation=2, padding=2, bias=False), 5), "has Conv2d.* as layer '5'"),
    "padding": (exchange(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular", bias=False), 5), "has Conv2d"),
    "parametrised": (lambda model: weight_norm(model.blocks[1].bottleneck[2]), "has ParametrizedConv2d"),
    "further norm": (lambda model: model.blocks[1].bottleneck.append(nn.BatchNorm2d(6).eval()), "does not end with"),
    "hook": (
        lambda model: model.blocks[1].bottleneck[2].register_forward_hook(print),
        "layer '2' of .* a forward hook",
    ),
    "hook of the block": (lambda model: model.blocks[1].register_forward_pre_hook(print), "forward hook"),
    "forward of its own": (
        lambda model: setattr(model.blocks[1].bottleneck[2], "forward", abs),
        "a forward of its own",
    ),
    "bottleneck": (lambda model: setattr(model.blocks[1], "bottleneck", nn.Conv2d(6, 6, 1)), "block 2 is a Conv2d"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_network_is_refused(name, bijective_config):
    """By exact arithmetic as well as the linearised network, which fold the layers that they know."""
    model = IRevNet(bijective_config).eval()
    change, message = OTHERS[name]
    change(model)
    for module in model.modules():
        if isinstance(module, nn.GELU | nn.Identity | nn.Conv2d):
            module.eval()
    with pytest.raises(ValueError, match=message):
        model.exact()
    with pytest.raises(ValueError, match="block 2"):
        linearise(model, torch.rand(3, 8, 8))
