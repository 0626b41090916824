"""Weights and config on disk: this toolkit's checkpoints, and the layout of the authors' release.

A checkpoint is self-contained: it has the network's config and weights, the input transform, the data set's name and
the class names. It is read with `weights_only=True`, which builds tensors and plain values and runs no code, and a
network is built only if the file holds all its weights.
"""

import dataclasses
import functools
import hashlib
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
import torch
from torch import Tensor, nn

from irevnet.checkpoints.architecture import check_architecture, check_shapes, unwrapped
from irevnet.checkpoints.pretrained import checkpoint_file, checkpoint_name
from irevnet.checkpoints.released import read_released
from irevnet.checkpoints.tensor_files import (
    check_finite,
    first_line,
    first_not_finite,
    is_state_dict,
    load_tensors,
    read_tensors,
)
from irevnet.data.transforms import InputTransform
from irevnet.models.config import ARCHITECTURES, Config
from irevnet.models.invertible import Invertible
from irevnet.models.irevnet import IRevNet
from irevnet.models.zoo import Network, build_network, num_parameters
from irevnet.utils.files import atomic_write
from irevnet.utils.untrusted import brief, build, fits

_FORMAT = "irevnet-toolkit checkpoint"
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ForeignConfig:
    """The config of a network that this toolkit did not make.

    Attributes:
        name: name of the network, such as `timm:vit_small_patch16_224`; of torchvision's, without `torchvision:`.
        weights: name of its pretrained weights, or path of the file of weights; `None` for those that it was made with.
        num_classes: number of outputs.
    """

    name: str
    weights: str | None
    num_classes: int


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trained network with everything that is needed to use it.

    Attributes:
        model: network, in eval mode on the CPU, without the wrappers of `torch.compile` and DataParallel.
        transform: transform from an image to the network's input.
        data: name of the data set that the network was trained on.
        classes: class names, in the order of the logits; empty if they are unknown.
        metrics: measurements at the time of saving, such as epoch and accuracy; numbers of Python, NumPy or torch.
        guessed: attributes that the file does not tell and that were guessed, some of `GUESSES`.
        foreign: config of a network that this toolkit did not make; `None` for its own, which have one themselves.
    """

    model: nn.Module
    transform: InputTransform
    data: str
    classes: tuple[str, ...]
    metrics: Mapping[str, Any]
    guessed: tuple[str, ...] = ()
    foreign: ForeignConfig | None = None

    def __post_init__(self):
        object.__setattr__(self, "model", unwrapped(self.model))

    @property
    def config(self) -> Any:
        """Config of the network, a dataclass with at least `num_classes`."""
        return self.foreign or self.model.config

    @property
    def has_logits(self) -> bool:
        """Whether the outputs are logits of a classifier that came with its weights."""
        return not {FRESH_CLASSIFIER, AVERAGED_OUTPUT} & {*self.guessed}

    @property
    def has_inverse(self) -> bool:
        """Whether the network has an inverse."""
        return isinstance(self.model, Invertible)

    @property
    def invertible(self) -> Invertible:
        """The network, if it has an inverse; otherwise raises `ValueError`."""
        if not isinstance(self.model, Invertible):
            raise ValueError(
                f"a {type(self.model).__name__} has no inverse; give the checkpoint of an i-RevNet, or a network with "
                "features, inverse and num_blocks"
            )
        return self.model

    @property
    def irevnet(self) -> IRevNet:
        """The network, if it is an i-RevNet; otherwise raises `ValueError`."""
        if not isinstance(self.model, IRevNet):
            raise ValueError(
                f"exact arithmetic takes i-RevNets, and this is a {type(self.model).__name__}; give the checkpoint of "
                "an i-RevNet"
            )
        return self.model


IMAGE_SIZE, NORMALISATION, CLASS_NAMES = "image size", "mean and std", "class names"
FRESH_CLASSIFIER, AVERAGED_OUTPUT = "fresh classifier", "averaged output"
GUESSES = (IMAGE_SIZE, NORMALISATION, CLASS_NAMES, FRESH_CLASSIFIER, AVERAGED_OUTPUT)
"""What may be guessed for a network from another source, or done for one that has no logits."""


def save_checkpoint(path: str | Path, checkpoint: Checkpoint, *, training: Mapping[str, Any] | None = None) -> None:
    """Writes a checkpoint for `read_checkpoint` atomically; if that fails, an earlier file stays.

    With `training`, the state of a training, for `read_training_state` and so for resuming.

    Raises `ValueError` for content that could not be read back unchanged: a network that does not match its config or
    is of another class, weights that are not finite, metrics that are no numbers, or a state with other than plain
    values and tensors.
    """
    path = Path(path)
    check_architecture(path, checkpoint.model)
    weights = checkpoint.model.state_dict()
    if broken := first_not_finite(weights):
        raise ValueError(f"{path} cannot hold weights that are not finite, the first of them in {broken}")
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "state_dict": weights,
        "training": training,
        **plain(checkpoint),
    }
    with atomic_write(path) as temporary:
        with open(temporary, "wb") as file:
            try:
                torch.save(content, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # torch hides a full disk behind an unexpected position
                    raise error.__context__ from error
                raise
        try:
            _parse_own(load_tensors(temporary, mmap=True))
        except (KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"{path} could not be read back: {first_line(error)}; pass plain numbers, text and tensors"
            ) from error


def load_checkpoint(path: str | Path) -> Network:
    """The network of a checkpoint, in eval mode on the CPU; `read_checkpoint` returns the rest too.

    >>> load_checkpoint("pretrained:cifar10-irevnet").num_blocks
    16
    """
    return cast(Network, read_checkpoint(path).model)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint of this toolkit, or one in the layout of the authors' release.

    Args:
        path: a file, or `pretrained:NAME` of a network that comes with this toolkit, such as
            `pretrained:cifar10-irevnet`; `irevnet models` lists them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no network of that name, or the file is damaged, is no checkpoint, or holds pickled code or
            weights that are not finite.
    """
    path = checkpoint_file(path)
    content = read_tensors(path)
    weights = content.get("state_dict", {})
    if not is_state_dict(weights):
        raise ValueError(f"{path} is no checkpoint: its 'state_dict' is not a dictionary of tensors")
    if fits(content.get("format"), str) and content["format"] == _FORMAT:
        return _read_own(path, content)
    if weights:
        config, weights, transform = read_released(path, weights)
        model = _build(path, config, weights)
        guessed = IMAGE_SIZE, NORMALISATION
        return Checkpoint(model=model, transform=transform, data="imagenet", classes=(), metrics={}, guessed=guessed)
    keys = sorted(key for key in content if isinstance(key, str))
    raise ValueError(
        f"{path} is no checkpoint of a known layout: it has the keys {keys[:5]}; expected one "
        "that 'irevnet train' wrote, or the authors' release with its 'state_dict'"
    )


