"""Layers by depth, by name and by pattern, and their list."""

import pytest
from torch import nn

from analysis.features.layers import list_layers, network_layers


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return {"maps": self.conv(self.conv(x))}["maps"]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.BatchNorm2d(4))
        self.layer2 = nn.Sequential(*(Block() for _ in range(12)))
        self.spare = nn.Linear(4, 2)

    def forward(self, x):
        return self.layer2(self.layer1(x)).mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["layer2.1", "layer1"], ["layer1", "layer2.1"]),  # in the network's order
        (["layer*.0"], ["layer1.0", "layer2.0"]),
        (["layer2.{0, 5,11}", "layer2.5"], ["layer2.0", "layer2.5", "layer2.11"]),
        (["layer2.1?.conv"], ["layer2.10.conv", "layer2.11.conv"]),
        (["**.{0,1}"], ["layer1.0", "layer1.1", "layer2.0", "layer2.1"]),
        (["l*"], ["layer1", "layer2"]),
    ],
)
def test_layers_are_chosen_by_pattern(patterns, names):
    layers = network_layers(Net(), names=patterns)
    assert [layer.name for layer in layers] == names
    assert [layer.depth for layer in layers] == [*range(1, len(names) + 1)]
    assert layers[-1].relative_depth == 1


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("layer", "there is no layer 'layer'; did you mean layer2 or layer1"),
        ("layer3.*", r"no layer fits 'layer3\.\*'; known: layer1, layer1\.0, layer1\.1, layer2, .*, \.\.\.$"),
        ("layer1.[01]*", "no layer fits"),  # nothing else is wild
        ("{", "no layer fits '{'"),
    ],
)
def test_pattern_that_fits_nothing_shows_names(pattern, message):
    with pytest.raises(ValueError, match=message):
        network_layers(Net(), names=[pattern])


def test_modules_are_listed_with_shapes_and_calls():
    model = Net().train()
    rows = {info.name: info for info in list_layers(model, 3, (8, 6))}
    assert list(rows) == [name for name, _ in model.named_modules() if name]
    first, conv, spare = rows["layer2.0"], rows["layer2.0.conv"], rows["spare"]
    assert (first.kind, first.depth, first.shape, first.parameters, first.calls) == ("Block", 1, (1, 4, 4, 3), 20, 1)
    assert (conv.depth, conv.calls) == (None, 2)
    assert (spare.shape, spare.parameters, spare.calls) == (None, 10, 0)
    assert model.training
    assert not model.layer1[0]._forward_hooks
    assert [info.depth for info in list_layers(nn.Sequential(nn.Linear(2, 2)), 3, (2, 2))] == [None]
