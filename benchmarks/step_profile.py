"""What a training step of the recipe `fast` spends its time on, and what share of a convolution's rate it reaches.

    OMP_NUM_THREADS=1 python benchmarks/step_profile.py       # on a CPU: results/step-profile.csv, .json
    python benchmarks/step_profile.py --device cuda -b 512    # on a GPU: results/step-profile-cuda.csv, .json

A step is `irevnet.training.trainer.Training`'s, on one batch that is on the device already. Times by kind of operator
are of `torch.profiler`, by the operators of PyTorch, whose names are the same whatever kernels compute them; what is
left of a step is loss, weight updates and calls. The arithmetic of a step is 6 operations a multiply-add of the forward
pass and image; its rate is compared with the best rate of a single 3 x 3 convolution, forward and backward, in the same
precision and run. Rates are kept as shares alone.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import pandas as pd
import torch
from recording import environment, save_results
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import TensorDataset

from irevnet.models.zoo import build_model, count_multiply_adds
from irevnet.training.config import recipe
from irevnet.training.trainer import Training

NETWORKS = ("irevnet-cifar-bijective", "resnet-cifar")
PRECISIONS = ("none", "bf16")
KINDS = {
    "convolution": ("conv",),
    "normalisation": ("batch_norm",),
    "elementwise": ("relu", "clamp", "threshold", "aten::add", "aten::mul", "aten::copy_", "aten::cat", "aten::fill_"),
}
"""Kinds of operators, by parts of their names; the first that fits."""

WIDE = ((64, 32), (128, 16), (256, 16), (512, 8))
"""Channels and size of the convolutions that the rate of a step is compared with."""


def seconds_of(work: Callable[[], object], device: str, repeats: int) -> float:
    """The median time, after two calls that warm up."""
    times = []
    for _ in range(repeats + 2):
        _wait(device)
        begun = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[2:])


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def best_rate(options: argparse.Namespace, amp: str) -> float:
    """Operations a second of the fastest of the wide convolutions, forward and backward."""
    dtype = torch.bfloat16 if amp == "bf16" else torch.float32
    layout = {"device": options.device, "dtype": dtype}
    rates = []
    for channels, size in WIDE:
        layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False, **layout).to(memory_format=torch.channels_last)
        x = torch.randn(options.batch_size, channels, size, size, **layout).to(memory_format=torch.channels_last)
        x.requires_grad_()

        def work(layer: nn.Module = layer, x: torch.Tensor = x) -> None:
            layer(x).sum().backward()

        operations = 6 * 9 * channels**2 * size**2 * options.batch_size
        rates.append(operations / seconds_of(work, options.device, options.repeats))
    return max(rates)


def measure(name: str, amp: str, options: argparse.Namespace, rate: float) -> dict:
    torch.manual_seed(0)
    model = build_model(name, num_classes=10).to(options.device)
    images = torch.randn(options.batch_size, 3, 32, 32, device=options.device)
    labels = torch.arange(options.batch_size) % 10
    data = TensorDataset(images, labels)
    config = recipe("fast", batch_size=options.batch_size, amp=amp, augmentation="none")
    training = Training(model, data, data, config)
    labels = labels.to(options.device)

    def step() -> None:
        training._do_step(images, labels)

    seconds = seconds_of(step, options.device, options.repeats)
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (options.device == "cuda")]
    with profile(activities=activities) as profiled:
        for _ in range(options.repeats):
            step()
        _wait(options.device)
    parts = dict.fromkeys(KINDS, 0.0)
    for event in profiled.key_averages():
        spent = event.self_device_time_total if options.device == "cuda" else event.self_cpu_time_total
        kind = next((kind for kind, words in KINDS.items() if any(word in event.key for word in words)), None)
        if kind is not None and "::" in event.key and not event.key.startswith("autograd::"):
            parts[kind] += spent / 1e6 / options.repeats
    operations = 6 * count_multiply_adds(model, (3, 32, 32)) * options.batch_size
    print(name, amp, f"{seconds:.3f} s", file=sys.stderr)
    return {"network": name, "amp": amp, "seconds": seconds, "parts": parts, "share": operations / seconds / rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("-b", "--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    rates = {amp: best_rate(options, amp) for amp in PRECISIONS}
    rows = [measure(name, amp, options, rates[amp]) for name in NETWORKS for amp in PRECISIONS]
    table = pd.DataFrame(
        {
            "network": row["network"],
            "amp": row["amp"],
            "time_over_float32": row["seconds"] / next(r["seconds"] for r in rows if r["network"] == row["network"]),
            **{kind: spent / row["seconds"] for kind, spent in row["parts"].items()},
            "share_of_convolution_rate": row["share"],
        }
        for row in rows
    )
    more = {"batch_size": options.batch_size, "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    more["bf16_over_float32_rate"] = rates["bf16"] / rates["none"]
    name = "step-profile" if options.device == "cpu" else "step-profile-cuda"
    save_results(name, table, rows, environment(options.device, **more))


if __name__ == "__main__":
    main()
