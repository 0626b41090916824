"""No study holds more of the images than a batch: ten times as many take hardly more memory."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from irevnet import Checkpoint, build_model, save_checkpoint
from irevnet.data.transforms import InputTransform

SIZE, FEW, MANY = 64, 200, 2000
"""Height and width of the images, and how many there are in either split."""

INPUTS = (MANY - FEW) * 3 * SIZE**2 * 4
"""Bytes of the inputs of one split that there are more: what a study would grow by that held them."""

HELD = (MANY - FEW) * 192 * (4 + 4 + 8 + 8)
"""Bytes that the probes do hold more of: averaged features of 192 channels, mapped from the disk and as coordinates in
float32 and in float64, twice."""

CHILD = """
import re
import resource
import sys
import torch
from pathlib import Path
import cli
from analysis import open_experiment
from irevnet.data.loaders import batches

data, kind, *command = sys.argv[1:]
if kind == "hold":  # the control
    images = open_experiment("net.pt", data=data).images("test")
    held = [inputs for inputs, _ in batches(images, 32)]
else:
    getattr(cli, kind)([*command, "--data", data], standalone_mode=False)
status = Path("/proc/self/status")  # of Linux, where the other is no less than the peak of the process that began this
peak = re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text()) if status.is_file() else None
print("peak", 1024 * int(peak[1]) if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A network, and folders of few and of many images."""
    folder = tmp_path_factory.mktemp("memory")
    torch.manual_seed(0)
    model = build_model("irevnet-small", num_classes=2, image_size=SIZE, in_channels=3).eval()
    transform = InputTransform(channels=3, image_size=(SIZE, SIZE))
    save_checkpoint(
        folder / "net.pt", Checkpoint(model=model, transform=transform, data="few", classes=("a", "b"), metrics={})
    )
    for name, count in (("few", FEW), ("many", MANY)):
        for split in ("train", "val"):
            for label, kind in enumerate("ab"):
                of_class = folder / name / split / kind
                of_class.mkdir(parents=True)
                for n in range(count // 2):
                    colour = (n % 256, 50 + 100 * label, n // 4)
                    Image.new("RGB", (SIZE, SIZE), colour).save(of_class / f"{n:03}.png", compress_level=1)
    return folder


def growth(place: Path, *command: str) -> int:
    """How much larger the peak is with many images than with few, in bytes."""
    peaks = []
    for data in ("few", "many"):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, data, *command], cwd=place, capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.split("peak ")[1]))
    return peaks[1] - peaks[0]


@pytest.mark.slow
def test_what_is_held_is_seen(place):
    assert growth(place, "hold") > 0.8 * INPUTS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "held"),
    [
        ("main train -b 32 --steps 60 --memory reversible --json", 0),
        ("main evaluate --ckpt net.pt -b 32", 0),
        ("analyze features --ckpt net.pt -b 32 --depths 12 --features f0", 0),
        ("analyze depth-probe --ckpt net.pt -b 32 --depths 12 --features f1 --out o1", HELD),
        ("analyze pca --ckpt net.pt -b 32 --dims 2 --features f2 --out o2", HELD),
        ("analyze invert --ckpt net.pt -b 32 --num-noise 1 --num-images 1 --depths 12 --out o3", 0),
        ("analyze interpolate --ckpt net.pt -b 32 --num-pairs 1 --steps 2 --out o4", 0),
        ("analyze spectrum --ckpt net.pt --method lanczos --num-images 1 --depths 1 --num-values 1 --out o5", 0),
    ],
)
def test_ten_times_the_images_take_hardly_more_memory(place, command, held):
    assert growth(place, *command.split()) < 0.4 * INPUTS + held
