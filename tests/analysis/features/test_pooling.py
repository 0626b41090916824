"""Each kind of pooling against the network's own forward pass, and CLS tokens where a network is known to have them."""

import numpy as np
import pytest
import torch
import torchvision.models
from torch import Tensor, nn

from analysis.features.extract import extract
from analysis.features.layers import network_layers
from analysis.features.layout import Layout
from analysis.features.pooling import Pooling
from analysis.features.store import FeatureStore
from irevnet.data.images import LabelledImages
from irevnet.data.transforms import InputTransform

SIZE = (12, 12)


@pytest.fixture
def data() -> LabelledImages:
    images = torch.rand(5, 3, *SIZE)
    return LabelledImages(images, [0, 1, 0, 1, 0], ("a", "b"), InputTransform(channels=3, image_size=SIZE))


def pooled(model: nn.Module, layer: str, pool: str, data: LabelledImages, tmp_path) -> np.ndarray:
    store = FeatureStore(tmp_path / pool, {"pool": pool})
    extract(model, data, store, "test", network_layers(model, names=[layer]), pool=pool, batch_size=3)
    return store.features("test", layer)


def output_of(model: nn.Module, layer: str, data: LabelledImages) -> Tensor:
    outputs: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():
        model(torch.stack([data[row][0] for row in range(len(data))]))
    handle.remove()
    return outputs[0]


def small_vit() -> nn.Module:
    """Of torchvision, for patches of 4 x 4."""
    vit = torchvision.models.VisionTransformer(12, 4, num_layers=2, num_heads=2, hidden_dim=6, mlp_dim=8, num_classes=3)
    return vit.eval()


class Channels(nn.Module):
    """A layer whose output is `(n, h, w, c)`."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x).permute(0, 2, 3, 1)


def channels_last() -> nn.Module:
    head = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    model = nn.Sequential(Channels(), nn.Identity(), head)
    model(torch.zeros(1, 3, *SIZE))
    return model.eval()


def test_maps_are_pooled_over_space(data, tmp_path):
    model = channels_last()
    output = output_of(model, "0", data)
    assert output.shape == (5, 10, 10, 4)
    for pool, expected in {
        "mean": output.mean(dim=(1, 2)),
        "max": output.amax(dim=(1, 2)),
        "flatten": output.reshape(5, -1),
    }.items():
        np.testing.assert_allclose(pooled(model, "0", pool, data, tmp_path), expected, rtol=1e-5, atol=1e-6)


def test_tokens_are_pooled_with_and_without_cls(data, tmp_path):
    model, layer = small_vit(), "encoder.layers.encoder_layer_1"
    output = output_of(model, layer, data)
    assert output.shape == (5, 1 + 9, 6)
    for pool, expected in {
        "mean": output.mean(dim=1),
        "max": output.amax(dim=1),
        "cls": output[:, 0],
        "patches": output[:, 1:].mean(dim=1),
        "flatten": output.flatten(1),
    }.items():
        np.testing.assert_allclose(pooled(model, layer, pool, data, tmp_path), expected, rtol=1e-5, atol=1e-6)


def test_both_streams_of_a_block_are_flattened_as_phi_j(bijective, tmp_path):
    """A stream that one block hands on to the next is that of both."""
    model, store = bijective.float(), FeatureStore(tmp_path, {})
    images = torch.rand(4, 3, 8, 8)
    data = LabelledImages(images, [0, 1, 0, 1], ("a", "b"), InputTransform(channels=3, image_size=(8, 8)))
    extract(model, data, store, "test", network_layers(model), pool="flatten")
    for depth in (1, 2, 3, 4):
        expected = model.features(images, depth).flatten(1).detach()
        assert expected.shape == (4, 192)
        np.testing.assert_allclose(store.features("test", f"block-{depth}"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", [Layout(0, 2), Layout(1, 2), Layout(0, 1), Layout(2, 0)])
def test_tokens_are_found_in_any_layout(layout):
    """The first token is the CLS token, the maximum may be of any."""
    tokens = torch.rand(2, 5, 3, dtype=torch.float64)
    (places,) = {0, 1, 2} - {layout.images, layout.channels}
    output = tokens.movedim((0, 1, 2), (layout.images, places, layout.channels))
    expected = {"cls": tokens[:, 0], "patches": tokens[:, 1:].mean(1), "max": tokens.amax(1), "mean": tokens.mean(1)}
    for kind, vectors in expected.items():
        torch.testing.assert_close(Pooling(kind=kind, prefix=1, image_size=(8, 8))("it", output, layout), vectors)


class Tokens(nn.Module):
    """A network of one's own: a grid of 3 x 3 patches behind `prefix` tokens, in a parameter of some name."""

    def __init__(self, **prefix: int):
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 4, stride=4)
        for name, count in prefix.items():
            setattr(self, name, nn.Parameter(torch.rand(1, count, 4)))
        self.names = list(prefix)
        self.before, self.after, self.head = nn.Identity(), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.before(self.patches(x).flatten(2).mT)
        tokens = [getattr(self, name).expand(len(x), -1, -1) for name in self.names]
        return self.head(self.after(torch.cat([*tokens, patches], dim=1)).mean(1))


