"""The measures of `analysis.geometry` beside other packages and dense computations from their definitions.

    OMP_NUM_THREADS=1 python benchmarks/geometry.py --data-root data            # writes results/geometry.csv, .json
    OMP_NUM_THREADS=1 python benchmarks/geometry.py --data-root data --whole    # the whole study: geometry-whole.*

The intrinsic dimension of the manifolds of scikit-dimension, which are known, and of features of a network; debiased
CKA of two of its blocks; and neural collapse at its last block and of a simplex, which has collapsed. Each is also
computed in float64 from the formulas of its paper: distances by differences of the points, Gram matrices of all images,
and a pseudo-inverse. That is the `definition` that values are held against, of scikit-dimension by the estimator that
it has:

- `scikit-dimension`: as it is by default, a line through the origin, fitted to all but the largest tenth of the ratios;
- `scikit-dimension, mle of all`: (N - 1) / sum log mu, where ours is N / sum log mu.

pytorch-cka has the Gram matrices of all images, or adds up HSIC over minibatches, as it does where it is given
networks. Ours has an interval too, from 1,000 resamplings or from 20 groups of images; what it costs without stands
beside it.

Each call has a process of its own, which is warm. All take turns; the ratios are of CPU time on one thread, of the
least of the rounds. The memory is the largest resident size of the process during the call, less that before it.
Features are of the first images of the training set, and stay in runs/geometry; so do finished rows until all are
there, and the same command goes on from them.

With --whole, all blocks of both networks of CIFAR-10 are measured as `irevnet-analyze geometry` does, features
included, which are thrown away; the memory is then the largest RssAnon, without the pages of features that are mapped,
which the system takes back when it wants them. With --limit, of the first images alone: the results are printed, and
not written.

The others: `pip install scikit-dimension pytorch-cka`, best in an environment of its own.
"""

import argparse
import contextlib
import ctypes
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy import ndarray
from recording import environment, installed, peak_anonymous, save_results
from scipy.spatial.distance import cdist
from torch import nn

from analysis import DataOptions, GeometryOptions, measure_geometry, open_experiment
from analysis.experiment import Experiment
from analysis.features.extract import LOGITS
from analysis.geometry.collapse import duality, nearest_means, simplex, variability
from analysis.geometry.dimension import distinct, log_ratios, two_nn
from analysis.geometry.jackknife import deal, jackknife
from analysis.geometry.moments import Moments, grouped_moments
from analysis.geometry.similarity import debiased_cka
from irevnet.data.splits import Split
from irevnet.utils.progress import Progress

IREVNET, RESNET = "pretrained:cifar10-irevnet", "pretrained:cifar10-resnet"
DEPTHS = (2, 6, 11, 16)
"""Blocks of the i-RevNet whose dimension is estimated."""

PAIR = (13, 16)
"""Blocks that are compared."""

SIZES = (1000, 2000, 5000)
"""Numbers of images that they are compared on."""

POINTS = 2500
"""Points of each manifold: what scikit-dimension draws by default."""

BATCH = 128
"""Images of a minibatch of pytorch-cka."""

KEPT = Path("runs/geometry/rows")

PACKAGES = ("scikit-dimension", "pytorch-cka")

OURS, BARE, DENSE = "ours", "ours, no interval", "dense float64"


