"""What a command answers to each kind of obstacle: one line, word for word, and an exit code; nothing is written or
changed.

All other messages have their tests beside their source, by `match=`; raises.py says which `raise` no test reaches.
"""

import contextlib
import dataclasses
import errno
import fcntl
import fnmatch
import os
import re
import shlex
import shutil
import sys
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torchvision.models import _api

import cli
from irevnet import Checkpoint, build_model, read_checkpoint, save_checkpoint
from irevnet.data.transforms import InputTransform
from irevnet.training import trainer as train
from irevnet.utils import distributed

GROUPS = {"irevnet": cli.main, "irevnet-analyze": cli.analyze}

Prepare = Callable[[pytest.MonkeyPatch], object]
"""Puts more into the folder that a command is run in, or changes what the machine is like."""


@dataclass(frozen=True)
class Case:
    """A command that cannot do what it is asked for.

    Attributes:
        command: as it is typed, in the folder that `obstacles` makes.
        message: what stands after "Error: "; `{}` is a number or a name that is not the same everywhere.
        prepare: what is done before.
        code: 2 where the input is wrong, 1 where the work failed.
        leaves: patterns of files that may be left: work that was done before.
    """

    command: str
    message: str
    prepare: Prepare | None = None
    code: int = 2
    leaves: tuple[str, ...] = ()


def odd(**changes: Any) -> Prepare:
    """Writes odd.pt, a checkpoint in which something is not as it should be; `...` leaves it out."""

    def write(_: pytest.MonkeyPatch) -> None:
        torch.save(_changed(torch.load("runs/first/last.pt", weights_only=True), changes), "odd.pt")

    return write


def _changed(content: Any, changes: dict[str, Any]) -> Any:
    for key, value in changes.items():
        old = content.get(key)
        content[key] = _changed(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return {key: value for key, value in content.items() if value is not ...}


def text(path: str, content: str | bytes) -> Prepare:
    """Writes a file."""
    raw = content if isinstance(content, bytes) else content.encode()

    def write(_: pytest.MonkeyPatch) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).unlink(missing_ok=True)  # it may be a link
        Path(path).write_bytes(raw)

    return write


def pickled(content: Any) -> Prepare:
    """Writes odd.pt, of torch but not of this toolkit."""
    return lambda _: torch.save(content, "odd.pt")


def torn_features(_: pytest.MonkeyPatch) -> None:
    """Writes odd.npz, a file of features in which a number is another than its checksum says."""
    with np.load("grey.npz") as archive:
        arrays = dict(archive)
    np.savez("odd.npz", **arrays)
    content = bytearray(Path("odd.npz").read_bytes())
    content[content.index(arrays["phi_0"].tobytes())] ^= 1
    Path("odd.npz").write_bytes(content)


def saved() -> Prepare:
    """Puts a mark of a study that was done into a run, without what it found."""
    return text("runs/first/analysis/invert/invert.json", '{"provenance": {}}')


def patched(target: Any, name: str, value: Any) -> Prepare:
    """Makes something of the machine, or a constant of the library, another."""
    return lambda patch: patch.setattr(target, name, value)


