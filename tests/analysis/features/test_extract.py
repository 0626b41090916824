import hashlib
import multiprocessing

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
from irevnet import build_model
from irevnet.data.images import LabelledImages
from irevnet.data.transforms import InputTransform

IDENTITY = {"weights_sha256": "abc"}


def labelled(count: int, size: int = 8) -> LabelledImages:
    images = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(3))
    transform = InputTransform(channels=3, image_size=(size, size))
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


def contents(store: FeatureStore) -> dict[str, str]:
    return {
        str(path.relative_to(store.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


@pytest.mark.parametrize("batch_size", [3, 10, 64])
def test_features_are_the_spatial_means_of_phi_j(model, data, store, batch_size):
    layers = network_layers(model, depths=[1, 3, 4])
    assert extract(model, data, store, "test", layers, batch_size=batch_size) == 10
    inputs = torch.stack([data[row][0] for row in range(10)])
    for depth in (1, 3, 4):
        expected = model.features(inputs, depth).mean(dim=(2, 3)).detach()
        np.testing.assert_allclose(store.features("test", f"block-{depth}"), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(store.features("test", LOGITS), model(inputs).detach(), rtol=1e-4, atol=1e-5)
    assert store.labels("test").tolist() == data.labels


def test_features_that_are_there_are_not_made_again(model, data, store):
    layers = network_layers(model)
    assert extract(model, data, store, "test", layers[:2]) == 10
    before = contents(store)
    assert extract(model, data, store, "test", layers[:2]) == 0
    assert extract(model, data, store, "test", layers[1:2]) == 0
    assert contents(store) == before
    assert extract(model, data, store, "test", layers) == 10  # others are added
    assert contents(store).items() >= before.items()


@pytest.mark.parametrize("kill_at", [1, 2, 4])
def test_an_extraction_that_was_killed_goes_on_to_the_same_bytes(model, data, tmp_path, monkeypatch, kill_at):
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

    handle = model.register_forward_hook(die)
    with monkeypatch.context() as patch:
        flush = module.FeatureStore.writer

        def writer_that_dies(store, *arguments):
            writer = flush(store, *arguments)
            real = writer.flush
            writer.flush = lambda: None if len(seen) > kill_at else real()
            return writer

        patch.setattr(module.FeatureStore, "writer", writer_that_dies)
        with pytest.raises(KeyboardInterrupt):
            extract(model, data, killed, "train", layers, batch_size=2)
    handle.remove()
    done = killed.done("train", [layer.name for layer in layers])
    assert done.sum() == {1: 0, 2: 4, 4: 8}[kill_at]
    assert extract(model, data, killed, "train", layers, batch_size=2) == 10 - done.sum()
    assert contents(killed) == contents(whole)


def test_what_is_done_is_flushed_every_few_seconds_too(model, data, store, monkeypatch):
    clock, flushes = [0.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.append(clock[-1] + 4) or clock[-1])
    flush = Writer.flush
    monkeypatch.setattr(Writer, "flush", lambda writer: (flushes.append(len(clock)), flush(writer)))
    extract(model, data, store, "train", network_layers(model), batch_size=1)
    assert len(flushes) == 4  # after every third of ten batches of four seconds each, and at the end


def test_an_interrupt_keeps_what_has_been_done(model, data, store):
    seen = []

    def interrupt(model_, inputs, output):
        seen.append(len(output))
        if len(seen) == 3:
            raise KeyboardInterrupt

    handle = model.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        extract(model, data, store, "train", network_layers(model), batch_size=2)
    handle.remove()
    assert store.done("train", ["block-1", LOGITS]).tolist() == [True] * 4 + [False] * 6


def test_processes_that_share_the_work_leave_the_bytes_of_one(model, tmp_path):
    one, shared = (FeatureStore(tmp_path / name, IDENTITY) for name in ("one", "shared"))
    layers, data = network_layers(model), labelled(50)
    extract(model, data, one, "train", layers, batch_size=4)
    processes = [
        multiprocessing.get_context("spawn").Process(
            target=extract,
            args=(model, data, shared, "train", layers),
            kwargs={"part": (k, 2), "batch_size": 4},
        )
        for k in (1, 2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert contents(shared) == contents(one)


def test_parts_cover_all_rows_once_and_begin_at_whole_batches():
    done = np.zeros(50, dtype=bool)
    parts = [module._rows_to_fill(done, (k, 4), 4) for k in (1, 2, 3, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(50))
    assert all(part[0] % 4 == 0 for part in parts)


def test_the_network_is_left_as_it_was(model, data, store):
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    extract(model, data, store, "test", network_layers(model))
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_features_that_are_not_finite_are_refused_and_none_is_marked(model, data, store):
    model.blocks[2].bottleneck[0].weight.data.fill_(torch.nan)
    with pytest.raises(
        ValueError, match="the features of block-3 are not finite, at first of test image 0; the network"
    ):
        extract(model, data, store, "test", network_layers(model))
    assert not store.done("test", ["block-1"]).any()


def test_the_first_image_whose_features_are_not_finite_is_named(model, data, store):
    data.images[7] = 3e38
    layers = network_layers(model)
    with pytest.raises(
        ValueError, match="the features of block-1 are not finite, at first of test image 7; the network"
    ):
        extract(model, data, store, "test", layers, batch_size=3)
    assert store.done("test", [layer.name for layer in layers]).tolist() == [True] * 6 + [False] * 4


@pytest.mark.parametrize(("name", "channels"), [("resnet-cifar", 224), ("revnet-56", 3328)])
def test_networks_that_are_not_invertible_have_features_too(name, channels, store):
    model = build_model(name)
    extract(model, labelled(2, 32), store, "test", network_layers(model)[-1:])
    assert store.features("test", f"block-{model.config.num_blocks}").shape == (2, channels)


def test_a_stream_that_is_handed_on_is_averaged_once(model, data, store, monkeypatch):
    """Four blocks of two streams each; the second of the two stages begins with a block that rearranges both."""
    averaged = []
    average = Layout.average
    monkeypatch.setattr(Layout, "average", lambda self, stream: (averaged.append(1), average(self, stream))[1])
    extract(model, data, store, "test", network_layers(model), batch_size=10)
    assert len(averaged) == 2 + 1 + 2 + 1


def test_blocks_are_numbered_from_1(model):
    layers = network_layers(model)
    assert [(layer.name, layer.depth, layer.relative_depth) for layer in layers] == [
        ("block-1", 1, 0.25),
        ("block-2", 2, 0.5),
        ("block-3", 3, 0.75),
        ("block-4", 4, 1.0),
    ]
    assert [layer.module for layer in network_layers(model, depths=[4, 2])] == [model.blocks[3], model.blocks[1]]
    with pytest.raises(ValueError, match="depth 0 does not exist; this network has depths 1 to 4"):
        network_layers(model, depths=[0, 5])
    with pytest.raises(ValueError, match="`depths` and `layers` were both given; give one of them"):
        network_layers(model, depths=[1], names=["blocks.1"])


def test_network_without_logits_is_refused(model, data, store):
    head = model.forward
    model.forward = lambda images: head(images)[:, :, None]
    with pytest.raises(ValueError, match=r"output for 10 images is \(10, 5, 1\); expected logits \(images, classes\)"):
        extract(model, data, store, "test", network_layers(model), batch_size=10)


@pytest.mark.parametrize(
    ("name", "blocks", "first", "last"),
    [
        ("resnet18", 8, "layer1.0", "layer4.1"),
        ("resnet50", 16, "layer1.0", "layer4.2"),
        ("mobilenet_v3_small", 13, "features.0", "features.12"),
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
    with pytest.raises(ValueError, match=r"there is no layer 'blocks\.9'; did you mean"):
        network_layers(model, names=["blocks.9"])


def test_a_network_without_blocks_is_told_how_to_name_layers():
    with pytest.raises(ValueError, match="no blocks are found in this Linear; name its layers by `layers`"):
        network_layers(nn.Linear(2, 2))


def test_a_layer_that_is_never_passed_is_named(data, store):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    model.unused = nn.Linear(1, 1)
    model.forward = lambda x: model[1](model[0](x))
    with pytest.raises(ValueError, match="the network does not pass through unused; name other layers"):
        extract(model, data, store, "test", network_layers(model, names=["unused"]))


def test_what_an_earlier_batch_left_is_not_taken_for_a_layer_that_is_passed_over(model, data, store):
    """A network that may leave out a block, as those with early exits do."""
    head, passed = model.forward, []

    def forward(images):
        passed.append(len(images))
        return head(images) if len(passed) == 1 else torch.zeros(len(images), 5)

    model.forward = forward
    with pytest.raises(ValueError, match="the network does not pass every batch of images through block-1"):
        extract(model, data, store, "test", network_layers(model), batch_size=5)
