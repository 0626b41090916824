"""Time of filling a feature store beside the plain forward pass over the same images, and its peak memory.

    python benchmarks/features.py                    # on the CPU: writes results/features.json, .csv
    python benchmarks/features.py --device cuda      # on a GPU: into results/features-cuda.*

Every block of each network is averaged over space and written to disk, flushes included; the images are in memory and
are turned into inputs in both cases. The two take turns; the ratios, of time and of the CPU's time, are of the least of
their rounds. The memory is that of a process of its own at two numbers of images, of which the larger should not need
more but for the images: pages of the memory maps, which the system takes back when it wants them, do not count
(RssAnon).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pandas as pd
import torch
from recording import environment, save_results
from torch import nn

from analysis.features.extract import extract
from analysis.features.layers import network_layers
from analysis.features.store import FeatureStore
from irevnet.data.images import LabelledImages
from irevnet.data.loaders import batches
from irevnet.data.transforms import InputTransform
from irevnet.models.zoo import build_model

CASES = (("irevnet-cifar-bijective", 32, 4096, 256), ("resnet-cifar", 32, 4096, 256), ("irevnet-b", 224, 256, 16))
"""Network, image size, images, images a pass."""


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


def measure(name: str, size: int, count: int, batch_size: int, options: argparse.Namespace) -> dict:
    torch.manual_seed(0)
    model = build_model(name).eval().to(options.device)
    data = images(count * (8 if options.device == "cuda" else 1), size)
    row: dict = {"network": name, "images": len(data), "batch_size": batch_size}
    rounds: dict[str, list[tuple[float, float]]] = {"plain": [], "store": []}
    for number in range(options.rounds + 1):
        for key, work in (("plain", forward), ("store", fill)):
            start = time.perf_counter(), time.process_time()
            written = work(model, data, batch_size)
            if number > 0:  # the first of each warms up
                rounds[key].append((time.perf_counter() - start[0], time.process_time() - start[1]))
        row["bytes_written"] = written
        print(f"{name}: round {number} of {options.rounds}", file=sys.stderr)
    (plain, plain_cpu), (store, store_cpu) = (map(min, zip(*rounds[key])) for key in ("plain", "store"))
    return row | {"time_ratio": store / plain, "cpu_time_ratio": store_cpu / plain_cpu, "rounds": rounds}


def peak_memory(count: int) -> int:
    """The largest RssAnon, in bytes, while the CIFAR network's features of so many images are extracted."""
    model, data = build_model("irevnet-cifar-bijective").eval(), images(count, 32)
    peak, running = 0, True

    def watch() -> None:
        nonlocal peak
        while running:
            line = next(line for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line)
            peak = max(peak, 1024 * int(line.split()[1]))
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    fill(model, data, 256)
    running = False
    thread.join()
    return peak - data.images.nbytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(json.dumps(peak_memory(options.peak)))
        return
    rows = [measure(*case, options) for case in CASES]
    memory = {
        count: json.loads(subprocess.check_output([sys.executable, __file__, "--peak", str(count)]))
        for count in (2048, 16384)
    }
    about = environment(options.device, peak_memory_bytes_by_images=memory)
    table = pd.DataFrame(rows).drop(columns=["rounds"])
    save_results("features" if options.device == "cpu" else "features-cuda", table, rows, about)
    print(f"peak memory without the images: {memory}")


if __name__ == "__main__":
    main()
