"""Layer-wise features, averaged over space or pooled otherwise: what the probes of section 5 look at. One forward pass
fills them all."""

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
from analysis.features.pooling import Pool, Pooling
from analysis.features.store import FeatureStore
from irevnet.data.images import LabelledImages
from irevnet.data.loaders import batches
from irevnet.data.splits import Split
from irevnet.models.coupling import Coupling
from irevnet.utils.modules import as_input, in_eval_mode, outputs_seen
from irevnet.utils.precision import true_float32
from irevnet.utils.progress import Track, no_progress

LOGITS = "logits"
"""The name under which a network's outputs are kept beside its features."""

FLUSH_BYTES, FLUSH_SECONDS = 2**26, 10.0
"""How much memory what is not on the disk yet may take, and how much work may be lost when a process is killed."""


@contextmanager
def _pooled(
    layers: Sequence[Layer], layouts: Mapping[str, Sequence[Layout]], pooling: Pooling
) -> Iterator[dict[str, Tensor]]:
    """The pooled outputs of the layers, by name, as they were when last put out; streams are put side by side."""
    pooled: dict[str, Tensor] = {}
    last: list[tuple[Tensor, int, Tensor]] = []

    def keep(name: str, module: nn.Module, output: Any) -> None:
        streams = streams_of(output, name)
        # A block of an i-RevNet hands one of its streams on as it is, and changes none in place.
        known = {id(stream): vectors for stream, version, vectors in last if version == stream._version}
        reuse = known if isinstance(module, Coupling) else {}
        found = [
            (stream, stream._version, reuse[id(stream)] if id(stream) in reuse else pooling(name, stream, layout))
            for stream, layout in zip(streams, layouts[name], strict=True)
        ]
        last[:] = found if isinstance(module, Coupling) else []
        # A copy, also where nothing was pooled: a later layer may change its input in place.
        pooled[name] = torch.cat([vectors for _, _, vectors in found], dim=1)

    with outputs_seen({layer.name: layer.module for layer in layers}, keep):
        yield pooled


@torch.no_grad()
@true_float32()
def extract(
    model: nn.Module,
    data: LabelledImages,
    store: FeatureStore,
    split: Split,
    layers: Sequence[Layer],
    *,
    pool: Pool = "mean",
    most_dims: int | None = None,
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
        pool: how the output of a layer becomes one vector an image.
        most_dims: most features of an image at a layer; `None` for any number.
        part: (k, n) for the k-th of n nearly equal parts of the images, for processes that share the work.
        batch_size: number of images in a forward pass.
        workers: number of processes that load images.
        track: shows progress.

    Raises:
        ValueError: features that are not finite, or more of them than `most_dims`; a layer that the network passes more
            than once or never, or one whose layout cannot be told (`analysis.features.layout`), or whose CLS token
            (`analysis.features.pooling`).
    """
    store.begin(split, np.array(data.labels, dtype=np.int64), data.names)
    names = [*(layer.name for layer in layers), LOGITS]
    rows = _rows_to_fill(store.done(split, names), part, batch_size)
    if len(rows) == 0:
        return 0
    image = data[int(rows[0])][0]
    pooling = Pooling.of(pool, model, image)
    layouts = find_layouts(model, {layer.name: layer.module for layer in layers}, image)
    writer, start, flushed = None, 0, time.monotonic()
    try:
        with in_eval_mode(model), _pooled(layers, layouts, pooling) as pooled:
            for images, _ in track(batches(Subset(data, rows.tolist()), batch_size, workers=workers), f"{split} set"):
                pooled.clear()
                pooled[LOGITS] = _check_logits(model(as_input(images, model)), len(images))
                batch = rows[start : start + len(images)]
                features = _to_arrays(pooled, names, split, batch)
                if writer is None:
                    dims = {name: array.shape[1] for name, array in features.items()}
                    _check_dims({layer.name: dims[layer.name] for layer in layers}, most_dims)
                    writer = store.writer(split, dims)
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


def _check_dims(dims: Mapping[str, int], most: int | None) -> None:
    name = max(dims, key=lambda each: dims[each])
    if most is not None and dims[name] > most:
        raise ValueError(
            f"{name} has {dims[name]:,} features an image, and the probes take at most {most:,}; choose another "
            "`pool`, or other layers"
        )


def _rows_to_fill(done: ndarray, part: tuple[int, int], batch_size: int) -> Int[ndarray, " rows"]:
    """The images of that part which are not done. Parts begin at whole batches, so that batches are the same in all."""
    number, parts = part
    num_batches = -(-len(done) // batch_size)
    first, last = (batch_size * (num_batches * k // parts) for k in (number - 1, number))
    rows = np.arange(len(done))[first:last]
    return rows[~done[first:last]]


def _to_arrays(
    pooled: Mapping[str, Tensor], names: Sequence[str], split: Split, rows: Int[ndarray, " images"]
) -> dict[str, Float[ndarray, "images _"]]:
    """The features of a batch in float32, by one transfer from the device."""
    if missing := [name for name in names if name not in pooled]:
        raise ValueError(f"the network does not pass every batch of images through {missing[0]}; name other layers")
    together = torch.cat([pooled[name].float() for name in names], dim=1).cpu().numpy()
    if not np.isfinite(together).all():
        broken = next(name for name in names if not pooled[name].isfinite().all())
        row = rows[~np.isfinite(pooled[broken].float().cpu().numpy()).all(axis=1)][0]
        raise ValueError(
            f"the features of {broken} are not finite, at first of {split} image {row}; the network's weights or its "
            "input are broken"
        )
    edges = np.cumsum([pooled[name].shape[1] for name in names])[:-1]
    return dict(zip(names, np.split(together, edges, axis=1)))
