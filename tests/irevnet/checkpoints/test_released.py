"""The authors' checkpoint layout, written by code that is independent of the toolkit's."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from irevnet import read_checkpoint
from irevnet.checkpoints.architecture import check_shapes
from irevnet.checkpoints.released import read_released
from irevnet.data.transforms import IMAGENET_TRANSFORM
from irevnet.models.zoo import build_network, preset_config


class ReleasedBlock(nn.Module):
    """One block in the released numbering: `bottleneck_block.{k}` counts every layer, dropout included."""

    def __init__(self, in_channels, out_channels, *, stride, first, kernels):
        super().__init__()
        self.stride = stride
        middle = out_channels // 4
        layers = [] if first else [nn.BatchNorm2d(in_channels), nn.ReLU()]
        layers += [
            nn.Conv2d(in_channels, middle, kernels[0], stride=stride, padding=kernels[0] // 2, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, middle, kernels[1], padding=kernels[1] // 2, bias=False),
            nn.Dropout(0.0),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, out_channels, kernels[2], padding=kernels[2] // 2, bias=False),
        ]
        self.bottleneck_block = nn.Sequential(*layers)


class Released(nn.Module):
    """The released network: squeezes by slicing, appends zeros before the split."""

    def __init__(self, *, blocks, strides, channels, squeeze, kernels=(3, 3, 3), classes=11, image_channels=3):
        super().__init__()
        self.squeeze, self.width = squeeze, channels[0] if strides[0] == 1 else image_channels * squeeze**2 // 2
        stack, width = [], self.width
        for count, stride, out in zip(blocks, strides, channels):
            for i in range(count):
                step = stride if i == 0 else 1
                stack.append(ReleasedBlock(width, out, stride=step, first=not stack, kernels=kernels))
                width = out
        self.stack = nn.ModuleList(stack)
        self.bn1 = nn.BatchNorm2d(2 * width)
        self.linear = nn.Linear(2 * width, classes)

    @staticmethod
    def shuffle(x, r):
        return torch.cat([x[:, :, dy::r, dx::r] for dy in range(r) for dx in range(r)], dim=1)

    def forward(self, images):
        x = self.shuffle(images, self.squeeze)
        x = F.pad(x, (0, 0, 0, 0, 0, 2 * self.width - x.shape[1]))
        one, two = x[:, : self.width], x[:, self.width :]
        for block in self.stack:
            moved = block.bottleneck_block(two)
            one, two = self.shuffle(two, block.stride), self.shuffle(one, block.stride) + moved
        phi = torch.cat((one, two), dim=1)
        return self.linear(F.relu(self.bn1(phi)).mean(dim=(2, 3))), phi


BIJECTIVE = dict(blocks=(2, 3), strides=(2, 2), channels=(24, 96), squeeze=2)
B = dict(blocks=(6, 16, 72, 6), strides=(2, 2, 2, 2), channels=(24, 96, 384, 1536), squeeze=2)
CIFAR = dict(blocks=(18, 18, 18), strides=(1, 2, 2), channels=(16, 64, 256), squeeze=1)


OLD = {"prefix": "", "batches_tracked": False, "_use_new_zipfile_serialization": False}
"""How old versions of PyTorch wrote."""


def write(path, network, *, prefix="module.", batches_tracked=True, **options):
    """A checkpoint as the authors' training script saved it."""
    state = {f"{prefix}{key}": value for key, value in network.state_dict().items()}
    if not batches_tracked:
        state = {key: value for key, value in state.items() if "num_batches_tracked" not in key}
    optimizer = {"state": {}, "param_groups": [{"lr": 0.1}]}
    content = {"epoch": 90, "arch": "i-revnet", "state_dict": state, "best_prec1": 74.0, "optimizer": optimizer}
    torch.save(content, path, **options)


@pytest.mark.parametrize(
    "architecture",
    [
        BIJECTIVE,
        BIJECTIVE | {"kernels": (1, 3, 1)},
        {"blocks": (1, 2, 1), "strides": (1, 2, 2), "channels": (24, 96, 384), "squeeze": 4},
        CIFAR | {"classes": 10},
    ],
    ids=["bijective", "1-3-1", "first stage without stride", "injective, CIFAR"],
)
def test_logits_features_and_inverse_are_those_of_the_release(tmp_path, architecture, trained_looking):
    network = trained_looking(Released(**architecture))
    old = {} if architecture == BIJECTIVE else OLD
    write(tmp_path / "model.pth.tar", network, **old)
    model = read_checkpoint(tmp_path / "model.pth.tar").model
    images = torch.rand(2, 3, 32, 32)
    logits, phi = network(images)
    torch.testing.assert_close(model(images), logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.features(images), phi, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.inverse(phi), images, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "classes", "name", "mean"),
    [
        (B, 1000, "irevnet-b-released", 0.485),
        (CIFAR, 10, "irevnet-cifar", 0.4914),
        (CIFAR, 100, "irevnet-cifar", 0.5071),
    ],
)
def test_released_networks_are_recognised(architecture, classes, name, mean):
    with torch.device("meta"):
        state = Released(**architecture, classes=classes).state_dict()
    config, weights, transform = read_released(Path("x.pth"), {f"module.{key}": state[key] for key in state})
    assert config == preset_config(name, num_classes=classes)
    with torch.device("meta"):
        check_shapes(build_network(config), weights)
    assert transform.mean[0] == mean
    assert transform.image_size == config.input_shape[1:]
    assert (transform == IMAGENET_TRANSFORM) == (classes == 1000)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.pop("module.linear.weight"),
        lambda state: [state.pop(key) for key in list(state) if "stack" in key],
        lambda state: [state.pop(key) for key in list(state) if "stack.1." in key],
        lambda state: state.update({"module.stack.0.bottleneck_block.0.weight": torch.zeros(6, 5, 3, 3)}),
    ],
    ids=["no classifier", "no blocks", "a missing block", "an odd stream"],
)
def test_tensors_of_something_else_are_refused(tmp_path, spoil):
    network = Released(**BIJECTIVE)
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    spoil(state)
    torch.save({"state_dict": state}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth are not those of an i-RevNet in the authors' layout"):
        read_checkpoint(tmp_path / "other.pth")
