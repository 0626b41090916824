"""Runs on the disk: what was trained, and every saved result of it. Needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, get_type_hints

from analysis.results import Result
from analysis.results.register import STUDIES
from irevnet.utils.untrusted import brief, fits, parse_json

INVERTIBLE = "IRevNet"
"""The architecture of this toolkit that has an inverse."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedStudy:
    """A saved result of a study.

    Attributes:
        folder: folder of the result.
        result: the result itself.
        provenances: provenance of the result, one for each network that it is of.
    """

    folder: Path
    result: Result
    provenances: Sequence[Mapping[str, Any]]

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Provenance of the first network, in whose run the result is."""
        return self.provenances[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedRun:
    """A run with its saved results, or the saved results of a checkpoint that belongs to no run, or of features.

    Attributes:
        folder: folder of the run, or of the results.
        config: content of the run's `config.json`; empty if there is no run.
        studies: saved results, by the name of the study.
    """

    folder: Path
    config: Mapping[str, Any]
    studies: Mapping[str, SavedStudy]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.resolve().name.removesuffix("-analysis")

    @property
    def network(self) -> Mapping[str, Any]:
        """What identifies the network and its data: architecture, config, transform, data, classes, metrics.

        From the provenance of the last study, in the paper's order; without any, from the run's config. Of features
        without a network, their file, data and classes.
        """
        provenances = [each.provenance for each in self.studies.values()]
        described = [each for each in provenances if "architecture" in each]
        if not described and not self.config:
            described = [each for each in provenances if "features_sha256" in each]
        return {**self.config, **(described[-1] if described else {})}

    @property
    def has_network(self) -> bool:
        """Whether results are of a network, rather than of features without one."""
        return "features_sha256" not in self.network

    @property
    def invertible(self) -> bool:
        """Whether the network has an inverse."""
        return self.network.get("invertible", self.network.get("architecture") == INVERTIBLE)

    @property
    def opened_by(self) -> list[str]:
        """The words of a command that open the same network, or the same features."""
        if not self.has_network:
            files = {f"--{name}": self.network.get(name) for name in ("features", "labels")}
            return [word for option, file in files.items() if file for word in (option, file)]
        return ["--ckpt", self._checkpoint]

    @property
    def _checkpoint(self) -> str:
        if self.config:
            return str(self.folder)
        commands = [list(study.provenance.get("command", [])) for study in self.studies.values()]
        named = [command[command.index("--ckpt") + 1] for command in commands if "--ckpt" in command[:-1]]
        return str(self.network.get("checkpoint") or next(iter(named), self.folder))  # without a file: torchvision:NAME


def read_run(folder: Path) -> SavedRun:
    """Reads a run's folder, or the folder of a checkpoint's results.

    Raises:
        FileNotFoundError: the folder holds no run, and no result.
        ValueError: a file is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; expected that of a run, or of the results of a checkpoint"
        )
    config = _read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    found = {study: read_study(folder, study) for study in STUDIES}
    studies = {study: saved for study, saved in found.items() if saved is not None}
    if not config and not studies:
        raise FileNotFoundError(
            f"{folder} holds neither a run nor results of one; train one with 'irevnet train', or run "
            "'irevnet-analyze all'"
        )
    if "provenance" in config:
        _check_record(folder / "config.json", config["provenance"])
    run = SavedRun(folder=folder, config=config, studies=studies)
    for name in (*(("architecture", "config", "transform") if run.has_network else ()), "data", "classes"):
        if name not in run.network:
            raise ValueError(f"{folder} does not record the {name} of its network; train it, or run the study, again")
    return run


def read_study(folder: Path, study: str) -> SavedStudy | None:
    """Reads the saved result of a study from the folder of a run, or of results; `None` if there is none.

    Raises `ValueError` if a file is damaged.
    """
    saved = folder / "analysis" / study if (folder / "config.json").is_file() else folder / study
    path = saved / f"{study}.json"
    if not path.is_file():
        return None
    provenance = _read_json(path).get("provenance", {})
    networks = provenance.get("networks") or [provenance]
    for each in (provenance, *networks):
        _check_record(path, each)
    return SavedStudy(folder=saved, result=STUDIES[study].result.load(saved), provenances=networks)


def read_intact(folder: Path, study: str) -> SavedStudy | None:
    """The same; `None` also for a damaged result, which is then made anew."""
    try:
        return read_study(folder, study)
    except (FileNotFoundError, ValueError):
        return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} describes no run and no study: expected an object, found {type(content).__name__}")
    _check_record(path, content)
    return content


def _check_record(path: Path, content: dict[str, Any]) -> None:
    for name, kind in get_type_hints(_Record).items():
        if name in content and not fits(content[name], kind):
            raise ValueError(f"{path} describes no run and no study: its {name} is {brief(content[name])}")


class _Record(TypedDict, total=False):
    """Entries of a `config.json`, or of the provenance of a result, and their types."""

    architecture: str
    checkpoint: str | None
    checkpoint_sha256: str | None
    classes: list[str]
    classes_studied: list[str]
    command: list[str]
    commit: str | None
    config: dict[str, Any]
    data: str
    device: str
    features: str | None
    features_sha256: str
    held_out: bool
    labels: str | None
    labels_sha256: str
    metrics: dict[str, int | float]
    model: str
    networks: list[dict[str, Any]]
    parameters: int
    platform: str
    pool: str
    provenance: dict[str, Any]
    python: str
    runs: list["_Run"]
    seed: int
    time: str
    transform: "_Transform"
    versions: dict[str, str]
    wall_seconds: float
    weights_sha256: str | None


class _Run(TypedDict):
    run: str


class _Transform(TypedDict):
    image_size: tuple[int, int]
