"""Whether two devices find the same: the results of all studies of one network, held against each other.

    irevnet train --out runs/digits                                     # on either
    cp -r runs/digits runs/on-gpu
    irevnet-analyze all --ckpt runs/digits --device cpu
    irevnet-analyze all --ckpt runs/on-gpu --device cuda                # on a machine with a GPU
    python benchmarks/devices.py runs/digits GPU=runs/on-gpu            # results/devices.csv, .json

Each number of a study's summary is compared with that of the first run, as |a - b| / max(|a|, |b|). What is below 1e-6
on both is passed over: it is what is left of rounding.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from recording import environment, save_results

ROUNDING = 1e-6


def numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """The numbers within plain values, each with the path to it."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from numbers(each, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from numbers(each, f"{name}[{index}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)


def compare(name: str, first: Path, second: Path) -> dict[str, Any]:
    """Two results of a study, each a JSON file."""
    of_first, of_second = (dict(numbers(json.loads(path.read_text())["summary"])) for path in (first, second))
    differences = {}
    for key in sorted(of_first.keys() & of_second.keys()):
        a, b = of_first[key], of_second[key]
        if max(abs(a), abs(b)) >= ROUNDING:
            differences[key] = abs(a - b) / max(abs(a), abs(b))
    largest = max(differences, key=lambda key: differences[key])
    return {
        "study": first.stem,
        "on": name,
        "numbers": len(differences),
        "within_1e-6": sum(each <= 1e-6 for each in differences.values()),
        "within_1e-3": sum(each <= 1e-3 for each in differences.values()),
        "largest": differences[largest],
        "of": largest,
        "first": of_first[largest],
        "second": of_second[largest],
    }


def where(folder: Path) -> dict[str, Any]:
    """What the studies of a run were made on."""
    record = json.loads(next(folder.glob("analysis/invert/*.json")).read_text())["provenance"]
    return {key: record[key] for key in ("device", "platform", "python", "versions")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="Folder of a run, with its studies.")
    parser.add_argument("others", nargs="+", metavar="NAME=FOLDER", help="The same run, with studies of elsewhere.")
    options = parser.parse_args()
    others = dict(each.split("=", 1) for each in options.others)
    rows = []
    for name, folder in others.items():
        for path in sorted((options.first / "analysis").glob("*/*.json")):
            rows.append(compare(name, path, Path(folder) / path.relative_to(options.first)))
    made = {"first": where(options.first)} | {name: where(Path(folder)) for name, folder in others.items()}
    save_results("devices", pd.DataFrame(rows), rows, environment("cpu", runs=made))


if __name__ == "__main__":
    main()
