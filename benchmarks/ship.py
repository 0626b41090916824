"""Puts the network of a run among those that come with the package, with the accuracy that it has in half precision.

python benchmarks/ship.py runs/cifar10-irevnet cifar10-irevnet --data-root data
"""

import argparse
import dataclasses
from pathlib import Path

import torch

from irevnet import evaluate, load_dataset, read_checkpoint
from irevnet.checkpoints.pretrained import FOLDER
from irevnet.checkpoints.trained import save_in_half
from irevnet.training.runs import find_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="Folder of the run, or a checkpoint.")
    parser.add_argument("name", help="Name that follows 'pretrained:'.")
    parser.add_argument("--data-root", default="data", help="Folder of the data that it was trained on.")
    options = parser.parse_args()
    before = read_checkpoint(find_checkpoint(options.run))
    file = FOLDER / f"{options.name}.pt"
    saved = save_in_half(file, before)
    data = load_dataset(saved.data, root=options.data_root)
    model = saved.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    found = evaluate(model, data.images("test", saved.transform, classes=saved.classes))
    metrics = {"test_loss": found.loss, "test_top1": found.top1, "test_top5": found.top5}
    save_in_half(file, dataclasses.replace(saved, metrics={**before.metrics, **metrics}))
    print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")
    for name, value in metrics.items():
        print(f"{name}: {before.metrics[name]:.4f} in single precision, {value:.4f} in half")


if __name__ == "__main__":
    main()
