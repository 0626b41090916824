import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis import (
    DepthProbeOptions,
    GeometryOptions,
    SpectrumOptions,
    depth_probe,
    depth_probe_over_training,
    geometry_over_training,
    measure_geometry,
    open_experiment,
    save_result,
    spectrum,
    spectrum_over_training,
)
from irevnet import read_checkpoint, save_checkpoint
from irevnet.training.kept import kept_checkpoints
from irevnet.utils.progress import Interrupted, Progress

pytestmark = pytest.mark.usefixtures("unchecked_types")

OPTIONS = GeometryOptions(depths=[2], num_images=100)


@pytest.fixture
def run(small_run, tmp_path) -> Path:
    return shutil.copytree(small_run, tmp_path / "first")


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """The checkpoints that geometry is measured of."""
    found: list[str] = []

    def measure(experiments, options):
        found.append(experiments[0].path.stem)
        return measure_geometry(experiments, options)

    monkeypatch.setattr("analysis.studies.over_training.measure_geometry", measure)
    return found


@pytest.mark.parametrize(
    ("study", "followed", "options"),
    [
        (measure_geometry, geometry_over_training, OPTIONS),
        (depth_probe, depth_probe_over_training, DepthProbeOptions(depths=[1, 2], cost_grid=(0.01,))),
        (spectrum, spectrum_over_training, SpectrumOptions(num_images=2)),
    ],
)
def test_rows_are_those_of_the_study_of_each_checkpoint(run, study, followed, options):
    result = followed([open_experiment(run)], options)
    assert result.networks.tolist() == ["irevnet-small"]
    assert np.unique(result.step).tolist() == [0, 3, 6]
    for step, path in kept_checkpoints(run).items():
        alone = study([open_experiment(path)], options).headlines()
        rows = np.flatnonzero(result.step == step)
        assert result.measure[rows].tolist() == [each.measure for each in alone]
        assert result.layer[rows].tolist() == [each.layer for each in alone]
        for name in ("value", "low", "high", "relative_depth"):
            np.testing.assert_array_equal(getattr(result, name)[rows], [getattr(each, name) for each in alone])
    last = study([open_experiment(run)], options).headlines()
    np.testing.assert_array_equal(result.value[result.step == 6], [each.value for each in last])


def test_only_what_is_missing_is_computed(run, computed, monkeypatch):
    experiment = open_experiment(run)
    geometry_over_training([experiment], OPTIONS)
    assert computed == ["step-000000", "step-000003", "step-000006"]
    steps = run / "analysis/geometry-over-training/geometry-over-training.steps"
    assert sorted(path.name for path in steps.iterdir()) == computed
    assert [path.name for path in (steps / "step-000003").iterdir()] == ["geometry"]  # no features
    provenance = json.loads((steps / "step-000003/geometry/geometry.json").read_text())["provenance"]
    assert (provenance["step"], provenance["study_options"]["num_images"]) == (3, 100)
    assert provenance["wall_seconds"] > 0

    def again(subject=experiment, options=OPTIONS) -> list[str]:
        computed.clear()
        geometry_over_training([subject], options)
        return computed

    everything = ["step-000000", "step-000003", "step-000006"]
    assert again() == []
    (steps / "step-000003/geometry/geometry.json").unlink()  # as after a kill
    assert again() == ["step-000003"]
    (steps / "step-000006/geometry/geometry.npz").write_bytes(b"damaged")
    assert again() == ["step-000006"]
    (steps / "step-000000/geometry/geometry.npz").unlink()
    assert again() == ["step-000000"]
    shutil.copy(run / "kept/step-000006.pt", run / "kept/step-000009.pt")  # a run that has trained on
    assert again() == ["step-000009"]
    (run / "kept/step-000009.pt").unlink()
    changed = read_checkpoint(run / "kept/step-000003.pt")
    with torch.no_grad():
        next(changed.model.parameters()).add_(0.01)
    save_checkpoint(run / "kept/step-000003.pt", changed)
    assert again() == ["step-000003"]
    assert again(options=replace(OPTIONS, num_images=90)) == everything
    assert again(options=replace(OPTIONS, num_images=90)) == []
    assert again() == everything
    assert again(replace(experiment, seed=1)) == everything
    assert again(open_experiment(run, bits=14)) == everything
    assert again(open_experiment(run, bits=14)) == []
    assert again(open_experiment(run, bits=15)) == everything


