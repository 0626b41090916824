import copy
import dataclasses
import io
import math
from contextlib import suppress

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from irevnet import IRevNet
from irevnet.data.datasets import load_dataset
from irevnet.training.config import TrainConfig
from irevnet.training.muon import Muon
from irevnet.training.trainer import EpochMetrics, Training, evaluate
from irevnet.utils.progress import Interrupted


class Fixed(nn.Module):
    """A network of fixed logits: an image of value i gets row i."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images):
        return self.logits[images.flatten().long()]


def indexed(labels: torch.Tensor) -> TensorDataset:
    """Images of one value each, their numbers."""
    return TensorDataset(torch.arange(float(len(labels)))[:, None], labels)


@pytest.mark.parametrize(("classes", "training"), [(8, True), (3, False)])
def test_evaluation_counts_what_it_says(classes, training):
    logits = torch.randn(50, classes)
    labels = torch.randint(0, classes, (50,))
    model = Fixed(logits).train(training)
    seen = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(module.training))
    result = evaluate(model, indexed(labels), batch_size=7)
    ranks = [sorted(row.tolist(), reverse=True).index(row[label].item()) for row, label in zip(logits, labels)]
    assert result.top1 == sum(rank == 0 for rank in ranks) / 50
    assert result.top5 == sum(rank < 5 for rank in ranks) / 50
    losses = [math.log(row.double().exp().sum()) - row[label].item() for row, label in zip(logits, labels)]
    assert result.loss == pytest.approx(sum(losses) / 50, rel=1e-5)
    assert result.num_images == 50
    assert seen == [False] * 8
    assert model.training == training


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_image_with_infinite_logits_is_named(value):
    logits = torch.randn(50, 8)
    logits[23, 5] = value
    with pytest.raises(FloatingPointError, match="the logits of image 23 are not finite; the network's weights or its"):
        evaluate(Fixed(logits), indexed(torch.zeros(50).long()), batch_size=7)


def test_evaluation_stops_before_a_batch():
    model, answers = Fixed(torch.randn(50, 8)), iter((False, False, True))
    with pytest.raises(Interrupted, match="the evaluation was stopped"):
        evaluate(model, indexed(torch.zeros(50).long()), batch_size=7, stop=lambda: next(answers))
    assert next(answers, None) is None
    assert model.training


@pytest.fixture
def blobs() -> TensorDataset:
    """Two linearly separable classes."""
    labels = torch.arange(40) % 2
    return TensorDataset(torch.randn(40, 3) + 4 * labels[:, None], labels)


def config(**changes) -> TrainConfig:
    return TrainConfig(**{"epochs": 3, "batch_size": 8, **changes})


def epochs(training: Training) -> list[EpochMetrics]:
    return [metrics for metrics in training.steps() if metrics]


def test_training_learns_and_reports_every_epoch(blobs):
    model = nn.Linear(3, 2)
    training = Training(model, blobs, blobs, config())
    metrics = epochs(training)
    assert [each.epoch for each in metrics] == [1, 2, 3]
    assert [each.step for each in metrics] == [5, 10, 15]
    assert metrics[-1].test_top1 == evaluate(model, blobs).top1 >= 0.95
    assert metrics[-1].train_loss < metrics[0].train_loss
    assert metrics[-1].learning_rate == config().rate(14, 15) < 0.002
    assert metrics == training.history
    assert len(training.losses) == 15
    assert metrics[1].train_loss == pytest.approx(sum(training.losses[5:10]) / 5)
    assert metrics[-1].train_top1 == evaluate(model, blobs).top1  # the last rates change nothing
    training = Training(nn.Linear(3, 2), blobs, blobs, config(epochs=None, steps=7))
    metrics = epochs(training)
    assert [each.step for each in metrics] == [5, 7]
    assert metrics[1].train_loss == pytest.approx(sum(training.losses[5:]) / 2)


def test_steps_are_those_of_momentum_with_weight_decay(blobs):
    model = nn.Linear(3, 2)
    expected = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    settings = config(epochs=20, batch_size=40, momentum=0.8, weight_decay=0.5)
    steps = Training(model, blobs, blobs, settings).steps()
    images, labels = blobs.tensors
    velocities = [torch.zeros_like(parameter) for parameter in expected]
    for done in range(8):  # an epoch is one step
        next(steps)
        loss = nn.functional.cross_entropy(nn.functional.linear(images, *expected), labels)
        gradients = torch.autograd.grad(loss, expected)
        with torch.no_grad():
            for parameter, gradient, velocity in zip(expected, gradients, velocities):
                velocity.mul_(0.8).add_(gradient + 0.5 * parameter)
                parameter -= settings.rate(done, 20) * velocity
        torch.testing.assert_close(list(model.parameters()), expected, rtol=1e-5, atol=1e-6)


def test_muon_takes_the_convolutions_and_sgd_the_rest():
    """Torch's own SGD with Nesterov's momentum at four times the rate: linear projections decay, norms do not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    twin = copy.deepcopy(model)
    data = TensorDataset(torch.randn(20, 1, 4, 4), torch.arange(20) % 2)
    settings = config(epochs=10, batch_size=20, optimiser="muon", schedule="linear", momentum=0.6, weight_decay=0.5)
    settings = dataclasses.replace(settings, label_smoothing=0.2)
    steps = Training(model, data, data, settings).steps()
    kernels = Muon([twin[0].weight], 1.0, momentum=0.6)
    decaying = torch.optim.SGD([twin[3].weight], 1.0, momentum=0.6, nesterov=True, weight_decay=0.5)
    others = [twin[0].bias, *twin[1].parameters(), twin[3].bias]
    rest = torch.optim.SGD(others, 1.0, momentum=0.6, nesterov=True)
    for done in range(4):
        next(steps)
        twin.zero_grad()
        logits = twin(data.tensors[0])
        chosen = logits.log_softmax(dim=1)
        own = chosen[range(20), data.tensors[1]].mean()
        (-0.8 * own - 0.2 * chosen.mean()).backward()
        rate = settings.rate(done, 10)
        for optimiser, factor in ((kernels, 1), (decaying, 4), (rest, 4)):
            for group in optimiser.param_groups:
                group["lr"] = factor * rate
            optimiser.step()
        torch.testing.assert_close(dict(model.named_parameters()), dict(twin.named_parameters()), rtol=1e-4, atol=1e-5)


