"""Memory and time of one training step against depth: plain, checkpointed and reversible back-propagation.

    python benchmarks/memory.py                   # on the CPU: measures, writes results/memory.json, .csv, .png
    python benchmarks/memory.py --device cuda     # on a GPU: the same into results/memory-cuda.*

A chain of blocks as in stage 2 of the paper's network (b): streams of 96 channels at 28 x 28, bottlenecks of 1, 3, 1
kernels. Beside it the same bottlenecks in the two libraries that a user would pick instead, if they are installed:
pip install --no-deps memcnn revtorch. Their blocks hold two bottlenecks each, so that they get half as many.

Working memory is the peak of a step less what was there before it: parameters, gradients and optimiser state are in
place. On the CPU it is the resident size of a process of its own, with an allocator that gives memory back at once; the
time is the least of several steps in several processes with the usual allocator, the methods taking turns. Batch-norm
updates are counted on the way: one a step is right.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from recording import RESULTS, environment, installed, save_results
from torch import nn

from irevnet import IRevNet, IRevNetConfig
from irevnet.models.coupling import Bottleneck

CHANNELS, SIZE, STEPS, ROUNDS = 96, 28, 3, 3
METHODS = ("plain", "checkpoint", "reversible", "memcnn", "revtorch")


def build(method: str, blocks: int) -> nn.Module:
    """A chain of that many bottlenecks on two streams of CHANNELS channels, with a classifier on its end."""
    if method in ("plain", "checkpoint", "reversible"):
        config = IRevNetConfig(input_shape=(48, 2 * SIZE, 2 * SIZE), num_classes=10, blocks=(blocks,), strides=(1,))
        model = IRevNet(config)
        model.memory = method
        return model

    def bottleneck() -> Bottleneck:
        return Bottleneck(CHANNELS, CHANNELS, stride=1, kernel_sizes=(1, 3, 1), ratio=4)

    if method == "memcnn":
        import memcnn

        couplings = [memcnn.AdditiveCoupling(Fm=bottleneck(), Gm=bottleneck()) for _ in range(blocks // 2)]
        chain = nn.Sequential(*(memcnn.InvertibleModuleWrapper(coupling) for coupling in couplings))
    else:
        import revtorch

        chain = revtorch.ReversibleSequence(
            nn.ModuleList(revtorch.ReversibleBlock(bottleneck(), bottleneck()) for _ in range(blocks // 2))
        )
    head = nn.Sequential(nn.BatchNorm2d(2 * CHANNELS), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.PixelUnshuffle(2), chain, head, nn.Linear(2 * CHANNELS, 10))


def measure(method: str, blocks: int, batch_size: int, device: str) -> dict[str, float]:
    """Working memory in bytes, and seconds, of one training step; runs in a process of its own."""
    torch.manual_seed(0)
    model = build(method, blocks).to(device)
    images = torch.rand(batch_size, 48, 2 * SIZE, 2 * SIZE, device=device)
    if method == "revtorch":
        images.requires_grad_()  # it freezes the chain in silence where the input needs no gradient
    labels = torch.arange(batch_size, device=device) % 10
    optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def step() -> None:
        optimiser.zero_grad(set_to_none=False)
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()

    step()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    updates = max(int(norm.num_batches_tracked) for norm in norms)
    before = _reset_peak(device)
    step()
    memory = _peak(device) - before
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return {"bytes": memory, "seconds": min(seconds), "batch_norm_updates": updates}


def _status(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


def _reset_peak(device: str) -> int:
    """Forgets the peak so far and returns what is in use now, in bytes."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else _status("VmHWM")


def in_a_process_of_its_own(*arguments: str, give_back_memory: bool) -> dict[str, float]:
    environment = dict(os.environ)
    if give_back_memory:
        environment["MALLOC_MMAP_THRESHOLD_"] = "65536"
    command = [sys.executable, __file__, "--one", *arguments]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--blocks", type=int, nargs="+", default=[10, 30, 100])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        method, blocks, batch_size, device = options.one
        print(json.dumps(measure(method, int(blocks), int(batch_size), device)))
        return
    absent = [method for method in ("memcnn", "revtorch") if not installed(method)]
    if absent:
        print(f"left out, as not installed: {', '.join(absent)}", file=sys.stderr)
    rows = []
    for blocks in options.blocks:
        cases = {
            method: (method, str(blocks), str(options.batch_size), options.device)
            for method in METHODS
            if method not in absent
        }
        memory = {method: in_a_process_of_its_own(*case, give_back_memory=True) for method, case in cases.items()}
        rounds = [
            {
                method: in_a_process_of_its_own(*case, give_back_memory=False)["seconds"]
                for method, case in cases.items()
            }
            for _ in range(ROUNDS)
        ]
        for method in cases:
            seconds = [times[method] for times in rounds]
            rows.append(
                {"method": method, "blocks": blocks, **memory[method], "seconds": min(seconds), "rounds": seconds}
            )
            print(rows[-1], file=sys.stderr)
    save(rows, options)


def save(rows: list[dict], options: argparse.Namespace) -> None:
    import pandas as pd

    from figures.saving import save_figure

    name = "memory" if options.device == "cpu" else "memory-cuda"
    rows.sort(key=lambda row: (METHODS.index(row["method"]), row["blocks"]))
    table = pd.DataFrame(rows).drop(columns="rounds")
    plain = table[table.method == "plain"].set_index("blocks").seconds
    table["time_over_plain"] = table.seconds / table.blocks.map(plain)
    table["memory_over_10_blocks"] = table.bytes / table.method.map(table[table.blocks == 10].set_index("method").bytes)
    if options.device == "cpu":
        table = table.drop(columns="seconds")  # of this machine alone; the ratio is of one run
    about = environment(options.device, "memcnn", "revtorch", batch_size=options.batch_size)
    save_results(name, table, rows, about)
    for path in save_figure(plot(table), RESULTS, name):
        print(path)


def plot(table):
    from figures.style import BLUE, GREEN, GREY, ORANGE, PAGE, new_figure, style

    looks = {
        "plain": (GREY, "o-"),
        "checkpoint": (GREEN, "s-"),
        "reversible": (BLUE, "D-"),
        "memcnn": (ORANGE, "^--"),
        "revtorch": ("#CC79A7", "v--"),
    }
    with style():
        figure = new_figure(PAGE, 2.4)
        memory, seconds = figure.subplots(1, 2)
        for method, rows in table.groupby("method", sort=False):
            colour, line = looks[method]
            memory.plot(rows.blocks, rows.bytes / 2**20, line, color=colour, label=method)
            seconds.plot(rows.blocks, rows.time_over_plain, line, color=colour)
        memory.set_yscale("log")
        memory.set_ylabel("working memory of a step (MiB)")
        seconds.set_ylabel("time of a step / plain")
        seconds.set_ylim(bottom=0)
        for axes in (memory, seconds):
            axes.set_xlabel("blocks")
        figure.legend(loc="outside upper center", ncols=len(looks))
    return figure


if __name__ == "__main__":
    main()
