import dataclasses
import itertools
import json
import pickle
import resource
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from irevnet import Checkpoint, IRevNet, IRevNetConfig, load_checkpoint, read_checkpoint, save_checkpoint
from irevnet.checkpoints.checkpoint import describe, read_training_state, weights_sha256
from irevnet.checkpoints.tensor_files import read_weights
from irevnet.data.transforms import InputTransform
from irevnet.models.config import Config, ResNetConfig, RevNetConfig
from irevnet.models.zoo import build_network

TRANSFORM = InputTransform(channels=3, image_size=(32, 32), resize=40, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


SHAPE = dict(input_shape=(3, 8, 8), num_classes=3)
CONFIG = IRevNetConfig(blocks=(3,), strides=(1,), **SHAPE)


def checkpoint(config: Config = CONFIG) -> Checkpoint:
    model = build_network(config)
    return Checkpoint(
        model=model, transform=TRANSFORM, data="digits", classes=("a", "b", "ü"), metrics={"epoch": 4, "test_top1": 0.5}
    )


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("checkpoint") / "model.pt"
    save_checkpoint(path, checkpoint())
    return path.read_bytes()


@pytest.fixture
def saved(tmp_path, content) -> Path:
    (tmp_path / "model.pt").write_bytes(content)
    return tmp_path / "model.pt"


def resaved(path, **changes):
    """Changes the content of a checkpoint, in its dictionaries too; `...` removes."""
    content = torch.load(path, weights_only=True)
    for key, change in changes.items():
        both = isinstance(change, dict) and isinstance(content[key], dict)
        content[key] = {**content[key], **change} if both else change
        if both:
            content[key] = {name: value for name, value in content[key].items() if value is not ...}
    torch.save(content, path)


@pytest.mark.parametrize(
    "config",
    [
        IRevNetConfig(blocks=(2, 2), strides=(1, 2), initial_squeeze=1, channels=4, dropout=0.1, **SHAPE),
        RevNetConfig(blocks=(1, 1), widths=(8, 16), strides=(1, 2), **SHAPE),
        ResNetConfig(blocks=(1, 1), widths=(4, 8), block="basic", stem="cifar", **SHAPE),
    ],
)
def test_a_checkpoint_suffices_to_use_the_network(tmp_path, config, trained_looking):
    written = checkpoint(config)
    trained_looking(written.model)
    save_checkpoint(tmp_path / "model.pt", written)
    before = torch.get_rng_state()
    read = read_checkpoint(tmp_path / "model.pt")
    assert torch.equal(torch.get_rng_state(), before)
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(read.model(images), written.model(images))
    assert not read.model.training
    for field in ("config", "transform", "data", "classes", "metrics"):
        assert getattr(read, field) == getattr(written, field)


def test_files_that_are_no_checkpoints_are_refused(saved):
    data = saved.read_bytes()
    foreign = b"epoch,loss\n1,2\n", b"\x89PNG\r\n\x1a\n" + bytes(100), b"PK\x03\x04" + bytes(99)
    for content in (*(data[:length] for length in (0, 1, 1000, -1, -1000)), *foreign):
        saved.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.pt is not a checkpoint, or is damaged"):
            load_checkpoint(str(saved))
    for other, message in (
        ([1, 2], "holds a list; expected a checkpoint's dictionary"),
        ({"weights": 1}, r"no checkpoint of a known layout: it has the keys \['weights'\]"),
        ({"state_dict": {"conv1.weight": torch.zeros(3)}}, "not those of an i-RevNet .* start with"),
        ({"state_dict": [1]}, "its 'state_dict' is not a dictionary of tensors"),
        ({"state_dict": {"a": 1}}, "its 'state_dict' is not a dictionary of tensors"),
    ):
        torch.save(other, saved)
        with pytest.raises(ValueError, match=message):
            load_checkpoint(saved)
    saved.unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*model\.pt"):
        load_checkpoint(saved)


class Trap:
    def __reduce__(self):
        return (open, ("trapped", "w"))


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_pickled_code_is_refused_and_not_run(saved, monkeypatch, tmp_path, write):
    monkeypatch.chdir(tmp_path)
    for content in ({"state_dict": Trap()}, nn.Linear(2, 2)):
        write(content, saved)
        with pytest.raises(
            ValueError, match=r"model\.pt holds pickled Python objects, .* save the network's state_dict"
        ):
            load_checkpoint(saved)
    assert not (tmp_path / "trapped").exists()


BIAS = "head.classifier.bias"
INTEGERS, COMPLEX = torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.complex64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "is of checkpoint version 99; this toolkit reads version 1"),
        ({"version": torch.zeros(2)}, "is of checkpoint version tensor"),
        ({"format": torch.zeros(2)}, "not those of an i-RevNet"),
        ({"architecture": "VGG"}, "model.pt is damaged: KeyError: 'VGG'"),
        ({"config": {"depth": 3}}, "model.pt is damaged: TypeError"),
        ({"config": {"kernel_sizes": (1, 2, 1)}}, r"model\.pt is damaged: ValueError: kernel_sizes is \(1, 2, 1\)"),
        ({"config": {"num_classes": "3"}}, "num_classes is '3'; expected int"),
        ({"transform": None}, "model.pt is damaged: TypeError"),
        ({"transform": {"image_size": 8}}, r"image_size is 8; expected tuple\[int, int\]"),
        ({"classes": ["a"]}, "it lists 1 class names, but its network has 3 outputs"),
        ({"classes": "abc"}, "expected text as data, a list of names as classes, and numbers by name as metrics"),
        ({"metrics": {"epoch": "4"}}, "expected text as data"),
        ({"data": 3}, "expected text as data"),
        ({"state_dict": {BIAS: torch.zeros(4)}}, r"head\.classifier\.bias has shape \(4,\); expected \(3,\)"),
        ({"state_dict": {"further": torch.zeros(4)}}, "do not fit its .*'further' belongs to none of its modules"),
        ({"state_dict": {BIAS: ...}}, r"head\.classifier\.bias is missing"),
        ({"state_dict": {BIAS: INTEGERS}}, r"head\.classifier\.bias is torch\.int64; expected"),
        ({"state_dict": {BIAS: COMPLEX}}, "holds a tensor of torch.complex64"),
        ({"state_dict": {BIAS: torch.zeros(()).expand(2**40)}}, r"its tensors declare \d+,\d+,\d+,\d+,\d+ bytes"),
    ],
)
def test_a_checkpoint_with_a_wrong_part_is_refused(saved, change, message):
    resaved(saved, **change)
    with pytest.raises(ValueError, match=message) as raised:
        read_checkpoint(saved)
    assert "\n" not in str(raised.value)