@pytest.fixture
def digits_net() -> nn.Module:
    """A network with dropout and batch-norm statistics."""
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 10))


def digits_training(model: nn.Module, **settings) -> Training:
    """Three epochs of 3 steps on 431 images of three digits, of which each epoch drops 71."""
    source = load_dataset("digits")
    classes = ("1", "3", "8")
    train, test = (source.images(split, source.transform(), classes=classes) for split in ("train", "test"))
    return Training(model, train, test, config(**{"batch_size": 120, "augmentation": "cifar", **settings}), seed=4)


@pytest.mark.parametrize(
    ("stops", "settings"),
    [
        ([(1, False), (3, False)], {}),
        ([(2, False), (5, False), (6, False)], {"optimiser": "muon", "augmentation": "alternate"}),
        ([(3, True), (9, True)], {}),
    ],
)
def test_stopped_training_resumes_exactly(digits_net, stops, settings, unchecked_types):
    """Stopped after a step or, where that is true, in the evaluation after it."""
    first = copy.deepcopy(digits_net)
    state_of_generator = torch.get_rng_state()
    whole = digits_training(digits_net, **settings)
    epochs(whole)
    torch.set_rng_state(state_of_generator)
    training = digits_training(first, **settings)
    for stop, in_evaluation in stops:
        steps = training.steps(stop=lambda at=stop if in_evaluation else None, this=training: this.step == at)
        with suppress(Interrupted):
            while training.step < stop:
                next(steps)
        assert (training.step, len(training.history), training.finished) == (stop, stop // 3 - in_evaluation, False)
        saved = io.BytesIO()
        torch.save((training.model.state_dict(), training.state()), saved)
        saved.seek(0)
        weights, state = torch.load(saved, weights_only=True)
        torch.manual_seed(1000 + stop)
        model = copy.deepcopy(first)
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        model.load_state_dict(weights)
        training = digits_training(model, **settings)
        training.restore(state)
        assert training.step == stop
    epochs(training)
    assert training.finished
    assert training.losses == whole.losses
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(training.model.state_dict()[name], tensor), name
    histories = [[dataclasses.replace(each, seconds=0.0) for each in done.history] for done in (training, whole)]
    assert histories[0] == histories[1]


def test_a_state_of_something_else_is_refused(blobs):
    training = Training(nn.Linear(3, 2), blobs, blobs, config())
    other = Training(nn.Linear(3, 2, bias=False), blobs, blobs, config()).state()
    for state, message in (({}, r"KeyError: 'step'\); start a new run"), (other, "ValueError: loaded state dict")):
        with pytest.raises(ValueError, match=rf"the state does not fit this training \({message}"):
            training.restore(state)


def test_settings_that_do_not_fit_data_or_network_are_refused(blobs):
    for changes, message in (
        ({"batch_size": 64}, "a batch of 64 images is larger than the training set, of 40; lower"),
        ({"augmentation": "cifar"}, "augmentation='cifar' needs LabelledImages, not TensorDataset"),
        ({"memory": "reversible"}, "memory='reversible' needs an i-RevNet; a Linear takes 'plain'"),
        ({"sync_bn": True}, "sync_bn=True needs GPUs, but the network is on the cpu; omit it"),
        ({"amp": "tf32"}, "amp='tf32' needs a GPU, but the network is on the cpu; omit it or use bf16"),
    ):
        with pytest.raises(ValueError, match=message):
            Training(nn.Linear(3, 2), blobs, blobs, config(**changes))


def images_and_labels(network) -> TensorDataset:
    return TensorDataset(torch.rand(12, *network.input_shape), torch.arange(12) % network.num_classes)


def test_gradients_from_a_wrong_reconstruction_stop_training(bijective_config):
    data = images_and_labels(bijective_config)
    settings = config(batch_size=4, memory="reversible", check_reconstruction=2)
    assert len(epochs(Training(IRevNet(bijective_config), data, data, settings))) == 3
    model = IRevNet(bijective_config)
    with torch.no_grad():
        model.blocks[3].bottleneck[-1].weight *= 1e6
    message = "at step 1 reversible back-propagation rebuilt its input with a relative error"
    with (
        pytest.warns(RuntimeWarning, match="its gradients are wrong"),
        pytest.raises(FloatingPointError, match=message),
    ):
        epochs(Training(model, data, data, settings))


def test_training_and_evaluation_are_without_tf32_unless_it_is_asked_for(bijective_config):
    data = images_and_labels(bijective_config)
    model = IRevNet(bijective_config)
    seen = []

    def see(*_: object) -> None:
        seen.append(torch.backends.cudnn.allow_tf32)

    model.blocks[0].register_forward_hook(see)
    model.blocks[0].bottleneck[-1].weight.register_post_accumulate_grad_hook(see)
    assert torch.backends.cudnn.allow_tf32
    next(Training(model, data, data, config(batch_size=4)).steps())
    assert seen == [False, False]
    evaluate(model, data)
    assert seen == [False] * 3
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("memory", ["plain", "reversible"])
@pytest.mark.parametrize(("amp", "dtype", "bound"), [("bf16", torch.bfloat16, 2e-2), ("fp16", torch.float16, 2e-3)])
def test_mixed_precision_keeps_the_streams_in_float32(bijective_config, amp, dtype, bound, memory):
    data = images_and_labels(bijective_config)
    model = IRevNet(bijective_config)
    full = Training(copy.deepcopy(model), data, data, config(batch_size=4))
    next(full.steps())
    streams, moved = [], []
    for block in model.blocks:
        block.register_forward_hook(lambda module, inputs, output: streams.extend(output))
        block.bottleneck.register_forward_hook(lambda module, inputs, output: moved.append(output))
    training = Training(model, data, data, config(batch_size=4, amp=amp, memory=memory))
    assert model.memory == memory
    next(training.steps())
    assert {stream.dtype for stream in streams} == {torch.float32}
    assert {output.dtype for output in moved} == {dtype}
    assert training.losses == pytest.approx(full.losses, rel=bound)
    assert training.losses != full.losses
    epochs(training)
    assert all(math.isfinite(loss) for loss in training.losses)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_float16_leaves_out_steps_that_overflow(blobs):
    model = nn.Linear(3, 2)
    before = model.weight.clone()
    training = Training(model, blobs, blobs, config(amp="fp16"))
    training._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    steps = training.steps()
    next(steps)
    assert torch.equal(model.weight, before)
    assert training.state()["scaler"]["scale"] == 2.0**119


def test_channels_last_changes_memory_order_alone(bijective_config):
    images, labels = images_and_labels(bijective_config).tensors
    data = TensorDataset(images.double(), labels)
    model = IRevNet(bijective_config).double()
    runs = []
    for channels_last in (False, True):
        net = copy.deepcopy(model)
        training = Training(net, data, data, config(batch_size=4, channels_last=channels_last, memory="reversible"))
        next(training.steps())
        weights = [block.bottleneck[-1].weight for block in net.blocks]
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights) or not channels_last
        runs.append(training.losses + [weight.sum().item() for weight in weights])
    assert runs[0] == pytest.approx(runs[1], rel=1e-9)


