"""Time of one training step at 224 x 224: (b) as in the paper and as released, RevNet-56 and ResNet-50.

    python benchmarks/step_time.py                                   # on the CPU: writes results/step-time.json, .csv
    python benchmarks/step_time.py --device cuda --batch-size 64     # on a GPU: into results/step-time-cuda.*

The paper found "one third longer wall-clock times for i-RevNets compared to plain RevNets" (section 3.2). The networks
take turns; the time of each is the least of its rounds. Times of a CPU are kept as ratios to RevNet-56 alone.
"""

import argparse
import sys
import time

import pandas as pd
import torch
from recording import environment, save_results
from torch import nn

from irevnet.models.zoo import build_model, count_multiply_adds

CASES = (
    ("irevnet-b", "plain"),
    ("irevnet-b", "reversible"),
    ("irevnet-b-released", "plain"),
    ("irevnet-b-released", "reversible"),
    ("revnet-56", "plain"),
    ("resnet-50", "plain"),
)


def seconds_of_a_step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Forward, backward and update, waiting for the device to finish."""
    optimiser = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    _wait(images.device)
    start = time.perf_counter()
    nn.functional.cross_entropy(model(images), labels).backward()
    optimiser.step()
    optimiser.zero_grad()
    _wait(images.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(options: argparse.Namespace) -> list[dict]:
    torch.manual_seed(0)
    images = torch.rand(options.batch_size, 3, 224, 224, device=options.device)
    labels = torch.arange(options.batch_size, device=options.device)
    rows = []
    for name, memory in CASES:
        model = build_model(name).train().to(options.device)
        if memory != "plain":
            model.memory = memory
        rows.append({"network": name, "memory": memory, "model": model, "rounds": []})
    for number in range(options.rounds + 1):
        for row in rows:
            seconds = seconds_of_a_step(row["model"], images, labels)
            if number > 0:  # the first of each warms up
                row["rounds"].append(seconds)
        print(f"round {number} of {options.rounds}", file=sys.stderr)
    for row in rows:
        row["multiply_adds"] = count_multiply_adds(row.pop("model"), (3, 224, 224))
        row["seconds"] = min(row["rounds"])
    return rows


def save(rows: list[dict], options: argparse.Namespace) -> None:
    table = pd.DataFrame(rows).drop(columns="rounds")
    (revnet,) = table.seconds[table.network == "revnet-56"]
    table["time_over_revnet_56"] = table.seconds / revnet
    if options.device == "cpu":
        table = table.drop(columns="seconds")  # of this machine alone; the ratio is of one run
    name = "step-time" if options.device == "cpu" else "step-time-cuda"
    save_results(name, table, rows, environment(options.device, batch_size=options.batch_size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    save(measure(options), options)


if __name__ == "__main__":
    main()
