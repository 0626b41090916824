"""Pictures of saved results, one module a study; nothing is computed here, and no torch is imported.

>>> from figures import build_report, plot, save_figures, table

The names are imported when they are first used, so that `import figures` needs no matplotlib.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from figures.report.page import build_report as build_report
    from figures.saving import save_figures as save_figures
    from figures.study_figure import plot as plot
    from figures.study_figure import table as table

_MODULES = {
    "build_report": "report.page",
    "plot": "study_figure",
    "save_figures": "saving",
    "table": "study_figure",
}

__all__ = list(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'figures' has no attribute {name!r}")
    return getattr(importlib.import_module(f"figures.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
