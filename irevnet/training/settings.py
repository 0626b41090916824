"""Settings of a training run: chosen from a user's values and defaults, and kept in the run's folder."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irevnet.data.own_code import is_code
from irevnet.models.config import IRevNetConfig
from irevnet.models.zoo import preset_config
from irevnet.training.config import TrainConfig, recipe
from irevnet.utils.untrusted import build, parse_json


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of a run, as in its `config.json`.

    Attributes:
        model: name from `irevnet.list_models()`; the network is built for the data's classes, channels and size.
        data: name or path of a data set for `irevnet.data.datasets.load_dataset`.
        training: settings of the training.
        val_fraction: share of each class's images that are tested on, of data that have no split; `None` for the usual
            one. A run's folder keeps the split itself.
        classes: class names to train on, or number of classes to draw at random; `None` for all. A run's folder keeps
            their names.
        class_seed: seed of that draw.
        image_size: height and width that images are resized to; by default their own or, where images differ in size,
            the network's.
        seed: seed of the order and augmentation of the images. Initial weights and dropout are drawn from torch's
            global generator.
        keep_every: number of steps after each of which a checkpoint is kept for studies over training; `None` keeps
            none.
    """

    model: str
    data: str
    training: TrainConfig
    val_fraction: float | None = None
    classes: int | tuple[str, ...] | None = None
    class_seed: int = 0
    image_size: int | None = None
    seed: int = 0
    keep_every: int | None = None

    def __post_init__(self) -> None:
        if self.keep_every is not None and self.keep_every < 1:
            raise ValueError(f"`keep_every` is {self.keep_every}; expected a positive number of steps, such as 100")


def choose_settings(given: Mapping[str, Any], *, recipe_name: str | None = None) -> RunSettings:
    """The settings of a new run.

    Args:
        given: values of fields of `RunSettings` and of `TrainConfig`; the model is `irevnet-small` and the data are the
            digits by default.
        recipe_name: name of the recipe for other fields of `TrainConfig`; `"digits"` for the digits, else `"fast"`.
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
    """Raises `ValueError` if a given value differs from the settings of the run in a folder, or if these name code as
    their data, which is run for nobody who does not name it."""
    settings = read_settings(folder)
    if is_code(settings.data) and "data" not in given:
        raise ValueError(
            f"{folder} says that its data are {settings.data!r}, which is code; to run it, name it yourself by `data`"
        )
    begun = {**dataclasses.asdict(settings), **dataclasses.asdict(settings.training)}
    for name, value in given.items():
        if begun[name] != value:
            raise ValueError(
                f"{folder} was started with {name}={begun[name]!r}, not {value!r}; omit it, or start a new run"
            )


def read_settings(folder: Path) -> RunSettings:
    """The settings of the run in a folder.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: its `config.json` is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no run (no config.json); give the folder of a run to resume")
    try:
        content = parse_json(path.read_bytes())
        content = {"val_fraction": None, "keep_every": None, **content}  # which older runs do not have
        own = {field.name: content[field.name] for field in dataclasses.fields(RunSettings)}
        settings = build(RunSettings, {**own, "training": build(TrainConfig, own["training"])})
        if not isinstance(settings.classes, tuple):
            raise ValueError("its classes are not a list of names")
        return settings
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from error
