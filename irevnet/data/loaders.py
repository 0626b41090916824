"""Batches of images: all of them in order, or those of an epoch, shuffled and augmented."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from irevnet.data.choices import Augmentation
from irevnet.data.images import LabelledImages


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
    if augmentation != "none":
        assert isinstance(data, LabelledImages)
        data = _Augmented(data, augmentation, (seed, epoch))
    return _load(data, batch_size, order.tolist(), workers)


class _Augmented(Dataset[tuple[Tensor, int]]):
    def __init__(self, data: LabelledImages, kind: Augmentation, seed: tuple[int, int]):
        self.data = data
        self.kind: Augmentation = kind
        self.seed = seed

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.data.transform.augmented(self.data.pixels(index), self.kind, (*self.seed, index))
        return image, self.data.labels[index]


def _load(data: Dataset, batch_size: int, rows: Sequence[int], workers: int) -> DataLoader[Any]:
    """Batches of these rows of a data set, in their order, independent of the global generator."""
    return DataLoader(
        data,
        batch_size,
        sampler=rows,
        num_workers=workers,
        generator=torch.Generator(),  # for unused seeds of workers; by default the global generator draws them
        worker_init_fn=_leave_interrupts_to_the_parent,
        pin_memory=torch.cuda.is_available(),
    )


def _leave_interrupts_to_the_parent(worker: int) -> None:
    """Makes a loading process ignore Ctrl-C, which reaches all processes of a terminal, so that the step can finish."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
