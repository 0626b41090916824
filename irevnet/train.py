"""Training and evaluation of a classifier."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from irevnet.data import batches
from irevnet.model import IRevNet
from irevnet.reversible import Memory

MAX_RECONSTRUCTION_ERROR = 1e-3
"""Relative error of a rebuilt stream above which its gradients are not to be trusted: thousands of times the rounding
of a float32, and less than that of a bfloat16."""

T = TypeVar("T")
Track = Callable[[Iterable, str], Iterable]
"""Wraps a loop to show its progress under a description; `no_progress` shows nothing."""


def no_progress(loop: Iterable[T], description: str) -> Iterable[T]:
    return loop


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Stochastic gradient descent under a one-cycle learning rate.

    Attributes:
        epochs: passes over the training set.
        batch_size: images a step.
        learning_rate: the peak, reached after a fifth of the steps and annealed to nearly 0 along a cosine.
        momentum: of the gradient; the paper's 0.9 (section 3.2).
        weight_decay: of every parameter. The default suits a small net on few images: 98.3% in five-fold
            cross-validation on the training digits, against 96.9% with 5e-4.
        memory: how back-propagation gets its activations, see `irevnet.reversible.Memory`; other than `"plain"` for an
            i-RevNet only.
        check_reconstruction: with `memory="reversible"`, every how many steps to compare the input stream that
            back-propagation rebuilt with the true one; 0 for never. Training stops if they differ by more than
            `MAX_RECONSTRUCTION_ERROR`.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-2
    memory: Memory = "plain"
    check_reconstruction: int = 0

    def __post_init__(self):
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(
                f"epochs={self.epochs}, batch_size={self.batch_size}; expected at least 1 epoch, and 2 images a batch "
                "for batch normalisation"
            )
        if not (self.learning_rate > 0 and 0 <= self.momentum < 1 and self.weight_decay >= 0):
            raise ValueError(
                f"learning_rate={self.learning_rate}, momentum={self.momentum}, weight_decay={self.weight_decay}; "
                "expected a positive rate, a momentum in [0, 1) and a decay of 0 or more"
            )
        if self.check_reconstruction < 0 or (self.check_reconstruction > 0 and self.memory != "reversible"):
            raise ValueError(
                f"check_reconstruction={self.check_reconstruction}, memory={self.memory!r}; expected a number of steps "
                "and memory='reversible', or 0"
            )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a network classifies a set of images.

    Attributes:
        loss: mean cross-entropy, in nats.
        top1: share of images whose label has the highest logit.
        top5: share of images whose label is among the five highest logits (all of them, below five classes).
        num_images: images evaluated.
    """

    loss: float
    top1: float
    top5: float
    num_images: int


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """One line of a run's `metrics.csv`; training figures are means over the epoch's steps, in train mode."""

    epoch: int
    step: int
    learning_rate: float
    train_loss: float
    train_top1: float
    test_loss: float
    test_top1: float
    test_top5: float
    seconds: float


def evaluate(
    model: nn.Module,
    data: Dataset[tuple[Tensor, int]],
    *,
    batch_size: int = 256,
    workers: int = 0,
    track: Track = no_progress,
) -> Evaluation:
    """Cross-entropy and top-1 and top-5 accuracy in eval mode, on the device that the model is on."""
    return _evaluate(model, track(batches(data, batch_size, workers=workers), "evaluating"))


@torch.no_grad()
def _evaluate(model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]]) -> Evaluation:
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    loss, top1, top5, count = 0.0, 0, 0, 0
    for images, labels in loader:
        labels = labels.to(device)
        logits = model(images.to(device))
        loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        top1 += int(ranked[:, 0].sum())
        top5 += int(ranked.sum())
        count += len(labels)
    model.train(training)
    return Evaluation(loss=loss / count, top1=top1 / count, top5=top5 / count, num_images=count)


