"""The convolutions of each network against float64, on this processor and on one with narrower vectors."""

import dataclasses
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from irevnet import build_model
from irevnet.models.config import IRevNetConfig
from irevnet.models.convolution import StridedPointwise, convolution
from irevnet.models.zoo import _PRESETS, build_network


def first_blocks(name: str) -> nn.Module:
    """The network with one block in each of its first two stages."""
    config, _ = _PRESETS[name]
    shorter = {key: getattr(config, key)[:2] for key in ("strides", "widths") if key in vars(config)}
    if isinstance(config, IRevNetConfig):
        shorter["bottleneck_ratio"] = config.stage_ratios[:2]
    stride = 8 if isinstance(config, IRevNetConfig) else 1
    shape = (config.input_shape[0], 8 * stride, 8 * stride)
    return build_network(dataclasses.replace(config, blocks=(1, 1), input_shape=shape, **shorter))


def check_weight_gradients(name: str) -> None:
    """Those of each convolution in the first blocks, from its input and the gradient of its output.

    A sum of n products in any order is off by no more than n eps times the sum of their absolute values.
    """
    for layout in (torch.contiguous_format, torch.channels_last):
        model = first_blocks(name).train().to(memory_format=layout)
        seen: dict[nn.Conv2d, list[Tensor]] = {}

        def note(module: nn.Conv2d, inputs: tuple[Tensor], output: Tensor, seen=seen) -> None:
            seen[module] = [inputs[0].detach().double()]
            output.register_hook(lambda gradient: seen[module].append(gradient.double()))

        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        for module in convolutions:
            module.register_forward_hook(note)
        model(torch.rand(16, *model.config.input_shape).to(memory_format=layout)).square().sum().backward()
        assert len(seen) == len(convolutions) > 4
        for module, (read, slope) in seen.items():
            options = {"stride": module.stride, "padding": module.padding}
            expected = conv2d_weight(read, module.weight.shape, slope, **options)
            absolute = conv2d_weight(read.abs(), module.weight.shape, slope.abs(), **options)
            bound = slope[:, 0].numel() * torch.finfo(torch.float32).eps * absolute
            assert ((module.weight.grad - expected).abs() <= bound).all(), (name, module, layout)


@pytest.mark.parametrize("name", _PRESETS)
def test_weight_gradients_of_first_blocks(name):
    check_weight_gradients(name)


def test_weight_gradients_on_a_processor_with_narrower_vectors():
    """With AVX2, oneDNN's weight gradient of a narrow strided 1 x 1 convolution is wrong, or ends the process."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "checked\n" * 3


def test_no_network_has_a_strided_pointwise_convolution_of_torch():
    for name in _PRESETS:
        with torch.device("meta"):
            model = build_model(name)
        assert not [
            key
            for key, module in model.named_modules()
            if type(module) is nn.Conv2d and module.kernel_size == (1, 1) and module.stride != (1, 1)
        ], name
    assert type(convolution(3, 3, 1, stride=2)) is StridedPointwise
    assert type(convolution(3, 3, 1)) is type(convolution(3, 3, 3, stride=2)) is nn.Conv2d


if __name__ == "__main__":
    for each in ("irevnet-b", "irevnet-b-released", "irevnet-small"):
        check_weight_gradients(each)
        print("checked")
