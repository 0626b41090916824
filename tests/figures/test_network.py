import dataclasses
import itertools
import json
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.transforms import BboxBase

from figures.network import plot_network
from figures.style import BLUE, GREEN, GREY, INK, ORANGE, PAGE
from irevnet import IRevNet, IRevNetConfig
from irevnet.models.baselines import ResNet, RevNet
from irevnet.models.config import ResNetConfig, RevNetConfig, stages_of
from irevnet.models.zoo import list_models, preset_config

OTHERS = {  # than the presets
    "six stages": IRevNetConfig(
        input_shape=(3, 224, 224), num_classes=21841, blocks=(100,) * 6, strides=(2, 2, 2, 2, 1, 1)
    ),
    "one block": IRevNetConfig(
        input_shape=(1, 28, 28), num_classes=2, blocks=(1,), strides=(7,), initial_squeeze=1, channels=3, dropout=0.1
    ),
    "plain split": IRevNetConfig(input_shape=(2, 8, 8), num_classes=2, blocks=(2,), strides=(1,), initial_squeeze=1),
}
NAMES = [name for model in list_models() if (name := model.name) != "irevnet-b-released"] + list(OTHERS)
TIMES = "\N{MULTIPLICATION SIGN}"


@cache
def drawn(name: str) -> Figure:
    """Its figure, from the config as it comes back from JSON."""
    if name == "torchvision":
        return plot_network("VisionTransformer", {"name": "vit_b_16", "weights": None, "num_classes": 1000})
    config = OTHERS[name] if name in OTHERS else preset_config(name)
    fields = json.loads(json.dumps(dataclasses.asdict(config)))
    return plot_network(type(config).__name__.removesuffix("Config"), fields)


def texts(name: str) -> list[str]:
    """All that is written, from left to right and down, with an x between the factors of a size."""
    (axes,) = drawn(name).axes
    found = sorted(axes.texts, key=lambda text: (text.get_position()[0], -text.get_position()[1]))
    return [text.get_text().replace(f" {TIMES} ", "x") for text in found]


def sizes(name: str) -> list[str]:
    return [text for text in texts(name) if text.count("x") == 2 and text.replace("x", "").isdigit()]


def starting(name: str, *starts: str) -> list[str]:
    return [text for text in texts(name) if text.startswith(starts)]


def holds(outer: BboxBase, inner: BboxBase) -> bool:
    return outer.contains(*inner.min) and outer.contains(*inner.max)


def squeezed_blocks(name: str) -> list[int]:
    """j of each S_j that is drawn in the chain."""
    return [int(text[14:-2]) for text in starting(name, r"$\mathcal{S}_{") if text[14:-2].isdigit()]


def test_irevnet_b_has_the_numbers_of_the_paper():
    name = "irevnet-b"
    assert sizes(name) == ["3x224x224", "6x112x112", "24x56x56", "96x28x28", "384x14x14", "1536x7x7", "3072x7x7"]
    assert [text for text in texts(name) if text.endswith(" blocks")] == [f"{n} blocks" for n in (6, 16, 72, 6)]
    assert starting(name, "inner width ") == [f"inner width {n}" for n in (6, 24, 96, 384)]
    assert [3 * j for j in squeezed_blocks(name)] == [3, 21, 69, 285]  # section 3.2
    assert texts(name).count("squeeze by 2") == 5
    assert starting(name, "bijective", "injective") == ["bijective: 150,528 numbers in, 150,528 out"]
    assert [text for text in texts(name) if TIMES in text] == [f"{k}{TIMES}{k}" for k in (1, 3, 1)]
    assert "1,000" in texts(name)
    assert "BN\nReLU\nmean\nlinear" in texts(name)


def test_irevnet_a_is_injective_by_added_zeros():
    name = "irevnet-a"
    streams = ["96x56x56", "96x56x56", "384x28x28", "1536x14x14", "6144x7x7"]
    assert sizes(name) == ["3x224x224", *streams, "12288x7x7"]
    assert {"squeeze by 4\npad zeros", "48 + 144 zeros"} <= set(texts(name))
    assert [3 * j for j in squeezed_blocks(name)] == [15, 27, 45]  # section 3.2
    assert starting(name, "bijective", "injective") == ["injective: 150,528 numbers in, 602,112 out"]


def test_networks_for_small_images_have_their_numbers():
    assert sizes("irevnet-cifar-bijective")[2:] == ["6x16x16", "24x8x8", "96x4x4", "192x4x4"]
    assert starting("irevnet-cifar-bijective", "inner width ") == [f"inner width {n}" for n in (32, 64, 128)]
    injective = ["pad zeros", "3 + 29 zeros", "injective: 3,072 numbers in, 32,768 out"]
    assert starting("irevnet-cifar", "pad", "3 + ", "injective: ") == injective
    assert any(", dropout 0.1 after the second" in text for text in texts("irevnet-cifar"))
    assert not any("dropout" in text for text in texts("irevnet-small"))
    assert starting("one block", "1 block", "squeeze by 7", "pad") == ["pad zeros", "squeeze by 7", "1 block"]


