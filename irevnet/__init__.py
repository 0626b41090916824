"""i-RevNet: a deep network that is invertible up to its last layer, and its training.

>>> from irevnet import build_model
>>> model = build_model("irevnet-small", image_size=16, in_channels=3).eval()

The names below are imported when they are first used, so that `import irevnet` needs no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
