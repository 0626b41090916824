"""Damaged and hostile files, fed to the functions that the commands read them with.

    python benchmarks/fuzz.py                     # 100,000 inputs: writes results/fuzz.json, .csv
    python benchmarks/fuzz.py --inputs 300 --check    # in seconds: writes nothing, and exits with 1 at a finding
    python benchmarks/fuzz.py --only features --number 17    # one input again, with the traceback of a finding

Each input is a valid file with one to three changes: bits, bytes and numbers within it, pieces cut out, doubled or
moved; or values of its content replaced, removed and added, and written anew, so that checksums are right. It has to be
read, or refused by an exception that the commands turn into one line and exit code 2. A finding is any other exception,
more than --seconds or --mebibytes, a file written or removed outside the input's folder, a process begun, a connection
made, or the death of the process. Input n of a target is drawn by n and --seed alone.
"""

import argparse
import dataclasses
import faulthandler
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_type_hints

import click
import numpy as np
import pandas as pd
import torch
from mutation import (
    change_array,
    change_bytes,
    change_features,
    change_json,
    change_npz,
    change_tensor_file,
    change_text,
    whole,
)
from PIL import Image
from recording import RESULTS, environment, save_results

from analysis.cache import Cache
from analysis.features.store import FeatureStore
from analysis.linalg.lanczos import GolubKahan
from analysis.linalg.linear_operator import aslinearoperator
from analysis.own_features import open_features
from analysis.paths.endpoints import read_pairs
from analysis.probes.probing import SVMRow
from analysis.probes.saved_probes import FittedLayer, SavedProbes, load_probes
from analysis.results.geometry import MEASURES
from analysis.results.over_training import OverTrainingResult
from analysis.results.register import STUDIES
from analysis.saved.reproduction import read_reproduction
from analysis.saved.runs import read_run
from analysis.studies.training_curves import TrainingCurvesOptions, open_runs, training_curves
from figures import build_report
from irevnet import Checkpoint, IRevNet, IRevNetConfig, read_checkpoint, save_checkpoint
from irevnet.checkpoints.checkpoint import plain, read_training_state
from irevnet.checkpoints.tensor_files import read_weights
from irevnet.codec import decode, encode
from irevnet.commandline.terminal import WRONG_INPUT, Classes
from irevnet.data.datasets import load_dataset
from irevnet.data.transforms import InputTransform, read_image
from irevnet.training.config import recipe
from irevnet.training.settings import RunSettings, read_settings
from irevnet.training.trainer import Training

REFUSED = (*WRONG_INPUT, click.UsageError)

TRANSFORM = InputTransform(channels=1, image_size=(8, 8))
CONFIG = IRevNetConfig(input_shape=(1, 8, 8), num_classes=10, blocks=(1, 1), strides=(1, 2))


# What is read.


@dataclasses.dataclass
class Target:
    """Files of one kind.

    Attributes:
        share: of all inputs, beside those of the others.
        make: writes a valid example into a folder.
        read: reads it, as the commands do.
        change: of a file's bytes.
        files: which are changed; any by default.
    """

    share: float
    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    change: Callable[[bytes, random.Random], bytes]
    files: str = "*"


def network() -> IRevNet:
    torch.manual_seed(0)
    return IRevNet(CONFIG).eval()


def training() -> Training:
    digits = load_dataset("digits")
    images = [digits.images(split, TRANSFORM) for split in ("train", "test")]
    return Training(network(), *images, recipe("digits", epochs=1), seed=0)


def make_checkpoint(folder: Path, *, state: bool = False) -> None:
    checkpoint = Checkpoint(
        model=network(), transform=TRANSFORM, data="digits", classes=tuple("0123456789"), metrics={"test_top1": 0.5}
    )
    save_checkpoint(folder / "x.pt", checkpoint, training=training().state() if state else None)


def make_released(folder: Path) -> None:
    names = (("blocks.", "module.stack."), (".bottleneck.", ".bottleneck_block."), ("head.norm", "module.bn1"))
    state = {}
    config = dataclasses.replace(CONFIG, input_shape=(3, 32, 32), bottleneck_ratio=2.0)
    for name, tensor in IRevNet(config).state_dict().items():
        for own, theirs in (*names, ("head.classifier", "module.linear")):
            name = name.replace(own, theirs, 1)
        state[name] = tensor
    torch.save({"state_dict": state, "epoch": 3}, folder / "x.pt")


def resume(folder: Path) -> None:
    training().restore(read_training_state(folder / "x.pt"))


