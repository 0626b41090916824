import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from irevnet import IRevNetConfig
from irevnet.data.datasets import load_dataset
from irevnet.data.images import LabelledImages
from irevnet.data.lazy_images import ImageFiles
from irevnet.models.zoo import build_network, preset_config
from irevnet.training.config import TrainConfig, recipe
from irevnet.training.dry_run import Plan, check_images, peak_memory, plan
from irevnet.training.runs import new_run, prepare
from irevnet.training.settings import RunSettings


def planned(model: str, **changes) -> Plan:
    settings = RunSettings(model=model, data="digits", training=recipe("digits", **changes), image_size=32)
    return plan(prepare(settings)[0])


def test_the_plan_counts_what_training_will_do():
    content = planned("irevnet-small")
    assert (content.num_train, content.num_test, content.num_classes) == (1437, 360, 10)
    assert content.num_checked == 1000 + 360
    assert (content.steps_per_epoch, content.num_steps) == (22, 440)
    assert content.input_shape == (1, 32, 32)
    steps, rates = zip(*content.learning_rates)
    assert steps == (1, 88, 440)
    assert rates == pytest.approx((0.004, 0.1, 0.0), abs=1e-3)
    assert content.state_memory == 3 * 4 * content.parameters
    assert content.pflop == pytest.approx(6 * content.multiply_adds * 440 * 64 / 1e15)
    assert planned("irevnet-small", memory="reversible").pflop == pytest.approx(content.pflop * 4 / 3)
    assert content.memory["plain"] > 1.5 * max(content.memory["reversible"], content.memory["checkpoint"])
    content = planned("resnet-cifar", schedule="step", decay_at=(0.5, 0.75))
    assert content.learning_rates == ((1, 0.1), (221, pytest.approx(0.01)), (331, pytest.approx(0.001)))
    assert list(content.memory) == ["plain"]


def test_kept_checkpoints_take_what_the_plan_says(tmp_path):
    run = new_run(tmp_path, RunSettings(model="irevnet-small", data="digits", training=recipe("digits", steps=3)))
    assert "kept" not in plan(run.training).lines()
    content = plan(run.training, keep_every=2)
    list(replace(run, keep_every=2).epochs())
    sizes = [path.stat().st_size for path in (tmp_path / "kept").iterdir()]
    assert len(sizes) == content.num_kept == 3
    assert sum(sizes) == pytest.approx(content.kept_size, rel=0.1)
    assert content.lines()["kept"] == f"3 checkpoints, about {content.kept_size / 1e6:.1f} MB together"


def measured_peak(network, batch_size: int, memory: str) -> int:
    """Peak memory of torch's allocator, from the profiler's record of allocations and releases."""
    model = build_network(network).train()
    if isinstance(network, IRevNetConfig):
        model.memory = memory
    images, labels = torch.rand(batch_size, *network.input_shape), torch.zeros(batch_size, dtype=torch.long)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        nn.functional.cross_entropy(model(images), labels).backward()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    kept = (*model.parameters(), *model.parameters(), *model.buffers(), images)  # twice, for the momentum
    return sum(tensor.nbytes for tensor in kept) + int(np.cumsum(sizes).max())


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")  # of PyTorch 2.11, of several cycles
@pytest.mark.parametrize(
    ("model", "memory"),
    [
        *(("irevnet-cifar-bijective", memory) for memory in ("plain", "checkpoint", "reversible")),
        ("resnet-cifar", "plain"),
    ],
)
def test_peak_memory_matches_the_allocator(model, memory):
    """Within a tenth, since convolutions take workspace outside of tensors."""
    network = preset_config(model)
    predicted = peak_memory(network, TrainConfig(epochs=1, batch_size=16), memory)
    assert predicted == pytest.approx(measured_peak(network, 16, memory), rel=0.1)


def test_mixed_precision_takes_less_memory():
    network = preset_config("resnet-cifar")
    full, half = (peak_memory(network, TrainConfig(epochs=1, amp=amp), "plain") for amp in ("none", "bf16"))
    assert 0.4 * full < half < 0.8 * full


def test_all_images_are_looked_at_or_many_of_them(tmp_path):
    source = load_dataset("digits")
    images = source.images("test", source.transform())
    assert check_images(images) == 360
    seen = []
    images.pixels = lambda row: seen.append(row) or torch.zeros(1, 8, 8)
    assert check_images(images, limit=10) == 10
    assert (seen[0], seen[-1]) == (0, 359)
    assert {b - a for a, b in itertools.pairwise(seen)} <= {39, 40}
    (tmp_path / "broken.png").write_bytes(b"no image")
    data = LabelledImages(ImageFiles([str(tmp_path / "broken.png")]), [0], ("a",), source.transform())
    with pytest.raises(ValueError, match=r"broken\.png cannot be read as an image"):
        check_images(data)
