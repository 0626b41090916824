"""Steps, learning rates, multiply-adds and memory of a training run, found without training."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import Dataset

from irevnet.models.config import Config, IRevNetConfig, Memory
from irevnet.models.irevnet import IRevNet
from irevnet.models.zoo import build_network, count_multiply_adds, num_parameters
from irevnet.training.config import TrainConfig
from irevnet.training.kept import kept_steps
from irevnet.training.trainer import Training
from irevnet.utils.precision import mixed_precision
from irevnet.utils.progress import Track, no_progress


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Steps, learning rates, cost and memory of a training run.

    Attributes:
        parameters: number of trainable parameters.
        multiply_adds: number of multiply-adds of a forward pass over one image.
        pflop: floating-point operations of the run, in 10^15: two for each multiply-add, of a forward and a backward
            pass, which is twice as much, and of another forward pass with recomputed activations.
        input_shape: channels, height and width of the network's input.
        num_classes: number of classes trained on.
        num_train: number of training images.
        num_test: number of test images.
        num_checked: number of these images that were read, to check that they can be.
        batch_size: images per step.
        steps_per_epoch: steps per epoch.
        num_steps: steps of the run.
        learning_rates: pairs of a step, counted from 1, and its learning rate: the first step of each constant rate; or
            for a one-cycle schedule the first step, the peak and the last step.
        state_memory: bytes of parameters, gradients and momentum.
        memory: bytes of all tensors at the peak of a step, for each way in which back-propagation gets its activations.
            Workspace of convolutions is not included.
        num_kept: number of checkpoints that are kept for studies over training.
        kept_size: bytes of the weights in all of these.
    """

    parameters: int
    multiply_adds: int
    pflop: float
    input_shape: tuple[int, int, int]
    num_classes: int
    num_train: int
    num_test: int
    num_checked: int
    batch_size: int
    steps_per_epoch: int
    num_steps: int
    learning_rates: tuple[tuple[int, float], ...]
    state_memory: int
    memory: dict[Memory, int]
    num_kept: int = 0
    kept_size: int = 0

    def lines(self) -> dict[str, str]:
        """The plan as text for a terminal, by heading."""
        rates = ", ".join(f"{rate:.3g} from step {step:,}" for step, rate in self.learning_rates)
        return {
            "parameters": f"{self.parameters:,}",
            "multiply-adds": f"{self.multiply_adds:,} an image, forward; {self.pflop:.3g} PFLOP for the run",
            "input": f"{'x'.join(map(str, self.input_shape))}, {self.num_classes} classes",
            "images": f"{self.num_train:,} to train on, {self.num_test:,} to test on; {self.num_checked:,} read",
            "steps": f"{self.num_steps:,} of {self.batch_size} images, {self.steps_per_epoch:,} an epoch, "
            f"{self.num_steps / self.steps_per_epoch:.4g} epochs",
            "learning rate": rates,
            "memory": f"{_in_units(self.state_memory)} of parameters, gradients and momentum; at the peak of a step",
            **{f"  {kind}": _in_units(size) for kind, size in self.memory.items()},
            **({"kept": self._kept} if self.num_kept else {}),
        }

    @property
    def _kept(self) -> str:
        return f"{self.num_kept:,} checkpoints, about {self.kept_size / 1e6:,.1f} MB together"


def _in_units(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def plan(training: Training, *, keep_every: int | None = None, track: Track = no_progress) -> Plan:
    """The plan of a training that has not started; checks that images can be read.

    Args:
        training: the training.
        keep_every: number of steps after each of which its run keeps a checkpoint; `None` keeps none.
        track: wrapper of the loop over images, to show its progress.

    Raises `ValueError`, naming the file, for an image that cannot be read.
    """
    network: Config = training.model.config  # type: ignore[assignment]
    parameter_bytes = sum(parameter.nbytes for parameter in training.model.parameters())
    invertible = isinstance(network, IRevNetConfig)
    multiply_adds = count_multiply_adds(training.model, network.input_shape)
    passes = 3 if training.config.memory == "plain" else 4
    kept = len(kept_steps(training.num_steps, keep_every)) if keep_every else 0
    kinds: list[Memory] = ["plain", "checkpoint", "reversible"] if invertible else ["plain"]
    return Plan(
        parameters=num_parameters(training.model),
        multiply_adds=multiply_adds,
        pflop=2e-15 * passes * multiply_adds * training.num_steps * training.config.batch_size,
        input_shape=network.input_shape,
        num_classes=network.num_classes,
        num_train=len(training.train_data),  # type: ignore[arg-type]
        num_test=len(training.test_data),  # type: ignore[arg-type]
        num_checked=sum(check_images(data, track=track) for data in (training.train_data, training.test_data)),
        batch_size=training.config.batch_size,
        steps_per_epoch=training.steps_per_epoch,
        num_steps=training.num_steps,
        learning_rates=tuple(
            (step + 1, training.config.rate(step, training.num_steps))
            for step in training.config.milestones(training.num_steps)
        ),
        state_memory=parameter_bytes * (3 if training.config.momentum else 2),
        memory={kind: peak_memory(network, training.config, kind) for kind in kinds},
        num_kept=kept,
        kept_size=kept * sum(tensor.nbytes for tensor in training.model.state_dict().values()),
    )


def peak_memory(network: Config, config: TrainConfig, memory: Memory) -> int:
    """Bytes of all tensors at the peak of a training step: parameters, momentum, gradients and activations.

    The step is run on tensors that have shapes but no values, and every storage is counted while it exists.
    """
    with FakeTensorMode():
        model = build_network(network).train()
        if isinstance(model, IRevNet):
            model.memory = memory
        images = torch.empty(config.batch_size, *network.input_shape)
        labels = torch.zeros(config.batch_size, dtype=torch.long)
        kept = [*model.parameters(), *model.buffers()]
        with _LiveBytes(kept) as count:
            with mixed_precision(config.amp, "cpu"):
                loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
        momentum = sum(parameter.nbytes for parameter in model.parameters()) if config.momentum else 0
    return sum(tensor.nbytes for tensor in kept) + momentum + count.peak


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages, each from the operation that first returns it until it is freed."""

    def __init__(self, known: Sequence[Tensor]):
        super().__init__()
        self._live = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        self.peak = max(self.peak, self._live)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self._live += size
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._live -= size


def check_images(data: Dataset[tuple[Tensor, int]], *, limit: int = 1000, track: Track = no_progress) -> int:
    """Loads all images, or `limit` evenly spaced ones if there are more, and returns their number.

    Raises `ValueError`, naming the file, for an image that cannot be read.
    """
    count = len(data)  # type: ignore[arg-type]
    rows = np.unique(np.linspace(0, count - 1, min(limit, count)).astype(int)).tolist()
    for row in track(rows, "reading images"):
        data[row]
    return len(rows)
