"""Finished parts of a study on the disk, so that work which was stopped or killed goes on where it was."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irevnet.utils.files import as_json, write_together
from irevnet.utils.untrusted import fits, open_arrays, parse_json


class Cache:
    """Results of the parts of a study, each in a small file.

    Args:
        folder: the folder of these files, made when the first is written; `None` keeps nothing.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder

    def get(
        self,
        name: str,
        compute: Callable[[], dict[str, Any]],
        *kinds: Any,
        arrays: Sequence[str] = (),
        **settings: Any,
    ) -> dict[str, Any]:
        """The part of that name: read if it was computed with the same settings before, else computed and kept.

        Args:
            name: name of the part, and of its file without `.json`.
            compute: returns the part, as plain values for JSON.
            kinds: types that the part has to fit (`irevnet.utils.untrusted.fits`); one that does not, as of a damaged
                file, is computed again.
            arrays: keys of the part whose values are arrays, which are kept beside it, in `.npz`.
            settings: plain values on which the part depends.
        """
        if self.folder is None:
            return compute()
        settings = json.loads(json.dumps(settings))
        mark, beside = (self.folder / f"{name}.{suffix}" for suffix in ("json", "npz"))
        try:
            kept = parse_json(mark.read_bytes())
            if kept["settings"] == settings and all(fits(kept["result"], kind) for kind in kinds):
                return kept["result"] | _read(beside, arrays)
        except (OSError, ValueError, KeyError, TypeError):  # there is no such file, or a damaged one
            pass
        result = compute()
        plain = {key: value for key, value in result.items() if key not in arrays}
        text = as_json({"settings": settings, "result": plain})
        self.folder.mkdir(parents=True, exist_ok=True)
        write_together(
            {
                **({beside: lambda path: np.savez(path, **{key: result[key] for key in arrays})} if arrays else {}),
                mark: lambda path: path.write_text(text, encoding="utf-8"),
            }
        )
        return result


def _read(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    if not names:
        return {}
    with open_arrays(path) as arrays:
        return {name: arrays[name] for name in names}
