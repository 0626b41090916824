"""Features are averages over all positions, in any layout of images, channels and positions that is not refused."""

import copy

import numpy as np
import pytest
import torch
import torchvision.models
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from analysis.features.extract import extract
from analysis.features.layers import network_layers
from analysis.features.layout import find_layouts
from analysis.features.store import FeatureStore
from analysis.jacobian import layer_function
from irevnet.data.images import LabelledImages
from irevnet.data.transforms import InputTransform

LAYOUTS = {
    "n c h w": lambda x: x,
    "n h w c": lambda x: x.permute(0, 2, 3, 1),
    "h w n c": lambda x: x.permute(2, 3, 0, 1),
    "c h w n": lambda x: x.permute(1, 2, 3, 0),
    "n tokens c": lambda x: x.flatten(2).permute(0, 2, 1),
    "tokens n c": lambda x: x.flatten(2).permute(2, 0, 1),
    "n c tokens": lambda x: x.flatten(2),
    "n c": lambda x: x.mean(dim=(2, 3)),
    "c n": lambda x: x.mean(dim=(2, 3)).T,
    "windows": lambda x: x.flatten(2).permute(0, 2, 1).flatten(0, 1),
    "flat": lambda x: x.flatten(),
    "n h c w": lambda x: x.permute(0, 2, 1, 3),
    "n 1 h w c": lambda x: x.permute(0, 2, 3, 1)[:, None],
}
REFUSED = {"windows", "flat", "n h c w", "n 1 h w c"}


class Laid(nn.Module):
    """A layer that puts out `(n, c, h, w)` in some layout."""

    def __init__(self, layout: str, own_size: tuple[int, int] | None):
        super().__init__()
        self.layout, self.own_size = layout, own_size

    def forward(self, x: Tensor) -> Tensor:
        if self.own_size not in (None, tuple(x.shape[2:])):
            raise AssertionError("wrong image size")
        return LAYOUTS[self.layout](x)


class Network(nn.Module):
    def __init__(self, layout: str, channels: int, *, own_size: tuple[int, int] | None = None):
        super().__init__()
        self.convolution = nn.Conv2d(3, channels, 1)
        self.layer = Laid(layout, own_size)
        self.head = nn.Linear(channels, 2)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.convolution(images)
        self.layer(maps)
        return self.head(maps.mean(dim=(2, 3)))


def averages(network: nn.Module, module: nn.Module, images: Tensor) -> Tensor:
    """And the layer's function of one image is its part of the output."""
    (layout,) = find_layouts(network, {"it": module}, images[0])["it"]
    outputs: list[Tensor] = []
    handle = module.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():
        network(images)
        handle.remove()
        found = layer_function(network, module)(images[0])
    torch.testing.assert_close(found, outputs[0].select(layout.images, 0))
    return layout.average(outputs[0])


@settings(max_examples=60)
@given(
    layout=st.sampled_from(sorted(LAYOUTS)),
    channels=st.integers(1, 6),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    count=st.integers(1, 6),
    fixed=st.booleans(),
)
def test_any_layout_is_averaged_correctly_or_refused(layout, channels, size, count, fixed):
    """The numbers of images, channels and positions may be the same.

    But channels between spatial dimensions, which no network has, are not looked for where images are of one size.
    """
    assume(not (fixed and layout == "n h c w"))
    network = Network(layout, channels, own_size=size if fixed else None)
    images = torch.rand(count, 3, *size)
    try:
        found = averages(network, network.layer, images)
    except ValueError:
        assert fixed or layout in REFUSED
        return
    expected = network.convolution(images).mean(dim=(2, 3))
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("layout", "size"), [("n c h w", (4, 4)), ("n h w c", (4, 4)), ("n h w c", (2, 6))])
def test_spatial_shape_decides_for_images_of_one_size(layout, size):
    network, images = Network(layout, 5, own_size=size), torch.rand(3, 3, *size)
    expected = network.convolution(images).mean(dim=(2, 3)).detach()
    torch.testing.assert_close(averages(network, network.layer, images), expected)


def test_last_layer_decides_for_images_of_one_size():
    vit = torchvision.models.VisionTransformer(64, 32, num_layers=1, num_heads=2, hidden_dim=24, mlp_dim=8).eval()
    block = vit.encoder.layers.encoder_layer_0
    assert averages(vit, block, torch.rand(2, 3, 64, 64)).shape == (2, 24)


class Mapping(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"x": x}


SPARE, CHANGED, MAPPING = nn.ReLU(), Network("windows", 5), Mapping()
AMBIGUOUS = Network("n tokens c", 5, own_size=(4, 4))


@pytest.mark.parametrize(
    ("network", "layer", "message"),
    [
        (Network("n c h w", 5), SPARE, "the network does not pass through it; name other layers"),
        (CHANGED, CHANGED.layer, r"has shape \(32, 5\) for 2 images and \(48, 5\) for 3; expected one dimension"),
        (nn.Sequential(SPARE, SPARE), SPARE, "the network passes through it more than once; name other layers"),
        (nn.Sequential(MAPPING), MAPPING, "the output of it is dict; expected tensors; name other layers"),
        (AMBIGUOUS, AMBIGUOUS.layer, "in which the dimension of the channels is ambiguous; expected a layout"),
    ],
)
def test_layers_without_a_layout_are_refused(network, layer, message):
    with pytest.raises(ValueError, match=message):
        find_layouts(network, {"it": layer}, torch.rand(3, 4, 4))


def labelled(count: int) -> LabelledImages:
    images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    transform = InputTransform(channels=3, image_size=(8, 8))
    return LabelledImages(images, [n % 2 for n in range(count)], ("a", "b"), transform)


def inputs(data: LabelledImages) -> Tensor:
    return torch.stack([data[row][0] for row in range(len(data))])


def test_hooks_see_outputs_before_in_place_changes(tmp_path):
    """A later layer may work in place, on all kinds of output."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4),
        nn.ReLU(inplace=True), nn.Linear(4, 2), nn.Hardtanh(-0.1, 0.1, inplace=True),
    ).eval()  # fmt: skip
    data, store = labelled(5), FeatureStore(tmp_path / "features", {"of": "in place"})
    names = ["0", "1", "4", "5", "6", "7"]
    extract(network, data, store, "test", network_layers(network, names=names))
    x = inputs(data)
    for number, layer in enumerate(network):
        x = layer(x.clone())
        if str(number) in names:
            expected = (x.mean(dim=(2, 3)) if x.ndim == 4 else x).detach().numpy()
            np.testing.assert_allclose(store.features("test", str(number)), expected, rtol=1e-5, atol=1e-6)
            found = layer_function(network, layer)(inputs(data)[0])
            torch.testing.assert_close(found if x.ndim == 2 else found.mean(dim=(1, 2)), torch.tensor(expected[0]))
    assert (store.features("test", "4") < 0).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_precision_and_modes_of_networks_are_restored(tmp_path, dtype, bijective):
    network = bijective.to(dtype).train()
    network.blocks[0].eval()
    modes = [module.training for module in network.modules()]
    before = copy.deepcopy(network.state_dict())
    data, store = labelled(4), FeatureStore(tmp_path / "features", {"of": str(dtype)})
    extract(network, data, store, "test", network_layers(network))
    assert [module.training for module in network.modules()] == modes
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)  # and the same precision
    network.eval()
    expected = network.features(inputs(data).to(dtype), 4).float().mean(dim=(2, 3)).detach().numpy()
    # Each average was rounded in its own way in bfloat16, by half of its last of 8 bits.
    np.testing.assert_allclose(store.features("test", "block-4"), expected, rtol=2**-8, atol=2**-8)