def test_a_network_is_compiled_where_asked(blobs, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    model = nn.Linear(3, 2)
    epochs(Training(model, blobs, blobs, config()))
    assert compiled == []
    epochs(Training(model, blobs, blobs, config(compile=True)))
    assert compiled == [model]


@pytest.mark.slow
def test_a_compiled_network_learns_as_the_plain_one_does(bijective_config):
    data = images_and_labels(bijective_config)
    model = IRevNet(bijective_config)
    losses = []
    for compiled in (False, True):
        training = Training(copy.deepcopy(model), data, data, config(batch_size=4, compile=compiled))
        epochs(training)
        losses.append(training.losses)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_parts_that_are_frozen_in_eval_mode_stay_so(bijective_config):
    data = images_and_labels(bijective_config)
    model = IRevNet(bijective_config).train()
    model.blocks[0].eval()
    before = model.blocks[0].bottleneck[1].running_mean.clone()
    epochs(Training(model, data, data, config(batch_size=4)))
    assert torch.equal(model.blocks[0].bottleneck[1].running_mean, before)
    assert not model.blocks[0].training
    assert model.training
    opened = IRevNet(bijective_config).eval()  # as a checkpoint is read
    epochs(Training(opened, data, data, config(batch_size=4)))
    assert all(module.training for module in opened.modules())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_evaluation_keeps_precision_and_modes_of_the_network(bijective_config, dtype):
    data = images_and_labels(bijective_config)
    model = IRevNet(bijective_config).to(dtype).train()
    model.blocks[1].eval()
    modes = [module.training for module in model.modules()]
    found = evaluate(model, data)
    assert [module.training for module in model.modules()] == modes
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    reference = evaluate(copy.deepcopy(model).double(), data)
    # Rounding of the logits to the 8 bits of bfloat16 changes the mean loss by no more than itself.
    assert found.loss == pytest.approx(reference.loss, rel=1e-12 if dtype == torch.float64 else 2**-5)
