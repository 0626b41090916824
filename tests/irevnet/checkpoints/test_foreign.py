"""Networks of torchvision, timm and one's own code, and weights as others save them."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from irevnet.checkpoints.foreign import build_foreign, is_foreign

CODE = """
from torch import nn
from beside import WIDTH

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, WIDTH, 3), nn.BatchNorm2d(WIDTH))
        self.fc = nn.Linear(WIDTH, 5)

    def forward(self, x):
        return self.fc(self.body(x).mean(dim=(2, 3)))

net = Net()
number = 3

def needs(argument):
    return net

def fails():
    raise RuntimeError("no such luck")
"""


@pytest.fixture
def code(tmp_path, monkeypatch) -> str:
    """A file of one's own, which imports another beside it."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "net.py").write_text(CODE)
    (tmp_path / "beside.py").write_text("WIDTH = 4")
    return str(tmp_path / "net.py")


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.randn(each.shape) if each.is_floating_point() else each for name, each in model.state_dict().items()
    }


def same(model: nn.Module, weights: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["Net", "net"])
def test_network_of_own_code_is_built(code, name):
    found = build_foreign(f"{code}:{name}")
    assert (found.name, found.weights, found.preset, found.model.training) == (f"{code}:{name}", None, None, False)
    assert found.model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)


def test_network_itself_is_not_changed():
    model = nn.Linear(3, 2)
    found = build_foreign(model)
    assert model.training
    assert found.model is not model
    assert same(found.model, model.state_dict())


def test_names_of_networks_are_told_from_files(tmp_path):
    (tmp_path / "a:b.pt").touch()
    assert is_foreign("timm:resnet18")
    assert not is_foreign(str(tmp_path / "a:b.pt"))
    assert not is_foreign("runs/first")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "hello",
            "'hello' names no network; expected torchvision:NAME, timm:NAME, FILE.py:NAME or package.module:NAME",
        ),
        ("no.such:net", r"no\.such cannot be imported \(ModuleNotFoundError: No module named 'no'\)"),
        ("CODE:nets", r"there is no name in .*net\.py 'nets'; did you mean net"),
        ("CODE:number", r"did not return a network \(TypeError: 'int' object is not callable\)"),
        ("CODE:needs", r"did not return a network \(TypeError: needs\(\) missing 1 required .* takes no arguments"),
        ("CODE:fails", r"did not return a network \(RuntimeError: no such luck\)"),
        ("builtins:dict", r"builtins:dict returned a dict; expected a torch\.nn\.Module"),
        ("torchvision:resnet19", "there is no network of torchvision 'resnet19'; did you mean resnet18"),
        ("torchvision:resnet18/IMAGENET", "there is no set of weights of resnet18 'IMAGENET'"),
    ],
)
def test_what_is_no_network_is_explained(code, name, message):
    with pytest.raises(ValueError, match=message):
        build_foreign(name.replace("CODE", code))


def test_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent\.py"):
        build_foreign(f"{tmp_path / 'absent.py'}:net")


def test_network_of_timm_says_how_it_takes_images(tmp_path):
    pytest.importorskip("timm")
    fresh = build_foreign("timm:vit_tiny_patch16_224")
    assert fresh.preset is not None
    assert (fresh.preset.image_size, fresh.preset.resize, fresh.preset.mean) == (224, 249, (0.5, 0.5, 0.5))
    assert fresh.preset.interpolation == "bicubic"
    with pytest.raises(ValueError, match="there is no network of timm 'resnet19'; did you mean resnet18"):
        build_foreign("timm:resnet19")
    with pytest.raises(ValueError, match="there is no set of weights of resnet18 'none'; known: DEFAULT, a1_in1k"):
        build_foreign("timm:resnet18.none")
    with pytest.raises(ValueError, match=r"timm:resnet18/a1_in1k names weights and .* holds others; give one of them"):
        build_foreign("timm:resnet18/a1_in1k", tmp_path / "weights.pt")


