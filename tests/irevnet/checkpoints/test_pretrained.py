import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from cli import main
from irevnet import Checkpoint, build_model, load_checkpoint, read_checkpoint
from irevnet.checkpoints.checkpoint import describe
from irevnet.checkpoints.foreign import is_foreign
from irevnet.checkpoints.pretrained import checkpoint_file, pretrained_names
from irevnet.checkpoints.trained import list_trained, save_in_half
from irevnet.data.transforms import InputTransform
from irevnet.training.runs import find_checkpoint, results_folder, study_folder


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_networks_of_both_kinds_come_with_the_package(data):
    for network in ("irevnet", "resnet"):
        name = f"pretrained:{data}-{network}"
        checkpoint = read_checkpoint(name)
        assert (checkpoint.data, len(checkpoint.classes)) == (data, {"cifar10": 10, "cifar100": 100}[data])
        assert {tensor.dtype for tensor in checkpoint.model.parameters()} == {torch.float32}
        assert checkpoint.model(torch.rand(2, 3, 32, 32)).shape == (2, len(checkpoint.classes))
        assert checkpoint_file(name).stat().st_size < 5e6


def test_the_shipped_bijective_network_is_inverted():
    """In float64 the error is its epsilon times the condition number, some ten thousand."""
    model = load_checkpoint("pretrained:cifar10-irevnet").double()
    images = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    error = (model.inverse(model.features(images)) - images).norm() / images.norm()
    assert error < torch.finfo(torch.float64).eps * 1e5


@pytest.mark.parametrize("place", ["copied", "linked", "relative"])
def test_their_files_are_the_same_networks_in_any_place(place, tmp_path, monkeypatch):
    name = "pretrained:cifar10-irevnet"
    file = checkpoint_file(name)
    path = tmp_path / "last.pt"
    if place == "copied":
        shutil.copy(file, path)
    elif place == "linked":
        path.symlink_to(file)
    else:
        monkeypatch.chdir(file.parent)
        path = Path(file.name)
    found, expected = load_checkpoint(path), load_checkpoint(name)
    assert all(torch.equal(*pair) for pair in zip(found.state_dict().values(), expected.state_dict().values()))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(found(images), expected(images))


def test_half_precision_rounds_kernels_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("irevnet.checkpoints.pretrained.FOLDER", tmp_path)
    model = build_model("irevnet-small")
    exact = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    transform = InputTransform(channels=1, image_size=(8, 8))
    checkpoint = Checkpoint(model=model, transform=transform, data="digits", classes=(), metrics={"test_top1": 0.5})
    rounded = save_in_half(tmp_path / "tiny.pt", checkpoint).model.state_dict()
    for name, tensor in exact.items():
        assert torch.equal(rounded[name], tensor.half().float() if tensor.ndim > 1 else tensor)
        assert rounded[name].dtype == tensor.dtype
    (info,) = list_trained()
    assert (info.name, info.bijective, info.blocks, info.data) == ("pretrained:tiny", True, 12, "digits")
    assert info.test_top1 == 0.5


def test_a_name_stands_for_a_file_and_its_results_go_to_the_working_folder():
    name = "pretrained:cifar10-irevnet"
    file = find_checkpoint(Path(name))
    assert file.name == "cifar10-irevnet.pt"
    assert not is_foreign(name)
    assert results_folder(file) == Path("cifar10-irevnet-analysis")
    assert study_folder(file, "invert") == Path("cifar10-irevnet-analysis/invert")
    relative = Path(os.path.relpath(file))
    assert not relative.is_absolute()
    around = file.parent / ".." / file.parent.name / file.name
    assert results_folder(relative) == results_folder(around) == results_folder(file)
    assert describe(file, read_checkpoint(name))["checkpoint"] == name
    assert describe(Path(__file__), read_checkpoint(name))["checkpoint"] == __file__


def test_an_unknown_name_is_refused_with_the_nearest():
    assert "cifar10-irevnet" in pretrained_names()
    for read in (load_checkpoint, lambda name: find_checkpoint(Path(name))):
        with pytest.raises(
            ValueError, match="no network 'pretrained:cifar-irevnet'; did you mean pretrained:cifar10-i"
        ):
            read("pretrained:cifar-irevnet")


def test_a_trained_network_needs_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8).numpy()
    Image.fromarray(pixels).save("image.png")
    for arguments in (["encode", "image.png", "--out", "image.npz"], ["decode", "image.npz", "--out", "back"]):
        result = CliRunner().invoke(main, [*arguments, "--ckpt", "pretrained:cifar10-irevnet"])
        assert result.exit_code == 0, result.output
    (back,) = Path("back").glob("*.png")
    assert (torch.tensor(pixels) == torch.tensor(np.array(Image.open(back)))).all()
