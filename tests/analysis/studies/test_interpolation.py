import torch

from analysis.opening import open_experiment
from analysis.studies import interpolation
from analysis.studies.interpolation import InterpolationOptions, interpolate


def test_a_direction_is_of_the_same_images_at_every_depth(finished_run, tmp_path, monkeypatch):
    drawn = []

    def find(direction, model, data, *, depth, generator, **options):
        drawn.append((depth, torch.randperm(len(data), generator=generator)[:20].tolist()))
        return torch.zeros(model.config.feature_shape(depth))

    monkeypatch.setattr(interpolation, "find_direction", find)
    experiment = open_experiment(finished_run, seed=3, out=tmp_path, device="cpu")
    options = InterpolationOptions(direction="pc:1", num_pairs=1, steps=2, depth=5)
    result = interpolate([experiment], options)
    assert [depth for depth, _ in drawn] == [5, 0]
    assert drawn[0][1] == drawn[1][1]
    assert result.travelled.max() < 1e-5  # no step was made