def failing(target: Any, name: str, error: Exception) -> Prepare:
    """Has something of the machine, or a function of the library, raise that."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return patched(target, name, fail)


def held(patch: pytest.MonkeyPatch) -> None:
    """Has another process hold every lock."""
    failing(fcntl, "lockf", BlockingIOError())(patch)


def launched(**variables: str) -> Prepare:
    """Is what torchrun does for the processes that it starts."""
    return lambda patch: [
        patch.setenv(name, value) for name, value in {"TORCHELASTIC_RUN_ID": "none", **variables}.items()
    ]


def after(*steps: Prepare) -> Prepare:
    """One after the other."""
    return lambda patch: [step(patch) for step in steps]


def run(command: str, *, code: int) -> Any:
    group, *arguments = shlex.split(command)
    result = CliRunner().invoke(GROUPS[group], arguments)
    assert result.exit_code == code, result.output
    return result


def unreachable(*_: Any, **__: Any) -> Any:
    raise urllib.error.URLError("no route to host")


def refused(*_: Any, **__: Any) -> Any:
    raise PermissionError(13, "Permission denied", "runs/first/last.pt")


ELSEWHERE = "elsewhere"
"""For what the system says, or another process."""

LEFT_BY_A_RUN = ("new/classes.txt", "new/config.json")
STORE = "runs/first/features/*"


MESSAGES: dict[str, dict[str, Case]] = {
    "analysis/paths/directions.py": {
        "no direction": Case(
            "irevnet-analyze interpolate --direction up",
            "'up' is no direction; expected pc:NUMBER, svm:CLASS-CLASS or mean:CLASS-CLASS",
        ),
    },
    "analysis/features/extract.py": {
        "not finite": Case(
            "irevnet-analyze depth-probe --ckpt huge.pt --depths 12",
            "the features of block-12 are not finite, at first of train image 0; the network's weights or its input "
            "are broken",
            leaves=("huge-analysis/*",),
        ),
    },
    "analysis/features/export.py": {
        "kind": Case(
            "irevnet-analyze features --export x.parquet",
            "x.parquet is neither .npz nor .csv; name a file for the features that ends in one of these",
        ),
        "is there": Case("irevnet-analyze features --export grey.npz", "grey.npz already exists; name another file"),
    },
    "analysis/features/arrays.py": {
        "absent": Case(
            "irevnet-analyze pca --features none.npz",
            "there is no file none.npz; give one of features, .npz or .npy",
        ),
        "other kind": Case(
            "irevnet-analyze depth-probe --features thesis.tex",
            "thesis.tex is neither .npz nor .npy, in which features are read",
        ),
        "no labels": Case(
            "irevnet-analyze pca --features x.npy",
            "x.npy: there is no array labels; expected the class of each image, there or by --labels",
            lambda _: np.save("x.npy", np.ones((9, 2))),
        ),
    },
    "analysis/studies/pca_sweep.py": {
        "components": Case(
            "irevnet-analyze pca --dims 65",
            "65 to 65 components were asked for; irevnet-small has 1 to 64 at block-12",
            leaves=(STORE,),
        ),
    },
    "analysis/studies/over_training.py": {
        "none kept": Case(
            "irevnet-analyze geometry --over-training",
            "runs/first has no checkpoints that were kept of its training; train a run with 'irevnet train "
            "--keep-every N', and give its folder",
        ),
        "no run": Case(
            "irevnet-analyze spectrum --over-training --ckpt resnet.pt",
            "resnet.pt has no checkpoints that were kept of its training; train a run with 'irevnet train "
            "--keep-every N', and give its folder",
        ),
    },
    "analysis/saved/reproduction.py": {
        "other file": Case(
            "irevnet-analyze reproduce thesis.tex", "thesis.tex is no report of 'irevnet-analyze report', or is damaged"
        ),
        "report below a file": Case(
            "irevnet-analyze report --out thesis.tex/r.html", "thesis.tex is a file, not a folder; choose another path"
        ),
        "all over a file": Case(
            "irevnet-analyze all --out thesis.tex", "thesis.tex exists, and is no report; choose another path"
        ),
    },
    "analysis/results/base.py": {
        "results in a file": Case(
            "irevnet-analyze depth-probe --out thesis.tex", "thesis.tex is a file; name a folder for the results"
        ),
        "other results": Case(
            "irevnet-analyze invert --out full",
            "full holds other files; name a folder that is new, empty or of an earlier invert",
        ),
        "damaged": Case(
            "irevnet-analyze report",
            "runs/first/analysis/invert/invert.npz is damaged, or not a result of invert: {}",
            after(saved(), text("runs/first/analysis/invert/invert.npz", "no array")),
        ),
    },
    "analysis/saved/runs.py": {
        "no results": Case(
            "irevnet-analyze report empty",
            "empty holds neither a run nor results of one; train one with 'irevnet train', or run "
            "'irevnet-analyze all'",
        ),
    },
    "analysis/features/store.py": {
        "full disk": Case(
            "irevnet-analyze features",
            "OSError: the features of 1,437 images take 0.0 GB, runs/first/features/digits has room for 0.0 "
            "GB; choose a folder on a larger disk by --features, or fewer layers (--debug shows where)",
            patched(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0)),
            1,
            (STORE,),
        ),
    },
    "analysis/experiment.py": {
        "few names": Case(
            "irevnet evaluate --class-names names.txt",
            "--class-names has 2 names, but first has 10 outputs; give one for each",
        ),
        "compared": Case(
            "irevnet-analyze depth-probe --ckpt runs/first --ckpt runs/few",
            "few is studied on 3 classes of digits, first on 10 of digits; choose the same for all by --data and "
            "--classes",
        ),
        "one class": Case(
            "irevnet-analyze depth-probe --data single",
            "single has one class, 'a'; the probes need at least two",
        ),
        "few images": Case(
            "irevnet-analyze pca --data scarce --shots 3",
            "class 'a' of scarce has 2 training images, but --shots asks for 3 of each class; lower it, or leave that "
            "class out",
        ),
        "neighbours": Case(
            "irevnet-analyze depth-probe --data scarce --k 1,500 --shots 1",
            "--k asks for 500 nearest neighbours, but probes are fitted to 2 training images; lower it",
        ),
        "no C": Case(
            "irevnet-analyze depth-probe --C 0.1,0",
            "--C is [0.1, 0.0]; expected one or several positive numbers",
        ),
        "no probes": Case(
            "irevnet-analyze apply-probes grey.npz",
            "grey.npz is damaged, or holds no probes: its members are compressed; expected uncompressed ones",
        ),
    },
    "analysis/studies/interpolation.py": {
        "pairs and images": Case(
            "irevnet-analyze interpolate grey.png grey.png --pairs x.csv",
            "--pairs was given with images or a direction; give one of them",
        ),
        "one place": Case("irevnet-analyze interpolate --t 1", "--t has 1 position; give two or more, such as 1,0.5,0"),
        "three images": Case(
            "irevnet-analyze interpolate grey.png grey.png grey.png",
            "3 images were given; give two for a path or four for a grid",
        ),
    },
    "cli.py": {
        "images of features": Case(
            "irevnet-analyze depth-probe --features none.npz -b 7 --seed 1",
            "none.npz is of features, which need no network and no images; leave --batch-size out",
        ),
        "training of features": Case(
            "irevnet-analyze geometry --over-training --features x.npz",
            "x.npz is of features, whose network's training is not known; leave --features out, and give the folder of "
            "a run of 'irevnet train --keep-every N' by --ckpt",
            text("x.npz", ""),
        ),
        "relative steps": Case(
            "irevnet-analyze depth-probe --over-training --by-block",
            "--relative is how depth is drawn, and --over-training draws steps; leave one of them out",
        ),
        "labels of no features": Case(
            "irevnet-analyze pca --labels none.npy",
            "--labels are those of a file of features; give that by --features",
        ),
        "other classes": Case(
            "irevnet evaluate --ckpt resnet.pt",
            "resnet.pt has 3 classes, digits has 10, and they are not the same; evaluate it on its own classes",
        ),
        "no class names": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt does not name its 10 outputs; list the class names in the order of the outputs in a file, and "
            "give it by --class-names",
            odd(classes=[]),
        ),
        "no logits": Case(
            "irevnet evaluate --ckpt net.py:net --data digits",
            "the outputs of net-net are no logits that were trained; there is no accuracy of it",
            text("net.py", "import torch\nnet = torch.nn.Conv2d(1, 2, 3)\n"),
            leaves=("__pycache__/*",),
        ),
        "resumed elsewhere": Case(
            "irevnet train --resume runs/first --out new",
            "--resume runs/first goes on in that folder, by its own recipe; leave --out and --recipe out",
        ),
    },
    "irevnet/checkpoints/checkpoint.py": {
        "no inverse": Case(
            "irevnet-analyze invert --ckpt resnet.pt",
            "a ResNet has no inverse; give the checkpoint of an i-RevNet, or a network with features, {}",
        ),
        "encoded by a ResNet": Case(
            "irevnet encode grey.png -o phi.npz --ckpt resnet.pt",
            "exact arithmetic takes i-RevNets, and this is a ResNet; give the checkpoint of an i-RevNet",
        ),
        "exact ResNet": Case(
            "irevnet-analyze features --exact --ckpt resnet.pt",
            "exact arithmetic takes i-RevNets, and this is a ResNet; give the checkpoint of an i-RevNet",
        ),
        "path of a ResNet": Case(
            "irevnet-analyze interpolate --ckpt resnet.pt",
            "a ResNet has no inverse; give the checkpoint of an i-RevNet, or a network with features, {}",
        ),
        "truncated": Case(
            "irevnet evaluate --ckpt truncated.pt", "truncated.pt is not a checkpoint, or is damaged: {}"
        ),
        "damaged": Case(
            "irevnet evaluate --ckpt odd.pt", "odd.pt is damaged: KeyError: 'transform'", odd(transform=...)
        ),
        "repeated": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is not a checkpoint, or is damaged: its tensors declare 4,000,000 bytes, but the file has {}",
            pickled({"state_dict": {"a": torch.zeros(()).expand(10**6)}}),
        ),
        "weights not finite": Case(
            "irevnet-analyze pca --model torchvision:resnet18 --data digits --ckpt odd.pt",
            "the weights of odd.pt are not finite, the first of them in fc.bias; give another checkpoint",
            pickled({"fc.bias": torch.tensor([0, torch.inf])}),
        ),
        "pickled": Case(
            "irevnet evaluate --ckpt pickled.pt",
            "pickled.pt holds pickled Python objects, which could run code when read, and is refused ({}); save the "
            "network's state_dict() instead",
        ),
    },
    "irevnet/codec.py": {
        "encoded over": Case("irevnet encode grey.png -o thesis.tex", "thesis.tex already exists; name another file"),
        "others' features": Case(
            "irevnet decode grey.npz -o out --ckpt other.pt",
            "the features in grey.npz are of another network (weights {} in exact arithmetic, not {}); give "
            "the checkpoint that they were encoded with",
        ),
        "decoded over": Case("irevnet decode grey.npz -o .", "grey.png already exists; name another folder"),
        "other file": Case(
            "irevnet decode thesis.tex -o out", "thesis.tex is damaged, or not a file that 'irevnet encode' wrote: {}"
        ),
        "lost features": Case(
            "irevnet decode odd.npz -o out",
            "odd.npz is damaged: the features of 'grey' cannot be read: Bad CRC-32 for file 'phi_0.npy'",
            torn_features,
            leaves=("out",),
        ),
    },
    "irevnet/models/config.py": {
        "size": Case(
            "irevnet train --model irevnet-b --image-size 30",
            "images of 30 x 30 cannot be squeezed by 32 (initial_squeeze=2, strides=(2, 2, 2, 2)); resize them "
            "to 32 x 32 or lower a stride",
        ),
    },
    "irevnet/data/datasets.py": {
        "no files": Case(
            "irevnet train --data cifar10 --data-root empty",
            "cifar10 is not under empty, or is damaged there; name the folder that holds its files, or set "
            "--download to fetch them",
        ),
    },
    "irevnet/data/image_folder.py": {
        "loop": Case(
            "irevnet train --data torn",
            "torn/train/b/again/loop is a link to a folder that contains it; remove it",
            lambda _: (os.mkdir("torn/train/b/again"), os.symlink("../..", "torn/train/b/again/loop")),
        ),
        "no images": Case(
            "irevnet train --data flat",
            "flat holds no images; expected some (.jpg, .jpeg, .png, .ppm, .bmp, .pgm, .tif, .tiff, .webp, .gif)",
            after(text("flat/train/a/x", ""), text("flat/val/a/x", "")),
        ),
    },
    "irevnet/utils/distributed.py": {
        "lost process": Case(
            "irevnet evaluate",
            "ConnectionError: another process has ended, or cannot be reached; its own messages say why (--debug "
            "shows where)",
            after(
                launched(LOCAL_RANK="0"),
                patched(torch.distributed, "init_process_group", lambda _: None),
                patched(torch.distributed, "destroy_process_group", lambda: None),
                failing(train, "evaluate", RuntimeError("[gloo/transport/tcp/pair.cc:545] Connection reset by peer")),
            ),
            1,
        ),
        "no GPU": Case(
            "irevnet evaluate --device cuda",
            "torch finds no CUDA device; set --device to cpu",
            patched(torch.cuda, "is_available", lambda: False),
        ),
    },
    "irevnet/utils/files.py": {
        "in use": Case(
            "irevnet-analyze invert",
            "runs/first/analysis/invert is in use by process 7 on elsewhere; wait until that has ended, or stop it",
            after(text("runs/first/analysis/invert/.lock", "process 7 on elsewhere"), held),
        ),
        "cannot be written": Case(
            "irevnet train --out new",
            "OSError: new/config.json cannot be written: 4 requested and 2 written (--debug shows where)",
            failing(os, "fsync", OSError("4 requested and 2 written")),
            1,
        ),
    },
    "irevnet/utils/lookup.py": {
        "model": Case(
            "irevnet train --model irevnet-smal",
            "there is no model 'irevnet-smal'; did you mean irevnet-small or irevnet-a or irevnet-b?",
        ),
    },
    "irevnet/training/config.py": {
        "epochs": Case(
            "irevnet train --epochs 0",
            "epochs=0, steps=None, batch_size=64; expected at least 1 epoch, or else 1 step, and 2 images a "
            "batch for batch normalisation",
        ),
    },
    "irevnet/training/runs.py": {
        "files": Case("irevnet train --out full", "full holds other files; name a folder that is new or empty"),
        "missing checkpoint": Case(
            "irevnet evaluate --ckpt absent.pt",
            "there is no checkpoint absent.pt; give a run's folder or a checkpoint file",
        ),
        "no run": Case(
            "irevnet evaluate",
            "there is no run under runs/; train a network with 'irevnet train', or give a checkpoint file, or a "
            "trained network by name, such as pretrained:cifar10-irevnet",
            lambda _: shutil.rmtree("runs"),
        ),
    },
    "irevnet/training/settings.py": {
        "no run": Case(
            "irevnet train --resume empty",
            "empty holds no run (no config.json); give the folder of a run to resume",
        ),
        "other settings": Case(
            "irevnet train --resume runs/first --lr 0.2",
            "runs/first was started with learning_rate=0.1, not 0.2; omit it, or start a new run",
        ),
    },
    "irevnet/commandline/terminal.py": {
        "pair": Case(
            "irevnet models",
            "torch {} and torchvision {} do not work together ({}); install a matching pair: pip install "
            "--upgrade torch torchvision",
            lambda patch: patch.setitem(sys.modules, "torchvision", None),
            1,
        ),
        "one process": Case(
            "irevnet-analyze invert",
            "'irevnet-analyze invert' runs in one process; run it without torchrun",
            launched(),
        ),
        "failure": Case(
            "irevnet evaluate",
            "ZeroDivisionError: division by zero (--debug shows where)",
            patched(train, "evaluate", lambda *_, **__: 1 / 0),
            1,
        ),
    },
    "irevnet/checkpoints/foreign.py": {
        "no network": Case(
            "irevnet-analyze pca --ckpt torchvision:resnet18/DEFAULT --data digits",
            "OSError: ResNet18_Weights.IMAGENET1K_V1 cannot be fetched (<urlopen error no route to host>); "
            "save its state dict to a file on another machine, and give that file (--debug shows where)",
            patched(_api, "load_state_dict_from_url", unreachable),
            1,
        ),
    },
    "irevnet/training/trainer.py": {
        "shares": Case(
            "irevnet train --dry-run",
            "a batch of 64 images cannot be shared by 3 processes; choose a multiple of 3 that has at least 2 images "
            "for each",
            patched(distributed, "size", lambda: 3),
        ),
        "loss": Case(
            "irevnet train --lr 1e30 --epochs 1 --out new",
            "FloatingPointError: the loss is nan at step {}, learning rate {}; try a lower learning rate; no "
            "checkpoint has been saved (--debug shows where)",
            None,
            1,
            LEFT_BY_A_RUN,
        ),
        "logits": Case(
            "irevnet evaluate --ckpt huge.pt",
            "FloatingPointError: the logits of image 0 are not finite; the network's weights or its input are broken "
            "(--debug shows where)",
            code=1,
        ),
    },
    "irevnet/data/transforms.py": {
        "training image": Case(
            "irevnet train --data torn -b 2 --out new",
            "torn/train/b/1.png cannot be read as an image: {}; replace or remove it, or skip all such files "
            "with --on-error='skip'",
            None,
            2,
            LEFT_BY_A_RUN,
        ),
        "planned": Case(
            "irevnet train --data torn -b 2 --dry-run",
            "torn/train/b/1.png cannot be read as an image: {}; replace or remove it, or skip all such files "
            "with --on-error='skip'",
        ),
        "encoded": Case(
            "irevnet encode thesis.tex -o phi.npz", "thesis.tex cannot be read as an image: {}; replace or remove it"
        ),
    },
    ELSEWHERE: {
        "in a process": Case(
            "irevnet train --data torn -b 2 -j 1 --out new",
            "torn/train/b/1.png cannot be read as an image: {}; replace or remove it, or skip all such files "
            "with --on-error='skip'",
            None,
            2,
            LEFT_BY_A_RUN,
        ),
        "no image": Case("irevnet encode absent.png -o phi.npz", "{}absent.png: No such file or directory"),
        "run in a file": Case(
            "irevnet train --out thesis.tex", "thesis.tex: File exists, and is no folder; name another"
        ),
        "report in a folder": Case(
            "irevnet-analyze report --out full", "full exists, and is no report; choose another path"
        ),
        "full disk": Case(
            "irevnet train --out new",
            "OSError: new/config.json: No space left on device (--debug shows where)",
            failing(os, "fsync", OSError(errno.ENOSPC, "No space left on device")),
            1,
        ),
        "not allowed": Case(
            "irevnet evaluate",
            "runs/first/last.pt is not a checkpoint, or is damaged: {}",
            patched(torch, "load", refused),
        ),
        "name too long": Case(f"irevnet evaluate --ckpt {300 * 'a'}.pt", "{}.pt: File name too long"),
    },
}


@pytest.fixture(scope="session")
def obstacles(made_once, finished_run) -> Path:
    """A folder of all that commands are to stumble over, for tests to link to."""

    def make(folder: Path) -> None:
        torch.manual_seed(0)
        with contextlib.chdir(folder):
            _save_obstacles(shutil.copytree(finished_run, Path("runs") / "first"))

    return made_once("obstacles", make)


def _save_obstacles(first: Path) -> None:
    (first / "best.pt").unlink()
    Path("thesis.tex").write_text("years of work")
    Path("truncated.pt").write_bytes((first / "last.pt").read_bytes()[:-1000])
    torch.save(torch.nn.Linear(1, 1), "pickled.pt")
    Path("empty").mkdir()
    Path("full").mkdir()
    Path("names.txt").write_text("3\nseven\n")
    for split in ("train", "val"):
        Path("flat", split).mkdir(parents=True)
        _image_folder(Path("torn", split), ("a", "b"), (40, 50, 3))
        _image_folder(Path("scarce", split), ("a", "b"), (8, 8))
        _image_folder(Path("single", split), ("a",), (8, 8))
    Path("torn/train/b/1.png").write_bytes(b"no image")
    Path("full/precious").write_text("results of another study")
    checkpoint = read_checkpoint(first / "last.pt")
    Path("runs/few").mkdir()
    shutil.copy(first / "config.json", "runs/few")
    few = build_model("irevnet-small", num_classes=3, image_size=8, in_channels=1)
    save_checkpoint(Path("runs/few/last.pt"), dataclasses.replace(checkpoint, model=few, classes=("1", "3", "8")))
    os.utime("runs/few/last.pt", (0, 0))  # older than the other
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save("grey.png")
    run("irevnet encode grey.png -o grey.npz", code=0)
    checkpoint.model.blocks[0].bottleneck[0].weight.data += 1
    save_checkpoint(Path("other.pt"), checkpoint)
    huge = read_checkpoint(first / "last.pt")
    for block in huge.model.blocks:
        for layer in block.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.data *= 1e30
    save_checkpoint(Path("huge.pt"), huge)
    model = build_model("resnet-cifar", num_classes=3, image_size=8, in_channels=1)
    transform = InputTransform(channels=1, image_size=(8, 8))
    other = Checkpoint(model=model, transform=transform, data="digits", classes=("a", "b", "c"), metrics={})
    save_checkpoint(Path("resnet.pt"), other)


def _image_folder(folder: Path, classes: tuple[str, ...], shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for n in range(2):
            image = rng.integers(0, 256, (shape[0] + n * (len(shape) - 2), *shape[1:]), dtype=np.uint8)
            Image.fromarray(image).save(folder / name / f"{n}.png")


@pytest.fixture
def _among_obstacles(obstacles, tmp_path, monkeypatch) -> None:
    shutil.copytree(obstacles, tmp_path, copy_function=os.link, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def stamps() -> dict[str, tuple[int, ...]]:
    """What would change with a file."""
    files = {str(path): path.stat() for path in Path().rglob("*") if path.is_file()}
    return {path: (found.st_ino, found.st_size, found.st_mtime_ns) for path, found in files.items()}


@pytest.mark.usefixtures("_among_obstacles")
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=f"{file} {name}") for file, cases in MESSAGES.items() for name, case in cases.items()],
)
def test_obstacle_is_answered_in_one_line(case):
    with pytest.MonkeyPatch.context() as patch:
        if case.prepare is not None:
            case.prepare(patch)
        before = stamps()
        result = run(case.command, code=case.code)
    assert result.stdout == ""
    (error,) = [line for line in result.stderr.splitlines() if line[:6] != "using " and "; guessed: " not in line]
    assert re.fullmatch(re.escape(f"Error: {case.message}").replace(r"\{\}", ".*"), error), error
    now = stamps()
    assert {path: now.get(path) for path in before} == before
    new = now.keys() - before.keys()
    assert [path for path in new if not any(fnmatch.fnmatch(path, each) for each in case.leaves)] == []


@pytest.mark.usefixtures("_among_obstacles")
def test_debug_shows_where():
    result = run("irevnet evaluate --ckpt absent.pt --debug", code=1)
    assert isinstance(result.exception, FileNotFoundError)
    assert result.exc_info[2] is not None
