"""The convolutions of each network against float64, on this processor and on one with narrower vectors."""

import dataclasses
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from irevnet import build_model, list_models
from irevnet.models.config import IRevNetConfig
from irevnet.models.convolution import StridedPointwise, convolution
from irevnet.models.zoo import _PRESETS, build_network

PRESETS = [info.name for info in list_models()]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


def first_blocks(name: str) -> nn.Module:
    """The network with one block in each of its first two stages."""
    config, _ = _PRESETS[name]
    shorter = {key: getattr(config, key)[:2] for key in ("strides", "widths") if key in vars(config)}
    if isinstance(config, IRevNetConfig):
        shorter["bottleneck_ratio"] = config.stage_ratios[:2]
    stride = 8 if isinstance(config, IRevNetConfig) else 1
    shape = (config.input_shape[0], 8 * stride, 8 * stride)
    return build_network(dataclasses.replace(config, blocks=(1, 1), input_shape=shape, **shorter))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PRESETS)
def test_weight_gradients_of_first_blocks(name, layout):
    """Those of each convolution, from its input and the gradient of its output.

    A sum of n products in any order is off by no more than n eps times the sum of their absolute values.
    """
    model = first_blocks(name).train().to(memory_format=LAYOUTS[layout])
    seen: dict[str, list[Tensor]] = {}

    def note(key: str):
        def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            seen[key] = [inputs[0].detach().double()]
            output.register_hook(lambda gradient: seen[key].append(gradient.double()))

        return hook

    convolutions = {key: module for key, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    for key, module in convolutions.items():
        module.register_forward_hook(note(key))
    channels, height, width = model.config.input_shape
    images = torch.rand(16, channels, height, width).to(memory_format=LAYOUTS[layout])
    model(images).square().sum().backward()
    assert len(seen) == len(convolutions) > 4
    for key, (read, gradient) in seen.items():
        module = convolutions[key]
        options = {"stride": module.stride, "padding": module.padding}
        expected = conv2d_weight(read, module.weight.shape, gradient, **options)
        absolute = conv2d_weight(read.abs(), module.weight.shape, gradient.abs(), **options)
        bound = gradient[:, 0].numel() * torch.finfo(torch.float32).eps * absolute
        assert ((module.weight.grad - expected).abs() <= bound).all(), key


@pytest.mark.skipif(os.environ.get("ONEDNN_MAX_CPU_ISA") is not None, reason="this is that process")
def test_weight_gradients_on_a_processor_with_narrower_vectors():
    """With AVX2, oneDNN's weight gradient of a narrow strided 1 x 1 convolution is wrong, or ends the process."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning", "-k", "irevnet-b or irevnet-small"]
    command = [sys.executable, "-m", "pytest", __file__, *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "6 passed" in done.stdout


@pytest.mark.parametrize("size", [(6, 6), (5, 7)])
def test_a_strided_pointwise_convolution_is_torchs(size):
    mine, reference = StridedPointwise(3, 4, 1, stride=2).double(), nn.Conv2d(3, 4, 1, stride=2).double()
    mine.load_state_dict(reference.state_dict())
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(mine(images), reference(images), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(mine(images[0]), reference(images[0]), rtol=1e-14, atol=1e-14)


def test_no_network_has_a_strided_pointwise_convolution_of_torch():
    for name in PRESETS:
        with torch.device("meta"):
            model = build_model(name)
        assert not [
            key
            for key, module in model.named_modules()
            if type(module) is nn.Conv2d and module.kernel_size == (1, 1) and module.stride != (1, 1)
        ], name
    assert type(convolution(3, 3, 1, stride=2)) is StridedPointwise
    assert type(convolution(3, 3, 1)) is type(convolution(3, 3, 3, stride=2)) is nn.Conv2d
