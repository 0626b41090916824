"""Batches of images: all of them in order, or in the random order of an epoch, randomly changed."""

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
    """Batches of what a data set has, such as inputs `(n, c, h, w)` and labels `(n,)`: all of it once, in order; of
    `part` (k, n), the k-th of n nearly equal parts.
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
    """The batches of an epoch from the one numbered `start` on, in random order and randomly changed.

    All is drawn by seed, epoch and image alone. So the batches of an epoch are the same whenever they are asked for,
    from whichever start and by however many workers. The few images that do not fill a batch are left out (batch
    normalisation would weigh them too much). With `part` (k, n), the k-th of n equal parts of each batch; n has to
    divide the batch size.
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
    """Batches of these rows of a data set, in their order; the global generator has no part in it."""
    return DataLoader(
        data,
        batch_size,
        sampler=rows,
        num_workers=workers,
        generator=torch.Generator(),  # of seeds that nothing uses; by default they are drawn from the global generator
        worker_init_fn=_leave_interrupts_to_the_parent,
        pin_memory=torch.cuda.is_available(),
    )


def _leave_interrupts_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; one that loads images goes on until the step is finished."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
