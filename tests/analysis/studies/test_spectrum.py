"""The study: which networks, layers and images, and that it goes on where it was interrupted."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from analysis.experiment import Experiment, open_experiment
from analysis.results import SpectrumResult
from analysis.studies.spectrum import spectra
from irevnet import IRevNet, IRevNetConfig
from irevnet.utils.progress import Interrupted


@pytest.fixture
def study(finished_run, tmp_path) -> Experiment:
    """On digits: 64 inputs, 12 blocks."""
    return open_experiment(finished_run, out=tmp_path / "out", seed=3)


def dense(study: Experiment, depth: int, image: int) -> np.ndarray:
    order = torch.randperm(360, generator=torch.Generator().manual_seed(study.seed))
    x = study.images("test")[int(order[image])][0].double()
    model = study.checkpoint.irevnet.double()
    jacobian = torch.func.jacrev(lambda x: model.features(x[None], depth)[0])(x).reshape(64, 64)
    model.float()
    return torch.linalg.svdvals(jacobian).detach().numpy()


def test_of_the_last_layer_of_a_few_test_images_by_default(study):
    result = spectra([study])
    assert result.images.shape == (4,)
    assert result.depth.tolist() == [12] * 4
    assert result.method.tolist() == ["dense"] * 4
    for row in range(4):
        np.testing.assert_allclose(result.largest[row], dense(study, 12, row), rtol=1e-6)
        np.testing.assert_allclose(result.log_volume[row], 0, atol=1e-10)
        assert "(test image " in result.images[row]


def test_at_several_depths_of_several_networks_by_products(study):
    result = spectra(
        [study, study], depths=[2, 12], num_images=2, method="lanczos", num_values=5, width=4, precision="float64"
    )
    assert result.network.tolist() == [0] * 4 + [1] * 4
    assert result.depth.tolist() == [2, 2, 12, 12] * 2
    assert result.image.tolist() == [0, 1] * 4
    assert [rows.tolist() for rows in result.groups()] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    for row in range(8):
        found = result.spectrum(row)
        truth = dense(study, int(result.depth[row]), int(result.image[row]))
        np.testing.assert_allclose(found.largest[:5], truth[:5], rtol=1e-6)


def test_precision_is_double_for_a_matrix_and_may_be_asked_for(study):
    exact = spectra([study], num_images=1)
    single = spectra([study], num_images=1, precision="float32")
    assert 0 < np.abs(single.largest / exact.largest - 1).max() < 1e-4
    assert single.log_volume_error[0] > 1e6 * exact.log_volume_error[0]


def test_layers_by_name_are_differentiated_in_general(study):
    by_block = spectra([study], depths=[5], num_images=1)
    by_name = spectra([study], layers=["blocks.4"], num_images=1)
    np.testing.assert_allclose(by_name.largest, by_block.largest, rtol=1e-10)
    assert np.isnan(by_name.log_volume).all()
    assert by_name.layer.tolist() == ["blocks.4"]


def test_an_injective_network_has_no_inverse(study):
    torch.manual_seed(1)
    config = IRevNetConfig(
        input_shape=(1, 8, 8), num_classes=10, blocks=(2,), strides=(2,), initial_squeeze=1, channels=2
    )
    checkpoint = dataclasses.replace(study.checkpoint, model=IRevNet(config).eval())
    injective = dataclasses.replace(study, checkpoint=checkpoint)
    for method in ("dense", "lanczos"):
        found = spectra([injective], num_images=1, num_values=5, method=method).spectrum(0)
        assert (found.num_outputs, found.num_inputs) == (256, 64)
        assert len(found.smallest) == 0
        assert np.isnan(found.log_volume).all()


def test_images_may_be_files(study, tmp_path):
    pixels = (255 * study.checkpoint.transform.to_pixels(study.images("test")[7][0])).round().byte().numpy()
    Image.fromarray(np.kron(pixels[0], np.ones((2, 2), np.uint8))).save(tmp_path / "large.png")
    Image.fromarray(pixels[0]).save(tmp_path / "small.png")
    result = spectra([study], files=[tmp_path / "small.png", tmp_path / "large.png"])
    assert result.images.tolist() == ["small", "large"]  # an image of another size is resized as in training
    assert not np.array_equal(result.largest[0], result.largest[1])
    with pytest.raises(FileNotFoundError):
        spectra([study], files=[tmp_path / "missing.png"])


def test_what_was_interrupted_goes_on_to_the_same_result(study, tmp_path):
    options = {"num_images": 2, "method": "lanczos", "num_values": 6, "width": 4}
    expected = spectra([study], **options)
    state = tmp_path / "out" / "spectrum.state"
    assert not state.exists()
    steps = iter(range(50))
    with pytest.raises(Interrupted):
        spectra([study], **options, stop=lambda: next(steps, None) is None)
    assert sorted(path.name for path in state.iterdir()) == ["lanczos-1", "settings.json", "spectrum-0.json"]
    with pytest.raises(FileExistsError, match="keeps the work of an interrupted call; go on with --resume, or remove"):
        spectra([study], **options)
    with pytest.raises(ValueError, match="keeps the work of a call that differed in num_values; repeat its options"):
        spectra([study], **{**options, "num_values": 7}, resume=True)
    settings = (state / "settings.json").read_text()
    for damage, message in (
        ("[" * 10**5, "nested deeper"),
        ("[1]", ""),
        ("", "Expecting"),
    ):
        (state / "settings.json").write_text(damage)
        with pytest.raises(ValueError, match=rf"settings\.json is damaged: .*{message}.*; remove .* to begin anew"):
            spectra([study], **options, resume=True)
    (state / "settings.json").write_text(settings)
    lines, saved = [], []

    def refuse(result: SpectrumResult) -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        spectra([study], **options, resume=True, save=refuse)
    assert sorted(path.name for path in state.iterdir()) == ["settings.json", "spectrum-0.json", "spectrum-1.json"]
    result = spectra([study], **options, resume=True, report=lines.append, save=lambda result: saved.append(result))
    assert saved == [result]
    assert not any(line.startswith("1 of 2") and "vectors" in line for line in lines)
    for name in ("largest", "nodes", "weights", "squared_norm", "log_volume", "num_products"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
    assert not state.exists()
    with pytest.raises(ValueError, match="keeps no work of an interrupted call; leave --resume out to begin"):
        spectra([study], **options, resume=True)


def test_it_says_where_it_is(study):
    lines = []
    spectra([study], num_images=2, report=lines.append)
    assert lines[0].startswith("1 of 2: irevnet-small block-12, ")
    assert lines[1].startswith("2 of 2: irevnet-small block-12, ")


def test_a_result_is_saved_and_comes_back(study):
    result = spectra([study], depths=[1, 12], num_images=2, method="lanczos", num_values=4, width=3)
    files = study.save(result)
    loaded = SpectrumResult.load(files[0].parent)
    for row in range(4):
        one, other = result.spectrum(row), loaded.spectrum(row)
        np.testing.assert_array_equal(one.largest, other.largest)
        np.testing.assert_array_equal(one.weights, other.weights)
    summary = json.loads(files[2].read_text())["summary"]
    layer = summary["layers"][1]
    assert (layer["layer"], layer["inputs"], layer["images"]) == ("block-12", 64, 2)
    condition = [dense(study, 12, image)[[0, -1]] for image in range(2)]
    assert layer["condition"]["median"] == pytest.approx(np.mean([one / other for one, other in condition]), rel=1e-4)
    assert layer["energy"]["n/15"]["d"] == 4
    truth = [np.cumsum(dense(study, 12, image) ** 2) for image in range(2)]
    expected = np.mean([sums[3] / sums[-1] for sums in truth])
    assert layer["energy"]["n/15"]["median"] == pytest.approx(expected, abs=0.03)
    table = result.table()
    first = table[(table.layer == "block-12") & (table.image == result.images[0])]
    np.testing.assert_allclose(first.singular_value[:4], dense(study, 12, 0)[:4], rtol=1e-5)
    assert first["rank"].iloc[-1] == 64
