"""Networks that this toolkit did not make: of torchvision and timm by name, or of one's own code, with their weights.

A network is named by

- `torchvision:resnet50` or `timm:vit_small_patch16_224`, with fresh weights or those of a file;
- `torchvision:resnet50/DEFAULT` or `timm:vit_small_patch16_224/augreg_in1k`, with pretrained weights by their name;
- `FILE.py:NAME` or `package.module:NAME`, a network, or a class or function that returns one without arguments.
"""

import copy
import importlib
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import torchvision.models
from torch import nn

from irevnet.checkpoints.foreign_weights import fit_weights
from irevnet.checkpoints.pretrained import is_pretrained
from irevnet.checkpoints.tensor_files import read_weights
from irevnet.data.choices import Interpolation
from irevnet.data.transforms import IMAGENET_STATISTICS
from irevnet.utils.code import named_object
from irevnet.utils.lookup import find

TORCHVISION, TIMM = "torchvision:", "timm:"
"""Prefixes of the names of networks in these packages."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How a network takes its images.

    Attributes:
        image_size: height and width of the input.
        resize: number of pixels that the shorter side of an image is resized to before that size is cropped.
        mean: mean that is subtracted from each channel, in units of [0, 1].
        std: standard deviation that each channel is then divided by.
        interpolation: how images are resized.
    """

    image_size: int = 224
    resize: int = 256
    mean: tuple[float, ...] = IMAGENET_STATISTICS[0]
    std: tuple[float, ...] = IMAGENET_STATISTICS[1]
    interpolation: Interpolation = "bilinear"


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A network from elsewhere.

    Attributes:
        model: network, in eval mode.
        name: name of the network, as it was given.
        weights: see `irevnet.checkpoints.checkpoint.ForeignConfig`.
        preset: how its package says that it takes images; `None` for a network of one's own code.
        classifier: name of its last layer if that is a fresh one, since the file of weights has none; else empty.
    """

    model: nn.Module
    name: str
    weights: str | None = None
    preset: Preset | None = None
    classifier: str = ""


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where a network comes from: `build` returns it, for a number of outputs or, for `None`, with its own."""

    build: Callable[[int | None], nn.Module]
    preset: Preset | None = None
    weights: str | None = None


def is_foreign(name: str) -> bool:
    """Whether this is the name of a network, and not of a file of weights or a folder of a run."""
    return ":" in name and not is_pretrained(name) and not Path(name).exists()


def build_foreign(network: str | nn.Module, file: Path | None = None) -> Foreign:
    """A network by name, or a copy of one, with the weights of a file if there is one.

    Args:
        network: name of a network (see above), or a network.
        file: file with its state dict, alone or under a usual key, with or without a prefix before its names; its
            classifier determines the number of outputs.

    Raises:
        ValueError: an unknown network or set of weights, code that fails or returns no network, or weights of another
            network.
        OSError: pretrained weights that cannot be downloaded.
        ImportError: timm is not installed.
    """
    if isinstance(network, nn.Module):
        name, source = type(network).__name__, _Source(build=lambda _: copy.deepcopy(network))
    else:
        name, source = network, _find_source(network)
        if network.startswith(TORCHVISION):
            name = network.removeprefix(TORCHVISION).partition("/")[0]
    if file is None:
        return Foreign(model=source.build(None).eval(), name=name, weights=source.weights, preset=source.preset)
    if source.weights:
        raise ValueError(f"{network} names weights and {file} holds others; give one of them")
    weights = read_weights(file)
    try:
        fitted = fit_weights(source.build, weights)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the weights of {file} are not those of a {name}: {reason}") from error
    return Foreign(
        model=fitted.model.eval(), name=name, weights=str(file), preset=source.preset, classifier=fitted.classifier
    )


