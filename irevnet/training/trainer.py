"""Training and evaluation of a classifier."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from irevnet.data.images import LabelledImages
from irevnet.data.loaders import batches, training_batches
from irevnet.models.irevnet import IRevNet
from irevnet.models.memory.mode import reconstruction_problem
from irevnet.training.config import TrainConfig
from irevnet.training.muon import Muon
from irevnet.utils import distributed
from irevnet.utils.modules import as_input, device_of, in_eval_mode
from irevnet.utils.precision import mixed_precision, tensor_float32, true_float32
from irevnet.utils.progress import Interrupted, Track, never, no_progress


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Accuracy and loss of a network on a set of images.

    Attributes:
        loss: mean cross-entropy, in nats.
        top1: fraction of images whose label has the highest logit.
        top5: fraction of images whose label has one of the five highest logits; 1 for fewer than five classes.
        num_images: number of images.
    """

    loss: float
    top1: float
    top5: float
    num_images: int


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """Metrics of an epoch, one line of a run's `metrics.csv`.

    Attributes:
        epoch: number of the epoch, from 1 on.
        step: number of steps done.
        learning_rate: learning rate of the last step.
        train_loss: mean training loss over the epoch's steps, in train mode, in nats.
        train_top1: mean training accuracy over the epoch's steps, in train mode.
        test_loss: test loss after the epoch, in nats.
        test_top1: test accuracy after the epoch.
        test_top5: top-5 test accuracy after the epoch.
        seconds: time of the epoch and its evaluation, in seconds.
    """

    epoch: int
    step: int
    learning_rate: float
    train_loss: float
    train_top1: float
    test_loss: float
    test_top1: float
    test_top5: float
    seconds: float