class Value(NamedTuple):
    """A number, and the interval of it where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


Method = Callable[..., dict[str, Value]]
"""A function of arrays of images; its values by their names."""


def fit_of_line(logs: ndarray) -> float:
    """Facco et al.: the slope through the origin of -log(1 - F) against log mu, of all but the largest tenth."""
    count = len(logs)
    kept = np.sort(logs)[: int(0.9 * count)]
    y = -np.log1p(-np.arange(1, len(kept) + 1) / count)
    return float(kept @ y / (kept @ kept))


def log_ratios_by_differences(points: ndarray) -> ndarray:
    """log(r_2 / r_1), without the points that have a neighbour at the distance 0."""
    points = points.astype(np.float64)
    nearest = np.empty((len(points), 2))
    for start in range(0, len(points), 500):
        apart = cdist(points[start : start + 500], points)
        nearest[start : start + 500] = np.sort(np.partition(apart, 2)[:, :3])[:, 1:]
    nearest = nearest[nearest[:, 0] > 0]
    return np.log(nearest[:, 1] / nearest[:, 0])


def dimension_by_ours(points: ndarray) -> dict[str, Value]:
    found = two_nn(points)
    return {"dimension": Value(found.dimension, *found.interval)}


def dimension_by_ours_alone(points: ndarray) -> dict[str, Value]:
    logs = log_ratios(torch.as_tensor(distinct(points)))
    return {"dimension": Value(len(logs) / logs.sum())}


def dimension_by_skdim(points: ndarray, **options: Any) -> dict[str, Value]:
    from skdim.id import TwoNN

    return {"dimension": Value(float(TwoNN(**options).fit(points).dimension_))}


def dimension_by_skdim_mle(points: ndarray) -> dict[str, Value]:
    return dimension_by_skdim(points, method="mle", discard_fraction=0)


def cka_by_ours(x: ndarray, y: ndarray, groups: ndarray) -> dict[str, Value]:
    found = debiased_cka(x, y, groups)
    return {"cka": Value(found.value, *found.interval)}


def cka_by_ours_alone(x: ndarray, y: ndarray, groups: ndarray) -> dict[str, Value]:
    return {"cka": Value(debiased_cka(x, y, np.zeros_like(groups)).value)}


def cka_by_definition(x: ndarray, y: ndarray, groups: ndarray) -> dict[str, Value]:
    """Song et al. (2012), equation 5, with both Gram matrices."""
    n, grams = len(x), []
    for features in (x, y):
        centred = features.astype(np.float64)
        centred -= centred.mean(axis=0)
        grams.append(centred @ centred.T)
        np.fill_diagonal(grams[-1], 0)
    sums = [gram.sum(axis=0) for gram in grams]

    def hsic(a: int, b: int) -> float:
        products = np.vdot(grams[a], grams[b]) + sums[a].sum() * sums[b].sum() / ((n - 1) * (n - 2))
        return float(products - 2 / (n - 2) * (sums[a] @ sums[b])) / (n * (n - 3))

    return {"cka": Value(hsic(0, 1) / np.sqrt(hsic(0, 0) * hsic(1, 1)))}


def cka_by_package(x: ndarray, y: ndarray, groups: ndarray) -> dict[str, Value]:
    from cka import cka_from_features

    return {"cka": Value(float(cka_from_features(torch.from_numpy(x), torch.from_numpy(y))))}


def cka_by_package_in_float64(x: ndarray, y: ndarray, groups: ndarray) -> dict[str, Value]:
    return cka_by_package(x.astype(np.float64), y.astype(np.float64), groups)


def cka_by_minibatches(x: ndarray, y: ndarray, groups: ndarray) -> dict[str, Value]:
    from cka import compute_cka

    first, second = nn.Identity(), nn.Identity()

    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = first, second

        def forward(self, both: torch.Tensor) -> None:
            self.first(both[:, : x.shape[1]])
            self.second(both[:, x.shape[1] :])

    loader = torch.utils.data.DataLoader(torch.from_numpy(np.hstack((x, y))), batch_size=BATCH, drop_last=True)
    (found,) = compute_cka(Layers(), Layers(), loader, layers=["first", "second"], device="cpu", progress=False)
    return {"cka": Value(float(found[0, 1]))}


def statistics(found: Moments, weights: ndarray) -> ndarray:
    means = found.means
    return np.array([variability(found.within, means), *simplex(means), duality(weights, means)])


COLLAPSE = ("nc1", "nc2_norms", "nc2_cosines", "nc2_angles", "nc3", "nc4")


def collapse_by_ours(x: ndarray, labels: ndarray, answers: ndarray, weights: ndarray) -> dict[str, Value]:
    each = grouped_moments(x, labels, deal(labels))
    whole = sum(each[1:], each[0])
    values = np.array([statistics(whole, weights), *(statistics(whole - one, weights) for one in each)])
    differ = Value(float(np.mean(nearest_means(x, whole.means) != answers)))
    found = [Value(float(value), *ends) for value, ends in zip(values[0], jackknife(values).tolist())]
    return dict(zip(COLLAPSE, (*found, differ)))


def collapse_by_ours_alone(x: ndarray, labels: ndarray, answers: ndarray, weights: ndarray) -> dict[str, Value]:
    (whole,) = grouped_moments(x, labels, np.zeros_like(labels))
    differ = float(np.mean(nearest_means(x, whole.means) != answers))
    return dict(zip(COLLAPSE, map(Value, (*statistics(whole, weights).tolist(), differ))))


def collapse_by_definition(x: ndarray, labels: ndarray, answers: ndarray, weights: ndarray) -> dict[str, Value]:
    """Papyan, Han and Donoho (2020)."""
    x = x.astype(np.float64)
    classes = int(labels.max()) + 1
    means = np.array([x[labels == k].mean(axis=0) for k in range(classes)])
    within = (x - means[labels]).T @ (x - means[labels]) / len(x)
    centred = means - means.mean(axis=0)
    between = centred.T @ centred / classes
    norms = np.sqrt(np.square(centred).sum(axis=1))
    cosines = (centred @ centred.T / np.outer(norms, norms))[~np.eye(classes, dtype=bool)]
    apart = weights / np.linalg.norm(weights) - centred / np.linalg.norm(centred)
    found = (
        np.trace(within @ np.linalg.pinv(between, rcond=1e-10, hermitian=True)) / classes,
        norms.std() / norms.mean(),
        cosines.std(),
        np.abs(cosines + 1 / (classes - 1)).mean(),
        np.linalg.norm(apart),
        np.mean(cdist(x, means).argmin(axis=1) != answers),
    )
    return dict(zip(COLLAPSE, (Value(float(each)) for each in found)))


DIMENSION: dict[str, tuple[str, Method]] = {
    OURS: ("torch", dimension_by_ours),
    BARE: ("torch", dimension_by_ours_alone),
    "scikit-dimension": ("scikit-dimension", dimension_by_skdim),
    "scikit-dimension, mle of all": ("scikit-dimension", dimension_by_skdim_mle),
}
SIMILARITY: dict[str, tuple[str, Method]] = {
    OURS: ("torch", cka_by_ours),
    BARE: ("torch", cka_by_ours_alone),
    DENSE: ("numpy", cka_by_definition),
    "pytorch-cka": ("pytorch-cka", cka_by_package),
    "pytorch-cka, float64": ("pytorch-cka", cka_by_package_in_float64),
    f"pytorch-cka, minibatches of {BATCH}": ("pytorch-cka", cka_by_minibatches),
}
NEURAL_COLLAPSE: dict[str, tuple[str, Method]] = {
    OURS: ("torch", collapse_by_ours),
    BARE: ("torch", collapse_by_ours_alone),
    DENSE: ("numpy", collapse_by_definition),
}


def resident(key: str) -> int:
    """Bytes of VmRSS or VmHWM, the largest VmRSS so far."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


