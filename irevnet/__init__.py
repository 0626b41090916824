"""i-RevNet: a deep network that is invertible up to its last layer, and its training.

>>> from irevnet import build_model
>>> model = build_model("irevnet-small", image_size=16, in_channels=3).eval()

The names below are imported when they are first used, so that `import irevnet` needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irevnet.checkpoints.checkpoint import Checkpoint as Checkpoint
    from irevnet.checkpoints.checkpoint import load_checkpoint as load_checkpoint
    from irevnet.checkpoints.checkpoint import read_checkpoint as read_checkpoint
    from irevnet.checkpoints.checkpoint import save_checkpoint as save_checkpoint
    from irevnet.data.datasets import load_dataset as load_dataset
    from irevnet.models.config import IRevNetConfig as IRevNetConfig
    from irevnet.models.irevnet import IRevNet as IRevNet
    from irevnet.models.zoo import build_model as build_model
    from irevnet.models.zoo import list_models as list_models
    from irevnet.training.config import TrainConfig as TrainConfig
    from irevnet.training.trainer import evaluate as evaluate
    from irevnet.training.trainer import train as train

_MODULES = {
    "Checkpoint": "checkpoints.checkpoint",
    "IRevNet": "models.irevnet",
    "IRevNetConfig": "models.config",
    "TrainConfig": "training.config",
    "build_model": "models.zoo",
    "evaluate": "training.trainer",
    "list_models": "models.zoo",
    "load_checkpoint": "checkpoints.checkpoint",
    "load_dataset": "data.datasets",
    "read_checkpoint": "checkpoints.checkpoint",
    "save_checkpoint": "checkpoints.checkpoint",
    "train": "training.trainer",
}

__all__ = list(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'irevnet' has no attribute {name!r}")
    return getattr(importlib.import_module(f"irevnet.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
