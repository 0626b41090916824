"""What is known of the trained networks that come with this package, and how one becomes one of them."""

from dataclasses import dataclass
from pathlib import Path

import torch

from irevnet.checkpoints.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from irevnet.checkpoints.pretrained import PREFIX, pretrained_names
from irevnet.models.config import IRevNetConfig
from irevnet.models.zoo import num_parameters


@dataclass(frozen=True, kw_only=True)
class TrainedInfo:
    """One row of the table of trained networks.

    Attributes:
        name: name that `load_checkpoint` and `--ckpt` take.
        bijective: whether every feature is the feature of some image.
        blocks: number of blocks, and the largest depth.
        parameters: number of parameters.
        data: data set that it was trained on.
        test_top1: fraction of its test images whose label has the highest logit.
        licence: licence of the weights; images are their authors'.
    """

    name: str
    bijective: bool
    blocks: int
    parameters: int
    data: str
    test_top1: float
    licence: str = "MIT"


def list_trained() -> list[TrainedInfo]:
    """All trained networks that come with this package."""
    rows = []
    for name in pretrained_names():
        checkpoint = read_checkpoint(f"{PREFIX}{name}")
        config = checkpoint.config
        rows.append(
            TrainedInfo(
                name=f"{PREFIX}{name}",
                bijective=isinstance(config, IRevNetConfig) and config.bijective,
                blocks=config.num_blocks,
                parameters=num_parameters(checkpoint.model),
                data=checkpoint.data,
                test_top1=checkpoint.metrics["test_top1"],
            )
        )
    return rows


def save_in_half(path: Path, checkpoint: Checkpoint) -> Checkpoint:
    """Writes a checkpoint with kernels and matrices in half precision, all else in float32; returns what is read."""
    model = checkpoint.model
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data = parameter.half()
    save_checkpoint(path, checkpoint)
    return read_checkpoint(path)
