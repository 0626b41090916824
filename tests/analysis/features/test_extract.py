import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.models
from torch import nn

from analysis.features import extract as module
from analysis.features.extract import LOGITS, extract
from analysis.features.layers import network_layers
from analysis.features.layout import Layout
from analysis.features.store import FeatureStore, Writer
from irevnet.data.images import LabelledImages
from irevnet.data.transforms import InputTransform
from irevnet.models.baselines import RevNet
from irevnet.models.config import RevNetConfig

IDENTITY = {"weights_sha256": "abc"}


def labelled(count: int) -> LabelledImages:
    images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    transform = InputTransform(channels=3, image_size=(8, 8))
    return LabelledImages(images, [n % 2 for n in range(count)], ("a", "b"), transform)


@pytest.fixture
def data() -> LabelledImages:
    return labelled(10)


@pytest.fixture
def model(bijective):
    return bijective.float()


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return FeatureStore(tmp_path / "features", IDENTITY)


def contents(store: FeatureStore) -> dict[Path, bytes]:
    return {path.relative_to(store.folder): path.read_bytes() for path in store.folder.rglob("*.npy")}


@pytest.mark.parametrize("batch_size", [3, 64])
def test_features_are_the_spatial_means_of_phi_j(model, data, store, batch_size):
    layers = network_layers(model, depths=[1, 3, 4])
    assert extract(model, data, store, "test", layers, batch_size=batch_size) == 10
    inputs = torch.stack([data[row][0] for row in range(10)])
    for depth in (1, 3, 4):
        expected = model.features(inputs, depth).mean(dim=(2, 3)).detach()
        np.testing.assert_allclose(store.features("test", f"block-{depth}"), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(store.features("test", LOGITS), model(inputs).detach(), rtol=1e-4, atol=1e-5)
    assert store.labels("test").tolist() == data.labels
    assert not any(module._forward_hooks for module in model.modules())


def test_features_that_are_there_are_not_made_again(model, data, store):
    layers = network_layers(model)
    assert extract(model, data, store, "test", layers[:2]) == 10
    before = contents(store)
    assert extract(model, data, store, "test", layers[:2]) == 0
    assert extract(model, data, store, "test", layers[1:2]) == 0
    assert contents(store) == before
    assert extract(model, data, store, "test", layers) == 10  # others are added
    assert contents(store).items() >= before.items()


@pytest.mark.parametrize(("kill_at", "done"), [(1, 0), (4, 8)])
def test_an_extraction_that_was_killed_goes_on_to_the_same_bytes(model, data, tmp_path, monkeypatch, kill_at, done):
    """Killed without a chance to flush, after batches of which some have been flushed and the last has not."""
    monkeypatch.setattr(module, "FLUSH_BYTES", 1500)  # every second batch
    layers = network_layers(model)
    whole, killed = (FeatureStore(tmp_path / name, IDENTITY) for name in ("whole", "killed"))
    extract(model, data, whole, "train", layers, batch_size=2)
    seen = []

    def die(model_, inputs, output):
        seen.append(len(output))
        if len(seen) > kill_at:
            raise KeyboardInterrupt

    handle, flush = model.register_forward_hook(die), Writer.flush
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "flush", lambda writer: None if len(seen) > kill_at else flush(writer))
        with pytest.raises(KeyboardInterrupt):
            extract(model, data, killed, "train", layers, batch_size=2)
    handle.remove()
    assert killed.done("train", [layer.name for layer in layers]).sum() == done
    assert extract(model, data, killed, "train", layers, batch_size=2) == 10 - done
    assert contents(killed) == contents(whole)


def test_what_is_done_is_flushed_every_few_seconds_too(model, data, store, monkeypatch):
    clock, flushes = [0.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.append(clock[-1] + 4) or clock[-1])
    flush = Writer.flush
    monkeypatch.setattr(Writer, "flush", lambda writer: (flushes.append(len(clock)), flush(writer)))
    extract(model, data, store, "train", network_layers(model), batch_size=1)
    assert len(flushes) == 4  # after every third of ten batches of four seconds each, and at the end