def _find_source(name: str) -> _Source:
    if name.startswith(TORCHVISION):
        return _of_torchvision(*name.removeprefix(TORCHVISION).partition("/")[::2])
    if name.startswith(TIMM):
        return _of_timm(*name.removeprefix(TIMM).partition("/")[::2])
    if not name.rpartition(":")[0]:
        raise ValueError(
            f"{name!r} names no network; expected torchvision:NAME, timm:NAME, FILE.py:NAME or package.module:NAME"
        )
    return _of_code(name)


def _of_torchvision(name: str, which: str) -> _Source:
    models = torchvision.models
    find("network of torchvision", name, {known: known for known in models.list_models(module=models)})
    if not which:
        return _Source(build=lambda outputs: models.get_model(name, **_outputs(outputs)), preset=Preset())
    weights: Any = find(f"set of weights of {name}", which, models.get_model_weights(name).__members__)
    images = weights.transforms()
    preset = Preset(
        image_size=images.crop_size[0],
        resize=images.resize_size[0],
        mean=tuple(images.mean),
        std=tuple(images.std),
        interpolation=_interpolation(str(weights), images.interpolation.value),
    )
    build = _downloading(str(weights), lambda _: models.get_model(name, weights=weights))
    return _Source(build=build, preset=preset, weights=weights.name)


def _of_timm(name: str, which: str) -> _Source:
    try:
        timm: Any = importlib.import_module("timm")
        data: Any = importlib.import_module("timm.data")
    except ImportError as error:
        raise ImportError("networks of timm need that package; pip install timm") from error
    base, _, tag = name.partition(".")
    which = which or tag  # timm itself writes resnet50.a1_in1k
    find("network of timm", base, {known: known for known in timm.list_models()})
    if which:
        tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{base}.*") if each.split(".")[0] == base]
        find(f"set of weights of {base}", which, {known: known for known in ("DEFAULT", *tags)})
    tagged = f"{base}.{which}" if which not in ("", "DEFAULT") else base

    def build(outputs: int | None) -> nn.Module:
        return timm.create_model(tagged, pretrained=bool(which), **_outputs(outputs))

    config = timm.get_pretrained_cfg(tagged)
    preset = Preset()
    if config is not None:
        images = data.resolve_data_config(pretrained_cfg=config.to_dict())
        size = images["input_size"][1]
        preset = Preset(
            image_size=size,
            resize=round(size / images["crop_pct"]),
            mean=tuple(images["mean"]),
            std=tuple(images["std"]),
            interpolation=_interpolation(tagged, images["interpolation"]),
        )
    return _Source(build=_downloading(name, build) if which else build, preset=preset, weights=which or None)


def _interpolation(name: str, found: str) -> Interpolation:
    if found not in get_args(Interpolation):
        raise ValueError(f"{name} resizes its images by {found} interpolation; expected bilinear or bicubic")
    return cast(Interpolation, found)


def _of_code(name: str) -> _Source:
    """A network, or what returns one, in a file of Python or in a module that can be imported."""
    found = named_object(name)

    def build(_: int | None) -> nn.Module:
        try:
            model = copy.deepcopy(found) if isinstance(found, nn.Module) else found()
        except Exception as error:
            raise ValueError(
                f"{name} did not return a network ({type(error).__name__}: {error}); name a network, or a "
                "class or function that takes no arguments and returns one"
            ) from error
        if not isinstance(model, nn.Module):
            raise ValueError(f"{name} returned a {type(model).__name__}; expected a torch.nn.Module")
        return model

    return _Source(build=build)


def _downloading(what: str, build: Callable[[int | None], nn.Module]) -> Callable[[int | None], nn.Module]:
    def fetch(outputs: int | None) -> nn.Module:
        try:
            with redirect_stdout(sys.stderr):  # for torch's messages on downloads
                return build(outputs)
        except OSError as error:
            raise OSError(
                f"{what} cannot be fetched ({error}); save its state dict to a file on another machine, and give that "
                "file"
            ) from error

    return fetch


def _outputs(count: int | None) -> dict[str, int]:
    return {} if count is None else {"num_classes": count}
