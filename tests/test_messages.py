"""Every message that a command can end with, word for word, and a proof that there is no other.

`MESSAGES` has a case for every `raise` that a command line can lead to, under the file that raises it;
`NOT_BY_A_COMMAND` names the others. What has neither, or both, fails `test_every_message_has_a_case`.
"""

import ast
import contextlib
import dataclasses
import errno
import fcntl
import fnmatch
import io
import json
import os
import re
import shlex
import shutil
import signal
import sys
import traceback
import urllib.error
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torchvision.models import _api

import cli
from analysis.linalg.lanczos import GolubKahan
from analysis.probes import svm
from irevnet import Checkpoint, build_model, read_checkpoint, save_checkpoint
from irevnet.data.transforms import InputTransform
from irevnet.training import trainer as train
from irevnet.utils import distributed

pytestmark = pytest.mark.usefixtures("unchecked_types")  # they would answer some values before the toolkit does

ROOT = Path(__file__).parents[1]
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


def odd(source: str = "runs/first/last.pt", to: str = "odd.pt", **changes: Any) -> Prepare:
    """Writes a checkpoint in which something is not as it should be; `...` leaves it out."""

    def write(_: pytest.MonkeyPatch) -> None:
        torch.save(_changed(torch.load(source, weights_only=True), changes), to)

    return write


def told(path: str, **changes: Any) -> Prepare:
    """Changes a JSON file."""

    def write(_: pytest.MonkeyPatch) -> None:
        Path(path).write_text(json.dumps(_changed(json.loads(Path(path).read_text()), changes)))

    return write


def _changed(content: Any, changes: dict[str, Any]) -> Any:
    for key, value in changes.items():
        old = content.get(key)
        content[key] = _changed(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return {key: value for key, value in content.items() if value is not ...}


def text(path: str, content: str | bytes) -> Prepare:
    """Writes a file."""
    raw = content if isinstance(content, bytes) else content.encode()
    return lambda _: (Path(path).parent.mkdir(parents=True, exist_ok=True), Path(path).write_bytes(raw))


def pickled(content: Any) -> Prepare:
    """Writes odd.pt, of torch but not of this toolkit."""
    return lambda _: torch.save(content, "odd.pt")


def features(**changes: Any) -> Prepare:
    """Writes odd.npz, a file of features with a header that was changed; `phi` stands for those of the image."""

    def write(_: pytest.MonkeyPatch) -> None:
        with np.load("grey.npz") as archive:
            arrays = dict(archive)
        arrays["phi_0"] = changes.pop("phi", arrays["phi_0"])
        header = _changed(json.loads(arrays["header"].tobytes()), changes)
        np.savez("odd.npz", **{**arrays, "header": np.frombuffer(json.dumps(header).encode(), np.uint8)})

    return write


def torn_features(_: pytest.MonkeyPatch) -> None:
    """Writes odd.npz, a file of features in which a number is another than its checksum says."""
    features()(_)
    content = bytearray(Path("odd.npz").read_bytes())
    with zipfile.ZipFile("odd.npz") as archive:
        info = archive.getinfo("phi_0.npy")
    content[info.header_offset + info.file_size] ^= 1
    Path("odd.npz").write_bytes(content)


def arrays(path: str, **changes: Any) -> Prepare:
    """Changes arrays of an .npz file."""

    def write(_: pytest.MonkeyPatch) -> None:
        with np.load(path) as archive:
            kept = dict(archive)
        np.savez(path, **_changed(kept, changes))

    return write


def header(*changes: tuple[bytes, bytes]) -> Prepare:
    """Writes odd.npz, whose header is an array of three numbers but for bytes that were changed."""
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    content = array.getvalue()
    for there, instead in changes:
        assert there in content
        content = content.replace(there, instead)

    def write(_: pytest.MonkeyPatch) -> None:
        with zipfile.ZipFile("odd.npz", "w") as archive:
            archive.writestr("header.npy", content)

    return write


def compressed(path: str) -> Prepare:
    """Compresses an .npz file."""

    def write(_: pytest.MonkeyPatch) -> None:
        with np.load(path) as archive:
            kept = dict(archive)
        np.savez_compressed(path, **kept)

    return write


def overlapping(_: pytest.MonkeyPatch) -> None:
    """Writes odd.pt, a zip file that has one part under two hundred entries."""
    with zipfile.ZipFile("odd.pt", "w") as archive:
        archive.writestr("data.pkl", bytes(1000))
        archive.filelist *= 200


def labelled(labels: np.ndarray) -> Prepare:
    """Extracts the features of the last block, and writes other labels of the training images."""
    return lambda _: (
        run("irevnet-analyze features --depths 12", code=0),
        np.save("runs/first/features/digits/train/labels.npy", labels),
    )


def saved(study: str = "invert") -> Prepare:
    """Puts a mark of a study that was done into a run, without what it found."""
    return text(f"runs/first/analysis/{study}/{study}.json", '{"provenance": {}}')


def copies(kinds: int) -> Prepare:
    """Makes the folder odd of two classes, with three images of each, of which there are so many kinds."""

    def write(_: pytest.MonkeyPatch) -> None:
        for split in ("train", "val"):
            for name in ("a", "b"):
                Path("odd", split, name).mkdir(parents=True)
                for n in range(3):
                    pixels = np.full((8, 8), 100 + 20 * (n % kinds), np.uint8)
                    Image.fromarray(pixels).save(Path("odd", split, name, f"{n}.png"))

    return write


def image(path: str, pixels: np.ndarray) -> Prepare:
    """Writes an image."""
    return lambda _: Image.fromarray(pixels).save(path)


def fashion_mnist(labels: list[int]) -> Prepare:
    """Makes a data set of that name, with black images of these labels in both splits."""

    def write(_: pytest.MonkeyPatch) -> None:
        folder = Path("FashionMNIST", "raw")
        folder.mkdir(parents=True)
        for split in ("train", "t10k"):
            for name, shape, content in (
                ("images-idx3", (len(labels), 28, 28), bytes(28 * 28 * len(labels))),
                ("labels-idx1", (len(labels),), bytes(labels)),
            ):
                header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4) for size in shape)
                (folder / f"{split}-{name}-ubyte").write_bytes(header + content)

    return write


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


def interrupted(_: pytest.MonkeyPatch) -> None:
    """Begins a spectrum in the folder halted, and stops it on the way."""
    shutil.copytree("stopped", "halted")


def broken_store(_: pytest.MonkeyPatch) -> None:
    """Extracts the features of the last block, and breaks them on the disk."""
    run("irevnet-analyze features --depths 12", code=0)
    store = np.load("runs/first/features/digits/train/block-12.npy", mmap_mode="r+")
    store[3] = np.nan
    store.flush()


def run(command: str, *, code: int) -> Any:
    group, *arguments = shlex.split(command)
    result = CliRunner().invoke(GROUPS[group], arguments)
    assert result.exit_code == code, result.output
    return result


def unreachable(*_: Any, **__: Any) -> Any:
    raise urllib.error.URLError("no route to host")


def refused(*_: Any, **__: Any) -> Any:
    raise PermissionError(13, "Permission denied", "runs/first/last.pt")


def broken_step(optimiser, *_, **__):
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            parameter.data.fill_(torch.nan)


ELSEWHERE = "elsewhere"
"""For what the system says, or another process."""

HALTED = "--out halted --method lanczos --num-images 1 --num-values 3 --block-width 2"
LEFT_BY_A_RUN = ("new/classes.txt", "new/config.json")
STORE = "runs/first/features/*"
LARGEST = "halted/spectrum.state/lanczos-0/largest"