def read_training_state(path: Path) -> dict[str, Any]:
    """The training state saved in a checkpoint. Raises `ValueError` if there is none."""
    state = read_tensors(path).get("training")
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds weights but no training state; training cannot be resumed from it")
    return state


def describe(path: Path | None, checkpoint: Checkpoint) -> dict[str, Any]:
    """Identification of the network of a checkpoint file, as plain values for the provenance of a result."""
    digest = None
    if path is not None:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "checkpoint": checkpoint_name(path) if path else None,
        "checkpoint_sha256": digest,
        "weights_sha256": weights_sha256(checkpoint.model),
        "parameters": num_parameters(checkpoint.model),
        "invertible": checkpoint.has_inverse,
        **plain(checkpoint),
    }


def weights_sha256(model: nn.Module) -> str:
    """Digest of the weights of a network, batch-norm statistics included, independent of the file."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def is_own_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of this toolkit, which says how its network takes images."""
    return path.suffix != ".safetensors" and read_tensors(path).get("format") == _FORMAT


def plain(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint without its weights, as plain values.

    Numbers of NumPy and tensors of one number become Python's. Raises `ValueError` for any other value.
    """
    return {
        "architecture": type(checkpoint.model).__name__,
        "config": _plain("config", dataclasses.asdict(checkpoint.config)),
        "transform": _plain("transform", _transform(checkpoint.transform)),
        "data": _plain("data", checkpoint.data),
        "classes": list(_plain("classes", tuple(checkpoint.classes))),
        "metrics": _plain("metrics", dict(checkpoint.metrics)),
        "guessed": list(checkpoint.guessed),
    }


def _transform(transform: InputTransform) -> dict[str, Any]:
    """The fields of a transform; the usual interpolation is not said, as in files from before there were others."""
    fields = dataclasses.asdict(transform)
    return {name: value for name, value in fields.items() if (name, value) != ("interpolation", "bilinear")}


def _plain(name: str, value: Any) -> Any:
    match value:
        case None | bool():
            return value
        case str():
            return str(value)
        case os.PathLike():
            return os.fspath(value)
        case int() | float():
            return int(value) if isinstance(value, int) else float(value)
        case np.generic() | np.ndarray() | Tensor() if np.prod(value.shape) == 1:
            return _plain(name, value.item())
        case dict():
            return {_plain(f"a name in {name}", key): _plain(f"{name}[{key!r}]", each) for key, each in value.items()}
        case list() | tuple():
            return type(value)(_plain(f"{name}[{index}]", each) for index, each in enumerate(value))
    raise ValueError(f"{name} is {brief(value)}, a {type(value).__name__}; expected numbers, text, or lists of them")


class _Content(TypedDict):
    """Content of a checkpoint of this toolkit beside its network and its transform."""

    data: str
    classes: list[str]
    metrics: dict[str, int | float]
    guessed: NotRequired[list[str]]


def _read_own(path: Path, content: dict[str, Any]) -> Checkpoint:
    if not fits(content.get("version"), int) or content["version"] != _VERSION:
        raise ValueError(
            f"{path} is of checkpoint version {brief(content.get('version'))}; this toolkit reads version {_VERSION}, "
            "read it with the one that wrote it"
        )
    try:
        config, rest = _parse_own(content)
        weights = content["state_dict"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {first_line(error)}") from error
    return Checkpoint(model=_build(path, config, weights), **rest)


def _parse_own(content: dict[str, Any]) -> tuple[Config, dict[str, Any]]:
    """The config in a checkpoint of this toolkit, and the fields of `Checkpoint` but the model."""
    config = build(ARCHITECTURES[content["architecture"]], content["config"])
    transform = build(InputTransform, content["transform"])
    if not fits(content, _Content):
        raise ValueError("expected text as data, a list of names as classes, and numbers by name as metrics")
    classes, guessed = tuple(content["classes"]), tuple(content.get("guessed", ()))
    if len(classes) not in (0, config.num_classes):
        raise ValueError(f"it lists {len(classes)} class names, but its network has {config.num_classes} outputs")
    rest = {"transform": transform, "data": content["data"], "classes": classes, "metrics": content["metrics"]}
    return config, {**rest, "guessed": guessed}


def _build(path: Path, config: Config, weights: Mapping[str, Tensor]) -> Network:
    """The network with its weights, built after a check that the file has all of them.

    It keeps their precision; that of several is the widest, as kernels may be kept in half precision by themselves.
    """
    try:
        if config.num_blocks > len(weights):
            raise ValueError(f"{config.num_blocks:,} blocks need more than {len(weights)} tensors")
        with torch.device("meta"):
            model = build_network(config)
        check_shapes(model, weights)
        own = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()}
        model.load_state_dict(own, assign=True)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"the weights of {path} do not fit its architecture: {first_line(error)}") from error
    check_finite(path, weights)
    kinds = [tensor.dtype for tensor in weights.values() if tensor.is_floating_point()]
    return model.to(functools.reduce(torch.promote_types, kinds)).eval()
