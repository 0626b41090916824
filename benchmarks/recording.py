"""What all benchmarks share: where their results go, and what they were measured on."""

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

RESULTS = Path(__file__).parent / "results"


def installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def environment(device: str = "cpu", *packages: str, **more: Any) -> dict[str, Any]:
    """The device, threads and versions; of other packages too, where they are installed."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", *packages) if installed(package)},
        **more,
    }


def save_results(name: str, table: pd.DataFrame, rows: list[dict], environment: dict[str, Any]) -> None:
    """Writes the table to results/NAME.csv, raw rows and environment to results/NAME.json, and prints the table."""
    table.to_csv(RESULTS / f"{name}.csv", index=False, float_format="%.4g")
    (RESULTS / f"{name}.json").write_text(json.dumps({"environment": environment, "rows": rows}, indent=2) + "\n")
    print(table.to_string(index=False))


@dataclass
class Peak:
    bytes: int = 0


@contextlib.contextmanager
def peak_anonymous() -> Iterator[Peak]:
    """The largest RssAnon of this process meanwhile: its memory without the pages of memory maps."""
    peak, running = Peak(), True

    def watch() -> None:
        while running:
            line = next(line for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line)
            peak.bytes = max(peak.bytes, 1024 * int(line.split()[1]))
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        running = False
        thread.join()