MESSAGES: dict[str, dict[str, Case]] = {
    "analysis/paths/directions.py": {
        "no direction": Case(
            "irevnet-analyze interpolate --direction up",
            "'up' is no direction; expected pc:NUMBER, svm:CLASS-CLASS or mean:CLASS-CLASS",
        ),
        "component 0": Case(
            "irevnet-analyze interpolate --direction pc:0",
            "'pc:0' is no direction; expected pc:NUMBER, svm:CLASS-CLASS or mean:CLASS-CLASS",
        ),
        "no class": Case(
            "irevnet-analyze interpolate --direction svm:4-eleven",
            "'svm:4-eleven' does not name two classes; there are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        ),
        "component": Case(
            "irevnet-analyze interpolate --direction pc:65",
            "component 65 was asked for; 1000 images of 64 numbers each have 1 to 64",
        ),
        "component of few images": Case(
            "irevnet-analyze interpolate --direction pc:4 --data scarce",
            "component 4 was asked for; 4 images of 64 numbers each have 1 to 3",
        ),
        "few images": Case(
            "irevnet-analyze interpolate --direction mean:a-b --data scarce",
            "a has 2 training images, b 2; a direction between them needs at least 3 of each",
        ),
        "not finite": Case(
            "irevnet-analyze interpolate --direction pc:1 --ckpt huge.pt",
            "features at depth 12 are not finite; the network's weights are broken, or too large for float32",
        ),
        "images alike": Case(
            "irevnet-analyze interpolate --direction pc:1 --data odd",
            "the features of all 6 images are the same at this depth, and no direction leads from one to the other; "
            "choose others, or another depth",
            copies(1),
        ),
        "classes alike": Case(
            "irevnet-analyze interpolate --direction mean:a-b --data odd",
            "the mean features of a and b are the same at this depth, and no direction leads from one to the other; "
            "choose others, or another depth",
            copies(1),
        ),
        "no variation": Case(
            "irevnet-analyze interpolate --direction pc:2 --data odd",
            "features do not vary along component 2 at this depth; choose a lower one",
            copies(2),
        ),
    },
    "analysis/paths/endpoints.py": {
        "no table": Case(
            "irevnet-analyze interpolate --pairs absent.csv",
            "there is no table of pairs absent.csv; give a CSV with the columns a and b",
        ),
        "columns": Case(
            "irevnet-analyze interpolate --pairs names.txt",
            "names.txt has the columns 3; expected a and b, and at least one row",
        ),
        "no rows": Case(
            "irevnet-analyze interpolate --pairs odd.csv",
            "odd.csv has the columns a, b; expected a and b, and at least one row",
            text("odd.csv", "a,b\n"),
        ),
        "no CSV": Case(
            "irevnet-analyze interpolate --pairs odd.csv", "odd.csv cannot be read as CSV: {}", text("odd.csv", "")
        ),
        "bytes": Case(
            "irevnet-analyze interpolate --pairs odd.csv",
            "odd.csv cannot be read as CSV: {}",
            text("odd.csv", b"\xff\xfe\x00,1\n"),
        ),
        "half a pair": Case(
            "irevnet-analyze interpolate --pairs odd.csv",
            "odd.csv: pair 1 is of 'grey.png' and ''; expected two image files",
            text("odd.csv", "a,b\ngrey.png,\n"),
        ),
        "elsewhere": Case(
            "irevnet-analyze interpolate --pairs odd.csv",
            "odd.csv names the file '../grey.png'; expected one in the table's folder or below it, as named from there",
            text("odd.csv", "a,b\ngrey.png,../grey.png\n"),
        ),
        "sizes": Case(
            "irevnet-analyze interpolate grey.png torn/train/b/0.png",
            "grey.png is 8 x 8 pixels large, torn/train/b/0.png is 50 x 40; give images of one size, or an "
            "--image-size to resize both to",
        ),
        "one class": Case(
            "irevnet-analyze interpolate --data single",
            "all test images are of one class, and a path leads from one to another; name image files",
        ),
        "none of that class": Case(
            "irevnet-analyze interpolate --data fashion-mnist --data-root . --direction mean:Bag-Dress",
            "there are no test images of Bag to draw from; name images",
            fashion_mnist(labels=[3, 3, 3]),
        ),
    },
    "analysis/features/extract.py": {
        "both": Case(
            "irevnet-analyze features --depths 1 --layers head",
            "depths and layers by name were both given; give one of them",
        ),
        "blocks": Case(
            "irevnet-analyze features --ckpt torchvision:alexnet --data digits",
            "no blocks are found in this AlexNet; name its layers with --layers, such as features",
        ),
        "depths": Case(
            "irevnet-analyze depth-probe --depths 3,13",
            "the depths asked for go from 3 to 13; this network has blocks 1 to 12",
        ),
        "depth 0": Case(
            "irevnet-analyze spectrum --depths 0",
            "the depths asked for go from 0 to 0; this network has blocks 1 to 12",
        ),
        "depth of pca": Case(
            "irevnet-analyze pca --depth 13", "the depths asked for go from 13 to 13; this network has blocks 1 to 12"
        ),
        "not finite": Case(
            "irevnet-analyze depth-probe --ckpt huge.pt --depths 12",
            "the features of block-12 are not finite, at first of train image 0; the network's weights or its input "
            "are broken",
            leaves=("huge-analysis/*",),
        ),
    },
    "analysis/paths/lines.py": {
        "not finite": Case(
            "irevnet-analyze interpolate --ckpt huge.pt",
            "images along path 1 from depth 12 are not finite; the network's weights are broken, or its features are "
            "too large for float32: choose another depth, or compute with --exact",
        ),
    },
    "analysis/features/layout.py": {
        "not passed": Case(
            "irevnet-analyze features --layers blocks",
            "the network does not pass through blocks; name other layers",
            leaves=(STORE,),
        ),
        "not passed, of a spectrum": Case(
            "irevnet-analyze spectrum --layers blocks", "the network does not pass through the layer; name other layers"
        ),
        "passed again": Case(
            "irevnet-analyze features --layers layer1.0.relu --ckpt torchvision:resnet18 --data digits --image-size 32",
            "the network passes through layer1.0.relu more than once; name other layers",
            leaves=("resnet18-analysis/*",),
        ),
        "output": Case(
            "irevnet-analyze spectrum --layers encoder.layers.encoder_layer_0.self_attention --ckpt "
            "torchvision:vit_b_32 --data digits --num-images 1",
            "the output of the layer is NoneType; expected tensors; name other layers",
        ),
        "layout": Case(
            "irevnet-analyze features --layers encoder.dropout --ckpt torchvision:vit_b_32 --data digits",
            "the output of encoder.dropout has the shape (2, 50, 768) for 2 images, which does not tell its channels "
            "from its places; expected such as (n, c, h, w), (n, h, w, c), (n, tokens, c) or (n, c); name other layers",
            leaves=("vit_b_32-analysis/*",),
        ),
    },
    "analysis/linalg/lanczos.py": {
        "cut short": Case(
            f"irevnet-analyze spectrum --resume {HALTED}",
            "halted/spectrum.state/lanczos-0/largest is damaged: basis.bin is cut short; remove "
            "halted/spectrum.state/lanczos-0 to begin anew",
            after(interrupted, lambda _: os.truncate("halted/spectrum.state/lanczos-0/largest/basis.bin", 100)),
        ),
        "state": Case(
            f"irevnet-analyze spectrum --resume {HALTED}",
            "halted/spectrum.state/lanczos-0/largest is damaged: {}; remove halted/spectrum.state/lanczos-0 to begin "
            "anew",
            after(interrupted, text(f"{LARGEST}/state.npz", "no state")),
        ),
        "numbers": Case(
            f"irevnet-analyze spectrum --resume {HALTED}",
            "halted/spectrum.state/lanczos-0/largest is damaged: a block is not a matrix of finite numbers; remove "
            "halted/spectrum.state/lanczos-0 to begin anew",
            after(interrupted, arrays(f"{LARGEST}/state.npz", pending=np.full((2, 64), np.nan))),
        ),
        "process": Case(
            f"irevnet-analyze spectrum --resume {HALTED}",
            "halted/spectrum.state/lanczos-0/largest is damaged: the shapes of its blocks do not match each other and "
            "the operator; remove halted/spectrum.state/lanczos-0 to begin anew",
            after(interrupted, arrays(f"{LARGEST}/state.npz", pending=np.zeros((2, 63)))),
        ),
        "vectors": Case(
            f"irevnet-analyze spectrum --resume {HALTED}",
            "halted/spectrum.state/lanczos-0/largest is damaged: it counts 99 vectors, but its blocks have {}; remove "
            "halted/spectrum.state/lanczos-0 to begin anew",
            after(interrupted, arrays(f"{LARGEST}/state.npz", count=np.array(99))),
        ),
        "norms": Case(
            f"irevnet-analyze spectrum --resume {HALTED}",
            "halted/spectrum.state/lanczos-0/largest is damaged: its norms are not numbers; remove "
            "halted/spectrum.state/lanczos-0 to begin anew",
            after(interrupted, arrays(f"{LARGEST}/state.npz", captured=np.array("much"))),
        ),
        "lengths": Case(
            f"irevnet-analyze spectrum --resume {HALTED}",
            "halted/spectrum.state/lanczos-0/largest is damaged: basis.bin holds vectors whose length is not 1; remove "
            "halted/spectrum.state/lanczos-0 to begin anew",
            after(interrupted, text(f"{LARGEST}/basis.bin", bytes(2**16))),
        ),
    },
    "analysis/linalg/linear_operator.py": {
        "broken products": Case(
            "irevnet-analyze spectrum --ckpt huge.pt",
            "a product A v is not finite, in float64; the network's weights or its input are broken, or too "
            "large for this precision",
        ),
    },
    "analysis/probes/pca.py": {
        "broken features": Case(
            "irevnet-analyze depth-probe --depths 12",
            "the features are not finite; the network's weights or inputs are broken",
            broken_store,
        ),
    },
    "analysis/studies/pca_sweep.py": {
        "components": Case(
            "irevnet-analyze pca --dims 65",
            "65 to 65 components were asked for; irevnet-small has 1 to 64 at block-12",
            leaves=(STORE,),
        ),
        "no components": Case(
            "irevnet-analyze pca --dims 0,3",
            "0 to 3 components were asked for; irevnet-small has 1 to 64 at block-12",
            leaves=(STORE,),
        ),
    },
    "analysis/saved/reproduction.py": {
        "no report": Case(
            "irevnet-analyze reproduce absent.html",
            "there is no report absent.html; make one with 'irevnet-analyze report'",
        ),
        "other file": Case(
            "irevnet-analyze reproduce thesis.tex", "thesis.tex is no report of 'irevnet-analyze report', or is damaged"
        ),
        "report below a file": Case(
            "irevnet-analyze report --out thesis.tex/r.html",
            "thesis.tex is a file, not a folder; choose another path",
        ),
        "report over a file": Case(
            "irevnet-analyze report runs/first --out thesis.tex",
            "thesis.tex exists, and is no report; choose another path",
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
        "incomplete": Case(
            "irevnet-analyze report",
            "runs/first/analysis/invert holds no complete result of invert; run the study first",
            saved(),
        ),
        "damaged": Case(
            "irevnet-analyze report",
            "runs/first/analysis/invert/invert.npz is damaged, or not a result of invert: {}",
            after(saved(), text("runs/first/analysis/invert/invert.npz", "no array")),
        ),
        "array": Case(
            "irevnet-analyze report studies",
            "studies/spectrum/spectrum.npz is damaged, or not a result of spectrum: its largest is float64 of "
            "shape (3,); expected Float[ndarray, 'rows k']",
            arrays("studies/spectrum/spectrum.npz", largest=np.zeros(3)),
        ),
        "names": Case(
            "irevnet-analyze report studies",
            "studies/spectrum/spectrum.npz is damaged, or not a result of spectrum: its layer is int64; expected text",
            arrays("studies/spectrum/spectrum.npz", layer=np.zeros(4, int)),
        ),
        "part": Case(
            "irevnet-analyze report studies",
            "studies/spectrum/spectrum.npz is damaged, or not a result of spectrum: its network is expected to have "
            "rows for each of its 2 networks",
            arrays("studies/spectrum/spectrum.npz", network=np.zeros(4, int)),
        ),
        "numbers": Case(
            "irevnet-analyze report studies",
            "studies/spectrum/spectrum.npz is damaged, or not a result of spectrum: its image goes from 1 to 2; "
            "expected indices of its 2 images",
            arrays("studies/spectrum/spectrum.npz", image=np.array([1, 2, 1, 2])),
        ),
    },
    "analysis/results/interpolation.py": {
        "images": Case(
            "irevnet-analyze report studies",
            "studies/interpolate/interpolate.npz is damaged, or not a result of interpolate: its images are of "
            "shape (2, 2, 3, 2, 4, 6); expected (2, lines, steps, 1 or 3, height, width)",
            arrays("studies/interpolate/interpolate.npz", images=np.zeros((2, 2, 3, 2, 4, 6), np.float32)),
        ),
    },
    "analysis/results/inversion.py": {
        "shape": Case(
            "irevnet-analyze report studies",
            "studies/invert/invert.npz is damaged, or not a result of invert: its num_image_shown is 6, and its "
            "originals are of shape (5, 3, 4, 6)",
            arrays("studies/invert/invert.npz", num_image_shown=np.array(6)),
        ),
        "shown": Case(
            "irevnet-analyze report studies",
            "studies/invert/invert.npz is damaged, or not a result of invert: its shown has [8, 11, 9]; expected "
            "indices of 9 images",
            arrays("studies/invert/invert.npz", shown=np.array([8, 11, 9, 7, 8])),
        ),
        "nothing": Case(
            "irevnet-analyze report studies",
            "studies/invert/invert.npz is damaged, or not a result of invert: its depths, arithmetics or "
            "amplifications are empty",
            arrays("studies/invert/invert.npz", arithmetics=np.array([], str), depth_errors=np.zeros((0, 2, 4))),
        ),
    },
    "analysis/results/spectrum.py": {
        "sizes": Case(
            "irevnet-analyze report studies",
            "studies/spectrum/spectrum.npz is damaged, or not a result of spectrum: its row 0 is no spectrum of a map "
            "from 0 to 150 dimensions",
            arrays("studies/spectrum/spectrum.npz", num_inputs=np.zeros(4, int)),
        ),
    },
    "analysis/saved/runs.py": {
        "no folder": Case(
            "irevnet-analyze report resnet.pt",
            "there is no folder resnet-analysis; expected that of a run, or of the results of a checkpoint",
        ),
        "no results": Case(
            "irevnet-analyze report empty",
            "empty holds neither a run nor results of one; train one with 'irevnet train', or run "
            "'irevnet-analyze all'",
        ),
        "damaged": Case(
            "irevnet-analyze report", "runs/first/config.json is damaged: {}", text("runs/first/config.json", "{")
        ),
        "no object": Case(
            "irevnet-analyze report",
            "runs/first/config.json describes no run and no study: expected an object, found list",
            text("runs/first/config.json", "[]"),
        ),
        "nested": Case(
            "irevnet-analyze report",
            "runs/first/config.json is damaged: its lists and objects are nested deeper than 64 levels",
            text("runs/first/config.json", "[" * 65 + "]" * 65),
        ),
        "kind": Case(
            "irevnet-analyze report",
            "runs/first/config.json describes no run and no study: its classes is 3",
            told("runs/first/config.json", classes=3),
        ),
        "no network": Case(
            "irevnet-analyze report studies",
            "studies does not record the architecture of its network; train it, or run the study, again",
        ),
    },
    "analysis/studies/spectrum.py": {
        "unfinished work": Case(
            f"irevnet-analyze spectrum {HALTED}",
            "halted/spectrum.state keeps the work of an interrupted call; go on with --resume, or remove it to "
            "begin anew",
            interrupted,
        ),
        "nothing to go on with": Case(
            "irevnet-analyze spectrum --resume",
            "runs/first/analysis/spectrum/spectrum.state keeps no work of an interrupted call; leave --resume "
            "out to begin",
        ),
        "damaged": Case(
            f"irevnet-analyze spectrum --resume {HALTED}",
            "halted/spectrum.state/settings.json is damaged: {}; remove halted/spectrum.state to begin anew",
            after(interrupted, text("halted/spectrum.state/settings.json", "{")),
        ),
        "another call": Case(
            f"irevnet-analyze spectrum --resume {HALTED} --seed 1",
            "halted/spectrum.state keeps the work of a call that differed in seed, layers and images; repeat "
            "its options, or remove it and leave --resume out",
            interrupted,
        ),
    },
    "analysis/linalg/singular_values.py": {
        "values": Case(
            "irevnet-analyze spectrum --num-values 65",
            "65 singular values were asked for; a Jacobian of 64 x 64 has 1 to 64",
        ),
    },
    "analysis/features/store.py": {
        "other files": Case(
            "irevnet-analyze features --features full",
            "full/first/digits holds other files; name a folder for features that is new or empty",
        ),
        "other weights": Case(
            "irevnet-analyze features --ckpt runs/first",
            "runs/first/features/digits holds features of something else: its weights_sha256 is {}, not {}; "
            "remove it, or name another folder with --features",
            lambda _: (
                run("irevnet-analyze features --depths 1 --ckpt runs/first", code=0),
                shutil.copy("other.pt", "runs/first/last.pt"),
            ),
        ),
        "damaged": Case(
            "irevnet-analyze features",
            "runs/first/features/digits/manifest.json is damaged: {}; remove that folder, and its "
            "features are made again",
            text("runs/first/features/digits/manifest.json", "{"),
        ),
        "array": Case(
            "irevnet-analyze features --depths 12",
            "runs/first/features/digits/train/labels.npy is damaged: it is float64 of the shape (3,); remove "
            "runs/first/features/digits, its features are made again",
            labelled(np.zeros(3)),
        ),
        "images": Case(
            "irevnet-analyze features --depths 12",
            "runs/first/features/digits/train/block-12.done.npy is damaged: it is of 1437 images, and there are 3; "
            "remove runs/first/features/digits, its features are made again",
            labelled(np.zeros(3, int)),
        ),
        "full disk": Case(
            "irevnet-analyze features",
            "OSError: the features of 1,437 images take 0.0 GB, runs/first/features/digits has room for 0.0 "
            "GB; name a folder on a larger disk with --features, or fewer layers (--debug shows where)",
            patched(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0)),
            1,
            (STORE,),
        ),
    },
    "analysis/experiment.py": {
        "model": Case(
            "irevnet-analyze pca --model resnet50 --data digits",
            "--model resnet50 is no network of torchvision, such as torchvision:resnet50; those of this "
            "toolkit come with their checkpoint, --ckpt",
        ),
        "image size": Case(
            "irevnet-analyze pca --image-size 16",
            "runs/first/last.pt says that its images are 8 x 8; leave --image-size out",
        ),
        "mean alone": Case(
            "irevnet-analyze pca --mean 0.5", "--mean and --std belong together; give both, in units of [0, 1]"
        ),
        "normalised": Case(
            "irevnet evaluate --mean 0.5 --std 0.5",
            "first says by what its images are normalised; leave --mean and --std out",
        ),
        "few names": Case(
            "irevnet evaluate --class-names names.txt",
            "--class-names lists 2 names, but first has 10 outputs; list one for each",
        ),
        "names again": Case(
            "irevnet evaluate --class-names ten.txt",
            "--class-names lists 'seven' more than once; tell the outputs apart",
            text("ten.txt", "seven\n" * 10),
        ),
        "no data": Case(
            "irevnet-analyze features --ckpt torchvision:resnet18",
            "torchvision:resnet18 was trained by others; name the images to look at with --data",
        ),
        "compared": Case(
            "irevnet-analyze depth-probe --ckpt runs/first --ckpt runs/few",
            "few looks at 3 classes of digits, first at 10 of digits; name the same for all with --data and --classes",
        ),
        "one class": Case(
            "irevnet-analyze depth-probe --data single",
            "single has one class, 'a'; the probes tell two or more apart",
        ),
        "few images": Case(
            "irevnet-analyze pca --data scarce",
            "'a' of scarce has 2 of the 3 training images that cross-validation needs of each class; add some, or "
            "choose other classes with --classes",
        ),
    },
    "analysis/probes/svm.py": {
        "no optimum": Case(
            "irevnet-analyze depth-probe --depths 12",
            "RuntimeError: the SVM of class {} is within {} of its optimum, relatively; {} was asked for; lower C={} "
            "(--debug shows where)",
            after(patched(svm, "CG_STEPS", 1), patched(svm, "DIRECT_STEPS", 0)),
            1,
            (STORE,),
        ),
    },
    "analysis/studies/training_curves.py": {
        "window": Case(
            "irevnet-analyze training-curves --window 999",
            "irevnet-small has 440 iterations; a moving average over 999 needs as many, take a smaller window",
        ),
        "other data": Case(
            "irevnet-analyze training-curves runs/first runs/few",
            "runs/few was trained on 3 classes of digits, runs/first on 10 classes of digits; give runs on the "
            "same data",
            told("runs/few/config.json", classes=["1", "3", "8"]),
        ),
        "nothing recorded": Case(
            "irevnet-analyze training-curves runs/few",
            "runs/few holds no losses.csv: that run has recorded nothing yet; go on with it",
        ),
        "damaged": Case(
            "irevnet-analyze training-curves",
            "runs/first/losses.csv is damaged: {}",
            text("runs/first/losses.csv", "step,los\n1,2\n"),
        ),
        "damaged to the bytes": Case(
            "irevnet-analyze training-curves",
            "runs/first/losses.csv is damaged: {}",
            text("runs/first/losses.csv", b"\xff\x00"),
        ),
        "words": Case(
            "irevnet-analyze training-curves",
            "runs/first/losses.csv is damaged: {}",
            text("runs/first/losses.csv", "step,loss\n1,high\n"),
        ),
        "steps": Case(
            "irevnet-analyze training-curves",
            "runs/first/metrics.csv is of no run: expected a number of steps in every line",
            text("runs/first/metrics.csv", "step,test_top1\ninf,0.5\n"),
        ),
    },
    "analysis/studies/interpolation.py": {
        "pairs and images": Case(
            "irevnet-analyze interpolate grey.png grey.png --pairs x.csv",
            "--pairs was given with images or a direction; give one of them",
        ),
        "one place": Case(
            "irevnet-analyze interpolate --t 1", "1 place on a path was given; give two or more, such as 1,0.5,0"
        ),
        "three images": Case(
            "irevnet-analyze interpolate grey.png grey.png grey.png",
            "3 images were given; give two for a path or four for a grid",
        ),
    },
    "cli.py": {
        "other classes": Case(
            "irevnet evaluate --ckpt resnet.pt",
            "resnet.pt tells 3 classes apart, digits has 10, and they are not the same; evaluate it on its own classes",
        ),
        "no class names": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt does not say what its 10 outputs are; list the class names in the order of the outputs in a file, "
            "and give it by --class-names",
            odd(classes=[]),
        ),
        "resumed elsewhere": Case(
            "irevnet train --resume runs/first --out new",
            "--resume runs/first goes on in that folder, by its own recipe; leave --out and --recipe out",
        ),
    },
    "figures/report/sections.py": {
        "config": Case(
            "irevnet-analyze report",
            "the config in runs/first describes no IRevNet: {}",
            told("runs/first/config.json", config={"squeeze": 3}),
        ),
    },
    "irevnet/models/baselines.py": {
        "channels": Case(
            "irevnet evaluate --ckpt odd.pt",
            "images of shape (108, 3, 8, 8) do not fit; this network takes (batch, 1, height, width)",
            odd("resnet.pt", transform={"channels": 3}, classes=["1", "2", "3"]),
        ),
    },
    "irevnet/checkpoints/architecture.py": {
        "other weights": Case(
            "irevnet evaluate --ckpt odd.pt",
            "the weights of odd.pt do not fit its architecture: head.classifier.bias has the shape (10,); expected "
            "(3,)",
            odd(config={"num_classes": 3}, classes=["1", "3", "8"]),
        ),
        "missing": Case(
            "irevnet evaluate --ckpt odd.pt",
            "the weights of odd.pt do not fit its architecture: head.classifier.bias is missing",
            odd(state_dict={"head.classifier.bias": ...}),
        ),
        "further": Case(
            "irevnet evaluate --ckpt odd.pt",
            "the weights of odd.pt do not fit its architecture: 'head.more' belongs to no part of it",
            odd(state_dict={"head.more": torch.zeros(3)}),
        ),
        "integers": Case(
            "irevnet evaluate --ckpt odd.pt",
            "the weights of odd.pt do not fit its architecture: head.classifier.bias is torch.int64; expected such as "
            "torch.float32",
            odd(state_dict={"head.classifier.bias": torch.zeros(10, dtype=torch.int64)}),
        ),
    },
    "irevnet/checkpoints/checkpoint.py": {
        "layout": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is no checkpoint of a known layout: it has the keys ['epoch', 'net']; expected one that "
            "'irevnet train' wrote, or the authors' release with its 'state_dict'",
            pickled({"net": {}, "epoch": 3}),
        ),
        "state dict": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is no checkpoint: its 'state_dict' is not a dictionary of tensors",
            pickled({"state_dict": 3}),
        ),
        "weights alone": Case(
            "irevnet train --resume runs/first",
            "runs/first/last.pt holds weights alone, and not the state of the training: it cannot go on from there",
            odd(to="runs/first/last.pt", training=None),
        ),
        "no weights": Case(
            "irevnet-analyze pca --model torchvision:resnet18 --data digits --ckpt odd.pt",
            "odd.pt holds no state dict; expected the weights of a network by name",
            pickled({"epoch": 3}),
        ),
        "no weights file": Case(
            "irevnet-analyze pca --model torchvision:resnet18 --data digits --ckpt absent.pt",
            "there is no checkpoint absent.pt",
        ),
        "no dictionary": Case(
            "irevnet evaluate --ckpt odd.pt", "odd.pt holds a list; expected a checkpoint's dictionary", pickled([1])
        ),
        "version": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is of checkpoint version 9; this toolkit reads version 1, read it with the one that wrote it",
            odd(version=9),
        ),
        "no inverse": Case(
            "irevnet-analyze invert --ckpt resnet.pt", "a ResNet has no inverse; give the checkpoint of an i-RevNet"
        ),
        "encoded by a ResNet": Case(
            "irevnet encode grey.png -o phi.npz --ckpt resnet.pt",
            "a ResNet has no inverse; give the checkpoint of an i-RevNet",
        ),
        "exact ResNet": Case(
            "irevnet-analyze features --exact --ckpt resnet.pt",
            "a ResNet has no inverse; give the checkpoint of an i-RevNet",
        ),
        "path of a ResNet": Case(
            "irevnet-analyze interpolate --ckpt resnet.pt",
            "a ResNet has no inverse; give the checkpoint of an i-RevNet",
        ),
        "truncated": Case(
            "irevnet evaluate --ckpt truncated.pt", "truncated.pt is not a checkpoint, or is damaged: {}"
        ),
        "other file": Case("irevnet evaluate --ckpt thesis.tex", "thesis.tex is not a checkpoint, or is damaged: {}"),
        "damaged": Case(
            "irevnet evaluate --ckpt odd.pt", "odd.pt is damaged: KeyError: 'transform'", odd(transform=...)
        ),
        "blocks": Case(
            "irevnet evaluate --ckpt odd.pt",
            "the weights of odd.pt do not fit its architecture: 9,002 blocks cannot be of {} tensors",
            odd(config={"blocks": [9000, 1, 1]}),
        ),
        "classes": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: it lists 2 class names, but its network has 10 outputs",
            odd(classes=["1", "3"]),
        ),
        "kinds": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: its data, classes or metrics are not text, a list of names, and numbers by "
            "name",
            odd(data=3),
        ),
        "repeated": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is not a checkpoint, or is damaged: its tensors announce 4,000,000 bytes, and it has {}",
            pickled({"state_dict": {"a": torch.zeros(()).expand(10**6)}}),
        ),
        "complex": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is not a checkpoint, or is damaged: it holds a tensor of torch.complex64 as torch.strided; "
            "expected plain numbers",
            pickled({"state_dict": {"a": torch.zeros(3, dtype=torch.complex64)}}),
        ),
        "not finite": Case(
            "irevnet evaluate --ckpt broken.pt",
            "the weights of broken.pt are not finite, the first of them in blocks.0.bottleneck.0.weight; give another "
            "checkpoint",
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
        "encoded over": Case("irevnet encode grey.png -o thesis.tex", "thesis.tex is there already; name another file"),
        "others' features": Case(
            "irevnet decode grey.npz -o out --ckpt other.pt",
            "the features in grey.npz are of another network (weights {} in exact arithmetic, not {}); give "
            "the checkpoint that they were encoded with",
        ),
        "decoded over": Case("irevnet decode grey.npz -o .", "grey.png is there already; name another folder"),
        "no file": Case("irevnet decode absent.npz -o out", "there is no file of features absent.npz"),
        "no image": Case(
            "irevnet decode odd.npz -o out",
            "odd.npz is damaged, or not a file that 'irevnet encode' wrote: no image is of 1 x 0 x 8 ('grey')",
            features(images=[{"name": "grey", "channels": 1, "height": 0, "width": 8}]),
        ),
        "no name": Case(
            "irevnet decode odd.npz -o out",
            "odd.npz is damaged, or not a file that 'irevnet encode' wrote: no image can be called '../grey'; expected "
            "a name of at most 200 bytes, without slash, colon and what cannot be printed, that begins with no dot",
            features(images=[{"name": "../grey", "channels": 1, "height": 8, "width": 8}]),
        ),
        "names": Case(
            "irevnet decode odd.npz -o out",
            "odd.npz is damaged, or not a file that 'irevnet encode' wrote: two of its images have the same name",
            features(images=2 * [{"name": "grey", "channels": 1, "height": 8, "width": 8}]),
        ),
        "coloured": Case(
            "irevnet decode odd.npz -o out",
            "odd.npz is damaged: the features of 'grey' cannot be read: it is coloured, and the network is of grey "
            "images",
            features(images=[{"name": "grey", "channels": 3, "height": 8, "width": 8}]),
        ),
        "too large": Case(
            "irevnet decode odd.npz -o out",
            "odd.npz is damaged: the features of 'grey' cannot be read: it is of 1000000 x 8000; images of up to {} "
            "pixels can be encoded",
            features(images=[{"name": "grey", "channels": 1, "height": 10**6, "width": 8000}]),
        ),
        "header of numbers": Case(
            "irevnet decode odd.npz -o out",
            "odd.npz is damaged, or not a file that 'irevnet encode' wrote: its header is (3,) of float64",
            header(),
        ),
        "header": Case(
            "irevnet decode odd.npz -o out",
            "odd.npz is damaged, or not a file that 'irevnet encode' wrote: its header is of another kind",
            features(format="another"),
        ),
        "other file": Case(
            "irevnet decode thesis.tex -o out", "thesis.tex is damaged, or not a file that 'irevnet encode' wrote: {}"
        ),
        "colours": Case(
            "irevnet encode torn/train/b/0.png -o phi.npz",
            "torn/train/b/0.png: its colours, in a network for grey images, would be lost; convert it to a "
            "plain image first",
        ),
        "other features": Case(
            "irevnet decode odd.npz -o out",
            "odd.npz is damaged: the features of 'grey' cannot be read: they are (1,) of <U1; expected (64, 1, 1) of "
            "int32",
            features(phi=np.array(["a"])),
        ),
        "lost features": Case(
            "irevnet decode odd.npz -o out",
            "odd.npz is damaged: the features of 'grey' cannot be read: Bad CRC-32 for file 'phi_0.npy'",
            torn_features,
            leaves=("out",),
        ),
    },
    "irevnet/models/config.py": {
        "images of a ResNet": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: input_shape=(1, 8, 8), num_classes=0; expected integers from 1 on",
            odd("resnet.pt", config={"num_classes": 0}),
        ),
        "no image": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: input_shape is (1, 0, 8); channels, height and width must be at least 1",
            odd(config={"input_shape": [1, 0, 8]}),
        ),
        "no classes": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: num_classes is 0; expected at least 1",
            odd(config={"num_classes": 0}),
        ),
        "stages": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: blocks=(1,) and strides=(1, 2, 2); expected one number of blocks "
            "and one stride for each stage, and at least one stage",
            odd(config={"blocks": [1]}),
        ),
        "squeeze by 0": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: blocks=(4, 4, 4), strides=(1, 2, 2), initial_squeeze=0; expected "
            "integers from 1 on",
            odd(config={"initial_squeeze": 0}),
        ),
        "size": Case(
            "irevnet train --model irevnet-b --image-size 30",
            "images of 30 x 30 cannot be squeezed by 32 (initial_squeeze=2, strides=(2, 2, 2, 2)); resize them "
            "to 32 x 32 or lower a stride",
        ),
        "kernels": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: kernel_sizes is (2, 2, 2); expected three odd numbers, such as (1, 3, 1)",
            odd(config={"kernel_sizes": [2, 2, 2]}),
        ),
        "ratio": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: bottleneck_ratio is 0.0; expected a positive number, or one for "
            "each of the 3 stages",
            odd(config={"bottleneck_ratio": 0.0}),
        ),
        "odd channels": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: 3 channels after the initial squeeze cannot be split into two "
            "equal streams; use an even initial_squeeze, or channels=2 to append zeros",
            odd(config={"input_shape": [3, 8, 8], "initial_squeeze": 1}),
        ),
        "no room": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: channels=1 leaves no room to append zeros to the 4 channels of the "
            "squeezed input; leave channels out for a bijective network, or use more than 2",
            odd(config={"channels": 1}),
        ),
        "dropout": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: dropout is 1.0; expected a probability from 0 up to, but not including, 1",
            odd(config={"dropout": 1.0}),
        ),
        "too many blocks": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: blocks=(20000, 1, 1) are 20,002; expected no more than 10,000",
            odd(config={"blocks": [20_000, 1, 1]}),
        ),
        "stages of a RevNet": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: blocks=(4, 4, 4), widths=(512, 1024, 2048, 3328), strides=(1, 2, "
            "2); expected one of each a stage",
            odd(
                architecture="RevNet",
                config=dict.fromkeys(
                    ["initial_squeeze", "kernel_sizes", "bottleneck_ratio", "channels", "dropout", "squeeze_order"], ...
                ),
            ),
        ),
        "widths of a RevNet": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: blocks=(4, 4, 4), widths=(8, 8, 9), strides=(1, 2, 2); expected even "
            "widths from 8 on, and other integers from 1 on",
            odd(
                architecture="RevNet",
                config={
                    **dict.fromkeys(
                        ["initial_squeeze", "kernel_sizes", "bottleneck_ratio", "channels", "dropout", "squeeze_order"],
                        ...,
                    ),
                    "widths": [8, 8, 9],
                },
            ),
        ),
        "widths of a ResNet": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: blocks=(2, 2, 2, 2), widths=(8, 8, 8, 0); expected integers from 1 on",
            odd("resnet.pt", config={"widths": [8, 8, 8, 0]}),
        ),
        "stages of a ResNet": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: blocks=(2, 2, 2, 2), widths=(1,); expected one of both a stage",
            odd("resnet.pt", config={"widths": [1]}),
        ),
    },
    "irevnet/data/datasets.py": {
        "one class": Case(
            "irevnet train --classes odd.txt",
            "1 class of digits was named; expected at least 2",
            text("odd.txt", "3\n\n3\n"),
        ),
        "no classes": Case(
            "irevnet train --classes odd.txt", "0 class of digits was named; expected at least 2", text("odd.txt", "")
        ),
        "too many classes": Case(
            "irevnet train --classes 11", "11 classes were asked for; expected 2 to 10, of digits"
        ),
        "one class of a study": Case(
            "irevnet-analyze depth-probe --classes 1", "1 classes were asked for; expected 2 to 10, of digits"
        ),
        "no files": Case(
            "irevnet train --data cifar10 --data-root empty",
            "cifar10 is not under empty, or is damaged there; name the folder that holds its files, or set "
            "--download to fetch them",
        ),
    },
    "irevnet/data/image_folder.py": {
        "no class folders": Case(
            "irevnet train --data flat", "flat/train holds no class folders; expected a folder of images for each class"
        ),
        "classes of the splits": Case(
            "irevnet train --data odd",
            "odd/val has no folder for class 'a'; both splits need the same classes",
            after(text("odd/train/a/x", ""), text("odd/val/b/x", "")),
        ),
        "loop": Case(
            "irevnet train --data torn",
            "torn/train/b/again/loop is a link to a folder that it is in itself; remove it",
            lambda _: (os.mkdir("torn/train/b/again"), os.symlink("../..", "torn/train/b/again/loop")),
        ),
        "no splits": Case(
            "irevnet train --data empty",
            "empty has no folder train/; expected train/ and val/, and in both a folder of images for each class",
        ),
        "no images": Case(
            "irevnet train --data flat",
            "flat/train/a holds no images; add some (.jpg, .jpeg, .png, .ppm, .bmp, .pgm, .tif, .tiff, .webp), or "
            "remove the class from train/ and val/",
            after(text("flat/train/a/x", ""), text("flat/val/a/x", "")),
        ),
        "no images that can be read": Case(
            "irevnet train --data torn --on-error skip",
            "torn/train/b holds no images that can be read; add some (.jpg, .jpeg, .png, .ppm, .bmp, .pgm, .tif, "
            ".tiff, .webp), or remove the class from train/ and val/",
            text("torn/train/b/0.png", "no image"),
        ),
        "class of two lines": Case(
            "irevnet train --data odd",
            r"odd/train has a class 'two\nlines'; rename it, without line breaks and spaces at the ends",
            after(text("odd/train/two\nlines/x", ""), text("odd/val/two\nlines/x", "")),
        ),
        "left out": Case(
            "irevnet evaluate",
            "runs/first/left-out.json is damaged: found [] where names of files and reasons are expected",
            text("runs/first/left-out.json", "[]"),
        ),
        "left out, no JSON": Case(
            "irevnet evaluate",
            "runs/first/left-out.json is damaged: {}",
            text("runs/first/left-out.json", "{"),
        ),
    },
    "irevnet/data/images.py": {
        "link to nothing": Case(
            "irevnet train --data torn -b 2 --out new",
            "torn/train/b/1.png cannot be read as an image: it is gone, or a link to nothing; replace or remove it, or "
            "skip all such files with --on-error='skip'",
            lambda _: (os.remove("torn/train/b/1.png"), os.symlink("nothing", "torn/train/b/1.png")),
            leaves=LEFT_BY_A_RUN,
        ),
        "label": Case(
            "irevnet train --data fashion-mnist --data-root .",
            "image 2 has label 11; expected 0 to 9, of 10 classes",
            fashion_mnist(labels=[0, 3, 11]),
        ),
    },
    "irevnet/utils/distributed.py": {
        "lost process": Case(
            "irevnet evaluate",
            "ConnectionError: another process has ended, or cannot be reached; what it said tells why (--debug shows "
            "where)",
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
            "torch finds no CUDA device here; compute on the cpu instead",
            patched(torch.cuda, "is_available", lambda: False),
        ),
        "more processes than GPUs": Case(
            "irevnet evaluate",
            "torchrun has started more processes on this machine than its 2 GPUs; start no more than that, or compute "
            "on the cpu",
            after(
                launched(LOCAL_RANK="2"),
                patched(torch.cuda, "is_available", lambda: True),
                patched(torch.cuda, "device_count", lambda: 2),
            ),
        ),
    },
    "irevnet/models/exact.py": {
        "lattice": Case(
            "irevnet decode odd.npz -o out", "a lattice of 99 bits was asked for; expected 8 to 24", features(bits=99)
        ),
        "values": Case(
            "irevnet evaluate --exact --bits 24 --ckpt other.pt",
            "block 1: values up to {}; on a lattice of 24 bits only values below 16 are exact, use fewer --bits",
        ),
    },
    "irevnet/utils/files.py": {
        "in use": Case(
            "irevnet-analyze invert",
            "runs/first/analysis/invert is in use by process 7 on elsewhere; wait until that has ended, or stop it",
            after(text("runs/first/analysis/invert/.lock", "process 7 on elsewhere"), held),
        ),
        "run in use": Case(
            "irevnet train --resume runs/first",
            "runs/first is in use by another process; wait until that has ended, or stop it",
            after(text("runs/first/.lock", ""), held),
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
        "data": Case("irevnet train --data digit", "there is no data set or folder 'digit'; did you mean digits?"),
        "studied data": Case(
            "irevnet-analyze invert --data mnist",
            "there is no data set or folder 'mnist'; known: digits, cifar10, cifar100, fashion-mnist",
        ),
        "layer": Case(
            "irevnet-analyze features --layers blocks.1,block.2",
            "there is no layer 'block.2'; did you mean blocks.2 or blocks.9 or blocks.8?",
        ),
        "class": Case(
            "irevnet train --classes names.txt",
            "there is no class of digits 'seven'; known: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        ),
        "torchvision": Case(
            "irevnet-analyze pca --model torchvision:resnet19 --data digits",
            "there is no network of torchvision 'resnet19'; did you mean resnet18 or resnet152 or resnet101?",
        ),
        "weights": Case(
            "irevnet-analyze pca --ckpt torchvision:resnet18/LATEST --data digits",
            "there is no set of weights of resnet18 'LATEST'; known: IMAGENET1K_V1, DEFAULT",
        ),
        "imagenet": Case(
            "irevnet evaluate --ckpt odd.pt",
            "there is no data set or folder 'imagenet'; known: digits, cifar10, cifar100, fashion-mnist",
            odd(data="imagenet"),
        ),
    },
    "irevnet/models/irevnet.py": {
        "size": Case(
            "irevnet-analyze interpolate grey.png grey.png --image-size 9",
            "images of shape (1, 1, 9, 9) do not fit; this network takes (batch, 1, height, width) with height "
            "and width multiples of 8",
        ),
        "channels": Case(
            "irevnet evaluate --ckpt odd.pt",
            "images of shape (256, 3, 8, 8) do not fit; this network takes (batch, 1, height, width) with "
            "height and width multiples of 8",
            odd(transform={"channels": 3}),
        ),
        "depth": Case(
            "irevnet-analyze invert --depth 13", "depth 13 does not exist; this network has depths 0 (its input) to 12"
        ),
        "depths to invert from": Case(
            "irevnet-analyze invert --depths 3,13",
            "depth 13 does not exist; this network has depths 0 (its input) to 12",
        ),
        "depth of encode": Case(
            "irevnet encode grey.png -o phi.npz --depth 13",
            "depth 13 does not exist; this network has depths 0 (its input) to 12",
        ),
        "depth of a path": Case(
            "irevnet-analyze interpolate --depth 13",
            "depth 13 does not exist; this network has depths 0 (its input) to 12",
        ),
    },
    "irevnet/training/config.py": {
        "epochs": Case(
            "irevnet train --epochs 0",
            "epochs=0, steps=None, batch_size=64; expected at least 1 epoch, or else 1 step, and 2 images a "
            "batch for batch normalisation",
        ),
        "epochs and steps": Case(
            "irevnet train --epochs 3 --steps 3",
            "epochs=3, steps=3, batch_size=64; expected at least 1 epoch, or else 1 step, and 2 images a batch "
            "for batch normalisation",
        ),
        "rate": Case(
            "irevnet train --lr -1",
            "learning_rate=-1.0, momentum=0.9, weight_decay=0.01; expected a positive rate, a momentum in [0, "
            "1) and a decay of 0 or more",
        ),
        "factor": Case(
            "irevnet train --schedule step --decay 0",
            "decay_at=(), decay=0.0; expected parts of the run between 0 and 1, and a positive factor",
        ),
        "decays": Case(
            "irevnet train --decay-at 0.5", "decay_at=(0.5,) is for schedule='step'; the schedule is 'one-cycle'"
        ),
        "check": Case(
            "irevnet train --check-reconstruction 3",
            "check_reconstruction=3, memory='plain'; expected a number of steps and memory='reversible', or 0",
        ),
        "compile": Case(
            "irevnet train --compile --memory reversible",
            "compile=True with memory='reversible'; a compiled network needs memory='plain'",
        ),
    },
    "irevnet/checkpoints/released.py": {
        "no blocks": Case(
            "irevnet evaluate --ckpt odd.pt",
            "the tensors of odd.pt are not those of an i-RevNet in the authors' layout (no bottleneck blocks); "
            "they start with 'fc.bias'",
            pickled({"state_dict": {"fc.bias": torch.zeros(3)}}),
        ),
        "streams": Case(
            "irevnet evaluate --ckpt odd.pt",
            "the tensors of odd.pt are not those of an i-RevNet in the authors' layout (no squeeze of an RGB "
            "image has two streams of 5 channels); they start with 'stack.0.bott...lock.0.weight', "
            "'stack.0.bott...lock.3.weight'",
            pickled(
                {
                    "state_dict": {
                        **{f"stack.0.bottleneck_block.{k}.weight": torch.zeros(5, 5, 1, 1) for k in (0, 3, 6)},
                        "linear.weight": torch.zeros(3, 10),
                    }
                }
            ),
        ),
    },
    "irevnet/training/runs.py": {
        "files": Case("irevnet train --out full", "full holds other files; name a folder that is new or empty"),
        "another run": Case(
            "irevnet train --out runs/first",
            "runs/first holds another run; resume that run, or name a folder that is new or empty",
        ),
        "missing checkpoint": Case(
            "irevnet evaluate --ckpt absent.pt",
            "there is no checkpoint absent.pt; give a run's folder or a checkpoint file",
        ),
        "begun with all images": Case(
            "irevnet train --resume runs/first --on-error skip",
            "runs/first was begun with all images; mend those that cannot be read, or begin a new run",
        ),
        "weights": Case(
            "irevnet train --out new --max-steps 1",
            "FloatingPointError: a weight is no longer finite after step 1; try a lower learning rate; no "
            "checkpoint had been saved by then (--debug shows where)",
            patched(torch.optim.SGD, "step", broken_step),
            1,
            LEFT_BY_A_RUN,
        ),
        "other network": Case(
            "irevnet train --resume runs/first",
            "runs/first/last.pt is of another network or other data than runs/first/config.json says",
            told("runs/first/config.json", seed=1, image_size=16),
        ),
        "no run": Case(
            "irevnet evaluate",
            "there is no run under runs/; train a network with 'irevnet train', or give a checkpoint file",
            lambda _: shutil.rmtree("runs"),
        ),
        "empty folder": Case(
            "irevnet evaluate --ckpt empty", "empty holds no last.pt; give a run's folder or a checkpoint file"
        ),
    },
    "irevnet/training/settings.py": {
        "no run": Case(
            "irevnet train --resume empty",
            "empty holds no run (no config.json); give the folder of a run to go on with",
        ),
        "no run to draw": Case(
            "irevnet-analyze training-curves empty",
            "empty holds no run (no config.json); give the folder of a run to go on with",
        ),
        "other settings": Case(
            "irevnet train --resume runs/first --lr 0.2",
            "runs/first was begun with learning_rate=0.1, not 0.2; leave it out, or begin a new run",
        ),
        "other network": Case(
            "irevnet train --resume runs/first --model irevnet-b",
            "runs/first was begun with model='irevnet-small', not 'irevnet-b'; leave it out, or begin a new run",
        ),
        "classes": Case(
            "irevnet train --resume runs/first",
            "runs/first/config.json is damaged: ValueError: its classes are not their names",
            told("runs/first/config.json", classes=3),
        ),
        "damaged": Case(
            "irevnet train --resume runs/first",
            "runs/first/config.json is damaged: KeyError: 'model'",
            text("runs/first/config.json", "{}"),
        ),
        "no object": Case(
            "irevnet train --resume runs/first",
            "runs/first/config.json is damaged: TypeError: list indices must be integers or slices, not str",
            text("runs/first/config.json", "[]"),
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
        "places": Case(
            "irevnet-analyze interpolate --t 1,half",
            "Invalid value for '--t': '1,half' is not a list of places on a path; expected numbers such as 1,0.5,0",
        ),
        "part": Case(
            "irevnet-analyze features --part 3/2",
            "Invalid value for '--part': '3/2' is no part; expected such as 2/4, the second of four",
        ),
        "classes": Case(
            "irevnet train --classes absent.txt",
            "Invalid value for '--classes': 'absent.txt' is neither a number nor a file; expected one with a "
            "class name a line",
        ),
        "numbers": Case(
            "irevnet-analyze pca --dims '1;2'",
            "Invalid value for '--dims': '1;2' is not a list of numbers; expected numbers and ranges, such as 1,4,8-12",
        ),
        "range": Case(
            "irevnet-analyze pca --dims 1,3-1",
            "Invalid value for '--dims': '3-1' names no number; a range goes from the lower to the higher",
        ),
        "no names": Case(
            "irevnet-analyze features --layers ,",
            "Invalid value for '--layers': ',' names nothing; expected names such as layer1.0,layer4",
        ),
        "too many numbers": Case(
            "irevnet-analyze pca --dims 1-9999999",
            "Invalid value for '--dims': '1-9999999' is not a list of numbers; expected numbers and ranges, "
            "such as 1,4,8-12",
        ),
        "no text": Case(
            "irevnet train --classes truncated.pt",
            "Invalid value for '--classes': truncated.pt cannot be read: {}; expected a text with a class name a line",
        ),
        "no path": Case(
            "irevnet train --out ''", "Invalid value for '--out': it is empty; expected the path of a file or a folder"
        ),
        "one process": Case(
            "irevnet-analyze invert",
            "'irevnet-analyze invert' is the work of one process; run it without torchrun",
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
        "twice": Case(
            "irevnet-analyze pca --model torchvision:resnet18/DEFAULT --ckpt resnet.pt --data digits",
            "torchvision:resnet18/DEFAULT names weights and resnet.pt holds others; give one of them",
        ),
        "no network": Case(
            "irevnet-analyze pca --ckpt torchvision:resnet18/DEFAULT --data digits",
            "OSError: ResNet18_Weights.IMAGENET1K_V1 cannot be fetched (<urlopen error no route to host>); "
            "save the state dict to a file on another machine, and give that file (--debug shows where)",
            patched(_api, "load_state_dict_from_url", unreachable),
            1,
        ),
        "other weights": Case(
            "irevnet-analyze pca --model torchvision:resnet18 --ckpt resnet.pt --data digits",
            "the weights of resnet.pt are not those of a resnet18: {}",
        ),
    },
    "irevnet/training/trainer.py": {
        "reconstruction": Case(
            "irevnet train --memory reversible --check-reconstruction 1 --out new --epochs 1",
            "FloatingPointError: at step 1 its gradients are wrong; no checkpoint had been saved by then (--debug "
            "shows where)",
            patched(train, "reconstruction_problem", lambda _: "its gradients are wrong"),
            1,
            LEFT_BY_A_RUN,
        ),
        "batch": Case(
            "irevnet train -b 5000",
            "a batch of 5000 images is larger than the training set, of 1437; lower --batch-size",
        ),
        "loss": Case(
            "irevnet train --lr 1e30 --epochs 1 --out new",
            "FloatingPointError: the loss is nan at step {}, learning rate {}; try a lower learning rate; no "
            "checkpoint had been saved by then (--debug shows where)",
            None,
            1,
            LEFT_BY_A_RUN,
        ),
        "memory": Case(
            "irevnet train --model resnet-cifar --memory reversible",
            "memory='reversible' needs an i-RevNet; a ResNet takes 'plain'",
        ),
        "logits": Case(
            "irevnet evaluate --ckpt huge.pt",
            "FloatingPointError: the logits of image 0 are not finite; the network's weights or its input are broken "
            "(--debug shows where)",
            code=1,
        ),
        "shares": Case(
            "irevnet train --dry-run",
            "a batch of 64 images cannot be shared by 3 processes; choose a multiple of 3 that has at least 2 images "
            "for each",
            patched(distributed, "size", lambda: 3),
        ),
        "sync-bn": Case(
            "irevnet train --sync-bn --device cpu",
            "sync_bn=True needs GPUs, where torch can do it, and this is the cpu; leave it out, and each process "
            "normalises by its own images",
        ),
        "state": Case(
            "irevnet train --resume runs/first",
            "this is not the state of such a training run (KeyError: 'step'); begin a new one",
            odd(to="runs/first/last.pt", training={"step": ...}),
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
        "signed": Case(
            "irevnet encode odd.tif -o phi.npz",
            "odd.tif cannot be read as an image: nothing says what is white in its 32-bit integers, convert it to 8 or "
            "16 bits; replace or remove it",
            image("odd.tif", np.zeros((8, 8), np.int32)),
        ),
        "values": Case(
            "irevnet encode odd.tif -o phi.npz",
            "odd.tif cannot be read as an image: its values go from 2 to 2, expected floating-point ones from 0 to 1; "
            "replace or remove it",
            image("odd.tif", np.full((8, 8), 2, np.float32)),
        ),
        "too large": Case(
            "irevnet encode grey.png -o phi.npz",
            "grey.png is too large: Image size (64 pixels) exceeds limit of 20 pixels, could be decompression bomb DOS "
            "attack. Make it smaller, or remove it",
            patched(Image, "MAX_IMAGE_PIXELS", 10),
        ),
        "end of a path": Case(
            "irevnet-analyze interpolate grey.png thesis.tex",
            "thesis.tex cannot be read as an image: {}; replace or remove it",
        ),
        "image of a spectrum": Case(
            "irevnet-analyze spectrum thesis.tex", "thesis.tex cannot be read as an image: {}; replace or remove it"
        ),
        "channels": Case(
            "irevnet evaluate --ckpt odd.pt",
            "an image of 1 channels cannot be shown to a network of 2",
            odd(transform={"channels": 2}),
        ),
        "sizes of a transform": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: channels=1, image_size=(0, 8), resize=None; expected integers from 1 on, "
            "and no more than 16,777,216 pixels",
            odd(transform={"image_size": [0, 8]}),
        ),
        "statistics of a transform": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: mean=(0.5, 0.5), std=(1.0,); expected a number for each of 1 channels, or "
            "one for all, and no deviation of 0",
            odd(transform={"mean": [0.5, 0.5], "std": [1.0]}),
        ),
        "line of pixels": Case(
            "irevnet-analyze spectrum odd.png --ckpt odd.pt",
            "an image of 999 x 1 pixels, resized to 4000 on its shorter side, would have more than 16,777,216 pixels; "
            "crop it",
            after(odd(transform={"resize": 4000}), image("odd.png", np.zeros((1, 999), np.uint8))),
        ),
    },
    "irevnet/utils/untrusted.py": {
        "no fields": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: TypeError: found list where the fields of InputTransform are expected",
            odd(transform=[]),
        ),
        "field": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is damaged: ValueError: squeeze_order is 'spiral'; expected Literal['block', 'channel']",
            odd(config={"squeeze_order": "spiral"}),
        ),
        "field of a header": Case(
            "irevnet decode odd.npz -o out",
            "odd.npz is damaged, or not a file that 'irevnet encode' wrote: depth is 'all'; expected int",
            features(depth="all"),
        ),
        "field of a run": Case(
            "irevnet train --resume runs/first",
            "runs/first/config.json is damaged: ValueError: memory is 'none'; expected Literal['plain', 'checkpoint', "
            "'reversible']",
            told("runs/first/config.json", training={"memory": "none"}),
        ),
        "no array": Case(
            "irevnet decode grey.npz -o out",
            "grey.npz is damaged, or not a file that 'irevnet encode' wrote: it has no header",
            arrays("grey.npz", header=...),
        ),
        "format": Case(
            "irevnet decode odd.npz -o out",
            "odd.npz is damaged, or not a file that 'irevnet encode' wrote: an array is of format (3, 0), and neither "
            "of (1, 0) nor of (2, 0)",
            header((b"NUMPY\x01", b"NUMPY\x03")),
        ),
        "objects": Case(
            "irevnet decode grey.npz -o out",
            "grey.npz is damaged, or not a file that 'irevnet encode' wrote: an array holds Python objects, which "
            "allow_pickle=False refuses",
            arrays("grey.npz", header=np.array([{}], dtype=object)),
        ),
        "room": Case(
            "irevnet decode odd.npz -o out",
            "odd.npz is damaged, or not a file that 'irevnet encode' wrote: an array announces the shape (999,), which "
            "the file has no room for",
            header((b"(3,), }  ", b"(999,), }")),
        ),
        "size": Case(
            "irevnet decode odd.npz -o out",
            "odd.npz is damaged, or not a file that 'irevnet encode' wrote: an array announces (9,) of "
            "dtype('float64'), and is of another size",
            header((b"(3,)", b"(9,)")),
        ),
        "compressed": Case(
            "irevnet-analyze report studies",
            "studies/invert/invert.npz is damaged, or not a result of invert: its parts are compressed, which this "
            "toolkit never does",
            compressed("studies/invert/invert.npz"),
        ),
        "long pickle": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is not a checkpoint, or is damaged: it takes more than 16,777,216 bytes to name its tensors",
            pickled({"x" * 2**24: torch.zeros(1)}),
        ),
        "parts": Case(
            "irevnet evaluate --ckpt odd.pt",
            "odd.pt is not a checkpoint, or is damaged: its parts announce 200,000 bytes, and it has {}",
            overlapping,
        ),
        "objects to call": Case(
            "irevnet evaluate --ckpt pickled.pt",
            "pickled.pt holds pickled Python objects, which could run code when read, and is refused (Unsupported "
            "global: torch.nn.modules.linear Linear); save the network's state_dict() instead",
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
        "absent end": Case(
            "irevnet-analyze interpolate grey.png absent.png", "{}absent.png: No such file or directory"
        ),
        "run in a file": Case(
            "irevnet train --out thesis.tex", "thesis.tex: File exists, and is no folder; name another"
        ),
        "folder below a file": Case("irevnet train --out thesis.tex/run", "thesis.tex/run: Not a directory"),
        "report in a folder": Case(
            "irevnet-analyze report --out full", "full exists, and is no report; choose another path"
        ),
        "features below a file": Case(
            "irevnet-analyze features --features thesis.tex", "thesis.tex/first/digits: Not a directory"
        ),
        "decoded into a file": Case(
            "irevnet decode grey.npz -o thesis.tex", "thesis.tex: File exists, and is no folder; name another"
        ),
        "encode to folder": Case("irevnet encode grey.png -o full", "full is there already; name another file"),
        "reproduce a folder": Case(
            "irevnet-analyze reproduce full", "there is no report full; make one with 'irevnet-analyze report'"
        ),
        "resume a file": Case(
            "irevnet train --resume thesis.tex",
            "thesis.tex holds no run (no config.json); give the folder of a run to go on with",
        ),
        "not a list of folders": Case(
            "irevnet-analyze report thesis.tex",
            "there is no folder thesis-analysis; expected that of a run, or of the results of a checkpoint",
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
    },
}


NOT_BY_A_COMMAND: dict[str, dict[str, str]] = {
    "analysis/probes/svm_selection.py": {"the rarest of": "the classes are counted first"},
    "analysis/features/extract.py": {
        "expected logits": "all networks that a command opens have them",
        "every batch of images": "all networks that a command opens pass the same layers each time",
    },
    "analysis/jacobian.py": {
        "in exact arithmetic rounds": "the spectrum takes no --exact",
        "the layer is not differentiable": "the layers of all networks that a command opens are",
    },
    "analysis/features/layout.py": {"none of its dimensions": "no layer of torchvision's networks is like that"},
    "analysis/probes/nearest_neighbour.py": {
        "coordinates and test points": "both are of one layer",
        "the training points are of shape": "no layer is empty, and no data",
        "dims=": "pca looks at the numbers first, and sorts them",
        "points are not finite": "the components are looked for first",
    },
    "analysis/results/base.py": {"cannot be joined": "a report joins those alone that agree"},
    "analysis/results/register.py": {
        "no result of a study": "the commands know which study they read",
        "of several studies": "the same",
    },
    "analysis/linalg/autosave.py": {"stopped": "the command says how to go on"},
    "analysis/linalg/singular_values.py": {
        "method is": "an option with choices",
        "width=": "options with ranges",
    },
    "analysis/features/store.py": {"holds no complete features": "they are extracted before they are read"},
    "analysis/probes/svm.py": {
        "there is one class": "cross-validation asks for more",
        "expected a positive number": "the grid holds no other",
        "the features are not finite": "the components are looked for first",
    },
    "figures/__init__.py": {"has no attribute": "only Python asks for one"},
    "figures/study_figure.py": {"no figure is known": "the commands have none but studies of the register"},
    "irevnet/__init__.py": {"has no attribute": "only Python asks for one"},
    "irevnet/checkpoints/architecture.py": {
        "of which no config": "a run trains none",
        "of its config has": "a run trains networks as their config says",
        "this {name}: {error}": "the same",
    },
    "irevnet/checkpoints/checkpoint.py": {
        "would not be read again": "a run's metrics and state are plain",
        "weights that are not finite": "a run looks at them first",
        "expected numbers, text": "a run's metrics are numbers",
    },
    "irevnet/models/coupling.py": {
        "is a {type(inner)": "networks of checkpoints are as their config says",
        "of its bottleneck": "the same",
        "does not end with": "the same",
        "forward of its own": "the same",
    },
    "irevnet/codec.py": {"in exact arithmetic alone": "the commands make it exact"},
    "irevnet/models/config.py": {"squeeze_order is": "a checkpoint's is looked at first"},
    "irevnet/models/memory/forward_hooks.py": {
        "changes what the module computes": "commands put no hooks into bottlenecks",
        "has no graph": "the same",
    },
    "irevnet/data/images.py": {"has values that are not finite": "the digits are finite, all other images are bytes"},
    "irevnet/models/exact.py": {"statistics are not finite": "such a checkpoint is refused first"},
    "irevnet/models/irevnet.py": {
        "memory is": "an option with choices, and in a file looked at first",
        "are not of depth": "those of a file are looked at first",
        "in exact arithmetic already": "the commands do it once",
        "cannot be trained": "the commands train no exact one",
        "expected floating point": "every transform ends in floats",
        "needs eval mode": "checkpoints are opened in it",
    },
    "irevnet/models/memory/replay.py": {
        "is a TorchScript module": "bottlenecks of checkpoints have torch's layers alone",
        "uses a tensor of shape": "the same",
        "was changed in place": "the same",
    },
    "irevnet/models/memory/reversible.py": {
        "back-propagation begins after": "training begins with the logits",
        "changes its streams": "training has no hooks",
    },
    "irevnet/models/squeeze.py": {
        "cannot be squeezed by": "the network has looked at the size",
        "cannot be unsqueezed by": "the network has looked at the channels",
    },
    "irevnet/training/trainer.py": {
        "needs LabelledImages": "the commands train on nothing else",
        "the evaluation was stopped": "the run saves, and the command says how to go on",
    },
}
"""Statements that only callers of the library can reach: by file, some of their words, and why."""

HANDED_ON = {
    ("cli.py", "click.exceptions.Exit(1)"),
    ("cli.py", "click.exceptions.Exit(code)"),
    ("irevnet/data/images.py", "ValueError(f'{error}{LEAVE_OUT}')"),
    ("irevnet/utils/files.py", "OSError(error.errno, error.strerror, str(path))"),
    (
        "irevnet/models/memory/reversible.py",
        "RuntimeError(_refusal(tape.memory, 'double backward'))",
    ),  # of which commands do none
    ("irevnet/models/memory/reversible.py", "RuntimeError(_refusal(ctx.tape.memory, 'forward-mode differentiation'))"),
    ("irevnet/models/memory/reversible.py", "RuntimeError(_refusal(memory, 'torch.func transforms'))"),
    ("irevnet/training/runs.py", "FloatingPointError(f'{error}; {self._last_good()}')"),
    ("irevnet/commandline/terminal.py", "WrongInput(_one_line(error, self))"),
    ("irevnet/commandline/terminal.py", "click.ClickException(_out_of_memory(ctx))"),  # in test_deterministic.py
    ("irevnet/utils/untrusted.py", "ValueError(str(error) or type(error).__name__)"),
    ("irevnet/utils/untrusted.py", "ValueError(too_deep)"),  # as a case of analysis/saved/runs.py has it
}
"""Statements without words of their own."""


@dataclass(frozen=True)
class Site:
    """A statement that makes a message.

    Attributes:
        file: from the root of the repository.
        lines: of the statement.
        code: of the exception.
        pattern: of its messages.
    """

    file: str
    lines: range
    code: str
    pattern: str

    @property
    def has_words(self) -> bool:
        """Whether there is a word in it that is not another's."""
        return re.search(r"\w\w", self.pattern) is not None


def sites_in(source: str, file: str) -> Iterator[Site]:
    """Every `raise` of an exception that is given something to say, and every `fail` of a kind of parameter."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Raise(exc=ast.Call(args=[message, *_]) as call):
                pass
            case ast.Call(func=ast.Attribute(attr="fail"), args=[message, *_]) as call:
                pass
            case _:
                continue
        yield Site(file, range(node.lineno, (node.end_lineno or 0) + 1), ast.unparse(call), _pattern(message))


def _pattern(message: ast.expr) -> str:
    match message:
        case ast.Constant(value=str(text)):
            return re.sub(r"`\w+`", lambda name: rf"({name[0]}|--[\w-]+)", re.escape(text))
        case ast.JoinedStr(values=parts):
            return "".join(map(_pattern, parts))
        case _:
            return ".*"


SOURCES = [
    *(path for name in ("irevnet", "analysis", "figures") for path in (ROOT / name).rglob("*.py")),
    ROOT / "cli.py",
]
SITES = [
    site
    for path in sorted(SOURCES)
    for site in sites_in(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
]


def sites_of(file: str, case: Case) -> set[Site]:
    """The statements of a file that can have made the message of a case."""
    return {site for site in SITES if site.file == file and site.has_words and re.search(site.pattern, case.message)}


@pytest.fixture
def answered(monkeypatch) -> list[BaseException]:
    """What the commands answer with, as it was raised."""
    made: list[BaseException] = []
    init = click.ClickException.__init__

    def remember(error: click.ClickException, message: str) -> None:
        made.append(error)
        init(error, message)

    monkeypatch.setattr(click.ClickException, "__init__", remember)
    return made


def sites_behind(error: BaseException | None) -> set[Site]:
    """The statements that an exception has come from, and those which it was raised in answer to."""
    if error is None:
        return set()
    frames = [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    found = {site for site in SITES for path, line in frames if path == ROOT / site.file and line in site.lines}
    return found.union(*map(sites_behind, {error.__cause__, error.__context__}))


def excused() -> dict[Site, str]:
    """The statements that no command leads to, and why."""
    found = {}
    for file, reasons in NOT_BY_A_COMMAND.items():
        for words, reason in reasons.items():
            (site,) = [site for site in SITES if site.file == file and words in site.code]
            found[site] = reason
    return found


@pytest.fixture(scope="session")
def obstacles(made_once, finished_run, inversion, interpolation, spectrum_result) -> Path:
    """A folder of all that commands are to stumble over, for tests to copy."""

    def make(folder: Path) -> None:
        torch.manual_seed(0)
        with contextlib.chdir(folder):
            _save_obstacles(shutil.copytree(finished_run, Path("runs") / "first"))
            for result in (inversion, interpolation, spectrum_result):
                result.save(Path("studies", result.STUDY), {})

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
    Path("full/first/digits").mkdir(parents=True)
    Path("full/first/digits/precious").write_text("no features")
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
    broken = torch.load("other.pt", weights_only=True)
    broken["state_dict"]["blocks.0.bottleneck.0.weight"] *= torch.nan
    torch.save(broken, "broken.pt")
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
    _stop_a_spectrum()
    shutil.move("halted", "stopped")


def _stop_a_spectrum() -> None:
    extend, steps = GolubKahan.extend, iter(range(4))

    def interrupt(process: GolubKahan) -> None:
        extend(process)
        if next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GolubKahan, "extend", interrupt)
        run(f"irevnet-analyze spectrum {HALTED}", code=1)


def _image_folder(folder: Path, classes: tuple[str, ...], shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for n in range(2):
            image = rng.integers(0, 256, (shape[0] + n * (len(shape) - 2), *shape[1:]), dtype=np.uint8)
            Image.fromarray(image).save(folder / name / f"{n}.png")


def contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("file", "case"),
    [pytest.param(file, case, id=f"{file} {name}") for file, cases in MESSAGES.items() for name, case in cases.items()],
)
def test_what_cannot_work_gets_one_line_and_changes_nothing(obstacles, answered, tmp_path, monkeypatch, file, case):
    shutil.copytree(obstacles, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        if case.prepare is not None:
            case.prepare(patch)
        before = contents()
        answered.clear()
        result = run(case.command, code=case.code)
    assert result.stdout == ""
    *usage, error = [line for line in result.stderr.splitlines() if not line.startswith("using ")]
    assert re.fullmatch(re.escape(f"Error: {case.message}").replace(r"\{\}", ".*"), error), error
    if case.message.startswith("Invalid value"):  # of an option, which click answers
        assert [line.split(" ")[0] for line in usage] == ["Usage:", "Try", ""]
    else:
        assert usage == []
    now = contents()
    assert {path: now.get(path) for path in before} == before
    assert [
        path for path in now.keys() - before.keys() if not any(fnmatch.fnmatch(path, each) for each in case.leaves)
    ] == []
    behind = set().union(*map(sites_behind, answered))
    assert sites_of(file, case) <= behind, "the message is like another in that file"
    assert not behind & excused().keys(), "it is caused by a command after all"


def test_every_message_has_a_case():
    caused = {site for file, cases in MESSAGES.items() for case in cases.values() for site in sites_of(file, case)}
    assert {file for file in MESSAGES if file != ELSEWHERE} <= {site.file for site in SITES}
    silent = {site for site in SITES if not site.has_words}
    assert {(site.file, site.code) for site in silent} == HANDED_ON
    untold = [site for site in SITES if site not in caused | excused().keys() | silent]
    assert [f"{site.file}:{site.lines.start} {site.code}" for site in untold] == []
    assert [site.code for site in caused & excused().keys()] == []
    idle = [
        name
        for file, cases in MESSAGES.items()
        if file != ELSEWHERE
        for name in cases
        if not sites_of(file, cases[name])
    ]
    assert idle == []


def test_no_statement_that_makes_a_message_is_passed_over():
    source = """
def check(x):
    if x:
        raise ValueError(f"{x!r} is too "
                         f"{'much'}; expected [less]")
    try:
        raise KeyError
    except KeyError as error:
        raise OSError("it is gone") from error
    text = "hidden"
    raise RuntimeError(text)

class Kind:
    def convert(self, value):
        self.fail("no " + value)
        raise self.error(value)
"""
    found = list(sites_in(source, "x.py"))
    assert sorted((site.lines.start, site.lines.stop, site.pattern) for site in found) == [
        (4, 6, r".*\ is\ too\ .*;\ expected\ \[less\]"),
        (9, 10, r"it\ is\ gone"),
        (11, 12, ".*"),
        (15, 16, ".*"),
        (16, 17, ".*"),
    ]
    assert [site.has_words for site in sorted(found, key=lambda site: site.lines.start)] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_debug_shows_where(obstacles, tmp_path, monkeypatch):
    shutil.copytree(obstacles, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    result = run("irevnet evaluate --ckpt absent.pt --debug", code=1)
    assert isinstance(result.exception, FileNotFoundError)
    assert [(site.file, site.has_words) for site in sites_behind(result.exception)] == [
        ("irevnet/training/runs.py", True)
    ]
