"""The trained networks that come with this package, named `pretrained:NAME` wherever a checkpoint file is named."""

import os
from pathlib import Path

from irevnet.utils.lookup import find

PREFIX = "pretrained:"

FOLDER = Path(os.path.abspath(__file__)).parents[1] / "pretrained"
"""Folder of their checkpoints, `NAME.pt`. Kernels and projections are kept in half precision, and read as float32."""


def is_pretrained(checkpoint: str | Path) -> bool:
    """Whether this names a network that comes with this package, or is its file.

    >>> is_pretrained("pretrained:cifar10-irevnet"), is_pretrained("cifar10-irevnet.pt")
    (True, False)
    """
    return str(checkpoint).startswith(PREFIX) or Path(os.path.abspath(checkpoint)).parent == FOLDER


def pretrained_names() -> list[str]:
    """The names, without prefix."""
    return sorted(file.stem for file in FOLDER.glob("*.pt"))


def checkpoint_file(checkpoint: str | Path) -> Path:
    """The file of a checkpoint that is named by its path or as `pretrained:NAME`.

    Raises `ValueError`, with the nearest names, for an unknown one.
    """
    if not str(checkpoint).startswith(PREFIX):
        return Path(checkpoint)
    files = {f"{PREFIX}{name}": FOLDER / f"{name}.pt" for name in pretrained_names()}
    return find("network", str(checkpoint), files)


def checkpoint_name(file: Path) -> str:
    """What to call a checkpoint's file in results: its path or, if it comes with this package, `pretrained:NAME`."""
    return f"{PREFIX}{file.stem}" if is_pretrained(file) else str(file)