@torch.no_grad()
@true_float32()
def evaluate(
    model: nn.Module,
    data: Dataset[tuple[Tensor, int]],
    *,
    batch_size: int = 256,
    workers: int = 0,
    track: Track = no_progress,
    stop: Callable[[], bool] = never,
) -> Evaluation:
    """Cross-entropy and top-1 and top-5 accuracy in eval mode, on the device that the model is on, without TF32.

    Processes of a group (`irevnet.utils.distributed`) share the images; each gets the result of all of them.

    Args:
        model: network that maps images `(n, c, h, w)` to logits `(n, classes)`.
        data: images and labels to evaluate on.
        batch_size: images in a forward pass.
        workers: number of processes that load images.
        track: wrapper of the loop over batches, to show its progress.
        stop: whether to stop, asked before each batch; in a group, one process that stops stops all.

    Raises:
        FloatingPointError: logits that are not finite.
        Interrupted: `stop` returned true.
    """
    loss, top1, top5, count = 0.0, 0, 0, 0
    loader = batches(data, batch_size, part=distributed.part(), workers=workers)
    shared = math.ceil(len(data) // distributed.size() / batch_size)  # type: ignore[arg-type]  # batches of every process
    with in_eval_mode(model):
        for number, (images, labels) in enumerate(track(loader, "evaluating")):
            if number < shared and distributed.any_of(stop()):
                raise Interrupted("the evaluation was stopped")
            logits = model(as_input(images, model))
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # half precision cannot hold sums
            labels = labels.to(logits.device)
            if not logits.isfinite().all():
                row = loader.sampler[number][int((~logits.isfinite().all(dim=1)).nonzero()[0, 0])]  # type: ignore[index]
                raise FloatingPointError(
                    f"the logits of image {row} are not finite; the network's weights or its input are broken"
                )
            loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            top1 += int(ranked[:, 0].sum())
            top5 += int(ranked.sum())
            count += len(labels)
    loss, top1, top5, count = distributed.total(loss, top1, top5, count)
    return Evaluation(loss=loss / count, top1=top1 / count, top5=top5 / count, num_images=int(count))


class Training:
    """Training of a network in place, on the device that it is on, step by step.

    It can stop after any step: a new `Training` that restores the `state()` continues as if it had never stopped, to
    the last bit if the device computes reproducibly (as a CPU with the same number of threads does).

    Processes of a group (`irevnet.utils.distributed`) share each batch equally, and take the same step by the mean of
    their gradients; metrics are those of the whole batch. The running statistics of batch normalisation are those of
    the first process, as in DistributedDataParallel.

    Args:
        model: network that maps images `(n, c, h, w)` to logits `(n, classes)`.
        train_data: images and labels to train on; `LabelledImages` with augmentation.
        test_data: images and labels to evaluate on after each epoch; they do not affect training.
        config: settings of the training.
        seed: seed of the order and augmentation of the images. Dropout draws from torch's global generator.
        workers: number of processes that load images.
        track: wrapper of the loop over an epoch, to show its progress.

    Attributes:
        model: network that is trained.
        config: settings of the training.
        device: device of the network.
        train_data: images and labels to train on.
        test_data: images and labels to evaluate on.
        step: number of steps done.
        num_steps: number of steps of the whole run.
        steps_per_epoch: number of steps of an epoch.
        history: metrics of the epochs done.
        losses: training loss of each step done, in nats.

    Raises:
        ValueError: the training set does not fill one batch, the processes of a group cannot share a batch equally,
            `memory` is not plain for a network other than an i-RevNet, or `sync_bn` or TF32 is set without GPUs.
    """

    def __init__(
        self,
        model: nn.Module,
        train_data: Dataset[tuple[Tensor, int]],
        test_data: Dataset[tuple[Tensor, int]],
        config: TrainConfig,
        *,
        seed: int = 0,
        workers: int = 0,
        track: Track = no_progress,
    ):
        self.steps_per_epoch = len(train_data) // config.batch_size  # type: ignore[arg-type]
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"a batch of {config.batch_size} images is larger than the training set, of {len(train_data)}; "  # type: ignore[arg-type]
                "lower `batch_size`"
            )
        if config.augmentation != "none" and not isinstance(train_data, LabelledImages):
            raise ValueError(
                f"augmentation={config.augmentation!r} needs LabelledImages, not {type(train_data).__name__}"
            )
        if isinstance(model, IRevNet):
            model.memory = config.memory
        elif config.memory != "plain":
            raise ValueError(f"memory={config.memory!r} needs an i-RevNet; a {type(model).__name__} takes 'plain'")
        _check_shares(config.batch_size, distributed.size())
        self.device = device_of(model)
        if config.amp == "tf32" and self.device.type != "cuda":
            raise ValueError(
                f"amp='tf32' needs a GPU, but the network is on the {self.device.type}; omit it or use bf16"
            )
        self.num_steps = config.num_steps(self.steps_per_epoch)
        self.step = 0
        self.history: list[EpochMetrics] = []
        self.losses: list[float] = []
        self.model = model
        self.config = config
        self.train_data = train_data
        self.test_data = test_data
        self._seed = seed
        self._workers = workers
        self._track = track
        self._layout = torch.channels_last if config.channels_last else torch.preserve_format
        model.to(memory_format=self._layout)
        forward = _shared(model, self.device, sync_bn=config.sync_bn)
        self._forward: Callable[[Tensor], Tensor] = torch.compile(forward) if config.compile else forward
        self._optimisers = _optimisers(model, config)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._correct = 0
        self._seconds = 0.0

    @property
    def finished(self) -> bool:
        """Whether all steps and the evaluation after the last one are done."""
        return self.step == self.num_steps and not self._evaluation_due

    @property
    def _evaluation_due(self) -> bool:
        """Whether the last step ended an epoch that has not been evaluated yet."""
        ended = self.step > 0 and (self.step == self.num_steps or self.step % self.steps_per_epoch == 0)
        return ended and (not self.history or self.history[-1].step < self.step)

    def steps(self, *, stop: Callable[[], bool] = never) -> Iterator[EpochMetrics | None]:
        """Takes one step per item; the item for the last step of an epoch is the epoch's metrics, the others `None`.

        Args:
            stop: whether to stop, asked before each batch of the evaluation after an epoch.

        Raises:
            FloatingPointError: the loss is no longer finite; the message has the step and the learning rate.
                Also if a rebuilt stream is no longer the true one, see `TrainConfig.check_reconstruction`.
            Interrupted: `stop` returned true. Another call of `steps` begins with that evaluation.
        """
        num_epochs = -(-self.num_steps // self.steps_per_epoch)
        while not self.finished:
            if self._evaluation_due:
                yield self._end_epoch(stop)
                continue
            epoch, done = divmod(self.step, self.steps_per_epoch)
            loader = training_batches(
                self.train_data,
                self.config.batch_size,
                augmentation=self.config.augmentation,
                seed=self._seed,
                epoch=epoch + 1,
                start=done,
                part=distributed.part(),
                workers=self._workers,
            )
            last = min(self.num_steps, (epoch + 1) * self.steps_per_epoch)
            started = time.perf_counter() - self._seconds
            for images, labels in self._track(loader, f"epoch {epoch + 1} of {num_epochs}"):
                self._do_step(images, labels.to(self.device))
                self._seconds = time.perf_counter() - started
                if self.step == last:
                    break
                yield None

    def _do_step(self, images: Tensor, labels: Tensor) -> None:
        with tensor_float32() if self.config.amp == "tf32" else true_float32():
            self._take_step(images, labels)

    def _take_step(self, images: Tensor, labels: Tensor) -> None:
        config = self.config
        rate = config.rate(self.step, self.num_steps)
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("factor", 1)
        if not self.model.training:  # otherwise submodules may be frozen in eval mode
            self.model.train()
        with mixed_precision(config.amp, self.device.type):
            logits = self._forward(images.to(self.device, memory_format=self._layout))
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        correct = (logits.argmax(dim=1) == labels).sum()
        summed, correct = distributed.total(loss.item(), correct.item())
        value = summed / distributed.size()
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the loss is {value} at step {self.step + 1}, learning rate {rate:.3g}; try a lower learning rate"
            )
        self.model.zero_grad()
        self._scaler.scale(loss).backward()
        if config.check_reconstruction and self.step % config.check_reconstruction == 0:
            _check_reconstruction(self.model, self.step + 1)
        for optimiser in self._optimisers:
            self._scaler.step(optimiser)
        self._scaler.update()
        self.step += 1
        self.losses.append(value)
        self._correct += int(correct)

    def _end_epoch(self, stop: Callable[[], bool]) -> EpochMetrics:
        started = time.perf_counter()
        epoch = math.ceil(self.step / self.steps_per_epoch)
        steps = self.step - (epoch - 1) * self.steps_per_epoch
        distributed.copy_from_first(self.model.buffers())
        test = evaluate(
            self.model, self.test_data, batch_size=4 * self.config.batch_size, workers=self._workers, stop=stop
        )
        metrics = EpochMetrics(
            epoch=epoch,
            step=self.step,
            learning_rate=self.config.rate(self.step - 1, self.num_steps),
            train_loss=math.fsum(self.losses[-steps:]) / steps,
            train_top1=self._correct / (steps * self.config.batch_size),
            test_loss=test.loss,
            test_top1=test.top1,
            test_top5=test.top5,
            seconds=self._seconds + time.perf_counter() - started,
        )
        self.history.append(metrics)
        self._begin_epoch()
        return metrics

    def state(self) -> dict[str, Any]:
        """Everything needed to resume except for the network's weights, as plain values and tensors on the CPU.

        The states of the random generators are those of all processes of a group, by rank.
        """
        cuda = self.device.type == "cuda"
        return {
            "step": self.step,
            "epoch_so_far": {"correct": self._correct, "seconds": self._seconds},
            "history": [dataclasses.asdict(metrics) for metrics in self.history],
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "scaler": self._scaler.state_dict(),
            "generators": torch.stack(distributed.gather(torch.get_rng_state())),
            "device_generators": torch.stack(distributed.gather(torch.cuda.get_rng_state(self.device)))
            if cuda
            else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a state, torch's global generators included; the network must have the weights of that state.

        The number of processes may have been different; processes without a saved generator keep their own.

        Raises `ValueError` if the state does not fit this training.
        """
        try:
            self.step = state["step"]
            self._correct, self._seconds = (state["epoch_so_far"][key] for key in ("correct", "seconds"))
            self.history = [EpochMetrics(**metrics) for metrics in state["history"]]
            self.losses = state["losses"].tolist()
            for optimiser, saved in zip(self._optimisers, _saved_optimisers(state), strict=True):
                optimiser.load_state_dict(saved)
            self._scaler.load_state_dict(state["scaler"])
            if distributed.rank() < len(state["generators"]):
                torch.set_rng_state(state["generators"][distributed.rank()].clone())  # torch crashes on a view
                if self.device.type == "cuda" and state["device_generators"] is not None:
                    torch.cuda.set_rng_state(state["device_generators"][distributed.rank()].clone(), self.device)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ValueError(
                f"the state does not fit this training ({type(error).__name__}: {error}); start a new run"
            ) from error


def train(
    model: nn.Module,
    train_data: Dataset[tuple[Tensor, int]],
    test_data: Dataset[tuple[Tensor, int]],
    config: TrainConfig,
    *,
    seed: int = 0,
    workers: int = 0,
    track: Track = no_progress,
) -> list[EpochMetrics]:
    """Trains a network in place, on the device that it is on, and returns the metrics of each epoch.

    See `Training` for the arguments, and for training that can be stopped and resumed; `irevnet.training.runs` keeps
    one in a folder.

    Raises:
        ValueError: the network, the data and the settings do not fit together.
        FloatingPointError: the loss is no longer finite.
    """
    training = Training(model, train_data, test_data, config, seed=seed, workers=workers, track=track)
    for _ in training.steps():
        pass
    return training.history


def _check_shares(batch_size: int, processes: int) -> None:
    if batch_size % processes or batch_size < 2 * processes:
        raise ValueError(
            f"a batch of {batch_size} images cannot be shared by {processes} processes; choose a multiple of "
            f"{processes} that has at least 2 images for each"
        )


def _optimisers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """The optimisers of a network's parameters. The rate of a group of parameters is the step's, times its `factor`."""
    if config.optimiser == "sgd":
        rest = {"params": [*model.parameters()], "weight_decay": config.weight_decay}
        return [torch.optim.SGD([rest], config.learning_rate, momentum=config.momentum)]
    kernels = [each for each in model.parameters() if each.ndim == 4]
    matrices = [each for each in model.parameters() if each.ndim == 2]
    others = [each for each in model.parameters() if each.ndim not in (2, 4)]
    groups = [
        {"params": params, "weight_decay": decay, "factor": RATE_OF_THE_REST}
        for params, decay in ((matrices, config.weight_decay), (others, 0.0))
        if params
    ]
    rest = torch.optim.SGD(groups, config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0)
    return [Muon(kernels, config.learning_rate, momentum=config.momentum), rest] if kernels else [rest]


def _saved_optimisers(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    return state["optimisers"] if "optimisers" in state else [state["optimiser"]]  # one, in runs of version 0.1


RATE_OF_THE_REST = 4
"""The learning rate of what Muon does not take, over Muon's."""


def _shared(model: nn.Module, device: torch.device, *, sync_bn: bool) -> nn.Module:
    """The network, wrapped in a group so that back-propagation takes the mean of the processes' gradients."""
    if sync_bn and device.type != "cuda":
        raise ValueError(
            f"sync_bn=True needs GPUs, but the network is on the {device.type}; omit it, and each process "
            "normalises by its own images"
        )
    if distributed.size() == 1:
        return model
    if sync_bn:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def _check_reconstruction(model: nn.Module, step: int) -> None:
    assert isinstance(model, IRevNet)
    assert model.reconstruction_error is not None
    error = distributed.highest(model.reconstruction_error.item())
    if problem := reconstruction_problem(error, model.largest_reconstruction_error):
        raise FloatingPointError(f"at step {step} {problem}")
