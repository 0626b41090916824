"""Pictures of saved results, one module a study; nothing is computed here, and no torch is imported.

>>> from figures import build_report, plot, save_figures, table

The names are imported when they are first used, so that `import figures` needs no matplotlib.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
