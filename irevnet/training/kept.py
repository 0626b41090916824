"""The checkpoints that a run keeps of its training, for studies over training: `RUN/kept/step-000390.pt`."""

import re
from pathlib import Path

KEPT = "kept"
"""Name of their folder in that of the run."""


def kept_steps(num_steps: int, every: int) -> list[int]:
    """Numbers of steps after which a run of `num_steps` keeps a checkpoint: none, every so many, and all.

    >>> kept_steps(10, 4)
    [0, 4, 8, 10]
    """
    return [*range(0, num_steps, every), num_steps]


def kept_file(run: Path, step: int) -> Path:
    """The file of the checkpoint after so many steps, in the folder of a run.

    >>> kept_file(Path("runs/first"), 390).as_posix()
    'runs/first/kept/step-000390.pt'
    """
    return run / KEPT / f"step-{step:06d}.pt"


def kept_checkpoints(run: Path) -> dict[int, Path]:
    """The files of the checkpoints that a run has kept so far, by the number of steps, in increasing order."""
    found = {path: re.fullmatch(r"step-(\d{6,15})", path.stem) for path in (run / KEPT).glob("*.pt")}
    return dict(sorted((int(match[1]), path) for path, match in found.items() if match))
