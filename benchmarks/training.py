"""Accuracy of a training against what it costs: the recipe `fast`, the one before it, and `fast` without each part.

    OMP_NUM_THREADS=1 python benchmarks/training.py --processes 2 --amp bf16             # on two cores, in a night
    python benchmarks/training.py --device cuda --processes 12 --pflop 0.1 0.3           # on a GPU, in minutes

The cost is 6 times the multiply-adds of the network times the images seen: forward, and backward twice that. Networks
are trained on the first 45,000 images of CIFAR-10 and evaluated on its last 5,000 training images: no test image
chooses a recipe. The parts are measured at the lowest of the costs. A run that is stopped goes on where it was: what is
in results/training.json is not trained again. Of the test set are the networks that come with the package, by their
runs in docs/results, and the published points of others, from github.com/KellerJordan/cifar10-airbench.
"""

import argparse
import dataclasses
import json
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from recording import RESULTS, environment, save_results
from torch import multiprocessing

from irevnet.data.datasets import load_dataset
from irevnet.data.images import LabelledImages
from irevnet.models.zoo import build_network, count_multiply_adds, num_parameters, preset_config
from irevnet.training.config import TrainConfig, recipe
from irevnet.training.trainer import Training

BEFORE = {
    "optimiser": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "schedule": "one-cycle",
    "label_smoothing": 0.0,
    "augmentation": "cifar",
    "normalise": False,
    "preactivate": True,
}
"""The recipe `fast` as it first was, and of the bijective network what has changed since."""

SGD = {key: BEFORE[key] for key in ("optimiser", "learning_rate", "momentum", "weight_decay")}

RECIPES: dict[str, dict[str, Any]] = {"fast": {}, "before": BEFORE}

PARTS: dict[str, dict[str, Any]] = {
    "SGD for Muon": SGD,
    "one-cycle for linear rates": {"schedule": "one-cycle"},
    "no label smoothing": {"label_smoothing": 0.0},
    "random flips, black borders": {"augmentation": "cifar"},
    "no shifts and flips": {"augmentation": "none"},
    "images in [0, 1]": {"normalise": False},
    "batch normalisation and ReLU first": {"preactivate": True},
}
"""What takes the place of each part of `fast`, of the bijective network."""

PUBLISHED = {"airbench94": (0.29, 0.94), "airbench95": (1.4, 0.95), "airbench96": (3.1, 0.96)}
"""PFLOP and test accuracy."""

NETWORKS = {  # with the recipes that they are trained by
    "irevnet-cifar-bijective": ("i-RevNet", ("fast", "before")),
    "resnet-cifar": ("ResNet", ("fast", "before")),
    "irevnet-cifar": ("injective i-RevNet, as released", ("fast",)),  # of seven times the multiply-adds
}


SHIPPED = {"irevnet-cifar-bijective": "cifar10-irevnet", "resnet-cifar": "cifar10-resnet"}
"""Runs of networks that come with the package, by architecture."""


@dataclasses.dataclass(frozen=True)
class Case:
    recipe: str
    network: str
    pflop: float
    seed: int