def test_those_that_share_the_work_leave_the_bytes_of_one(model, tmp_path):
    one, shared = (FeatureStore(tmp_path / name, IDENTITY) for name in ("one", "shared"))
    layers, data = network_layers(model), labelled(50)
    extract(model, data, one, "train", layers, batch_size=4)

    def work(k: int) -> None:
        own = copy.deepcopy(model)
        extract(own, data, shared, "train", network_layers(own), part=(k, 2), batch_size=4)

    with ThreadPoolExecutor() as threads:
        list(threads.map(work, (1, 2)))
    assert contents(shared) == contents(one)
    parts = [module._rows_to_fill(np.zeros(50, dtype=bool), (k, 4), 4) for k in (1, 2, 3, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(50))
    assert all(part[0] % 4 == 0 for part in parts)  # at whole batches


def test_the_first_image_whose_features_are_not_finite_is_named(model, data, store):
    image = data.images[7].clone()
    data.images[7] = 3e38
    layers = network_layers(model)
    with pytest.raises(ValueError, match="the features of block-1 are not finite, at first of test image 7; the net"):
        extract(model, data, store, "test", layers, batch_size=3)
    assert store.done("test", [layer.name for layer in layers]).tolist() == [True] * 6 + [False] * 4
    data.images[7] = image
    model.blocks[2].bottleneck[0].weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="the features of block-3 are not finite, at first of test image 6; the net"):
        extract(model, data, store, "test", layers)


def test_networks_that_are_not_invertible_have_features_too(data, store):
    config = RevNetConfig(input_shape=(3, 8, 8), num_classes=3, blocks=(1, 1), widths=(16, 32), strides=(1, 2))
    model = RevNet(config)
    extract(model, data, store, "test", network_layers(model)[-1:])
    assert store.features("test", "block-2").shape == (10, 32)


def test_a_stream_that_is_handed_on_is_averaged_once(model, data, store, monkeypatch):
    """Four blocks of two streams each; the second of the two stages begins with a block that rearranges both."""
    averaged = []
    average = Layout.average
    monkeypatch.setattr(Layout, "average", lambda self, stream: (averaged.append(1), average(self, stream))[1])
    extract(model, data, store, "test", network_layers(model), batch_size=10)
    assert len(averaged) == 2 + 1 + 2 + 1


def test_blocks_are_numbered_from_1(model):
    layers = network_layers(model)
    assert [layer.name for layer in layers] == [f"block-{j}" for j in (1, 2, 3, 4)]
    assert [(layer.depth, layer.relative_depth) for layer in layers] == [(j, j / 4) for j in (1, 2, 3, 4)]
    assert [layer.module for layer in network_layers(model, depths=[4, 2])] == [model.blocks[3], model.blocks[1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": [0, 5]}, "depth 0 does not exist; this network has depths 1 to 4"),
        ({"depths": [1], "names": ["blocks.1"]}, "`depths` and `layers` were both given; give one of them"),
        ({"names": ["blocks.9"]}, r"there is no layer 'blocks\.9'; did you mean"),
    ],
)
def test_layers_that_there_are_not_are_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        network_layers(model, **options)
    with pytest.raises(ValueError, match="no blocks are found in this Linear; name its layers by `layers`"):
        network_layers(nn.Linear(2, 2))


def test_network_without_logits_is_refused(model, data, store):
    head = model.forward
    model.forward = lambda images: head(images)[:, :, None]
    with pytest.raises(ValueError, match=r"output for 10 images is \(10, 5, 1\); expected logits \(images, classes\)"):
        extract(model, data, store, "test", network_layers(model), batch_size=10)


@pytest.mark.parametrize(
    ("name", "blocks", "first", "last"),
    [
        ("resnet18", 8, "layer1.0", "layer4.1"),
        ("convnext_tiny", 19, "features.0", "features.7.2"),
        ("densenet121", 7, "features.denseblock1", "features.denseblock4"),
        ("vit_b_16", 12, "encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_11"),
    ],
)
def test_the_blocks_of_torchvisions_networks_are_found(name, blocks, first, last):
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    layers = network_layers(model)
    assert (len(layers), layers[0].name, layers[-1].name) == (blocks, first, last)
    modules = dict(model.named_modules())
    assert all(modules[layer.name] is layer.module for layer in layers)


def test_layers_are_found_by_name(model, data, store):
    layers = network_layers(model, names=["blocks.1", "head.norm"])
    assert [(layer.name, layer.depth) for layer in layers] == [("blocks.1", 1), ("head.norm", 2)]
    extract(model, data, store, "test", layers)
    assert store.features("test", "head.norm").shape == (10, 48)


def test_a_layer_passed_over_has_nothing_of_an_earlier_batch(model, data, store):
    """A network that may leave out a block, as those with early exits do."""
    head, passed = model.forward, []

    def forward(images):
        passed.append(len(images))
        return head(images) if len(passed) == 1 else torch.zeros(len(images), 5)

    model.forward = forward
    with pytest.raises(ValueError, match="the network does not pass every batch of images through block-1"):
        extract(model, data, store, "test", network_layers(model), batch_size=5)
