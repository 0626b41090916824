"""The price of 1-nearest-neighbour classification at all truncations: ours, scikit-learn's and faiss's brute force.

    python benchmarks/nearest_neighbour.py                   # on the CPU: writes results/nearest-neighbour.csv, .json
    python benchmarks/nearest_neighbour.py --device cuda     # ours on a GPU: into results/nearest-neighbour-cuda.*

Twelve truncations of the same features, and then all columns alone. Ours takes the truncations in one sweep, or one
after the other as the others have to; faiss is left out where it is not installed (`pip install faiss-cpu`). All take
turns on the same arrays; the time of each is the least of its rounds, kept as a ratio to ours.

The features are those of 100 classes, with variances that fall as 1/j over the principal components, as averaged
features of networks roughly have them. scikit-learn and faiss stay on the CPU.
"""

import argparse
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from recording import environment, save_results
from sklearn.neighbors import KNeighborsClassifier

from analysis.probes.nearest_neighbour import nearest_neighbours

CLASSES, TRUNCATIONS = 100, 12


class Features(NamedTuple):
    train: np.ndarray
    labels: np.ndarray
    test: np.ndarray


def draw(num_train: int, num_test: int, dims: int) -> Features:
    """Half of the variance is between classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, num_train + num_test)
    means = rng.standard_normal((CLASSES, dims), np.float32)
    points = means[labels] + rng.standard_normal((len(labels), dims), np.float32)
    points /= np.sqrt(np.arange(1, dims + 1, dtype=np.float32))
    return Features(points[:num_train], labels[:num_train], points[num_train:])


def one_sweep(data: Features, dims: list[int], device: str) -> np.ndarray:
    train, test = (torch.from_numpy(points).to(device) for points in (data.train, data.test))
    return nearest_neighbours(train, test, dims=dims)


def one_by_one(data: Features, dims: list[int], device: str) -> np.ndarray:
    train, test = (torch.from_numpy(points).to(device) for points in (data.train, data.test))
    return np.concatenate([nearest_neighbours(train, test, dims=[d]) for d in dims])


def scikit_learn(data: Features, dims: list[int], device: str) -> np.ndarray:
    """Labels, as the others' rows have them: it does not say which row it was."""
    found = []
    for d in dims:
        train, test = (np.ascontiguousarray(points[:, :d]) for points in (data.train, data.test))
        found.append(KNeighborsClassifier(1, algorithm="brute").fit(train, data.labels).predict(test))
    return np.stack(found)


def by_faiss(data: Features, dims: list[int], device: str) -> np.ndarray:
    import faiss

    found = []
    for d in dims:
        index = faiss.IndexFlatL2(d)
        index.add(np.ascontiguousarray(data.train[:, :d]))
        found.append(index.search(np.ascontiguousarray(data.test[:, :d]), 1)[1][:, 0])
    return np.stack(found)


OURS = "ours, one sweep"
METHODS: dict[str, Callable[[Features, list[int], str], np.ndarray]] = {
    OURS: one_sweep,
    "ours, one by one": one_by_one,
    "scikit-learn": scikit_learn,
    "faiss": by_faiss,
}


def measure(data: Features, dims: list[int], methods: list[str], options: argparse.Namespace) -> list[dict]:
    few = data._replace(test=data.test[:100])
    for name in methods:  # warms up
        METHODS[name](few, dims, options.device)
    answers = {}
    rows = [{"method": name, "cpu_rounds": [], "wall_rounds": []} for name in methods]
    for number in range(options.rounds):
        for row in rows:
            cpu, wall = time.process_time(), time.perf_counter()
            answers[row["method"]] = METHODS[row["method"]](data, dims, options.device)
            row["cpu_rounds"].append(time.process_time() - cpu)
            row["wall_rounds"].append(time.perf_counter() - wall)
            print(f"round {number + 1} of {options.rounds}: {row['method']}", file=sys.stderr)
    for row in rows:
        answer, ours = answers[row["method"]], answers[OURS]
        row["rows_differ"] = row["labels_differ"] = None
        if row["method"] != "scikit-learn":
            row["rows_differ"] = int(np.count_nonzero(answer != ours))
            answer = data.labels[answer]
        row["labels_differ"] = int(np.count_nonzero(answer != data.labels[ours]))
        row["cpu_seconds"], row["wall_seconds"] = min(row["cpu_rounds"]), min(row["wall_rounds"])
    for row in rows:
        row["cpu_over_ours"] = row["cpu_seconds"] / rows[0]["cpu_seconds"]
        row["wall_over_ours"] = row["wall_seconds"] / rows[0]["wall_seconds"]
    return rows


def measure_all(options: argparse.Namespace) -> list[dict]:
    methods = list(METHODS)
    if find_spec("faiss") is None:
        methods.remove("faiss")
        print("faiss is not installed and is left out", file=sys.stderr)
    rows = []
    for num_train, num_test, d in options.sizes:
        data = draw(num_train, num_test, d)
        truncations = np.unique(np.geomspace(1, d, TRUNCATIONS).round().astype(int)).tolist()
        for dims in (truncations, [d]):
            of_these = methods if len(dims) > 1 else [name for name in methods if name != "ours, one by one"]
            case = {"train": num_train, "test": num_test, "columns": d, "searches": len(dims)}
            rows += [{**case, **row, "dims": dims} for row in measure(data, dims, of_these, options)]
    return rows


def sizes(text: str) -> tuple[int, int, int]:
    num_train, num_test, d = map(int, text.split("x"))
    return num_train, num_test, d


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--sizes",
        type=sizes,
        nargs="+",
        default=[(50_000, 10_000, 192), (20_000, 4_000, 768)],
        metavar="TRAINxTESTxCOLUMNS",
        help="cases to measure",
    )
    options = parser.parse_args()
    rows = measure_all(options)
    table = pd.DataFrame(rows).drop(columns=["dims", "cpu_rounds", "wall_rounds", "cpu_seconds", "wall_seconds"])
    table["rows_differ"] = table.rows_differ.astype("Int64")  # whole numbers, where there are any
    name = "nearest-neighbour" if options.device == "cpu" else "nearest-neighbour-cuda"
    save_results(name, table, rows, environment(options.device, "scikit-learn", "faiss-cpu", rounds=options.rounds))


if __name__ == "__main__":
    main()
