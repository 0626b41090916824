"""Every study of a network: with which options, which of them are up to date, and how they are run."""

import dataclasses
import importlib
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from analysis.experiment import Experiment, StudyOptions
from analysis.invariances.find import known_head
from analysis.results import Result
from analysis.results.register import STUDIES, StudySpec
from analysis.saved.runs import read_intact
from analysis.studies.training_curves import LOSSES, describe_run, open_runs
from analysis.subjects import Subject, save_result
from irevnet.data.datasets import choose_classes
from irevnet.models.irevnet import IRevNet


@dataclass(frozen=True, kw_only=True)
class Task:
    """A study of a network.

    Attributes:
        spec: the study.
        subjects: experiments or training runs that it looks at.
        options: options that suit the size of the network and its data.
        command: words of the command line that does the same.
        state: whether the study is to be run, has an up-to-date result, or does not apply to this network.
        reason: why it does not apply.
    """

    spec: StudySpec
    subjects: Sequence[Subject]
    options: StudyOptions
    command: Sequence[str]
    state: Literal["due", "up to date", "not applicable"] = "due"
    reason: str = ""


def study_function(spec: StudySpec) -> Callable[[Sequence[Any], Any], Result]:
    """The function of a study, which takes what it looks at and its options."""
    return getattr(importlib.import_module(f"analysis.studies.{spec.module}"), spec.function)


def default_options(spec: StudySpec) -> StudyOptions:
    """The options of a study where none are given."""
    return inspect.signature(study_function(spec)).parameters["options"].default


def plan_studies(experiment: Experiment, *, words: Mapping[str, Sequence[str]], class_seed: int = 0) -> list[Task]:
    """Every study of the register but the optional ones for one network, sized to the network and its data.

    A result is up to date if it is of the same weights, transform, images, classes and seed.

    Args:
        experiment: the network.
        words: by study, the words of its command line that name this network and its data.
        class_seed: seed of the draw of classes for the studies that take a limited number of them.
    """
    required = [spec for spec in STUDIES.values() if not spec.optional]
    return [_plan(spec, experiment, words[spec.name], class_seed) for spec in required]


def run_study(spec: StudySpec, subjects: Sequence[Subject], options: StudyOptions) -> tuple[Result, list[Path]]:
    """Runs a study and saves its result; returns the result and its files."""
    started = time.perf_counter()
    result = study_function(spec)(subjects, options)
    return result, save_result(subjects, result, wall_seconds=time.perf_counter() - started)


def _plan(spec: StudySpec, experiment: Experiment, words: Sequence[str], class_seed: int) -> Task:
    default = default_options(spec)
    options = default.sized(experiment)
    command = ["irevnet-analyze", spec.name, *words, *_option_words(options, default)]
    if spec.needs == "training record":
        return _plan_training_record(spec, experiment, options, command)
    most = default.MOST_CLASSES
    if most is not None and len(experiment.classes) > most:
        classes = choose_classes(experiment.source, most, seed=class_seed, among=experiment.classes)
        experiment = replace(experiment, classes=tuple(classes))
        command += ["--classes", str(most)]
    experiment = replace(experiment, command=command)
    task = Task(spec=spec, subjects=[experiment], options=options, command=command)
    if spec.needs == "inverse" and not experiment.checkpoint.has_inverse:
        return replace(task, state="not applicable", reason="it has no inverse")
    if spec.needs == "bijection" and (reason := _no_bijection(experiment)):
        return replace(task, state="not applicable", reason=reason)
    if missing := {*spec.result.SPLITS} - {*experiment.source.splits}:
        return replace(
            task, state="not applicable", reason=f"there are no {'training' if 'train' in missing else 'test'} images"
        )
    saved = read_intact(experiment.folder, spec.name)
    return replace(task, state="up to date") if saved and experiment.made(saved.provenance, spec.splits) else task


def _no_bijection(experiment: Experiment) -> str:
    """Why a network is not known to be bijective, with logits; empty where it is."""
    checkpoint = experiment.checkpoint
    if not checkpoint.has_inverse:
        return "it has no inverse"
    if not checkpoint.has_logits:
        return "its outputs are no logits of trained classes"
    if known_head(checkpoint.invertible) is None:
        return "its head is not known"
    injective = isinstance(checkpoint.model, IRevNet) and not checkpoint.model.config.bijective
    return "it is injective, not bijective" if injective else ""


def _plan_training_record(
    spec: StudySpec, experiment: Experiment, options: StudyOptions, command: Sequence[str]
) -> Task:
    folder = experiment.folder
    task = Task(spec=spec, subjects=[], options=options, command=command)
    if experiment.path is None or not (folder / LOSSES).is_file():
        return replace(task, state="not applicable", reason="there is no record of its training")
    saved = read_intact(folder, spec.name)
    if saved and describe_run(folder) in saved.provenance.get("runs", []):
        return replace(task, state="up to date")
    return replace(task, subjects=open_runs([folder], command=command))


def _option_words(options: StudyOptions, default: StudyOptions) -> list[str]:
    """The words of a command line that give these options, as far as they are not the default."""
    words = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value != getattr(default, field.name):
            words += [f"--{field.name.replace('_', '-')}", str(value)]
    return words
