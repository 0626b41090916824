"""Images a second of training, by precision, compilation, and how back-propagation gets its activations.

    OMP_NUM_THREADS=1 python benchmarks/throughput.py                # a CIFAR network on the CPU: results/throughput.*
    python benchmarks/throughput.py --device cuda --network irevnet-b --image-size 224 --batch-size 128
                                                                     # (b) on a GPU: results/throughput-cuda.*

Each way takes steps of `irevnet.training.trainer.Training` on one batch that is on the device already: what a run
does, but for the loading of its images. The first two steps of each warm up (and compile); the time is the least of the
others. On a GPU the peak memory of a step is measured as well; on a CPU times are kept as ratios to the first way
alone. What is measured is saved after each way: compiling a deep network takes long, and comes last.
"""

import argparse
import math
import sys
import time

import pandas as pd
import torch
from recording import environment, save_results
from torch.utils.data import TensorDataset

from irevnet.models.zoo import build_model, count_multiply_adds
from irevnet.training.config import TrainConfig
from irevnet.training.trainer import Training

WAYS = (
    {},
    {"channels_last": True},
    {"amp": "tf32"},
    {"amp": "tf32", "channels_last": True},
    {"amp": "bf16"},
    {"amp": "bf16", "channels_last": True},
    {"memory": "reversible"},
    {"memory": "reversible", "amp": "bf16"},
    {"memory": "reversible", "amp": "bf16", "channels_last": True},
    {"memory": "checkpoint", "amp": "bf16", "channels_last": True},
    {"compile": True},
    {"amp": "bf16", "channels_last": True, "compile": True},
)
"""Fields of `TrainConfig`; the first is float32 with stored activations. Of TF32, on a GPU alone."""


def measure(way: dict, options: argparse.Namespace) -> dict:
    torch.manual_seed(0)
    size, count = options.image_size, options.batch_size
    model = build_model(options.network, image_size=size).to(options.device)
    work = count_multiply_adds(model, (3, size, size))
    images, labels = torch.rand(count, 3, size, size, device=options.device), torch.arange(count) % 10
    data = TensorDataset(images, labels)
    config = TrainConfig(steps=options.steps + 2, batch_size=count, learning_rate=1e-3, **way)
    training = Training(model, data, data, config)
    labels = labels.to(options.device)
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(config.steps or 0):
        begun = time.perf_counter()
        training._do_step(images, labels)
        if options.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    assert all(map(math.isfinite, training.losses))
    peak = torch.cuda.max_memory_allocated() / 2**30 if options.device == "cuda" else None
    print(way or "float32, plain", f"{min(seconds[2:]):.3f} s", file=sys.stderr)
    return {"way": way, "seconds": seconds[2:], "peak_gib": peak, "multiply_adds": work, "loss": training.losses[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--network", default="irevnet-cifar-bijective")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    rows = []
    for way in WAYS:
        if options.device == "cpu" and way.get("amp") == "tf32":
            continue
        torch.compiler.reset()
        rows.append(measure(way, options))
        save(rows, options)


def save(rows: list[dict], options: argparse.Namespace) -> None:
    times = [min(row["seconds"]) for row in rows]
    table = pd.DataFrame(
        {
            "memory": row["way"].get("memory", "plain"),
            "amp": row["way"].get("amp", "none"),
            "channels_last": row["way"].get("channels_last", False),
            "compile": row["way"].get("compile", False),
            "time_over_first": seconds / times[0],
            "images_per_second": options.batch_size / seconds,
            "tflops": 3 * 2 * row["multiply_adds"] * options.batch_size / seconds / 1e12,
            "peak_gib": row["peak_gib"],
        }
        for row, seconds in zip(rows, times)
    )
    if options.device == "cpu":
        table = table.drop(columns=["images_per_second", "tflops", "peak_gib"])  # of this machine alone
    name = "throughput" if options.device == "cpu" else "throughput-cuda"
    asked = {name: getattr(options, name) for name in ("network", "image_size", "batch_size")}
    save_results(name, table, rows, environment(options.device, **asked))


if __name__ == "__main__":
    main()