def cases(options: argparse.Namespace) -> list[Case]:
    """What is trained: the cheapest first, and the parts with them."""
    costs, seeds = sorted(options.pflop), range(options.seeds)
    parts = [Case(part, next(iter(NETWORKS)), costs[0], seed) for seed in seeds for part in PARTS]
    networks = [
        Case(name, network, pflop, seed)
        for pflop in costs
        for seed in seeds
        for network, (_, recipes) in NETWORKS.items()
        for name in recipes
    ]
    return sorted(networks + parts, key=lambda case: case.pflop)


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Trains and evaluates one network."""
    changes = {**RECIPES, **PARTS}[case.recipe]
    config = preset_config(case.network)
    if hasattr(config, "preactivate"):
        config = dataclasses.replace(config, preactivate=changes.get("preactivate", config.preactivate))
    torch.manual_seed(case.seed)
    model = build_network(config).to(options.device)
    work = count_multiply_adds(model, config.input_shape)
    settings = _settings(case, {key: value for key, value in changes.items() if key != "preactivate"}, work, options)
    train, held_out = _images(options.data_root, normalise=settings.normalise)
    begun = time.perf_counter()
    training = Training(model, train, held_out, settings, seed=case.seed)
    for _ in training.steps():
        pass
    last = training.history[-1]
    return {
        **dataclasses.asdict(case),
        "accuracy": last.test_top1,
        "loss": last.test_loss,
        "training_loss": last.train_loss,
        "epochs": settings.steps * settings.batch_size / len(train),  # type: ignore[operator]
        "multiply_adds": work,
        "parameters": num_parameters(model),
        "seconds": time.perf_counter() - begun,
    }


def _settings(case: Case, changes: dict[str, Any], work: int, options: argparse.Namespace) -> TrainConfig:
    batch_size = options.batch_size or (512 if options.device == "cuda" else 128)
    steps = max(1, round(case.pflop * 1e15 / (6 * work * batch_size)))
    settings = recipe("fast", steps=steps, batch_size=batch_size, **changes)
    rate = settings.learning_rate * (batch_size / 128) ** 0.5
    return dataclasses.replace(settings, learning_rate=rate, amp=options.amp)


def _images(root: str, *, normalise: bool) -> tuple[LabelledImages, LabelledImages]:
    source = load_dataset("cifar10", root=root)
    images = source.images("train", source.transform(normalise=normalise))
    parts = (slice(45_000), slice(45_000, None))
    first, last = (
        LabelledImages(images.images[part], images.labels[part], images.classes, images.transform) for part in parts
    )
    return first, last


def _measure(arguments: tuple[Case, argparse.Namespace]) -> dict[str, Any]:
    return measure(*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default="data", help="Folder of CIFAR-10.")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--pflop", type=float, nargs="+", default=[0.01, 0.03, 0.1])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, help="By default 128, on a GPU 512.")
    parser.add_argument("--amp", choices=["none", "bf16"], help="By default none, on a GPU bf16.")
    parser.add_argument("--processes", type=int, default=1, help="Trainings at a time.")
    options = parser.parse_args()
    options.amp = options.amp or ("bf16" if options.device == "cuda" else "none")
    name = "training" if options.device == "cpu" else "training-cuda"
    file = RESULTS / f"{name}.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    keys = [field.name for field in dataclasses.fields(Case)]
    done = {Case(**{key: row[key] for key in keys}) for row in rows}
    left = [case for case in cases(options) if case not in done]
    about = environment(options.device, processes=options.processes, batch_size=options.batch_size, amp=options.amp)
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for row in pool.imap_unordered(_measure, [(case, options) for case in left]):
            rows.append(row)
            save(name, rows, about)
    save(name, rows, about)


def save(name: str, rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    from figures.saving import save_figure

    if name == "training":
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]  # of this machine alone
    table = pd.DataFrame(rows)
    grouped = table.groupby(["recipe", "network", "pflop"], sort=False)
    found = grouped.accuracy.agg(["mean", "std", "count"]).reset_index()
    save_results(name, found, rows, about)
    save_figure(plot(found), RESULTS, name)


def shipped(network: str) -> tuple[float, float]:
    """PFLOP and test accuracy of the run of a network that comes with the package."""
    run = RESULTS.parents[1] / "docs" / "results" / SHIPPED[network]
    last = pd.read_csv(run / "metrics.csv").iloc[-1]
    images = last.step * json.loads((run / "config.json").read_text())["training"]["batch_size"]
    config = preset_config(network)
    return 6e-15 * count_multiply_adds(build_network(config), config.input_shape) * images, last.test_top1


def plot(table: pd.DataFrame):
    """Accuracy against cost, with one standard deviation over seeds."""
    from figures.style import BLUE, GREEN, GREY, ORANGE, PAGE, new_figure, style

    with style():
        figure = new_figure(0.6 * PAGE, 2.8)
        axes = figure.subplots()
        for (network, (label, recipes)), colour in zip(NETWORKS.items(), (BLUE, ORANGE, GREEN)):
            for name, line in zip(recipes, ("-", "--")):
                rows = table[(table.network == network) & (table.recipe == name)].sort_values("pflop")
                error = np.nan_to_num(rows["std"])
                axes.errorbar(
                    rows.pflop, rows["mean"], error, color=colour, linestyle=line, marker="o", label=f"{label}, {name}"
                )
            if network in SHIPPED:
                at, accuracy = shipped(network)
                axes.plot(
                    at,
                    accuracy,
                    color=colour,
                    marker="*",
                    markersize=9,
                    linestyle="",
                    label=f"{label}, shipped (test set)",
                )
        cost, accuracy = zip(*PUBLISHED.values())
        axes.plot(cost, accuracy, color=GREY, marker="s", linestyle=":", label="airbench, published (test set)")
        axes.set(xscale="log", xlabel="PFLOP of the training", ylabel="accuracy on held-out images")
        axes.legend()
    return figure


if __name__ == "__main__":
    main()