def test_other_interpolations_than_two_are_refused(monkeypatch):
    data = pytest.importorskip("timm.data")
    monkeypatch.setattr(
        data,
        "resolve_data_config",
        lambda **_: {"input_size": (3, 8, 8), "crop_pct": 1, "mean": (0.5,), "std": (0.5,), "interpolation": "nearest"},
    )
    with pytest.raises(ValueError, match="resnet18 resizes its images by nearest interpolation; expected bilinear or"):
        build_foreign("timm:resnet18")


def test_missing_package_is_named(monkeypatch, tmp_path):
    for name in ("timm", "safetensors", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="networks of timm need that package; pip install timm"):
        build_foreign("timm:resnet18")
    with pytest.raises(ImportError, match=r"w\.safetensors needs the package safetensors; pip install safetensors"):
        build_foreign(nn.Linear(3, 2), tmp_path / "w.safetensors")


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "student.backbone.", "module._orig_mod."])
@pytest.mark.parametrize("key", [None, "state_dict", "model", "model_state_dict", "net"])
def test_weights_are_found_whatever_they_are_called(code, tmp_path, prefix, key):
    weights = weights_of(build_foreign(f"{code}:Net").model)
    others = {"other.scale": torch.ones(2)} if prefix else {}
    state = {**others, **{prefix + name: weights[name] for name in reversed(weights)}}  # in any order
    content = state if key is None else {"epoch": 3, key: state, "model_ema": {}}
    found = build_foreign(f"{code}:Net", saved(tmp_path / "w.pt", content))
    assert same(found.model, weights)
    assert found.classifier == ""


def test_weights_of_safetensors_are_read(code, tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    weights, path = weights_of(build_foreign(f"{code}:Net").model), tmp_path / "w.safetensors"
    save_file(weights, path)
    assert same(build_foreign(f"{code}:Net", path).model, weights)
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"w\.safetensors is not a file of safetensors, or is damaged"):
        build_foreign(f"{code}:Net", path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*w\.safetensors"):
        build_foreign(f"{code}:Net", path)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_number_of_outputs_is_that_of_the_weights(tmp_path, name):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    model = build_foreign(name).model
    model.fc = nn.Linear(512, 7)
    weights = weights_of(model)
    assert same(build_foreign(name, saved(tmp_path / "w.pt", weights)).model, weights)


def test_classifier_that_is_absent_is_fresh_and_named(code, tmp_path):
    """So are counts of batches, which old releases of torch did not keep."""
    weights = weights_of(build_foreign(f"{code}:Net").model)
    few = {name: tensor for name, tensor in weights.items() if not re.search("fc|num_batches", name)}
    found = build_foreign(f"{code}:Net", saved(tmp_path / "w.pt", few))
    assert found.classifier == "fc"
    assert all(torch.equal(found.model.state_dict()[name], tensor) for name, tensor in few.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {**w, "fc.weight": torch.zeros(6, 4), "fc.bias": torch.zeros(6)}, r"fc\.bias has shape \(6,\); ex"),
        (lambda w: {k: v for k, v in w.items() if k != "body.0.bias"}, r"body\.0\.bias is missing"),
        (lambda w: {**w, "body.2.bias": torch.zeros(1)}, r"'body\.2\.bias' belongs to none of its modules"),
        (lambda w: {**w, "body.0.weight": torch.zeros(4, 3, 1, 1)}, r"body\.0\.weight has shape \(4, 3, 1, 1\)"),
        (lambda w: {f"{a}.{k}": v for k, v in w.items() for a in "ab"}, "several such networks, under 'a.' and 'b.'"),
    ],
)
def test_weights_that_do_not_fit_are_told_by_name(code, tmp_path, change, message):
    weights = change(weights_of(build_foreign(f"{code}:Net").model))
    with pytest.raises(ValueError, match=rf"the weights of .*w\.pt are not those of a .*net\.py:Net: .*{message}"):
        build_foreign(f"{code}:Net", saved(tmp_path / "w.pt", weights))


def test_file_without_weights_says_what_it_holds(tmp_path):
    path = saved(tmp_path / "w.pt", {"epoch": 3, "args": {"lr": 0.1}})
    with pytest.raises(ValueError, match=r"w\.pt holds no state dict, but 'epoch', 'args'; save the network's state_d"):
        build_foreign(nn.Linear(3, 2), path)
