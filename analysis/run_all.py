"""What is to be done to have every study of a network: with which options, and what is there already."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from analysis.experiment import Experiment
from analysis.results import (
    DepthProbeResult,
    InterpolationResult,
    InversionResult,
    PCASweepResult,
    SpectrumResult,
    TrainingCurvesResult,
)
from analysis.results.saved import STUDIES, SavedStudy, read_study
from analysis.studies.spectrum import keeps_work
from analysis.studies.training_curves import WINDOW, describe_run
from irevnet.checkpoints.checkpoint import plain, weights_sha256
from irevnet.data.datasets import choose_classes
from irevnet.models.irevnet import IRevNet

MOST_NOISE = 10_000
"""Images of uniform noise (section 4.2); no more than there are test images."""

MOST_VALUES = 1_000
"""Singular values found one by one, where the usual fifteenth of them is more."""

MOST_CLASSES = 100
"""Classes that the probes tell apart (section 5.1), where there are more."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A study of a network.

    Attributes:
        study: the name of its command.
        arguments: of that command.
        state: whether it is to be run, is there and up to date, or does not apply to this network.
        reason: why it does not.
    """

    study: str
    arguments: Sequence[str]
    state: Literal["due", "up to date", "not applicable"] = "due"
    reason: str = ""


def agenda(
    study: Experiment, *, network: Sequence[str], options: Mapping[str, Sequence[str]], class_seed: int = 0
) -> list[Task]:
    """Every study of a network, sized to the network and the data.

    A result is up to date if it is of the same weights, transform, images, classes and seed.

    Args:
        study: the network, opened with these options.
        network: the arguments that name it.
        options: arguments that each command gets, but that of the training curves.
        class_seed: of the draw of classes for the probes, where there are many.
    """
    weights = weights_sha256(study.checkpoint.model)
    described = json.loads(json.dumps(plain(study.checkpoint)))  # as provenance has it
    few, fewer = _classes(study, class_seed)
    sizes = {
        InversionResult.STUDY: ["--num-noise", str(min(MOST_NOISE, len(study.images("test"))))],
        SpectrumResult.STUDY: _values(study),
        DepthProbeResult.STUDY: fewer,
        PCASweepResult.STUDY: fewer,
    }
    tasks = []
    for name in STUDIES:
        if name == TrainingCurvesResult.STUDY:
            tasks.append(_training_curves(study))
            continue
        task = Task(study=name, arguments=[*network, *options[name], *sizes.get(name, [])])
        probed = name in (DepthProbeResult.STUDY, PCASweepResult.STUDY)
        looked_at = replace(study, classes=tuple(few)) if probed else study
        same = {
            "weights_sha256": weights,
            "transform": described["transform"],
            "classes": described["classes"],
            "data": study.source.name,
            "left_out": len(study.source.left_out or ()) or None,
            "classes_studied": list(looked_at.classes),
            "images_sha256": looked_at.images_sha256(STUDIES[name].SPLITS),
            "seed": study.seed,
        }
        if name in (InversionResult.STUDY, InterpolationResult.STUDY) and not isinstance(
            study.checkpoint.model, IRevNet
        ):
            task = replace(task, state="not applicable", reason="it has no inverse")
        elif (saved := _saved(study, name)) and all(saved.provenance.get(key) == same[key] for key in same):
            task = replace(task, state="up to date")
        tasks.append(task)
    return tasks


def _saved(study: Experiment, name: str) -> SavedStudy | None:
    """What there is; nothing, if a file is damaged: it is then made anew."""
    try:
        return read_study(study.home, name)
    except ValueError:
        return None


def _training_curves(study: Experiment) -> Task:
    name = TrainingCurvesResult.STUDY
    if study.path is None or not (study.home / "losses.csv").is_file():
        return Task(study=name, arguments=[], state="not applicable", reason="there is no record of its training")
    steps = (study.home / "losses.csv").read_text(encoding="utf-8").count("\n") - 1
    window = ["--window", str(steps)] if 0 < steps < WINDOW else []
    task = Task(study=name, arguments=[str(study.home), *window])
    saved = _saved(study, name)
    if saved and describe_run(study.home) in saved.provenance.get("runs", []):
        return replace(task, state="up to date")
    return task


def _values(study: Experiment) -> list[str]:
    inputs = study.checkpoint.transform.channels * math.prod(study.checkpoint.transform.image_size)
    sized = ["--num-values", str(MOST_VALUES)] if inputs // 15 > MOST_VALUES else []
    return [*sized, "--resume"] if keeps_work(study) else sized


def _classes(study: Experiment, seed: int) -> tuple[Sequence[str], list[str]]:
    if len(study.classes) <= MOST_CLASSES:
        return study.classes, []
    chosen = choose_classes(study.source, MOST_CLASSES, seed=seed, among=study.classes)
    return chosen, ["--classes", str(MOST_CLASSES)]
