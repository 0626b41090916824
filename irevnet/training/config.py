"""Settings of training, the learning rate of each step, and recipes by name."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from irevnet.data.choices import Augmentation
from irevnet.models.config import Memory
from irevnet.utils.lookup import find


def _option(help: str, **rest: Any) -> dict[str, Any]:
    """The metadata of a setting: its documentation and, where they do not follow from its name and type, the flags and
    the metavar of its option on the command line, or what the values of a list are (`values`, `example`)."""
    return {"help": help, **rest}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Gradient descent with momentum on the cross-entropy, for a number of epochs or of steps.

    Raises `ValueError` for settings that cannot work.
    """

    epochs: int | None = field(default=None, metadata=_option("Number of passes over the training set."))
    steps: int | None = field(default=None, metadata=_option("Number of steps, in place of epochs."))
    batch_size: int = field(
        default=128, metadata=_option("Images per step, over all processes.", flags=("-b", "--batch-size"))
    )
    learning_rate: float = field(default=0.1, metadata=_option("Highest learning rate.", flags=("--lr",)))
    optimiser: Literal["sgd", "muon"] = field(
        default="sgd",
        metadata=_option(
            "sgd: stochastic gradient descent. muon: Muon for convolutions (Jordan et al. 2024), and for all else sgd "
            "with Nesterov's momentum at 4 times the learning rate."
        ),
    )
    schedule: Literal["one-cycle", "linear", "step"] = field(
        default="one-cycle",
        metadata=_option(
            "How the learning rate changes: one-cycle raises it along a cosine over the first fifth of the steps, from "
            "a 25th of the highest, and then lowers it to nearly 0; linear does so from 0 to 0 along straight lines; "
            "step keeps it constant between decays."
        ),
    )
    decay_at: tuple[float, ...] = field(
        default=(),
        metadata=_option(
            "Fractions of the run after which the step schedule multiplies the learning rate by the decay.",
            values="parts of the run",
            example="0.3,0.6,0.8",
        ),
    )
    decay: float = field(
        default=0.1, metadata=_option("Factor by which the step schedule multiplies the learning rate.")
    )
    momentum: float = field(default=0.9, metadata=_option("Momentum of the gradient; the paper's 0.9 (section 3.2)."))
    weight_decay: float = field(
        default=5e-4,
        metadata=_option(
            "L2 penalty on every parameter, those of batch normalisation included; with muon, which keeps the norms of "
            "convolutions as they are, on linear projections alone."
        ),
    )
    label_smoothing: float = field(
        default=0.0, metadata=_option("Share of each label that is spread over all classes evenly.")
    )
    augmentation: Augmentation = field(
        default="none",
        metadata=_option(
            "Random changes of training images: none; shift and flip (cifar), or flip every other epoch (alternate); "
            "or scale, crop, flip and colours (imagenet)."
        ),
    )
    normalise: bool = field(
        default=False,
        metadata=_option(
            "Normalise images by the mean and standard deviation of the data, as the authors' releases do, or leave "
            "them in [0, 1], as the paper does."
        ),
    )
    memory: Memory = field(
        default="plain",
        metadata=_option(
            "How back-propagation gets its activations: store all (plain); store those between blocks (checkpoint); or "
            "store none and rebuild them by the inverse (reversible). Only an i-RevNet takes other than plain."
        ),
    )
    check_reconstruction: int = field(
        default=0,
        metadata=_option(
            "With reversible memory, compare the stream that back-propagation rebuilds with the true one every N "
            "steps; 0 for never.",
            metavar="N",
        ),
    )
    amp: Literal["none", "tf32", "bf16", "fp16"] = field(
        default="none",
        metadata=_option(
            "Mixed precision: convolutions in TF32 (on a GPU), bfloat16 or float16, streams in float32, so that the "
            "inverse stays as exact as without. float16 scales the loss, and skips steps that overflow. none: all in "
            "float32, on a GPU too."
        ),
    )
    channels_last: bool = field(
        default=False, metadata=_option("Keep tensors in (n, h, w, c) order, in which many convolutions are faster.")
    )
    compile: bool = field(
        default=False, metadata=_option("Compile the network with torch.compile; with plain memory only.")
    )
    sync_bn: bool = field(
        default=False,
        metadata=_option(
            "On several GPUs, normalise by the statistics of the whole batch instead of those of each GPU's own images."
        ),
    )

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
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing={self.label_smoothing}; expected a share from 0 up to, but not including, 1"
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
        """Number of steps of the whole run."""
        return self.steps if self.epochs is None else self.epochs * steps_per_epoch  # type: ignore[return-value]

    def milestones(self, num_steps: int) -> list[int]:
        """Steps, counted from 0, that summarise the schedule: the first of each constant rate for the step schedule;
        the first, the one of the highest rate and the last for the others."""
        if self.schedule == "step":
            return sorted({0, *(step for step in self._decays(num_steps) if step < num_steps)})
        below = max(0, math.floor(_top(num_steps)))
        highest = max(below, min(below + 1, num_steps - 1), key=lambda step: self.rate(step, num_steps))
        return sorted({0, highest, num_steps - 1})

    def _decays(self, num_steps: int) -> list[int]:
        """The first step of each lower rate of the step schedule."""
        return [round(part * num_steps) for part in self.decay_at]

    def rate(self, step: int, num_steps: int) -> float:
        """The learning rate of a step, counted from 0.

        >>> config = TrainConfig(steps=600, schedule="step", decay_at=(1 / 3, 2 / 3))
        >>> [config.rate(step, 600) for step in (0, 199, 200, 599)]
        [0.1, 0.1, 0.010000000000000002, 0.0010000000000000002]
        """
        peak = self.learning_rate
        if self.schedule == "step":
            return peak * self.decay ** sum(step >= first for first in self._decays(num_steps))
        top = _top(num_steps)
        if self.schedule == "linear":
            done = step + 1
            return peak * min(done / max(top + 1, 1), (num_steps + 1 - done) / (num_steps - top))
        if step < top:
            return _along_cosine(peak / 25, peak, step / top)
        return _along_cosine(peak, peak / 250_000, (step - top) / (num_steps - top))


TrainConfig.__doc__ = f"{TrainConfig.__doc__}\n    Attributes:\n" + "".join(
    f"        {each.name}: {each.metadata['help']}\n" for each in dataclasses.fields(TrainConfig)
)


def _top(num_steps: int) -> float:
    """The peak of the one-cycle rate, in steps, as in torch's OneCycleLR; it may lie between two steps."""
    return 0.2 * (num_steps + 1) - 1


def _along_cosine(first: float, last: float, part: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * part)) / 2


RECIPES: dict[str, TrainConfig] = {
    # Five-fold cross-validation on the training digits: 98.3%, against 96.9% with a weight decay of 5e-4.
    "digits": TrainConfig(epochs=20, batch_size=64, weight_decay=1e-2),
    "fast": TrainConfig(
        epochs=30,
        learning_rate=0.05,
        optimiser="muon",
        schedule="linear",
        momentum=0.6,
        weight_decay=1e-3,
        label_smoothing=0.1,
        augmentation="alternate",
        normalise=True,
        channels_last=True,
    ),
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
        name: name of the recipe, `"digits"`, `"fast"`, `"cifar"` or `"imagenet"`.
        invertible: whether the network is an i-RevNet; any other stores its activations (`memory="plain"`).
        changes: fields of `TrainConfig` to replace. A number of epochs replaces a number of steps, and vice versa;
            another schedule drops the recipe's decays.

    Raises `ValueError` for an unknown recipe, with the nearest names, and for settings that cannot work.
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
