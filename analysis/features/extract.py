"""Layer-wise features, averaged over space: what the probes of section 5 look at. One forward pass fills them all."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn
from torch.utils.data import Subset

from analysis.features.layers import Layer
from analysis.features.layout import Layout, find_layouts, streams_of
from analysis.features.store import FeatureStore
from irevnet.data.images import LabelledImages, Split
from irevnet.data.loaders import batches
from irevnet.models.coupling import Coupling
from irevnet.utils.modules import as_input, in_eval_mode, outputs_seen
from irevnet.utils.progress import Track, no_progress

LOGITS = "logits"
"""The name under which a network's outputs are kept beside its features."""

FLUSH_BYTES, FLUSH_SECONDS = 2**26, 10.0
"""How much memory what is not on the disk yet may take, and how much work may be lost when a process is killed."""


@contextmanager
def _averages(layers: Sequence[Layer], layouts: Mapping[str, Sequence[Layout]]) -> Iterator[dict[str, Tensor]]:
    """Spatial averages of what the layers last put out, by name, as it was then; streams are put side by side."""
    means: dict[str, Tensor] = {}
    last: list[tuple[Tensor, int, Tensor]] = []

    def keep(name: str, module: nn.Module, output: Any) -> None:
        streams = streams_of(output, name)
        # A block of an i-RevNet hands one of its streams on as it is, and changes none in place.
        known = {id(stream): mean for stream, version, mean in last if version == stream._version}
        reuse = known if isinstance(module, Coupling) else {}
        found = [
            (stream, stream._version, reuse[id(stream)] if id(stream) in reuse else layout.average(stream))
            for stream, layout in zip(streams, layouts[name], strict=True)
        ]
        last[:] = found if isinstance(module, Coupling) else []
        # A copy, also where nothing was averaged: a later layer may change its input in place.
        means[name] = torch.cat([mean for _, _, mean in found], dim=1)

    with outputs_seen({layer.name: layer.module for layer in layers}, keep):
        yield means


@torch.no_grad()
def extract(
    model: nn.Module,
    data: LabelledImages,
    store: FeatureStore,
    split: Split,
    layers: Sequence[Layer],
    *,
    part: tuple[int, int] = (1, 1),
    batch_size: int = 256,
    workers: int = 0,
    track: Track = no_progress,
) -> int:
    """Fills the store with the features of these layers and the logits, and returns how many images that took.

    Images whose features are there already are passed over. With the same batch size and device an extraction that was
    interrupted ends with the very bytes of one that was not.

    Args:
        model: a network, used in eval mode on the device that it is on.
        data: the images of the split.
        store: the store that the features are written to.
        split: name of the split.
        layers: layers of the model.
        part: (k, n) for the k-th of n nearly equal parts of the images, for processes that share the work.
        batch_size: number of images in a forward pass.
        workers: number of processes that load images.
        track: shows progress.

    Raises:
        ValueError: features that are not finite, a layer that the network passes more than once or never, or one
            whose layout cannot be told (`analysis.features.layout`).
    """
    store.begin(split, np.array(data.labels, dtype=np.int64))
    names = [*(layer.name for layer in layers), LOGITS]
    rows = _rows_to_fill(store.done(split, names), part, batch_size)
    if len(rows) == 0:
        return 0
    layouts = find_layouts(model, {layer.name: layer.module for layer in layers}, data[int(rows[0])][0])
    writer, start, flushed = None, 0, time.monotonic()
    try:
        with in_eval_mode(model), _averages(layers, layouts) as means:
            for images, _ in track(batches(Subset(data, rows.tolist()), batch_size, workers=workers), f"{split} set"):
                means.clear()
                means[LOGITS] = _check_logits(model(as_input(images, model)), len(images))
                batch = rows[start : start + len(images)]
                features = _to_arrays(means, names, split, batch)
                if writer is None:
                    writer = store.writer(split, {name: array.shape[1] for name, array in features.items()})
                writer.write(batch, features)
                start += len(images)
                if writer.unflushed >= FLUSH_BYTES or time.monotonic() >= flushed + FLUSH_SECONDS:
                    writer.flush()
                    flushed = time.monotonic()
    finally:
        if writer is not None:
            writer.close()
    return len(rows)


def _check_logits(output: Any, images: int) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != images:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"the network's output for {images} images is {found}; expected logits (images, classes)")
    return output


def _rows_to_fill(done: ndarray, part: tuple[int, int], batch_size: int) -> Int[ndarray, " rows"]:
    """The images of that part which are not done. Parts begin at whole batches, so that batches are the same in all."""
    number, parts = part
    num_batches = -(-len(done) // batch_size)
    first, last = (batch_size * (num_batches * k // parts) for k in (number - 1, number))
    rows = np.arange(len(done))[first:last]
    return rows[~done[first:last]]


def _to_arrays(
    means: Mapping[str, Tensor], names: Sequence[str], split: Split, rows: Int[ndarray, " images"]
) -> dict[str, Float[ndarray, "images _"]]:
    """The averages of a batch in float32, by one transfer from the device."""
    if missing := [name for name in names if name not in means]:
        raise ValueError(f"the network does not pass every batch of images through {missing[0]}; name other layers")
    together = torch.cat([means[name].float() for name in names], dim=1).cpu().numpy()
    if not np.isfinite(together).all():
        broken = next(name for name in names if not means[name].isfinite().all())
        row = rows[~np.isfinite(means[broken].float().cpu().numpy()).all(axis=1)][0]
        raise ValueError(
            f"the features of {broken} are not finite, at first of {split} image {row}; the network's weights or its "
            "input are broken"
        )
    edges = np.cumsum([means[name].shape[1] for name in names])[:-1]
    return dict(zip(names, np.split(together, edges, axis=1)))
