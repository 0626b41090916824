"""Studies of every checkpoint that runs have kept of their training, one after the other."""

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from analysis.experiment import Experiment, StudyOptions
from analysis.results import DepthProbeOverTraining, GeometryOverTraining, Result, SpectrumOverTraining
from analysis.results.over_training import OverTrainingResult
from analysis.saved.runs import read_intact
from analysis.studies.depth_probe import DepthProbeOptions, depth_probe
from analysis.studies.geometry import GeometryOptions, measure_geometry
from analysis.studies.spectrum import SpectrumOptions, spectrum
from analysis.subjects import labels_of, save_result
from irevnet.checkpoints.checkpoint import read_checkpoint
from irevnet.training.kept import kept_checkpoints
from irevnet.training.runs import run_folder
from irevnet.utils.progress import Progress

R = TypeVar("R", bound=OverTrainingResult)


def geometry_over_training(
    experiments: Sequence[Experiment], options: GeometryOptions = GeometryOptions()
) -> GeometryOverTraining:
    """`analysis.studies.geometry.measure_geometry` of each kept checkpoint of each run; see `over_training`."""
    return over_training(GeometryOverTraining, measure_geometry, experiments, options)


def depth_probe_over_training(
    experiments: Sequence[Experiment], options: DepthProbeOptions = DepthProbeOptions()
) -> DepthProbeOverTraining:
    """`analysis.studies.depth_probe.depth_probe` of each kept checkpoint of each run; see `over_training`."""
    return over_training(DepthProbeOverTraining, depth_probe, experiments, options)


def spectrum_over_training(
    experiments: Sequence[Experiment], options: SpectrumOptions = SpectrumOptions()
) -> SpectrumOverTraining:
    """`analysis.studies.spectrum.spectrum` of each kept checkpoint of each run; see `over_training`."""
    return over_training(SpectrumOverTraining, spectrum, experiments, options)


def over_training(
    kind: type[R],
    study: Callable[[Sequence[Experiment], Any], Any],
    experiments: Sequence[Experiment],
    options: StudyOptions,
) -> R:
    """A study of each kept checkpoint of each run, and the headline numbers of all.

    The result of each step is saved in `STUDY.steps/step-000390/` among the results, of further runs in
    `STUDY.steps/RUN-step-000390/`. One that is there, of the same weights, images, seed and options, is not computed
    again: so work goes on after a kill, and a run that was trained further is caught up with. Features of a step are
    removed when its result is saved, unless they are in a folder that was asked for.

    Args:
        kind: class of the result.
        study: the study of a single step.
        experiments: the runs to compare, each opened at any of its checkpoints.
        options: options of the study.

    Raises `ValueError` for a network without kept checkpoints, and what the study raises.
    """
    first = experiments[0]
    kept = [_kept(each) for each in experiments]
    labels = labels_of(experiments)
    folder = first.results_folder(kind.STUDY) / f"{kind.STUDY}.steps"
    described = _described(options)
    places = [(number, step) for number, paths in enumerate(kept) for step in paths]
    rows = []
    for at, (number, step) in enumerate(places, start=1):
        run = experiments[number]
        prefix = f"{run.name}-" if number else ""
        experiment = _open(run, step, kept[number][step], folder / f"{prefix}step-{step:06d}", described)
        progress = _with_note(run.progress, f"step {step:,} of {run.name}, {at} of {len(places)}")
        result: Any = _result(kind, study, dataclasses.replace(experiment, progress=progress), options)
        rows += [(number, step, headline) for headline in result.headlines()]
    return kind.of(labels, rows)


@dataclass(frozen=True, kw_only=True)
class KeptExperiment(Experiment):
    """The network of a run as it was at one step, opened for one study.

    Attributes:
        run: the run, opened at any of its checkpoints.
        step: number of steps that were done.
        study_options: options of the study, as plain values, for the provenance of its result.
    """

    run: Experiment
    step: int
    study_options: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """That of the run, in which the digests of the images are that all steps share."""
        return self.run.folder

    def _record(self, result: Result) -> dict[str, Any]:
        return {**super()._record(result), "step": self.step, "study_options": dict(self.study_options)}


def _kept(experiment: Experiment) -> dict[int, Path]:
    """The kept checkpoints of an experiment's run, by step."""
    run = run_folder(experiment.path) if experiment.path else None
    kept = kept_checkpoints(run) if run else {}
    if not kept:
        raise ValueError(
            f"{run or experiment.path or experiment.name} has no checkpoints that were kept of its training; train a "
            "run with 'irevnet train --keep-every N', and give its folder"
        )
    return kept


def _described(options: StudyOptions) -> dict[str, Any]:
    """Options as plain values, files with their contents."""
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    return json.loads(json.dumps(values, default=_described_file))


def _described_file(value: Any) -> Any:
    if not isinstance(value, Path):
        return str(value)
    return {"file": str(value), "sha256": hashlib.sha256(value.read_bytes()).hexdigest()}


def _open(run: Experiment, step: int, path: Path, folder: Path, study_options: Mapping[str, Any]) -> KeptExperiment:
    """A kept checkpoint as an experiment like that of its run, with a folder of its own."""
    saved = read_checkpoint(path)
    lattice = getattr(run.checkpoint.model, "lattice", None)
    model = saved.model if lattice is None else saved.irevnet.exact(bits=lattice.bits)
    fields = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
    fields |= {
        "name": f"{run.name}-{path.stem}",
        "path": path,
        "checkpoint": dataclasses.replace(run.checkpoint, model=model.to(run.device), metrics=saved.metrics),
        "out": folder,
        "features_root": run.features_root or folder / "features",
        "step": step,
        "study_options": {**study_options, "bits": lattice and lattice.bits},
    }
    return KeptExperiment(**fields, run=run)


def _result(
    kind: type[OverTrainingResult],
    study: Callable[[Sequence[Experiment], Any], Any],
    experiment: KeptExperiment,
    options: StudyOptions,
) -> Result:
    """The result at a step, read if it is up to date, else computed and saved."""
    name, folder = kind.OF.STUDY, experiment.out
    assert folder is not None
    saved = read_intact(folder, name)
    result = saved and saved.result
    if not saved or not _is_current(saved.provenance, experiment, kind):
        here, started = dataclasses.replace(experiment, out=folder / name), time.perf_counter()
        result = study([here], options)
        save_result([here], result, wall_seconds=time.perf_counter() - started)
    assert result is not None
    if experiment.run.features_root is None:
        shutil.rmtree(folder / "features", ignore_errors=True)  # those of all steps would fill the disk
    return result


def _is_current(provenance: Mapping[str, Any], experiment: KeptExperiment, kind: type[OverTrainingResult]) -> bool:
    same = provenance.get("study_options") == experiment.study_options
    return same and experiment.made(provenance, kind.SPLITS)


def _with_note(progress: Progress, note: str) -> Progress:
    """The same progress, each line of which begins with a note."""
    return Progress(
        track=lambda loop, description: progress.track(loop, f"{note}: {description}"),
        report=lambda line: progress.report(f"{note}: {line}"),
        stop=progress.stop,
    )
