"""Objects in somebody's own Python code, named as `FILE.py:NAME` or `package.module:NAME`."""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from irevnet.utils.lookup import find


def named_object(name: str) -> Any:
    """The object of that name in a file, which is run as Python would and finds what it imports beside itself, or in a
    module that can be imported.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the code cannot be imported, or has no such name.
    """
    place, _, attribute = name.rpartition(":")
    code = _import(place)
    return find(f"name in {place}", attribute, {name: each for name, each in vars(code).items() if name[0] != "_"})


def _import(place: str) -> Any:
    path = Path(place)
    try:
        if path.suffix != ".py":
            return importlib.import_module(place)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {place}")
        sys.path.insert(0, str(path.resolve().parent))
        name = f"code in {path}"  # not that of a module which is there already, such as cli
        specification: Any = importlib.util.spec_from_file_location(name, path)
        module = sys.modules[name] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        return module
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"{place} cannot be imported ({type(error).__name__}: {error}); mend it, or name another"
        ) from error
