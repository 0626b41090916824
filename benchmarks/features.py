"""Time of filling a feature store beside the plain forward pass over the same images, and its peak memory.

    python benchmarks/features.py                    # on the CPU: writes results/features.json, .csv
    python benchmarks/features.py --others           # ResNet-50 and ViT-S: into results/features-others.*
    python benchmarks/features.py --device cuda      # on a GPU: into results/features-cuda.*

Every block of each network is averaged over space and written to disk, flushes included; the images are in memory and
are turned into inputs in all cases. With thingsvision installed, it extracts the same modules in one pass, whole, as it
does, into a folder. All take turns; the ratios, of time and of the CPU's time, are of the least of their rounds. The
memory is that of a process of its own at two numbers of images, of which the larger should not need more but for the
images: pages of the memory maps, which the system takes back when it wants them, do not count (RssAnon).

thingsvision 2.7 asks for older releases of torchvision and NumPy, and for TensorFlow, which it only imports. It runs
beside those of this toolkit with `pip install --no-deps thingsvision h5py ftfy wcwidth regex tqdm torchtyping typeguard
open_clip_torch requests urllib3 idna certifi charset_normalizer`.
"""

import argparse
import contextlib
import importlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import torch
from recording import environment, peak_anonymous, save_results
from torch import nn

from analysis.features.extract import extract
from analysis.features.layers import network_layers
from analysis.features.store import FeatureStore
from irevnet.checkpoints.foreign import build_foreign
from irevnet.data.images import LabelledImages
from irevnet.data.loaders import batches
from irevnet.data.transforms import InputTransform
from irevnet.models.zoo import build_model

CASES = (
    ("irevnet-cifar-bijective", 32, 4096, 256),
    ("resnet-cifar", 32, 4096, 256),
    ("irevnet-b", 224, 256, 16),
)
"""Network, image size, images, images a pass."""

OTHERS = (("torchvision:resnet50", 224, 64, 16), ("timm:vit_small_patch16_224", 224, 64, 16))
"""The same of networks of other packages."""

THINGSVISION = importlib.util.find_spec("thingsvision") is not None


def build(name: str) -> nn.Module:
    return build_foreign(name).model if ":" in name else build_model(name).eval()


def images(count: int, size: int) -> LabelledImages:
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    transform = InputTransform(channels=3, image_size=(size, size))
    return LabelledImages(pixels, [row % 10 for row in range(count)], tuple("0123456789"), transform)


@torch.inference_mode()
def forward(model: nn.Module, data: LabelledImages, batch_size: int) -> None:
    device = next(model.parameters()).device
    for inputs, _ in batches(data, batch_size):
        model(inputs.to(device)).cpu()


def fill(model: nn.Module, data: LabelledImages, batch_size: int) -> int:
    """Extracts every block into a new store, and returns its bytes."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        store = FeatureStore(Path(folder) / "features", {})
        extract(model, data, store, "train", network_layers(model), batch_size=batch_size)
        return sum(path.stat().st_size for path in store.folder.rglob("*.npy"))


def thingsvision(model: nn.Module, data: LabelledImages, batch_size: int) -> int:
    """Extracts every block by thingsvision into a new folder, and returns its bytes."""
    extractor = _thingsvision(model)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder, contextlib.redirect_stdout(sys.stderr):
        extractor.extract_features(
            batches=_Batches(data, batch_size),
            module_names=_block_names(model),
            flatten_acts=False,
            output_type="ndarray",
            output_dir=folder,
        )
        return sum(path.stat().st_size for path in Path(folder).rglob("*.npy"))


class _Batches:
    """Inputs alone, as thingsvision takes them."""

    def __init__(self, data: LabelledImages, batch_size: int):
        self.loader = batches(data, batch_size)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self):
        return (inputs for inputs, _ in self.loader)


def _block_names(model: nn.Module) -> list[str]:
    modules = {module: name for name, module in model.named_modules()}
    return [modules[layer.module] for layer in network_layers(model)]


def _thingsvision(model: nn.Module) -> Any:
    # What it imports and does not use here: TensorFlow, and a name that NumPy 2 has elsewhere.
    importlib.import_module("torch._dynamo")  # which looks for TensorFlow itself
    names = ("", ".keras", ".keras.applications", ".keras.models", ".keras.layers", ".python", ".python.keras")
    sys.modules |= {f"tensorflow{name}": MagicMock() for name in names} | {"keras": MagicMock()}
    vars(np)["AxisError"] = np.exceptions.AxisError
    from thingsvision import get_extractor_from_model

    with contextlib.redirect_stdout(sys.stderr):
        return get_extractor_from_model(model=model, device=str(next(model.parameters()).device), backend="pt")


WORK: dict[str, Callable[[nn.Module, LabelledImages, int], Any]] = {"plain": forward, "store": fill}
if THINGSVISION:
    WORK["thingsvision"] = thingsvision


def measure(name: str, size: int, count: int, batch_size: int, options: argparse.Namespace) -> dict:
    torch.manual_seed(0)
    model = build(name).to(options.device)
    data = images(count * (8 if options.device == "cuda" else 1), size)
    row: dict = {"network": name, "images": len(data), "batch_size": batch_size}
    rounds: dict[str, list[tuple[float, float]]] = {key: [] for key in WORK}
    for number in range(options.rounds + 1):
        for key, work in WORK.items():
            start = time.perf_counter(), time.process_time()
            written = work(model, data, batch_size)
            if number > 0:  # the first of each warms up
                rounds[key].append((time.perf_counter() - start[0], time.process_time() - start[1]))
            if written is not None:
                row[f"{key}_bytes"] = written
        print(f"{name}: round {number} of {options.rounds}", file=sys.stderr)
    least = {key: [*map(min, zip(*rounds[key]))] for key in WORK}
    for key in list(WORK)[1:]:
        row |= {f"{key}_time_ratio": least[key][0] / least["plain"][0]}
        row |= {f"{key}_cpu_time_ratio": least[key][1] / least["plain"][1]}
    return row | {"rounds": rounds}


def peak_memory(key: str, name: str, size: int, count: int, batch_size: int) -> int:
    """The largest RssAnon, in bytes, while the features of so many images are extracted, without the images."""
    model, data = build(name), images(count, size)
    with peak_anonymous() as peak:
        WORK[key](model, data, batch_size)
    return peak.bytes - data.images.nbytes


def _peaks(keys: Sequence[str], *case: Any) -> dict[str, int]:
    found = {}
    for key in keys:
        done = subprocess.run(
            [sys.executable, __file__, "--peak", key, *map(str, case)], stdout=subprocess.PIPE, check=True
        )
        found[key] = json.loads(done.stdout.splitlines()[-1])  # after what thingsvision prints
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--others", action="store_true", help="networks of other packages: into features-others.*")
    parser.add_argument("--peak", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        key, name, *numbers = options.peak
        print(json.dumps(peak_memory(key, name, *map(int, numbers))))
        return
    cases = OTHERS if options.others else CASES
    rows = [measure(*case, options) for case in cases]
    if options.others:
        memory = {f"{case[0]}, {case[2]} images": _peaks(list(WORK), *case) for case in cases}
    else:
        memory = {f"{cases[0][0]}, {n} images": _peaks(["store"], *cases[0][:2], n, 256) for n in (2048, 16384)}
    about = environment(options.device, peak_memory_bytes=memory)
    table = pd.DataFrame(rows).drop(columns=["rounds"])
    name = "features-others" if options.others else "features"
    save_results(name if options.device == "cpu" else f"{name}-cuda", table, rows, about)
    print(f"peak memory without the images: {memory}")


if __name__ == "__main__":
    main()
