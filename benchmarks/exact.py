"""What the exact inverse costs, and what float32 loses: (b) at 224 x 224 and the reference network for CIFAR-10.

    python benchmarks/exact.py                   # on the CPU: writes results/exact.json, .csv
    python benchmarks/exact.py --device cuda     # on a GPU: into results/exact-cuda.*

(b) has fresh weights and batch-norm statistics of photographs, random crops of the two that come with scikit-learn: in
one case those after a single training step of 16, which are still near 0 and 1, in the other averages over 64. It is
tried on other crops and on uniform noise. The times are of features and inverse together, in float32, in float64 and in
exact arithmetic, which take turns; the ratios are of the least of their rounds.
"""

import argparse
import sys
import time
from collections.abc import Sequence

import pandas as pd
import torch
from recording import environment, save_results
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torchvision.transforms import v2

from analysis.studies.inversion import in_arithmetic
from irevnet import IRevNet, build_model, read_checkpoint

ARITHMETICS = ("float32", "float64", "exact")
REFERENCE = "pretrained:cifar10-irevnet"


def photographs(count: int, size: int) -> Tensor:
    """Random crops, in [0, 1]."""
    photos = [torch.tensor(photo).permute(2, 0, 1) / 255 for photo in load_sample_images().images]
    crop = v2.RandomResizedCrop(size, scale=(0.1, 1.0))
    return torch.stack([crop(photos[row % 2]) for row in range(count)])


@torch.no_grad()
def with_statistics_of(batches: Sequence[Tensor], *, average: bool) -> IRevNet:
    """(b) with batch-norm statistics of these images: averages over them, or moved towards each batch in turn."""
    model = build_model("irevnet-b")
    assert isinstance(model, IRevNet)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and average:
            module.momentum = None
    model.train()
    for images in batches:
        model(images)
    return model.eval()


def measure(name: str, model: IRevNet, sets: dict[str, Tensor], batch_size: int, rounds: int) -> list[dict]:
    """A row for each set and arithmetic: errors, and time over that in float32."""
    rows = []
    device = next(model.parameters()).device
    for images_name, images in sets.items():
        seconds: dict[str, list[float]] = {arithmetic: [] for arithmetic in ARITHMETICS}
        errors: dict[str, Tensor] = {}
        for number in range(rounds):
            for arithmetic in ARITHMETICS:
                with in_arithmetic(model, arithmetic, 14) as network:
                    start = time.perf_counter()
                    found = [
                        torch.from_numpy(network.errors(part, model.config.num_blocks)[0])
                        for part in images.split(batch_size)
                    ]
                    if device.type == "cuda":
                        torch.cuda.synchronize()
                    seconds[arithmetic].append(time.perf_counter() - start)
                errors[arithmetic] = torch.cat(found)
            print(f"{name}, {images_name}: round {number + 1} of {rounds}", file=sys.stderr)
        rows += [
            {
                "network": name,
                "images": images_name,
                "count": len(images),
                "batch_size": batch_size,
                "arithmetic": arithmetic,
                "mean_error": errors[arithmetic].mean().item(),
                "max_error": errors[arithmetic].max().item(),
                "time_ratio": min(seconds[arithmetic]) / min(seconds["float32"]),
                "seconds": seconds[arithmetic],
            }
            for arithmetic in ARITHMETICS
        ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    batches = photographs(64, 224).split(16)
    sets = {"photographs": photographs(16, 224), "uniform noise": torch.rand(16, 3, 224, 224)}
    rows = []
    for name, model in {
        "(b), statistics of one step": with_statistics_of(batches[:1], average=False),
        "(b), averaged statistics": with_statistics_of(batches, average=True),
    }.items():
        rows += measure(name, model.to(options.device), sets, 16, options.rounds)
    checkpoint = read_checkpoint(REFERENCE)
    sets = {"photographs": photographs(1024, 32), "uniform noise": torch.rand(1024, 3, 32, 32)}
    sets = {name: checkpoint.transform.normalise(images) for name, images in sets.items()}
    rows += measure("CIFAR-10's", checkpoint.irevnet.to(options.device), sets, 128, options.rounds)
    table = pd.DataFrame(rows).drop(columns=["seconds"])
    save_results("exact" if options.device == "cpu" else "exact-cuda", table, rows, environment(options.device))


if __name__ == "__main__":
    main()
