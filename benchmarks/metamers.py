"""Metamers of pairs of images: how exactly they have the logits of the first, how near they are to the second, and at
what price, beside plenoptic's metamer synthesis.

    OMP_NUM_THREADS=1 python benchmarks/metamers.py    # writes results/metamers.json, .csv

Of the reference network for CIFAR-10, at crops of 32 x 32 pixels of the photographs that come with scikit-learn, in
float32, on one thread: pairs of crops A and B. Every method starts from B and is to end with A's logits; plenoptic's
metamers minimise the squared difference by Adam with its default step, and have no part that keeps them near B but the
start. Times are of the CPU, all pairs one after the other for plenoptic, which has one metamer at a time, and at once
for ours, of which the time for single pairs stands beside; ratios are to the latter.

plenoptic: `pip install plenoptic`, best in an environment of its own; without it its rows say so.
"""

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from exact import REFERENCE, photographs
from recording import environment, installed, save_results
from torch import Tensor, nn

from analysis.invariances.find import MetamerFinder, relative_difference
from irevnet import Checkpoint, read_checkpoint

PAIRS = 8
ITERATIONS = (100, 1000)
"""Iterations of plenoptic; its default is 100."""


def ours(finder: MetamerFinder, kind: str) -> Callable[[Tensor, Tensor], Tensor]:
    def find(a: Tensor, b: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = finder.kept(a)
            if kind == "nearest-features":
                return finder.nearest_features(finder.features(b), wanted).images
        return finder.nearest_image(b, wanted).images

    return find


def plenoptic(model: nn.Module, iterations: int) -> Callable[[Tensor, Tensor], Tensor]:
    import plenoptic as po

    def find(a: Tensor, b: Tensor) -> Tensor:
        metamer = po.Metamer(a, model)
        metamer.setup(initial_image=b)
        metamer.synthesize(max_iter=iterations, stop_criterion=0)
        return metamer.metamer.detach()

    return find


def one_by_one(find: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: torch.cat([find(a[row : row + 1], b[row : row + 1]) for row in range(len(a))])


def measure(name: str, find: Callable[[Tensor, Tensor], Tensor], checkpoint: Checkpoint, a: Tensor, b: Tensor) -> dict:
    model, pixels_of = checkpoint.model, checkpoint.transform.to_pixels
    started = time.process_time()
    images = find(a, b)
    seconds = time.process_time() - started
    with torch.no_grad():
        difference = relative_difference(model(images).double(), model(a).double())
    pixels = pixels_of(images)
    distance = (pixels - pixels_of(b)).square().mean(dim=(1, 2, 3)).sqrt()
    return {
        "method": name,
        "largest difference": difference.max().item(),
        "median difference": difference.median().item(),
        "median distance from B": distance.median().item(),
        "outside [0, 1]": ((pixels < -1e-4) | (pixels > 1 + 1e-4)).double().mean().item(),
        "seconds": seconds,
    }


def main() -> None:
    torch.manual_seed(0)
    checkpoint = read_checkpoint(REFERENCE)
    model = checkpoint.irevnet.requires_grad_(False)
    finder = MetamerFinder(model, depth=model.num_blocks, keep="logits")
    images = checkpoint.transform.normalise(photographs(2 * PAIRS, 32))
    a, b = images[::2], images[1::2]
    rows = []
    for kind in ("nearest-features", "nearest-image"):
        find = ours(finder, kind)
        find(a[:1], b[:1])  # loads what is loaded once
        rows.append(measure(f"{kind}, one by one", one_by_one(find), checkpoint, a, b))
        rows.append(measure(f"{kind}, at once", find, checkpoint, a, b))
    for iterations in ITERATIONS:
        name = f"plenoptic, {iterations:,} iterations"
        if installed("plenoptic"):
            rows.append(measure(name, one_by_one(plenoptic(model, iterations)), checkpoint, a, b))
            print(rows[-1], flush=True)
        else:
            rows.append({"method": f"{name}: not installed"} | dict.fromkeys(list(rows[0])[1:], np.nan))
    for row in rows:
        row["time ratio"] = row["seconds"] / rows[0]["seconds"]
    table = pd.DataFrame(rows).drop(columns="seconds")
    for row in rows:
        del row["seconds"]  # of a CPU, ratios alone are kept
    save_results("metamers", table, rows, environment("cpu", "plenoptic", pairs=PAIRS, precision="float32"))


if __name__ == "__main__":
    main()
