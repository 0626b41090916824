"""i-RevNet: a deep network that is inverted up to its last layer, and its training.

>>> from irevnet import build_model
>>> model = build_model("irevnet-small", image_size=16, in_channels=3).eval()

The names below are imported when they are first used, so that `import irevnet` needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irevnet.checkpoint import Checkpoint as Checkpoint
    from irevnet.checkpoint import load_checkpoint as load_checkpoint
    from irevnet.checkpoint import read_checkpoint as read_checkpoint
    from irevnet.checkpoint import save_checkpoint as save_checkpoint
    from irevnet.config import IRevNetConfig as IRevNetConfig
    from irevnet.model import IRevNet as IRevNet
    from irevnet.presets import build_model as build_model
    from irevnet.presets import list_models as list_models

__all__ = [
    "Checkpoint",
    "IRevNet",
    "IRevNetConfig",
    "build_model",
    "list_models",
    "load_checkpoint",
    "read_checkpoint",
    "save_checkpoint",
]

_HOMES = {
    "Checkpoint": "checkpoint",
    "IRevNet": "model",
    "IRevNetConfig": "config",
    "build_model": "presets",
    "list_models": "presets",
    "load_checkpoint": "checkpoint",
    "read_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'irevnet' has no attribute {name!r}")
    return getattr(importlib.import_module(f"irevnet.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
