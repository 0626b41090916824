"""Finished parts of a study on the disk, so that work which was stopped or killed goes on where it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from irevnet.utils.files import write_json
from irevnet.utils.untrusted import fits, parse_json


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