def counted(count: int) -> nn.Module:
    """With the attribute of timm's networks."""
    model = Tokens(mine=count)
    model.num_prefix_tokens = count
    return model


@pytest.mark.parametrize(
    ("model", "prefix"),
    [
        (Tokens(cls_token=1), 1),
        (Tokens(cls_token=1, distillation_token=1), 2),
        (Tokens(cls_token=1, register_tokens=4), 5),
        (Tokens(class_embedding=1), 1),
        (counted(2), 2),
    ],
)
def test_tokens_before_those_of_patches_are_known(model, prefix, data, tmp_path):
    output = output_of(model, "after", data)
    assert output.shape[1] == prefix + 9
    np.testing.assert_allclose(pooled(model, "after", "cls", data, tmp_path), output[:, 0], rtol=1e-5, atol=1e-6)
    expected = output[:, prefix:].mean(dim=1)
    np.testing.assert_allclose(pooled(model, "after", "patches", data, tmp_path), expected, rtol=1e-5, atol=1e-6)


def registers_alone() -> nn.Module:
    """As timm has them: no CLS token, but an attribute for one."""
    model = counted(4)
    model.cls_token = None
    return model


def test_patches_are_known_where_there_is_no_cls_token(data, tmp_path):
    model = registers_alone()
    expected = output_of(model, "after", data)[:, 4:].mean(dim=1)
    np.testing.assert_allclose(pooled(model, "after", "patches", data, tmp_path), expected, rtol=1e-5, atol=1e-6)


UNKNOWN = (
    "is not known to have a CLS token; expected one parameter called cls_token, class_token or class_embedding, or"
)


@pytest.mark.parametrize(
    ("model", "layer", "pool", "message"),
    [
        (channels_last(), "0", "cls", f"this Sequential {UNKNOWN}"),
        (Tokens(), "after", "patches", f"this Tokens {UNKNOWN} an attribute num_prefix_tokens of the network"),
        (registers_alone(), "after", "cls", UNKNOWN),
        (Tokens(cls_token=1), "patches", "cls", r"of patches has shape \(3, 4, 3, 3\), which is not of tokens; choose"),
        (
            Tokens(cls_token=1),
            "before",
            "cls",
            r"shape \(3, 9, 4\): 9 tokens, which are not 1 and those of the patches",
        ),
        (Tokens(cls_token=1), "head", "patches", r"has shape \(3, 2\), which is not of tokens; choose another `pool`"),
    ],
)
def test_tokens_that_are_not_known_are_refused(model, layer, pool, message, data, tmp_path):
    with pytest.raises(ValueError, match=message):
        pooled(model, layer, pool, data, tmp_path)
    assert not list(tmp_path.rglob("*.done.npy"))


@pytest.mark.usefixtures("unchecked_types")
def test_unknown_kind_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="there is no `pool` 'median'; expected one of mean, max, cls, patches, flatt"):
        pooled(Tokens(), "after", "median", data, tmp_path)


@pytest.mark.parametrize(
    ("name", "layer", "prefix"),
    [
        ("vit_tiny_patch16_224", "blocks.1", 1),
        ("deit_tiny_distilled_patch16_224", "blocks.1", 2),
        ("vit_medium_patch16_reg4_gap_256", "blocks.1", None),
        ("cait_xxs24_224", "blocks.1", None),  # whose CLS token joins two blocks before the end
    ],
)
def test_networks_of_timm_have_the_tokens_that_they_count(name, layer, prefix, data, tmp_path):
    timm = pytest.importorskip("timm")
    size = {"img_size": 12, "patch_size": 4, "depth": 2, "embed_dim": 24, "num_heads": 2}
    model = timm.create_model(name, num_classes=3, **size).eval()
    if prefix is None:
        with pytest.raises(ValueError, match=r"not known to have a CLS token|9 tokens, which are not 1 and those of"):
            pooled(model, layer, "cls", data, tmp_path)
        return
    output = output_of(model, layer, data)
    assert output.shape == (5, prefix + 9, 24)
    np.testing.assert_allclose(pooled(model, layer, "cls", data, tmp_path), output[:, 0], rtol=1e-5, atol=1e-6)
    expected = output[:, prefix:].mean(dim=1)
    np.testing.assert_allclose(pooled(model, layer, "patches", data, tmp_path), expected, rtol=1e-5, atol=1e-6)


def test_more_features_than_the_probes_take_are_refused_before_the_pass(data, tmp_path):
    store, model = FeatureStore(tmp_path, {}), channels_last()
    layers = network_layers(model, names=["0", "2"])
    with pytest.raises(ValueError, match=r"0 has 400 features an image, and the probes take at most 399; choose anoth"):
        extract(model, data, store, "test", layers, pool="flatten", most_dims=399)
    assert not list((tmp_path / "test").glob("*.done.npy"))
    assert extract(model, data, store, "test", layers, pool="flatten", most_dims=400) == 5