def make_features(folder: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 9), dtype=np.uint8)).save(folder / f"{name}.png")
    encode(network().exact(), TRANSFORM, [folder / "a.png", folder / "b.png"], folder / "x.npz")


def example(kind: Any) -> Any:
    """A result of a study, of small arrays."""
    lengths = {"paths": 2, "rows": 2, "c": 1, "images": 6, "noises": 6, "lines": 2, "nodes": 4, "k": 3, "l": 2}
    lengths |= {
        "measures": len(MEASURES),
        "others": 1,
        "h": 4,
        "w": 5,
        "m": 20,
    }  # images of 20 numbers, as many as inputs below
    rng = np.random.default_rng(0)
    fields = {}
    for name, hint in get_type_hints(kind).items():
        if name.isupper():
            continue
        shape = tuple(int(each) if each.isdigit() else lengths.get(each, 2) for each in hint.dim_str.split())
        group = hint.__name__.split("[")[0]
        values = {
            "Float": rng.uniform(0.1, 1, shape),
            "Int": np.zeros(shape, dtype=np.int64),
            "Bool": np.zeros(shape, dtype=bool),
            "Shaped": np.full(shape, name),
        }
        fields[name] = values[group]
    for name in ("network", "curve_run", "epoch_run"):
        if name in fields:
            fields[name] = np.arange(len(fields[name]))
    for name in ("dims", "depth", "num_outputs", "num_inputs", "num_train", "num_test", "num_converged", "window"):
        if name in fields:
            fields[name] = fields[name] + 20
    if "further" in fields:
        fields["further"] = np.array(["logistic", "20nn"])
    if "measures" in fields:
        fields["measures"] = np.array(list(MEASURES))
        fields["eigenvalue_row"] = np.arange(lengths["rows"])
        fields["tunnel_start"] = np.full_like(fields["tunnel_start"], 20)
    if issubclass(kind, OverTrainingResult):
        fields["measure"] = np.full(lengths["rows"], next(iter(kind.MEASURES)))
    for name in {"right_vectors", "left_vectors"} & fields.keys():  # of length 1
        vectors = fields[name]
        fields[name] = vectors / np.linalg.norm(vectors.reshape(*vectors.shape[:3], -1), axis=3).reshape(
            *vectors.shape[:3], *(1 for _ in vectors.shape[3:])
        )
    if "metamer" in fields:  # of one kind, with the images of all rows
        fields |= {name: fields[name][: lengths["rows"]] for name in ("source", "target", "metamer")}
        fields |= {"kinds": fields["kinds"][:1], "pair": np.arange(lengths["rows"])}
    return kind(**fields)


def make_run(folder: Path) -> None:
    checkpoint = Checkpoint(model=network(), transform=TRANSFORM, data="digits", classes=("a", "b"), metrics={})
    record = json.loads(json.dumps({**plain(checkpoint), "parameters": 10, "seed": 0, "device": "cpu"}))
    record |= {"command": ["irevnet", "x"], "versions": {"torch": "2"}, "python": "3", "commit": "0" * 40, "time": ""}
    run = RunSettings(model="irevnet-small", data="digits", training=recipe("digits"), classes=("a", "b"))
    config = {**record, **dataclasses.asdict(run), "provenance": record}
    (folder / "config.json").write_text(json.dumps(config))
    for study, spec in STUDIES.items():
        networks = [
            {**record, "classes_studied": ["a", "b"], "checkpoint": "x", "weights_sha256": "0", "wall_seconds": 1}
        ]
        runs = [{"run": "x", "losses_sha256": "0"}, {"run": "y", "losses_sha256": "0"}]
        example(spec.result).save(folder / "analysis" / study, {**networks[0], "networks": 2 * networks, "runs": runs})


def read_configs(folder: Path) -> None:
    read_settings(folder)
    read_run(folder)


def read_results(folder: Path) -> None:
    for study in read_run(folder).studies.values():
        study.result.table()
        study.result.summary()


def make_page(folder: Path) -> None:
    step = {"command": ["irevnet", "train"], "comment": "torch 2"}
    kept = json.dumps({"made_by": "irevnet-analyze report", "steps": [step, step]})
    (folder / "x.html").write_text(f'<p>x</p><script type="application/json" id="reproduction">{kept}</script>')


def store(folder: Path) -> FeatureStore:
    return FeatureStore(folder / "store", {"weights": "a", "images": {"train": "b"}})


def make_store(folder: Path) -> None:
    made = store(folder)
    made.begin("train", np.arange(5), list("abcde"))
    with made.writer("train", {"block-1": 3}) as writer:
        writer.write(np.arange(5), {"block-1": np.ones((5, 3), dtype=np.float32)})