def test_a_failed_save_keeps_the_earlier_checkpoint(saved, monkeypatch):
    before = saved.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # bytes that the system writes to a file at most
    try:
        with pytest.raises(OSError, match=r"File too large: .*model\.pt"):
            save_checkpoint(saved, dataclasses.replace(checkpoint(), data="other"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def fail(content, file):
        file.write(b"half")
        raise RuntimeError("not of the disk")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match="not of the disk"):
        save_checkpoint(saved, checkpoint())
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_digest_of_weights_does_not_depend_on_the_file(tmp_path):
    made = checkpoint()
    before = weights_sha256(made.model)
    for training in (None, {"step": 3}):
        save_checkpoint(tmp_path / "x.pt", made, training=training)
        assert weights_sha256(read_checkpoint(tmp_path / "x.pt").model) == before
    record = describe(None, made)
    assert record["parameters"] == sum(tensor.numel() for tensor in made.model.parameters())
    assert record["checkpoint"] is record["checkpoint_sha256"] is None
    assert record["weights_sha256"] == before
    made.model.head.norm.running_mean[0] += 1e-6
    assert weights_sha256(made.model) != before


def test_bare_weights_are_read(tmp_path):
    state = checkpoint().model.state_dict()
    for name, content in (("bare.pth", state), ("kept.pth", {"state_dict": state, "epoch": 3})):
        torch.save(content, tmp_path / name)
        assert read_weights(tmp_path / name).keys() == state.keys()
    for content in ({}, {"epoch": 3}, {"state_dict": [1]}):
        torch.save(content, tmp_path / "none.pth")
        with pytest.raises(ValueError, match=r"none\.pth holds no state dict.*; save the network"):
            read_weights(tmp_path / "none.pth")


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_weights_that_are_not_finite_are_named(saved, value):
    broken = checkpoint()
    broken.model.blocks[1].bottleneck[2].weight.data[0] = value
    with pytest.raises(ValueError, match=r"cannot hold weights that are not finite, the first of them in blocks\.1\."):
        save_checkpoint(saved, broken)
    resaved(saved, state_dict=broken.model.state_dict())
    message = r"the weights of .*model\.pt are not finite, the first of them in blocks\.1\.bottleneck\.2\.weight; give"
    for read in (read_checkpoint, read_weights):
        with pytest.raises(ValueError, match=message):
            read(saved)


class Hiding:
    """A pickled dictionary with attributes that hide its methods."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        hidden = {"items": 3, "keys": 3, "values": 3, "_metadata": 3}
        return OrderedDict, (), hidden, None, iter(self.content.items())


def test_attributes_of_a_dictionary_cannot_hide_its_methods(saved):
    resaved(saved, state_dict=Hiding(torch.load(saved, weights_only=True)["state_dict"]))
    assert read_checkpoint(saved).classes == ("a", "b", "ü")


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")  # type: ignore[return-value]  # the others start processes


def with_another(position: str, layer: nn.Module):
    def change(model: nn.Module) -> nn.Module:
        parent, _, name = position.rpartition(".")
        setattr(model.get_submodule(parent), name, layer)
        return model

    return change


class Subclass(IRevNet):
    pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: nn.Linear(2, 2), "a Linear cannot be saved, since no config describes it"),
        (lambda model: Subclass(model.config), "a Subclass cannot be saved"),
        (lambda model: model.eval().exact(), "blocks.0.bottleneck is ExactBottleneck.* describes Bottleneck"),
        (with_another("blocks.1.bottleneck.1", nn.GELU()), "its blocks.1.bottleneck.1 is GELU.* describes ReLU"),
        (with_another("blocks.1.bottleneck.0", nn.BatchNorm2d(6, eps=1e-3)), "bottleneck.0 is BatchNorm2d.*0.001"),
        (with_another("extra", nn.Linear(2, 2)), "its extra is Linear.* describes nothing there"),
        (lambda model: model.register_buffer("mask", torch.ones(1)) or model, "mask. belongs to none of its modules"),
    ],
)
def test_network_that_differs_from_its_config_is_not_saved(tmp_path, change, message):
    given = checkpoint()
    with pytest.raises(ValueError, match=message):
        save_checkpoint(tmp_path / "model.pt", dataclasses.replace(given, model=change(given.model)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrap", [lambda model: nn.DataParallel(compiled(model)), lambda model: model.double()])
def test_what_wraps_a_network_is_taken_off(tmp_path, wrap):
    model = checkpoint().model
    given = dataclasses.replace(checkpoint(), model=wrap(model))
    assert given.model is model
    save_checkpoint(tmp_path / "model.pt", given)
    assert weights_sha256(load_checkpoint(tmp_path / "model.pt")) == weights_sha256(model)  # and so their types


NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.floats(width=32).map(np.float32),
    st.floats().map(np.float64),
    st.integers(-(2**31), 2**31 - 1).map(np.int64),
    st.booleans().map(np.bool_),
    st.floats().map(np.array),
    st.floats(width=32).map(torch.tensor),
)
ANYTHING = st.recursive(
    st.one_of(NUMBERS, st.none(), st.text(), st.binary(), st.complex_numbers(), st.just(np.ones(3)), st.just({1})),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=4,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    metrics=st.one_of(*(st.dictionaries(st.text(), each, max_size=3) for each in (NUMBERS, ANYTHING))),
    training=st.one_of(st.none(), st.dictionaries(st.text(), ANYTHING, max_size=2)),
)
def test_saved_content_is_read_and_other_content_refused(tmp_path, tiny, metrics, training):
    path = tmp_path / "random.pt"
    given_checkpoint = Checkpoint(model=tiny, transform=TRANSFORM, data="digits", classes=(), metrics=metrics)
    try:
        save_checkpoint(path, given_checkpoint, training=training)
    except ValueError:
        kinds = int | float | np.number | np.ndarray | torch.Tensor
        values = metrics.values()
        plain_numbers = all(isinstance(x, kinds) and not isinstance(x, bool) and np.size(x) == 1 for x in values)
        small = all(not isinstance(x, int) or abs(x) < 2**63 for x in values)
        assert not (plain_numbers and small and training is None)
        return
    read = read_checkpoint(path)
    assert read.metrics.keys() == metrics.keys()
    for name, value in metrics.items():
        assert type(read.metrics[name]) in (int, float)
        np.testing.assert_equal(read.metrics[name], getattr(value, "item", lambda value=value: value)())
    if training is not None:
        assert read_training_state(path).keys() == training.keys()


@pytest.fixture(scope="module")
def tiny() -> IRevNet:
    return IRevNet(IRevNetConfig(input_shape=(2, 2, 2), num_classes=2, blocks=(1,), strides=(1,), initial_squeeze=1))


def test_numbers_of_numpy_become_pythons(tmp_path):
    names = tuple(np.array(["a", "b", "c"]))
    given = dataclasses.replace(checkpoint(), metrics={"top1": np.mean([0.25, 0.75])}, classes=names)
    config = given.config
    object.__setattr__(config, "blocks", tuple(np.array(config.blocks)))  # which type checks would refuse
    save_checkpoint(tmp_path / "model.pt", given)
    read = read_checkpoint(tmp_path / "model.pt")
    assert (read.metrics, read.classes, read.config) == ({"top1": 0.5}, ("a", "b", "c"), config)
    assert {type(number) for number in read.config.blocks} == {int}
    json.dumps(describe(None, given))


def test_wrong_number_of_class_names_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"could not be read back: it lists 2 class names, but its network has 3"):
        save_checkpoint(tmp_path / "model.pt", dataclasses.replace(checkpoint(), classes=("a", "b")))


def test_two_names_for_one_tensor_become_two(saved):
    one, two = "blocks.1.bottleneck.0.bias", "blocks.2.bottleneck.0.bias"
    resaved(saved, state_dict={one: (shared := torch.zeros(6)), two: shared})
    state = load_checkpoint(saved).state_dict()
    state[one] += 1
    assert torch.equal(state[two], torch.zeros(6))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.lists(st.sampled_from([torch.float16, torch.bfloat16, torch.float32]), min_size=2, max_size=5))
def test_weights_of_several_precisions_are_read_in_the_widest(tmp_path, kinds):
    """As they are, but the same for all, in which the network computes."""
    model = build_network(CONFIG)
    for parameter, kind in zip(model.parameters(), itertools.cycle(kinds)):
        parameter.data = parameter.to(kind)
    save_checkpoint(tmp_path / "mixed.pt", dataclasses.replace(checkpoint(), model=model))
    found = load_checkpoint(tmp_path / "mixed.pt")
    for name, tensor in found.state_dict().items():
        assert tensor.dtype in (torch.float32, torch.int64)  # running statistics are in single precision
        assert torch.equal(tensor, model.state_dict()[name].to(tensor.dtype))
    assert found(torch.rand(2, *CONFIG.input_shape)).isfinite().all()
