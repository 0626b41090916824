"""Runs as they lie on disk: what was trained, and every study of it that has been saved. Needs no torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.results import (
    DepthProbeResult,
    InterpolationResult,
    InversionResult,
    PCASweepResult,
    Result,
    SpectrumResult,
    TrainingCurvesResult,
)

STUDIES: dict[str, type[Result]] = {
    kind.STUDY: kind
    for kind in (
        TrainingCurvesResult,
        InversionResult,
        InterpolationResult,
        SpectrumResult,
        DepthProbeResult,
        PCASweepResult,
    )
}
"""Every study by the name of its command, in the order in which the paper has them."""


INVERTIBLE = "IRevNet"
"""The architecture that has an inverse."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedStudy:
    """A result, where it lies, and where it comes from.

    Attributes:
        folder: that holds it.
        result: the arrays.
        provenances: of the result, one for each network that it is of.
    """

    folder: Path
    result: Result
    provenances: Sequence[Mapping[str, Any]]

    @property
    def provenance(self) -> Mapping[str, Any]:
        """That of the first network, to whose run the result belongs."""
        return self.provenances[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedRun:
    """A run, or what was made of a checkpoint that belongs to none.

    Attributes:
        folder: of the run, or of the results.
        config: the run's `config.json`; nothing where there is no run.
        studies: those that are there, by the name of their command.
    """

    folder: Path
    config: Mapping[str, Any]
    studies: Mapping[str, SavedStudy]

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.folder.resolve().name.removesuffix("-analysis")

    @property
    def network(self) -> Mapping[str, Any]:
        """What identifies the network and its data: architecture, config, transform, data, classes, metrics.

        As the studies found it; else as the run was begun.
        """
        described = [each.provenance for each in self.studies.values() if "architecture" in each.provenance]
        return {**self.config, **(described[-1] if described else {})}

    @property
    def invertible(self) -> bool:
        """Whether the network is an i-RevNet."""
        return self.network["architecture"] == INVERTIBLE

    @property
    def checkpoint(self) -> str:
        """What `--ckpt` has to be for the same network."""
        if self.config:
            return str(self.folder)
        commands = [list(study.provenance.get("command", [])) for study in self.studies.values()]
        named = [command[command.index("--ckpt") + 1] for command in commands if "--ckpt" in command[:-1]]
        return str(self.network.get("checkpoint") or next(iter(named), self.folder))  # without a file: torchvision:NAME


def read_run(folder: Path) -> SavedRun:
    """Reads what a folder holds.

    Raises:
        FileNotFoundError: there is no run, and no result.
        ValueError: a file is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; give that of a run, or the results of a checkpoint")
    config = _read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    studies = {}
    for study, kind in STUDIES.items():
        place = folder / "analysis" / study if config else folder / study
        if (place / f"{study}.json").is_file():
            provenance = _read_json(place / f"{study}.json").get("provenance", {})
            networks = provenance.get("networks", [provenance])
            studies[study] = SavedStudy(folder=place, result=kind.load(place), provenances=networks)
    if not config and not studies:
        raise FileNotFoundError(
            f"{folder} holds neither a run nor results of one; train one with 'irevnet train', or run "
            "'irevnet-analyze all'"
        )
    return SavedRun(folder=folder, config=config, studies=studies)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is of no run and no study: expected an object, found {type(content).__name__}")
    return content