def read_store(folder: Path) -> None:
    found = store(folder)
    found.labels("train")
    np.asarray(found.features("train", "block-1")).sum()


def make_own_features(folder: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"{split}/a": rng.normal(size=(count, 3)) for split, count in (("train", 12), ("test", 6))}
    labels = {f"{split}/labels": np.arange(count) % 2 for split, count in (("train", 12), ("test", 6))}
    np.savez(folder / "x.npz", **arrays, **labels, classes=np.array(["cat", "dog"]))


def read_own_features(folder: Path) -> None:
    opened = open_features(folder / "x.npz")
    opened.features(opened.layers(), "pca", label=opened.name)


def make_pairs(folder: Path) -> None:
    for name in ("a", "b"):
        Image.new("L", (8, 8), 7).save(folder / f"{name}.png")
    (folder / "x.csv").write_text("a,b,middle,kind\na.png,b.png,a.png,views\nb.png,a.png,,\n")


def make_curves(folder: Path) -> None:
    make_run(folder)
    (folder / "losses.csv").write_text("step,loss\n" + "".join(f"{step},{1 / step:.6g}\n" for step in range(1, 30)))
    (folder / "metrics.csv").write_text("epoch,step,test_top1\n1,10,0.5\n2,20,0.75\n")


def process() -> GolubKahan:
    matrix = torch.linspace(0, 1, 12 * 9, dtype=torch.float64).reshape(9, 12).cos()
    return GolubKahan(aslinearoperator(matrix), width=2, generator=torch.Generator().manual_seed(0))


def make_lanczos(folder: Path) -> None:
    made = process()
    for _ in range(2):
        made.extend()
    made.save(folder)


def read_lanczos(folder: Path) -> None:
    restored = process()
    restored.restore(folder)
    restored.extend()
    restored.ritz()


ROW = {
    "svm_correct": 3,
    "svm_cost": 0.1,
    "svm_gap": 0.0,
    "at_edge": False,
    "cv_accuracy": [0.5, 0.25],
    "held_out_accuracy": [None, 0.5],
}


def make_probes(folder: Path) -> None:
    weights = {"svm": (np.ones((2, 3)), np.zeros(2)), "logistic": (np.ones((2, 3)), np.zeros(2))}
    layer = FittedLayer(mean=np.zeros(3), scale=np.ones(3), weights=weights)
    network = {"weights_sha256": "0", "transform": {"image_size": [8, 8]}}
    made = SavedProbes(name="x", network=network, classes=("a", "b"), layers={"block-1": layer, "block-2": layer})
    made.save(folder / "x.npz")


def read_probes(folder: Path) -> None:
    found = load_probes(folder / "x.npz")
    for layer, fitted in found.layers.items():
        for code in found.codes:
            found.predict(layer, np.ones((2, len(fitted.mean))), probe=code)


def cached(folder: Path) -> None:
    row = Cache(folder).get("block-1", lambda: ROW, SVMRow, seed=0)
    np.array(row["cv_accuracy"], dtype=np.float64)


def make_images(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "bmp", "gif", "tif", "ppm", "webp"):
        Image.fromarray(pixels).save(folder / f"x.{suffix}")
    Image.fromarray(pixels[..., 0].astype(np.uint16) << 8).save(folder / "deep.png")
    Image.fromarray(pixels).quantize(9).save(folder / "palette.png", transparency=0)


