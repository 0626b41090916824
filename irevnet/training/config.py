"""How a network is trained: the settings, the learning rate they give each step, and the recipes by name."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from irevnet.data.transforms import Augmentation
from irevnet.models.memory.reversible import Memory
from irevnet.utils.lookup import find


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Stochastic gradient descent with momentum on the cross-entropy.

    Attributes:
        epochs: passes over the training set; or else
        steps: the number of steps.
        batch_size: images a step, of all processes together.
        learning_rate: its highest value.
        schedule: `"one-cycle"`: up from a 25th of it along a cosine over the first fifth of the steps, then down to
            nearly 0 along a cosine. `"step"`: constant but for the decays.
        decay_at: with `"step"`, the parts of the run after which the rate is multiplied by `decay`.
        decay: that factor.
        momentum: of the gradient; the paper's 0.9 (section 3.2).
        weight_decay: L2 penalty of every parameter, those of batch normalisation included.
        augmentation: random changes of the training images, see `irevnet.data.transforms.Augmentation`.
        normalise: whether images are normalised by the data's mean and standard deviation, as in the authors'
            releases; otherwise they stay in [0, 1], as in the paper. Part of the transform that a checkpoint carries.
        memory: how back-propagation gets its activations, see `irevnet.models.memory.reversible.Memory`; other than
            `"plain"` for an i-RevNet only.
        check_reconstruction: with `memory="reversible"`, every how many steps to compare the input stream that
            back-propagation rebuilt with the true one; 0 for never.
        amp: mixed precision: convolutions in bfloat16 or float16. The streams stay in float32, so that the network is
            inverted as exactly as ever. float16 scales the loss and leaves out steps that overflow.
        channels_last: keep tensors in (n, h, w, c) order, which many convolutions are faster in.
        compile: compile the network with `torch.compile`; with `memory="plain"` only.
        sync_bn: where several GPUs share a batch, normalise by the statistics of all of it; otherwise each normalises
            by those of its own images.
    """

    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 128
    learning_rate: float = 0.1
    schedule: Literal["one-cycle", "step"] = "one-cycle"
    decay_at: tuple[float, ...] = ()
    decay: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augmentation: Augmentation = "none"
    normalise: bool = False
    memory: Memory = "plain"
    check_reconstruction: int = 0
    amp: Literal["none", "bf16", "fp16"] = "none"
    channels_last: bool = False
    compile: bool = False
    sync_bn: bool = False

    def __post_init__(self):
        if (self.epochs is None) == (self.steps is None) or (self.epochs or self.steps or 0) < 1 or self.batch_size < 2:
            raise ValueError(
                f"epochs={self.epochs}, steps={self.steps}, batch_size={self.batch_size}; expected at least 1 epoch, "
                "or else 1 step, and 2 images a batch for batch normalisation"
            )
        if not (0 < self.learning_rate < math.inf and 0 <= self.momentum < 1 and 0 <= self.weight_decay < math.inf):
            raise ValueError(
                f"learning_rate={self.learning_rate}, momentum={self.momentum}, weight_decay={self.weight_decay}; "
                "expected a positive rate, a momentum in [0, 1) and a decay of 0 or more"
            )
        if not (0 < self.decay < math.inf and all(0 < part < 1 for part in self.decay_at)):
            raise ValueError(
                f"decay_at={self.decay_at}, decay={self.decay}; expected parts of the run between 0 and 1, and a "
                "positive factor"
            )
        if self.decay_at and self.schedule != "step":
            raise ValueError(f"decay_at={self.decay_at} is for schedule='step'; the schedule is {self.schedule!r}")
        if self.check_reconstruction < 0 or (self.check_reconstruction > 0 and self.memory != "reversible"):
            raise ValueError(
                f"check_reconstruction={self.check_reconstruction}, memory={self.memory!r}; expected a number of steps "
                "and memory='reversible', or 0"
            )
        if self.compile and self.memory != "plain":
            raise ValueError(f"compile=True with memory={self.memory!r}; a compiled network needs memory='plain'")

    def num_steps(self, steps_per_epoch: int) -> int:
        """The steps of the whole run."""
        return self.steps if self.epochs is None else self.epochs * steps_per_epoch  # type: ignore[return-value]

    def turns(self, num_steps: int) -> list[int]:
        """The steps, counted from 0, that tell the schedule: the first of each rate, or else first, highest, last."""
        if self.schedule == "step":
            return [0, *(round(part * num_steps) for part in sorted(self.decay_at))]
        below = max(0, math.floor(_top(num_steps)))
        highest = max(below, min(below + 1, num_steps - 1), key=lambda step: self.rate(step, num_steps))
        return sorted({0, highest, num_steps - 1})

    def rate(self, step: int, num_steps: int) -> float:
        """The learning rate of a step, counted from 0.

        >>> config = TrainConfig(steps=600, schedule="step", decay_at=(1 / 3, 2 / 3))
        >>> [config.rate(step, 600) for step in (0, 199, 200, 599)]
        [0.1, 0.1, 0.010000000000000002, 0.0010000000000000002]
        """
        peak = self.learning_rate
        if self.schedule == "step":
            return peak * self.decay ** sum(step >= first for first in self.turns(num_steps)[1:])
        top = _top(num_steps)
        if step < top:
            return _along_cosine(peak / 25, peak, step / top)
        return _along_cosine(peak, peak / 250_000, (step - top) / (num_steps - top))


def _top(num_steps: int) -> float:
    """Where the one-cycle rate peaks, between two steps, as torch's OneCycleLR places it."""
    return 0.2 * (num_steps + 1) - 1


def _along_cosine(first: float, last: float, part: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * part)) / 2


RECIPES: dict[str, TrainConfig] = {
    # Five-fold cross-validation on the training digits: 98.3%, against 96.9% with a weight decay of 5e-4.
    "digits": TrainConfig(epochs=20, batch_size=64, weight_decay=1e-2),
    "fast": TrainConfig(epochs=15, augmentation="cifar", channels_last=True),
    # The authors' release for CIFAR.
    "cifar": TrainConfig(
        epochs=200,
        schedule="step",
        decay_at=(60 / 200, 120 / 200, 160 / 200),
        decay=0.2,
        augmentation="cifar",
        normalise=True,
    ),
    # Section 3.2: 600k iterations, divided by 10 every 160k; images in [0, 1].
    "imagenet": TrainConfig(
        steps=600_000,
        batch_size=256,
        schedule="step",
        decay_at=(160 / 600, 320 / 600, 480 / 600),
        weight_decay=1e-4,
        augmentation="imagenet",
        memory="reversible",
    ),
}


def recipe(name: str, *, invertible: bool = True, **changes: object) -> TrainConfig:
    """The settings of a recipe, with changes.

    Args:
        name: `"digits"`, `"fast"`, `"cifar"` or `"imagenet"`.
        invertible: whether the network is an i-RevNet; any other stores its activations (`memory="plain"`).
        changes: fields of `TrainConfig`. A number of epochs replaces a recipe's number of steps, and the reverse;
            another schedule drops the recipe's decays.

    Raises `ValueError`, with the nearest names, if there is no such recipe, and for settings that cannot work.
    """
    config = find("recipe", name, RECIPES)
    if not invertible or changes.get("compile"):
        config = dataclasses.replace(config, memory="plain")
    if "epochs" in changes and "steps" not in changes:
        changes["steps"] = None
    if "steps" in changes and "epochs" not in changes:
        changes["epochs"] = None
    if changes.get("schedule", config.schedule) != "step":
        changes.setdefault("decay_at", ())
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]
