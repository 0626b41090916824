"""Finished parts of a study on the disk, so that work which was stopped or killed goes on where it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from irevnet.utils.files import atomic_write, write_json
from irevnet.utils.untrusted import fits, open_arrays, parse_json


class Cache:
    """Results of the parts of a study, each in a small file.

    Args:
        folder: the folder of these files, made when the first is written; `None` keeps nothing.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder

    def get(self, name: str, compute: Callable[[], dict[str, Any]], *kinds: Any, **settings: Any) -> dict[str, Any]:
        """The part of that name: read if it was computed with the same settings before, else computed and kept.

        Args:
            name: name of the part, and of its file without `.json`.
            compute: returns the part, as plain values for JSON.
            kinds: types that the part has to fit (`irevnet.utils.untrusted.fits`); one that does not, as of a damaged
                file, is computed again.
            settings: plain values on which the part depends.
        """
        if self.folder is None:
            return compute()
        settings = json.loads(json.dumps(settings))
        path = self.folder / f"{name}.json"
        try:
            kept = parse_json(path.read_bytes())
            if kept["settings"] == settings and all(fits(kept["result"], kind) for kind in kinds):
                return kept["result"]
        except (OSError, ValueError, KeyError, TypeError):  # there is no such file, or a damaged one
            pass
        result = compute()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"settings": settings, "result": result})
        return result

    def get_arrays(self, name: str, compute: Callable[[], dict[str, ndarray]], **settings: Any) -> dict[str, ndarray]:
        """As `get`, of a part that is arrays by name, kept in `name.npz`."""
        if self.folder is None:
            return compute()
        text = np.array(json.dumps(settings, sort_keys=True))
        path = self.folder / f"{name}.npz"
        try:
            with open_arrays(path) as kept:
                if str(kept[_SETTINGS]) == str(text):
                    return {each: kept[each] for each in kept.names if each != _SETTINGS}
        except (OSError, ValueError):  # there is no such file, or a damaged one
            pass
        arrays = compute()
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            np.savez(temporary, **{_SETTINGS: text}, **arrays)  # pyright: ignore[reportArgumentType]
        return arrays


_SETTINGS = "settings"
"""Name of the array with the settings of arrays, which no array of a part has."""