def read_images(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        InputTransform(channels=3, image_size=(224, 224), resize=256)(read_image(path) / 255)


TARGETS = {
    "checkpoint": Target(0.17, make_checkpoint, lambda at: read_checkpoint(at / "x.pt"), change_tensor_file),
    "training state": Target(0.02, lambda at: make_checkpoint(at, state=True), resume, change_tensor_file),
    "authors' layout": Target(0.05, make_released, lambda at: read_checkpoint(at / "x.pt"), change_tensor_file),
    "state dict": Target(0.04, make_released, lambda at: read_weights(at / "x.pt"), change_tensor_file),
    "features": Target(
        0.14,
        make_features,
        lambda at: decode(network().exact(), TRANSFORM, at / "x.npz", at / "out"),
        change_features,
        "*.npz",
    ),
    "result": Target(0.14, make_run, read_results, change_npz, "*.npz"),
    "run": Target(0.12, make_run, read_configs, whole(change_json), "*.json"),
    "page of a run": Target(
        0.0004, make_run, lambda at: build_report([read_run(at)], at / "x.html"), whole(change_json), "*.json"
    ),
    "page of results": Target(
        0.0016, make_run, lambda at: build_report([read_run(at)], at / "x.html"), change_npz, "*.npz"
    ),
    "page": Target(0.052, make_page, lambda at: read_reproduction(at / "x.html"), change_text),
    "feature store": Target(0.06, make_store, read_store, whole(change_array), "*.npy"),
    "own features": Target(0.04, make_own_features, read_own_features, change_npz, "*.npz"),
    "manifest": Target(0.02, make_store, read_store, whole(change_json), "manifest.json"),
    "pairs": Target(0.04, make_pairs, lambda at: read_pairs(at / "x.csv", TRANSFORM), change_text, "*.csv"),
    "training curves": Target(
        0.06,
        make_curves,
        lambda at: training_curves(open_runs([at]), TrainingCurvesOptions(window=5)),
        change_text,
        "*.csv",
    ),
    "class names": Target(
        0.02,
        lambda at: (at / "x.txt").write_text("cat\ndog\n"),
        lambda at: Classes().convert(str(at / "x.txt"), None, None),
        change_bytes,
    ),
    "Lanczos work": Target(0.05, make_lanczos, read_lanczos, change_npz, "*.npz"),
    "Lanczos vectors": Target(0.01, make_lanczos, read_lanczos, change_bytes, "*.bin"),
    "saved probes": Target(0.02, make_probes, read_probes, change_npz, "*.npz"),
    "probe results": Target(0.02, cached, cached, whole(change_json)),
    "image": Target(0.1, make_images, read_images, change_bytes),
}


# The work.


class TooLong(BaseException):
    """Not an `Exception`, which the code that is tested may take for damage."""


class Watch:
    """Notes what goes beyond reading, as Python itself reports it: files written, processes, connections."""

    def __init__(self):
        self.folder: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        if self.folder is None:
            return
        if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect"):
            self.seen.append(f"{event} {arguments!r:.100}")
        writes = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if writes or event in (
            "os.rename",
            "os.mkdir",
            "os.remove",
            "os.rmdir",
            "os.link",
            "os.symlink",
            "os.truncate",
        ):
            for path in arguments[: 1 + (event in ("os.rename", "os.link"))]:
                if isinstance(path, str | bytes | os.PathLike):
                    place = Path(os.path.normpath(os.path.abspath(os.fsdecode(path))))
                    if not place.is_relative_to(self.folder) and place != Path(os.devnull):
                        self.seen.append(f"{event} {place}")


def peak() -> float:
    """The most memory since the last call, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return int(kibibytes) / 1024


def change_one(target: Target, folder: Path, rng: random.Random) -> None:
    """Changes one of the files, once to three times."""
    files = sorted(path for path in folder.rglob(target.files) if path.is_file())
    path = rng.choice(files)
    data = path.read_bytes()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        try:
            data = target.change(data, rng)
        except Exception:  # one that needs a file which the last one has broken
            data = change_bytes(data, rng)
    path.write_bytes(data)


def count(name: str, options: argparse.Namespace) -> int:
    """How many inputs of a target there are."""
    return round(TARGETS[name].share / sum(target.share for target in TARGETS.values()) * options.inputs)


def outcomes(names: list[str], numbers: range, options: argparse.Namespace, root: Path) -> Iterator[dict[str, Any]]:
    """What becomes of the inputs of these numbers, each among those of its target."""
    faulthandler.enable()
    warnings.simplefilter("ignore")
    watch = Watch()
    signal.signal(signal.SIGPROF, _stop)
    if options.number is None:
        names = [name for name in names if count(name, options)]
    examples = {}
    for name in names:
        examples[name] = root / "examples" / name.replace(" ", "-")
        examples[name].mkdir(parents=True)
        TARGETS[name].make(examples[name])
        TARGETS[name].read(shutil.copytree(examples[name], root / "first"))  # valid; and what is loaded once is loaded
        shutil.rmtree(root / "first")
    allowed = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 4 * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
    (root / "decoy.txt").write_text("nobody writes here")
    os.chdir(root)
    folder = root / "input"
    for name in names:
        for number in numbers if options.number is None else [options.number]:
            if options.number is None and number >= count(name, options):
                break
            shutil.copytree(examples[name], folder)
            faulthandler.dump_traceback_later(10 * options.seconds, exit=True)
            change_one(TARGETS[name], folder, random.Random(f"{options.seed} {name} {number}"))
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            before = (peak(), peak())[1]
            watch.folder, watch.seen = folder, []
            started = time.process_time()
            outcome, why = "read", ""
            try:
                signal.setitimer(signal.ITIMER_PROF, options.seconds)
                TARGETS[name].read(folder)
            except REFUSED as error:
                outcome = type(error).__name__
            except (Exception, TooLong) as error:
                outcome, why = f"finding: {type(error).__name__}", "".join(traceback.format_exception(error)[-6:])
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                watch.folder = None
                faulthandler.cancel_dump_traceback_later()
            seconds, mebibytes = time.process_time() - started, peak() - before
            if mebibytes > options.mebibytes:
                outcome, why = "finding: memory", f"{mebibytes:.0f} MiB for {size:,} bytes"
            if watch.seen or sorted(path.name for path in root.iterdir()) != ["decoy.txt", "examples", "input"]:
                outcome, why = "finding: beyond its folder", " ".join(watch.seen) or str(list(root.iterdir()))
            measured = {"number": number, "seconds": seconds, "MiB": mebibytes}
            yield {"target": name, "outcome": outcome, "why": why, **measured}
            shutil.rmtree(folder)


def _stop(number: int, frame: Any) -> None:
    raise TooLong


def in_processes(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The outcomes of all inputs, from processes that may die, each with a part of them."""
    parts = [
        (name, first) for name in options.only or TARGETS for first in range(0, count(name, options), options.part)
    ]
    with ThreadPoolExecutor(options.workers) as pool:
        for rows in pool.map(lambda part: _in_process(*part), parts):
            yield from rows


def _in_process(name: str, first: int) -> list[dict[str, Any]]:
    command = [sys.executable, __file__, "--process", str(first), *sys.argv[1:], "--only", name]
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    child = subprocess.run(command, capture_output=True, text=True, env=surroundings)
    rows = [json.loads(line) for line in child.stdout.splitlines() if line.startswith("{")]
    if child.returncode:
        rows.append(
            {"target": name, "number": first + len(rows), "outcome": "finding: death", "why": child.stderr[-3000:]}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=101_000, help="of all targets together")
    parser.add_argument(
        "--only", nargs="+", choices=list(TARGETS), help="these targets; what is in the results of others stays"
    )
    parser.add_argument("--number", type=int, help="this input alone, here, with its traceback")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20, help="of CPU time, for an input")
    parser.add_argument("--mebibytes", type=float, default=256, help="for an input")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--part", type=int, default=3000, help="inputs a process")
    parser.add_argument("--check", action="store_true", help="in this process, writing nothing")
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    rows = []
    names = options.only or list(TARGETS)
    with tempfile.TemporaryDirectory() as root:
        if options.process is not None:
            part = range(options.process, options.process + options.part)
            for row in outcomes(names, part, options, Path(root).resolve()):
                print(json.dumps(row), flush=True)
            return
        here = options.check or options.number is not None
        found = outcomes(names, range(options.inputs), options, Path(root).resolve()) if here else in_processes(options)
        for row in found:
            rows.append(row)
            if row["outcome"].startswith("finding"):
                print(row["target"], row["number"], row["outcome"], row["why"], file=sys.stderr, flush=True)
        os.chdir("/")
    counts = [_count(name, [row for row in rows if row["target"] == name]) for name in names]
    if not here and options.only:
        earlier = json.loads((RESULTS / "fuzz.json").read_text())["rows"]
        counts += [row for row in earlier if row["target"] not in names]
        counts.sort(key=lambda row: list(TARGETS).index(row["target"]))
    table = pd.DataFrame(counts)[["target", "inputs", "read", "refused", "findings"]]
    if here:
        print(table.to_string(index=False))
    else:
        about = environment("cpu", "numpy", "pillow", "pandas", seed=options.seed, seconds=options.seconds)
        save_results("fuzz", table, counts, {**about, "mebibytes": options.mebibytes})
    sys.exit(int(table["findings"].sum() > 0))


def _count(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = Counter(row["outcome"] for row in rows)
    findings = {kind: count for kind, count in kinds.items() if kind.startswith("finding")}
    return {
        "target": name,
        "inputs": len(rows),
        "read": kinds["read"],
        "refused": len(rows) - kinds["read"] - sum(findings.values()),
        "findings": sum(findings.values()),
        "outcomes": dict(kinds),
        "most_seconds": max((row.get("seconds", 0) for row in rows), default=0),
        "most_mebibytes": max((row.get("MiB", 0) for row in rows), default=0),
    }


if __name__ == "__main__":
    main()