def test_baselines_have_no_inverse():
    assert sizes("resnet-50") == ["3x224x224", "64x56x56", "256x56x56", "512x28x28", "1024x14x14", "2048x7x7"]
    assert starting("resnet-50", "not ") == ["not invertible by construction: 150,528 numbers in, 100,352 out"]
    assert starting("resnet-50", "stride") == ["stride 2"] * 3
    assert sizes("revnet-56")[-2:] == ["1664x7x7", "3328x7x7"]
    assert any("convolutions of 3x3, 3x3, BN" in text for text in texts("resnet-cifar"))
    assert r"$y = P x + F \tilde{x}$,   $\tilde{y} = \tilde{P} \tilde{x} + G y$" in texts("revnet-56")


def test_a_network_without_stages_is_drawn_by_name():
    assert texts("torchvision") == ["vit_b_16", "1,000 classes"]
    config = {"name": "resnet18", "weights": "IMAGENET1K_V1", "num_classes": 10}
    for architecture, fields, expected in (
        ("ResNet", config, ["resnet18", "10 classes"]),  # the name of torchvision's class, and of the toolkit's
        ("Strange", {}, ["Strange", "classes"]),
    ):
        (axes,) = plot_network(architecture, fields).axes
        assert [text.get_text() for text in axes.texts] == expected


@pytest.mark.parametrize("name", [*NAMES, "torchvision"])
def test_everything_written_is_legible_in_ink_and_the_palette(name):
    figure = drawn(name)
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    for text in axes.texts:
        smallest = 0.7 if "_" in text.get_text() and "$" in text.get_text() else 1  # a subscript, as matplotlib sets it
        assert smallest * text.get_fontsize() >= 6, text
    extents = [(text.get_text(), text.get_window_extent()) for text in axes.texts]
    for (words, one), (others, two) in itertools.combinations(extents, 2):
        assert not one.overlaps(two), f"{words!r} overlaps {others!r}"
    boxes = [patch.get_window_extent() for patch in axes.patches if isinstance(patch, Rectangle)]
    for words, extent in extents:
        assert holds(figure.bbox, extent), f"{words!r} leaves the figure"
        centre = (extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2
        around = [box for box in boxes if box.contains(*centre)]
        assert not around or holds(min(around, key=lambda box: box.width), extent), f"{words!r} leaves its box"
    allowed = {colour.lower() for colour in (INK, BLUE, ORANGE, GREEN, GREY)}
    assert {to_hex(text.get_color()) for text in axes.texts} == {INK}
    for patch in axes.patches:
        assert isinstance(patch, Patch)
        assert to_hex(patch.get_edgecolor()) in allowed
        assert patch.get_facecolor()[3] == 0 or to_hex(patch.get_facecolor()) in allowed
    assert not axes.axison
    assert (figure.get_size_inches()[0] > PAGE) == (name == "six stages")  # too many for the page


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_stages_of_any_irevnet_are_those_of_its_features(data, architectures):
    fields, _ = data.draw(architectures)
    config = IRevNetConfig(**fields)
    model = IRevNet(config).eval()
    images = torch.zeros(1, *config.input_shape)
    both, height, width = model.features(images, 0).shape[1:]
    assert config.stem_shape == (both // 2, height, width)
    stages = stages_of(config)
    assert tuple(stage.blocks for stage in stages) == config.blocks
    for stage in stages:
        for depth in (stage.first, stage.first + stage.blocks - 1):
            both, height, width = model.features(images, depth).shape[1:]
            assert stage.shape == (both // 2, height, width)
            block = model.blocks[depth - 1]
            assert block.stride == (stage.stride if depth == stage.first else 1)
            middle = [layer for layer in block.bottleneck if isinstance(layer, torch.nn.Conv2d)][1]
            assert (middle.in_channels, middle.out_channels) == (stage.inner, stage.inner)


@pytest.mark.parametrize(
    "model",
    [
        RevNet(RevNetConfig(input_shape=(3, 50, 71), blocks=(1, 2), widths=(32, 64), strides=(1, 2))),
        ResNet(ResNetConfig(input_shape=(3, 50, 71), blocks=(1, 2), widths=(8, 16))),
        ResNet(ResNetConfig(input_shape=(1, 9, 7), blocks=(2, 1, 1), widths=(4, 8, 8), block="basic", stem="cifar")),
    ],
    ids=["revnet", "resnet", "resnet of basic blocks"],
)
def test_stages_of_residual_networks_are_those_of_features(model):
    shapes = []
    for module in (model.stem, *model.blocks):
        module.register_forward_hook(lambda module, inputs, output: shapes.append(output))
    model.eval()(torch.zeros(1, *model.config.input_shape))
    stem, *outputs = [tuple((out[0] if isinstance(out, tuple) else out).shape[1:]) for out in shapes]
    streams = 2 if isinstance(model, RevNet) else 1
    assert model.config.stem_shape == (stem[0] // streams, *stem[1:])
    assert [stage.shape for stage in stages_of(model.config) for _ in range(stage.blocks)] == outputs
    firsts = np.cumsum((1, *model.config.blocks[:-1]))
    assert [stage.first for stage in stages_of(model.config)] == firsts.tolist()
    for stage in stages_of(model.config):
        convolutions = [m for m in model.blocks[stage.first - 1].modules() if isinstance(m, torch.nn.Conv2d)]
        assert stage.inner == convolutions[0].out_channels