def fit(
    model: nn.Module,
    train_data: Dataset[tuple[Tensor, int]],
    test_data: Dataset[tuple[Tensor, int]],
    config: TrainConfig,
    *,
    generator: torch.Generator,
    workers: int = 0,
    track: Track = no_progress,
) -> Iterator[EpochMetrics]:
    """Trains in place, on the device that the model is on; an epoch each time that its metrics are asked for.

    Args:
        model: maps images `(n, c, h, w)` to logits `(n, classes)`.
        train_data: images and labels to learn from.
        test_data: images and labels to evaluate on after each epoch; they steer nothing.
        config: how to train.
        generator: draws the order of the images.
        workers: processes that load images.
        track: shows progress.

    Raises:
        FloatingPointError: the loss is no longer finite; the message has the step and the learning rate.
            Also if a rebuilt stream is no longer the true one, see `TrainConfig.check_reconstruction`.
        ValueError: the training set does not fill one batch, or a network that is no i-RevNet is to save memory.
    """
    loader = batches(train_data, config.batch_size, workers=workers, shuffle=generator)
    if len(loader) == 0:
        raise ValueError(f"a batch of {config.batch_size} images is larger than the training set; lower batch_size")
    if isinstance(model, IRevNet):
        model.memory = config.memory
    elif config.memory != "plain":
        raise ValueError(f"memory={config.memory!r} needs an i-RevNet; a {type(model).__name__} takes 'plain'")
    test_loader = batches(test_data, 4 * config.batch_size, workers=workers)
    return _epochs(model, loader, test_loader, config, track)


def _epochs(
    model: nn.Module, loader: DataLoader, test_loader: DataLoader, config: TrainConfig, track: Track
) -> Iterator[EpochMetrics]:
    device = next(model.parameters()).device
    optimiser = torch.optim.SGD(
        model.parameters(), config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        config.learning_rate,
        total_steps=config.epochs * len(loader) + 1,
        pct_start=0.2,
        cycle_momentum=False,
    )
    for epoch in range(1, config.epochs + 1):
        start = time.perf_counter()
        model.train()
        loss_sum, correct, seen = 0.0, 0, 0
        for images, labels in track(loader, f"epoch {epoch} of {config.epochs}"):
            labels = labels.to(device)
            logits = model(images.to(device))
            loss = nn.functional.cross_entropy(logits, labels)
            rate = float(schedule.get_last_lr()[0])
            if not math.isfinite(loss.item()):
                step = schedule.last_epoch + 1
                raise FloatingPointError(
                    f"the loss is {loss.item()} at step {step}, learning rate {rate:.3g}; try a lower learning rate"
                )
            optimiser.zero_grad()
            loss.backward()
            if config.check_reconstruction and schedule.last_epoch % config.check_reconstruction == 0:
                _check_reconstruction(model, schedule.last_epoch + 1)
            optimiser.step()
            schedule.step()
            loss_sum += loss.item() * len(labels)
            correct += int((logits.argmax(dim=1) == labels).sum())
            seen += len(labels)
        test = _evaluate(model, test_loader)
        yield EpochMetrics(
            epoch=epoch,
            step=schedule.last_epoch,
            learning_rate=float(schedule.get_last_lr()[0]),
            train_loss=loss_sum / seen,
            train_top1=correct / seen,
            test_loss=test.loss,
            test_top1=test.top1,
            test_top5=test.top5,
            seconds=time.perf_counter() - start,
        )


def _check_reconstruction(model: nn.Module, step: int) -> None:
    assert isinstance(model, IRevNet)
    assert model.reconstruction_error is not None
    error = model.reconstruction_error.item()
    if not error <= MAX_RECONSTRUCTION_ERROR:
        raise FloatingPointError(
            f"at step {step} back-propagation rebuilt its input with a relative error of {error:.1e}, above "
            f"{MAX_RECONSTRUCTION_ERROR:.0e}: its gradients are wrong; train with memory='plain' or 'checkpoint'"
        )
