"""Block-wise features, averaged over space: what the probes of section 5 look at."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn
from torch.utils.data import Dataset

from irevnet.data import batches
from irevnet.train import Track, no_progress


def spatial_mean(output: Tensor | tuple[Tensor, ...]) -> Float[Tensor, "batch channels"]:
    """The mean over height and width of a block's output `(n, c, h, w)`; two streams are put side by side."""
    streams = output if isinstance(output, tuple) else (output,)
    return torch.cat([stream.mean(dim=(2, 3)) for stream in streams], dim=1)


@torch.no_grad()
def averaged_features(
    model: nn.Module,
    data: Dataset[tuple[Tensor, int]],
    depths: Sequence[int],
    *,
    batch_size: int = 256,
    workers: int = 0,
    track: Track = no_progress,
) -> tuple[list[Float[ndarray, "images channels"]], ndarray]:
    """Spatial averages of Phi_j for every image and each depth j, from one forward pass, and the labels.

    Args:
        model: a network with its blocks in `model.blocks`, of which the first has depth 1; used in eval mode, on the
            device that it is on.
        data: images and labels.
        depths: which blocks, from 1 on.
        batch_size: images a forward pass.
        workers: processes that load images.
        track: shows progress.
    """
    blocks: nn.ModuleList = model.blocks  # type: ignore[assignment]
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    means: dict[int, list[ndarray]] = {depth: [] for depth in depths}

    def keep(depth: int) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, inputs, output: means[depth].append(spatial_mean(output).float().cpu().numpy())

    handles = [blocks[depth - 1].register_forward_hook(keep(depth)) for depth in depths]
    labels = []
    try:
        for images, targets in track(batches(data, batch_size, workers=workers), "features"):
            model(images.to(device))
            labels.append(targets.numpy())
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
    return [np.concatenate(means[depth]) for depth in depths], np.concatenate(labels)