def in_a_process(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the work returns, in a process that ends with it."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(work()))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def call(method: Method, arrays: Sequence[ndarray]) -> dict[str, Any]:
    """Values, CPU time and memory of a call, after one with a few of the images."""
    method(*(array[:500] for array in arrays))
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to VmRSS
    before, start = resident("VmRSS"), time.process_time()
    values = method(*arrays)
    seconds = time.process_time() - start
    return {"values": values, "cpu_seconds": seconds, "peak_bytes": resident("VmHWM") - before}


def measure(
    measures: str,
    data: str,
    methods: dict[str, tuple[str, Method]],
    arrays: Sequence[ndarray],
    definition: dict[str, float],
    rounds: int,
    others: Mapping[str, dict[str, float]] = MappingProxyType({}),
    **more: Any,
) -> list[dict]:
    """A row for each method and value, beside what it is by definition, of a method of `others` by that.

    Rows stay in `KEPT` until all are there.
    """
    kept = KEPT / f"{measures}-{data}-{len(arrays[0])}-{rounds}.json".replace(" ", "-")
    if kept.is_file():
        return json.loads(kept.read_text())
    methods = {name: method for name, (package, method) in methods.items() if installed(package)}
    calls: dict[str, list[dict]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            calls[name].append(in_a_process(partial(call, method, arrays)))
    least = {name: min(each["cpu_seconds"] for each in found) for name, found in calls.items()}
    rows = []
    for name, found in calls.items():
        known = others.get(name, definition)
        for quantity, value in found[0]["values"].items():
            rows.append(
                {
                    "measure": measures,
                    "data": data,
                    "images": len(arrays[0]),
                    "dims": arrays[0].shape[1],
                    "method": name,
                    "quantity": quantity,
                    **more,
                    **value._asdict(),
                    "definition": known[quantity],
                    "difference": value.value - known[quantity],
                    "cpu_over_ours": least[name] / least[OURS],
                    "peak_mib": max(each["peak_bytes"] for each in found) / 2**20,
                    "cpu_seconds": [each["cpu_seconds"] for each in found],
                }
            )
    print(f"{measures} of {data}, {len(arrays[0])} images: done", file=sys.stderr)
    KEPT.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(rows))
    return rows


def measure_dimension(data: str, points: ndarray, rounds: int, **more: Any) -> list[dict]:
    logs = log_ratios_by_differences(points)
    ours = len(logs) / logs.sum()
    others = {
        "scikit-dimension": {"dimension": fit_of_line(logs)},
        "scikit-dimension, mle of all": {"dimension": ours * (1 - 1 / len(logs))},
    }
    return measure("dimension", data, DIMENSION, [points], {"dimension": ours}, rounds, others, **more)


def manifolds() -> Iterator[tuple[str, ndarray, int]]:
    from skdim.datasets import BenchmarkManifolds

    drawn = BenchmarkManifolds(random_state=0)
    points = drawn.generate("all", n=POINTS)
    for name, d in drawn.truth["Intrinsic Dimension"].items():
        yield name, points[name], int(d)


def corners(classes: int, dims: int, images: int) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Images that have collapsed to the corners of a simplex, away from zero, and weights that are these."""
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(dims, classes)))[0].T
    labels = np.arange(images) % classes
    return (3 * turned + np.linspace(0, 1, dims))[labels], labels, labels, turned - turned.mean(axis=0)


def of_first_images(experiment: Experiment, counts: dict[Split, int]) -> Experiment:
    """The experiment on the first images of each split; in CIFAR's files these are in random order."""
    load = experiment.source.load

    def some(split: Split) -> Any:
        images, labels = load(split)
        return images[: counts[split]], labels[: counts[split]]

    return replace(experiment, source=replace(experiment.source, load=some))


def measure_all(options: argparse.Namespace) -> list[dict]:
    rows = []
    if installed("scikit-dimension"):
        for name, points, d in manifolds():
            rows += measure_dimension(name, points, options.rounds, true_dimension=d)
    data = DataOptions(name="cifar10", root=options.data_root)
    root = KEPT.parent / str(options.num_images)
    experiment = replace(open_experiment(IREVNET, data=data, device="cpu"), features_root=root)
    experiment = of_first_images(experiment, {"train": options.num_images, "test": 1})
    store, layers = experiment.store(), experiment.layers(sorted({*DEPTHS, *PAIR}))
    experiment.extract(store, layers, splits=["train"])
    features = {layer.depth: np.array(store.features("train", layer.name)) for layer in layers}
    labels = store.labels("train")
    for depth in DEPTHS:
        rows += measure_dimension(f"block {depth}", features[depth], options.rounds)
    blocks = f"blocks {PAIR[0]} and {PAIR[1]}"
    for count in SIZES:
        arrays = [*(features[depth][:count] for depth in PAIR), deal(labels[:count])]
        known = {"cka": cka_by_definition(*arrays)["cka"].value}
        rows += measure("similarity", blocks, SIMILARITY, arrays, known, options.rounds)
    last, answers = features[DEPTHS[-1]], np.argmax(store.features("train", LOGITS), axis=1)
    weights = np.linalg.lstsq(last - last.mean(axis=0), np.eye(10)[labels], rcond=None)[0].T
    collapsed = corners(10, last.shape[1], options.num_images)
    for name, arrays in ((f"block {DEPTHS[-1]}", (last, labels, answers, weights)), ("a simplex", collapsed)):
        known = {key: value.value for key, value in collapse_by_definition(*arrays).items()}
        known = known if name != "a simplex" else dict.fromkeys(known, 0.0)
        rows += measure("collapse", name, NEURAL_COLLAPSE, arrays, known, options.rounds)
    return rows


class Clock:
    """Wall-clock and CPU time so far, by part."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def timing(self, part: str) -> Iterator[None]:
        start = time.perf_counter(), time.process_time()
        yield
        seconds = self.parts.setdefault(part, [0.0, 0.0])
        seconds[0] += time.perf_counter() - start[0]
        seconds[1] += time.process_time() - start[1]

    def track(self, loop: Iterable, description: str) -> Iterator:
        with self.timing(description):
            yield from loop


def measure_whole(options: argparse.Namespace) -> list[dict]:
    """The study of all blocks of both networks, by part."""
    data = DataOptions(name="cifar10", root=options.data_root)
    counts: dict[Split, int] = {"train": options.limit or 50_000, "test": (options.limit or 50_000) // 5}
    clock = Clock()

    def opened(root: str) -> list[Experiment]:
        found = [
            open_experiment(each, data=data, device="cpu", progress=Progress(track=clock.track))
            for each in (IREVNET, RESNET)
        ]
        return [of_first_images(replace(each, features_root=Path(root)), counts) for each in found]

    def extract(experiment: Experiment) -> None:
        experiment.extract(experiment.store(), experiment.layers())

    def part(work: Callable[[], Any]) -> dict[str, Any]:
        with peak_anonymous() as peak, clock.timing("all"):
            work()
        return {"parts": clock.parts, "peak_bytes": peak.bytes}

    rows = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as root:
        experiments = opened(root)
        works = {f"extraction, {each.name}": partial(extract, each) for each in experiments}
        works["study"] = partial(measure_geometry, experiments, GeometryOptions())
        for name, work in works.items():
            found = in_a_process(partial(part, work))
            parts = {"": found["parts"].pop("all"), **(found["parts"] if name == "study" else {})}
            for of_part, (wall, cpu) in parts.items():
                row = {"part": f"{name}: {of_part}" if of_part else name, "wall_seconds": wall, "cpu_seconds": cpu}
                rows.append(row | {"peak_anonymous_mib": None if of_part else found["peak_bytes"] / 2**20})
    total = [sum(row[key] for row in rows if ":" not in row["part"]) for key in ("wall_seconds", "cpu_seconds")]
    for row in rows:
        row |= {"share_of_wall": row["wall_seconds"] / total[0], "share_of_cpu": row["cpu_seconds"] / total[1]}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default="data", help="folder with CIFAR-10")
    parser.add_argument("--num-images", type=int, default=10_000, help="training images that have features")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--whole", action="store_true", help="the study of all blocks of both networks")
    parser.add_argument("--limit", type=int, help="with --whole, the number of training images; a fifth for testing")
    options = parser.parse_args()
    if options.whole:
        rows, name = measure_whole(options), "geometry-whole"
        table = pd.DataFrame(rows)[["part", "share_of_wall", "share_of_cpu", "peak_anonymous_mib"]]
        if options.limit:
            print(pd.DataFrame(rows).to_string(index=False))
            return
    else:
        if missing := [each for each in PACKAGES if not installed(each)]:
            print(f"left out, as not installed: pip install {' '.join(missing)}", file=sys.stderr)
        rows, name = measure_all(options), "geometry"
        table = pd.DataFrame(rows).drop(columns=["cpu_seconds"])
    shutil.rmtree(KEPT, ignore_errors=True)
    save_results(
        name, table, rows, environment("cpu", "numpy", "scipy", "scikit-learn", *PACKAGES, rounds=options.rounds)
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
