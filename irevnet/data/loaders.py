"""Batches of images: all of them in order, or those of an epoch, shuffled and augmented."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from irevnet.data.choices import Augmentation
from irevnet.data.images import LabelledImages
from irevnet.data.transforms import Shifts


def batches(
    data: Dataset[Any], batch_size: int, *, part: tuple[int, int] = (1, 1), workers: int = 0
) -> DataLoader[Any]:
    """Batches of all items of a data set in order, such as inputs `(n, c, h, w)` and labels `(n,)`; with `part` (k, n),
    of the k-th of n nearly equal parts.
    """
    number, parts = part
    count = len(data)  # type: ignore[arg-type]
    rows = range(count * (number - 1) // parts, count * number // parts)
    return _load(data, batch_size, rows, workers)


def training_batches(
    data: Dataset[tuple[Tensor, int]],
    batch_size: int,
    *,
    augmentation: Augmentation = "none",
    seed: int = 0,
    epoch: int = 1,
    start: int = 0,
    part: tuple[int, int] = (1, 1),
    workers: int = 0,
) -> DataLoader[Any]:
    """The batches of an epoch from number `start` on, shuffled and augmented.

    Draws depend on seed, epoch and image alone, so the batches of an epoch are the same for any start and any number of
    workers. The last images, which do not fill a batch, are dropped (batch normalisation would weigh them too much).
    With `part` (k, n), the k-th of n equal parts of each batch; n has to divide the batch size.
    """
    number, parts = part
    order = np.random.default_rng([seed, epoch]).permutation(len(data))  # type: ignore[arg-type]
    order = order[start * batch_size : len(order) // batch_size * batch_size]
    batch_size //= parts
    order = order.reshape(-1, parts, batch_size)[:, number - 1].flatten()
    if augmentation == "none":
        return _load(data, batch_size, order.tolist(), workers)
    assert isinstance(data, LabelledImages)
    return _load(_Augmented(data, augmentation, seed, epoch), batch_size, order.tolist(), workers)


class _Augmented:
    """The images of an epoch, augmented."""

    def __init__(self, data: LabelledImages, kind: Augmentation, seed: int, epoch: int):
        self.data = data
        self.labels = data.labels
        self.seed = seed, epoch
        self.shifts = None
        if kind != "imagenet":
            size, alternate = data.transform.image_size, kind == "alternate"
            self.shifts = Shifts.drawn(len(data), size, seed=seed, epoch=epoch, alternate=alternate)

    def inputs(self, rows: Sequence[int]) -> Tensor:
        if self.shifts is not None:
            return self.data.inputs(rows, self.shifts[rows])
        transform = self.data.transform
        images = [transform.distorted(self.data.pixels(row), (*self.seed, row)) for row in rows]
        return transform.normalise(torch.stack(images))


class _Batches(Dataset[Any]):
    """Batches of a data set, by the rows of their items; images are computed together, other items one by one."""

    def __init__(self, data: Any):
        self.data = data

    def __getitem__(self, rows: Sequence[int]) -> Any:
        if type(self.data) in (LabelledImages, _Augmented):  # a class derived from it may have other items
            return self.data.inputs(rows), torch.tensor([self.data.labels[row] for row in rows])
        return default_collate([self.data[row] for row in rows])


def _load(data: Any, batch_size: int, rows: Sequence[int], workers: int) -> DataLoader[Any]:
    """Batches of these rows of a data set, in their order, independent of the global generator."""
    return DataLoader(
        _Batches(data),
        batch_size=None,
        sampler=[rows[first : first + batch_size] for first in range(0, len(rows), batch_size)],
        num_workers=workers,
        generator=torch.Generator(),  # for unused seeds of workers; by default the global generator draws them
        worker_init_fn=_leave_interrupts_to_the_parent,
        pin_memory=torch.cuda.is_available(),
    )


def _leave_interrupts_to_the_parent(worker: int) -> None:
    """Makes a loading process ignore Ctrl-C, which reaches all processes of a terminal, so that the step can finish."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
