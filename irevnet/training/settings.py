"""What a training run is asked for: put together from what a user gives, kept in the run's folder, and read again."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irevnet.models.config import IRevNetConfig
from irevnet.models.zoo import preset_config
from irevnet.training.config import TrainConfig, recipe
from irevnet.utils.untrusted import build, parse_json


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run is asked for, but where: its `config.json`.

    Attributes:
        model: a name of `irevnet.list_models()`; built for the data's classes, channels and size.
        data: a data set or folder that `irevnet.data.datasets.load_dataset` knows.
        training: how to train.
        classes: those to train on, by name or a number of them drawn at random; `None` for all. A run's folder keeps
            their names.
        class_seed: of that draw.
        image_size: height and width to resize the images to; their own by default or, where they differ in size, the
            network's.
        seed: of the order and augmentation of the images. Initial weights and dropout are drawn from torch's global
            generator.
    """

    model: str
    data: str
    training: TrainConfig
    classes: int | tuple[str, ...] | None = None
    class_seed: int = 0
    image_size: int | None = None
    seed: int = 0


def choose_settings(given: Mapping[str, Any], *, recipe_name: str | None = None) -> RunSettings:
    """The settings of a new run.

    Args:
        given: fields of `RunSettings` and of `TrainConfig`, in one mapping; `irevnet-small` and the digits by default.
        recipe_name: where the other fields of `TrainConfig` come from; `"digits"` for the digits, else `"fast"`.
    """
    own = {field.name for field in dataclasses.fields(RunSettings)}
    of_run: dict[str, Any] = {"model": "irevnet-small", "data": "digits"}
    of_run.update({key: given[key] for key in given if key in own})
    config = recipe(
        recipe_name or ("digits" if of_run["data"] == "digits" else "fast"),
        invertible=isinstance(preset_config(of_run["model"]), IRevNetConfig),
        **{key: given[key] for key in given if key not in own},
    )
    return RunSettings(training=config, **of_run)


def check_unchanged(folder: Path, given: Mapping[str, Any]) -> None:
    """Raises `ValueError` if what is given is not what the run in a folder was begun with."""
    settings = read_settings(folder)
    begun = {**dataclasses.asdict(settings), **dataclasses.asdict(settings.training)}
    for name, value in given.items():
        if begun[name] != value:
            raise ValueError(
                f"{folder} was begun with {name}={begun[name]!r}, not {value!r}; leave it out, or begin a new run"
            )


def read_settings(folder: Path) -> RunSettings:
    """The settings of the run in a folder.

    Raises:
        FileNotFoundError: it holds no run.
        ValueError: its `config.json` is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no run (no config.json); give the folder of a run to go on with")
    try:
        content = parse_json(path.read_bytes())
        own = {field.name: content[field.name] for field in dataclasses.fields(RunSettings)}
        settings = build(RunSettings, {**own, "training": build(TrainConfig, own["training"])})
        if not isinstance(settings.classes, tuple):
            raise ValueError("its classes are not their names")
        return settings
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from error