def test_a_study_that_was_killed_goes_on_where_it_was(run, computed, monkeypatch):
    experiment = open_experiment(run)
    saved = save_result

    def killed(subjects, result, **options):
        if subjects[0].step == 3:
            raise KeyboardInterrupt
        return saved(subjects, result, **options)

    with monkeypatch.context() as patch:
        patch.setattr("analysis.studies.over_training.save_result", killed)
        with pytest.raises(KeyboardInterrupt):
            geometry_over_training([experiment], OPTIONS)
    computed.clear()
    result = geometry_over_training([experiment], OPTIONS)
    assert computed == ["step-000003", "step-000006"]
    whole = geometry_over_training([replace(experiment, out=run / "elsewhere")], OPTIONS)
    np.testing.assert_array_equal(result.value, whole.value)


def test_spectra_stop_on_request_and_say_how_far_they_are(run):
    lines: list[str] = []
    experiment = replace(open_experiment(run), progress=Progress(report=lines.append, stop=lambda: len(lines) > 1))
    with pytest.raises(Interrupted):
        spectrum_over_training([experiment], SpectrumOptions(num_images=1))
    assert lines[0].startswith("step 0 of first, 1 of 3: 1 of 1: irevnet-small block-2")
    assert lines[1].startswith("step 3 of first, 2 of 3: ")


def test_files_of_images_count_by_their_contents(run, tmp_path, monkeypatch):
    from PIL import Image

    calls = []

    def counted(experiments, options):
        calls.append(experiments[0].step)
        return spectrum(experiments, options)

    monkeypatch.setattr("analysis.studies.over_training.spectrum", counted)
    options, experiment = SpectrumOptions(files=[tmp_path / "a.png"]), open_experiment(run)
    for shade, found in ((7, [0, 3, 6]), (7, []), (9, [0, 3, 6])):
        calls.clear()
        Image.new("L", (8, 8), shade).save(tmp_path / "a.png")
        spectrum_over_training([experiment], options)
        assert calls == found


def test_runs_are_compared_and_what_is_known_of_them_is_used(run, computed):
    second = shutil.copytree(run, run.parent / "second")
    (second / "kept/step-000003.pt").unlink()
    geometry_over_training([open_experiment(run)], OPTIONS)
    computed.clear()
    tracked: list[str] = []

    def track(loop, description):
        tracked.append(description)
        return loop

    root = run.parent / "features"
    both = [
        replace(open_experiment(each), features_root=root, progress=Progress(track=track)) for each in (run, second)
    ]
    result = geometry_over_training(both, OPTIONS)
    assert computed == ["step-000000", "step-000006"]
    assert result.networks.tolist() == ["first", "second"]
    assert [np.unique(result.step[result.network == n]).tolist() for n in (0, 1)] == [[0, 3, 6], [0, 6]]
    assert sorted(path.name for path in root.iterdir()) == ["second-step-000000", "second-step-000006"]
    assert "step 6 of second, 5 of 5: measuring" in tracked
    steps = run / "analysis/geometry-over-training/geometry-over-training.steps"
    assert (steps / "second-step-000006/geometry/geometry.npz").is_file()


def test_networks_without_kept_checkpoints_are_refused(finished_run, tmp_path):
    message = r"digits has no checkpoints that were kept of its training; train a run with 'irevnet train --keep-every"
    with pytest.raises(ValueError, match=message):
        spectrum_over_training([open_experiment(finished_run)])
    shutil.copy(finished_run / "last.pt", tmp_path / "bare.pt")
    with pytest.raises(ValueError, match=r"bare\.pt has no checkpoints that were kept"):
        depth_probe_over_training([open_experiment(tmp_path / "bare.pt")])
