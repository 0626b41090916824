"""The representation studies of the i-RevNet paper, on any checkpoint and data.

>>> from analysis import load_result

The names below are imported when they are first used, so that saved results are read without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
