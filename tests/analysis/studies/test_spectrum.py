"""The study: which networks, layers and images, and that it goes on where it was interrupted."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import subspace_angles

from analysis.experiment import Experiment
from analysis.opening import open_experiment
from analysis.studies import spectrum as module
from analysis.studies.spectrum import SpectrumOptions, spectrum
from irevnet import IRevNet, IRevNetConfig
from irevnet.utils.progress import Interrupted, Progress


@pytest.fixture
def experiment(finished_run, tmp_path) -> Experiment:
    """On digits: 64 inputs, and 3 blocks."""
    opened = open_experiment(finished_run, out=tmp_path / "out", seed=3)
    return of_network(opened, blocks=(2, 1), strides=(1, 2))


def of_network(experiment: Experiment, **fields) -> Experiment:
    torch.manual_seed(1)
    model = IRevNet(IRevNetConfig(input_shape=(1, 8, 8), num_classes=10, **fields)).eval()
    return dataclasses.replace(experiment, checkpoint=dataclasses.replace(experiment.checkpoint, model=model))


def image_of(experiment: Experiment, image: int) -> torch.Tensor:
    order = torch.randperm(360, generator=torch.Generator().manual_seed(experiment.seed))
    return experiment.images("test")[int(order[image])][0].double()


def matrix(experiment: Experiment, depth: int, image: int) -> torch.Tensor:
    model = experiment.checkpoint.irevnet.double()
    x = image_of(experiment, image)
    jacobian = torch.func.jacrev(lambda x: model.features(x[None], depth)[0])(x).reshape(64, 64)
    model.float()
    return jacobian.detach()


def dense(experiment: Experiment, depth: int, image: int) -> np.ndarray:
    return torch.linalg.svdvals(matrix(experiment, depth, image)).numpy()


def test_of_the_last_layer_of_a_few_test_images_by_default(experiment):
    result = spectrum([experiment])
    assert result.images.shape == (4,)
    assert result.depth.tolist() == [3] * 4
    assert result.method.tolist() == ["dense"] * 4
    for row in range(4):
        np.testing.assert_allclose(result.largest[row], dense(experiment, 3, row), rtol=1e-6)
        np.testing.assert_allclose(result.log_volume[row], 0, atol=1e-10)
        assert "(test image " in result.images[row]


@pytest.mark.usefixtures("unchecked_types")  # to be quick
def test_at_several_depths_of_several_networks_by_products(experiment):
    options = {"depths": [1, 3], "num_images": 2, "num_values": 5, "block_width": 4, "precision": "float64"}
    result = spectrum([experiment, experiment], SpectrumOptions(method="lanczos", **options))
    assert result.network.tolist() == [0] * 4 + [1] * 4
    assert result.depth.tolist() == [1, 1, 3, 3] * 2
    assert result.image.tolist() == [0, 1] * 4
    assert [rows.tolist() for rows in result.groups()] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    for row in range(8):
        truth = dense(experiment, int(result.depth[row]), int(result.image[row]))
        np.testing.assert_allclose(result.spectrum(row).largest[:5], truth[:5], rtol=1e-6)


def test_precision_is_double_for_a_matrix_and_may_be_asked_for(experiment):
    exact = spectrum([experiment], SpectrumOptions(num_images=1))
    single = spectrum([experiment], SpectrumOptions(num_images=1, precision="float32"))
    assert 0 < np.abs(single.largest / exact.largest - 1).max() < 1e-4
    assert single.log_volume_error[0] > 1e6 * exact.log_volume_error[0]


def test_layers_by_name_are_differentiated_in_general(experiment):
    by_block = spectrum([experiment], SpectrumOptions(depths=[2], num_images=1))
    by_name = spectrum([experiment], SpectrumOptions(layers=["blocks.1"], num_images=1))
    np.testing.assert_allclose(by_name.largest, by_block.largest, rtol=1e-10)
    assert np.isnan(by_name.log_volume).all()
    assert by_name.layer.tolist() == ["blocks.1"]


def test_an_injective_network_has_no_inverse(experiment):
    injective = of_network(experiment, blocks=(2,), strides=(2,), initial_squeeze=1, channels=2)
    for method in ("dense", "lanczos"):
        found = spectrum([injective], SpectrumOptions(num_images=1, num_values=5, method=method)).spectrum(0)
        assert (found.num_outputs, found.num_inputs) == (256, 64)
        assert len(found.smallest) == 0
        assert np.isnan(found.log_volume).all()


def test_images_may_be_files(experiment, tmp_path):
    pixels = (255 * experiment.checkpoint.transform.to_pixels(experiment.images("test")[7][0])).round().byte().numpy()
    Image.fromarray(np.kron(pixels[0], np.ones((2, 2), np.uint8))).save(tmp_path / "large.png")
    Image.fromarray(pixels[0]).save(tmp_path / "small.png")
    result = spectrum([experiment], SpectrumOptions(files=[tmp_path / "small.png", tmp_path / "large.png"]))
    assert result.images.tolist() == ["small", "large"]  # an image of another size is resized as in training
    assert not np.array_equal(result.largest[0], result.largest[1])


@pytest.mark.usefixtures("unchecked_types")  # to be quick
def test_an_interrupted_call_goes_on_to_the_same_result(experiment, tmp_path, monkeypatch):
    options = SpectrumOptions(num_images=2, method="lanczos", num_values=6, block_width=4)
    expected = spectrum([dataclasses.replace(experiment, out=tmp_path / "other")], options)
    state, steps = tmp_path / "out" / "spectrum.state", iter(range(50))
    stopped = dataclasses.replace(experiment, progress=Progress(stop=lambda: next(steps, None) is None))
    with pytest.raises(Interrupted):
        spectrum([stopped], options)
    assert sorted(path.name for path in state.iterdir()) == ["lanczos-1", "spectrum-0.json"]
    assert (state / "lanczos-1" / "settings.json").is_file()
    lines = []
    result = spectrum([dataclasses.replace(experiment, progress=Progress(report=lines.append))], options)
    assert lines[0].startswith("2 of 2: irevnet-small block-3, ")
    assert sorted(path.name for path in state.iterdir()) == ["spectrum-0.json", "spectrum-1.json"]
    for name in ("largest", "nodes", "weights", "squared_norm", "log_volume", "num_products"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
    monkeypatch.setattr(module, "singular_values", None)  # nothing is left to compute
    assert spectrum([experiment], options).largest.tolist() == result.largest.tolist()


@pytest.mark.parametrize("damage", [None, "["])
def test_work_with_other_options_or_damaged_is_begun_anew(experiment, tmp_path, damage):
    options = SpectrumOptions(num_images=1, method="lanczos", num_values=6, block_width=4)
    steps = iter(range(8))
    stopped = dataclasses.replace(experiment, progress=Progress(stop=lambda: next(steps, None) is None))
    with pytest.raises(Interrupted):
        spectrum([stopped], options)
    if damage is None:
        options = dataclasses.replace(options, block_width=3)
    else:
        (tmp_path / "out" / "spectrum.state" / "lanczos-0" / "settings.json").write_text(damage)
    result = spectrum([experiment], options)
    expected = spectrum([dataclasses.replace(experiment, out=tmp_path / "other")], options)
    for name in ("largest", "nodes", "squared_norm", "num_products"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))


@pytest.mark.usefixtures("unchecked_types")  # to be quick
@pytest.mark.parametrize("options", [{}, {"method": "lanczos", "num_values": 6, "block_width": 4, "tolerance": 1e-6}])
def test_directions_are_singular_vectors_of_the_matrix(experiment, options, tmp_path):
    result = spectrum([experiment], SpectrumOptions(num_images=1, vectors=3, precision="float64", **options))
    jacobian = matrix(experiment, 3, 0)
    left, values, right = (each.numpy() for each in torch.linalg.svd(jacobian))
    found = result.directions(0)
    for end, picked in enumerate((slice(3), slice(-3, None))):
        np.testing.assert_allclose(np.sort(found.vector_values[end]), values[picked][::-1], rtol=1e-8)
        v, u = found.right_vectors[end].reshape(3, 64), found.left_vectors[end]
        assert subspace_angles(v.T, right[picked].T).max() < 1e-4  # they are kept in float32
        assert subspace_angles(u.T, left[:, picked]).max() < 1e-4
        np.testing.assert_allclose(jacobian.numpy() @ v.T, found.vector_values[end] * u.T, atol=1e-5)
    assert found.vector_residuals.max() < 1e-5
    again = spectrum([dataclasses.replace(experiment, out=tmp_path / "again")], SpectrumOptions(num_images=1))
    np.testing.assert_allclose(result.largest[0, :6], again.largest[0, :6], rtol=1e-8)
    assert again.directions(0) is None


@pytest.mark.usefixtures("unchecked_types")  # to be quick
@pytest.mark.parametrize("layers", [None, ["blocks.2"]])  # an inverse is known of the first alone
def test_moves_change_features_by_equal_distances(experiment, layers):
    options = SpectrumOptions(num_images=2, vectors=2, pixel_change=0.2, layers=layers)
    result = spectrum([experiment], options)
    transform, model = experiment.checkpoint.transform, experiment.checkpoint.irevnet
    for row in range(2):
        found, x = result.directions(row), image_of(experiment, row)
        np.testing.assert_allclose(found.pixels, transform.to_pixels(x), atol=1e-6)
        phi = model.double().features(x[None])
        distances = []
        for end in range(len(found.known_ends)):
            for vector in range(2):
                for way, sign in enumerate((1, -1)):
                    pixels = torch.tensor(found.moved(end, vector, sign))
                    moved = model.features(transform.normalise(pixels)[None].double())
                    distances.append((moved - phi).norm().item())
                    difference = found.moved(end, vector, sign) - found.pixels
                    change = found.pixel_changes[end, vector, way]
                    assert np.sqrt(np.square(difference).mean()) == pytest.approx(change, rel=1e-4)
        model.float()
        np.testing.assert_allclose(distances, distances[0], rtol=1e-4)
        np.testing.assert_allclose(found.feature_changes[: len(found.known_ends)], distances[0], rtol=1e-4)
        reference = (1, 0, 0) if layers is None else (0, 1, 0)
        assert found.pixel_changes[reference] == pytest.approx(0.2)
        assert found.known_ends == (("most", "least") if layers is None else ("most",))
    model.float()


@pytest.mark.usefixtures("unchecked_types")  # to be quick
def test_an_interrupted_call_goes_on_to_the_same_directions(experiment, tmp_path, monkeypatch):
    options = SpectrumOptions(num_images=2, method="lanczos", num_values=6, block_width=4, vectors=2)
    expected = spectrum([dataclasses.replace(experiment, out=tmp_path / "other")], options)
    steps = iter(range(60))
    stopped = dataclasses.replace(experiment, progress=Progress(stop=lambda: next(steps, None) is None))
    with pytest.raises(Interrupted):
        spectrum([stopped], options)
    state = tmp_path / "out" / "spectrum.state"
    assert sorted(path.name for path in state.iterdir()) == ["lanczos-1", "spectrum-0.json", "spectrum-0.npz"]
    result = spectrum([experiment], options)
    for field in dataclasses.fields(result):
        np.testing.assert_array_equal(getattr(result, field.name), getattr(expected, field.name))
    monkeypatch.setattr(module, "singular_values", None)  # nothing is left to compute
    assert spectrum([experiment], options).right_vectors.tolist() == result.right_vectors.tolist()
    with pytest.raises(TypeError):  # other moves are
        spectrum([experiment], dataclasses.replace(options, pixel_change=0.05))


def test_more_directions_than_values_found_are_refused(experiment, tmp_path):
    for options, most in (({"method": "lanczos", "num_values": 4}, 4), ({}, 32)):
        with pytest.raises(ValueError, match=f"of {most + 1} values at each end were asked for; .* 0 to {most}$"):
            spectrum([experiment], SpectrumOptions(num_images=1, vectors=most + 1, **options))
    assert not list((tmp_path / "out").rglob("*"))


def test_a_move_by_nothing_or_by_more_than_there_is_is_refused():
    for change in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"`pixel_change` is .*; expected more than 0 and at most 1"):
            SpectrumOptions(pixel_change=change)
