import copy
import math

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from irevnet import IRevNet
from irevnet.train import TrainConfig, evaluate, fit


class Fixed(nn.Module):
    """Logits given beforehand, whatever the image: image i asks for row i."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images):
        return self.logits[images.flatten().long()]


def test_evaluation_counts_what_it_says():
    logits = torch.randn(50, 8)
    labels = torch.randint(0, 8, (50,))
    model = Fixed(logits)
    result = evaluate(model, TensorDataset(torch.arange(50.0)[:, None], labels), batch_size=7)
    ranks = [sorted(row.tolist(), reverse=True).index(row[label].item()) for row, label in zip(logits, labels)]
    assert result.top1 == sum(rank == 0 for rank in ranks) / 50
    assert result.top5 == sum(rank < 5 for rank in ranks) / 50
    losses = [math.log(row.double().exp().sum()) - row[label].item() for row, label in zip(logits, labels)]
    assert result.loss == pytest.approx(sum(losses) / 50, rel=1e-5)
    assert result.num_images == 50
    assert model.training


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_uses_eval_mode_and_leaves_the_mode_as_it_was(training):
    seen = []
    model = nn.Sequential(Fixed(torch.randn(4, 3))).train(training)
    model.register_forward_hook(lambda module, inputs, output: seen.append(module.training))
    evaluate(model, TensorDataset(torch.arange(4.0)[:, None], torch.tensor([0, 1, 2, 0])))
    assert seen == [False]
    assert model.training == training


def test_top_5_of_three_classes_is_everything():
    data = TensorDataset(torch.arange(4.0)[:, None], torch.tensor([0, 1, 2, 0]))
    assert evaluate(Fixed(torch.randn(4, 3)), data).top5 == 1.0


@pytest.fixture
def blobs() -> TensorDataset:
    """Two classes that a line separates."""
    labels = torch.arange(40) % 2
    return TensorDataset(torch.randn(40, 3) + 4 * labels[:, None], labels)


def test_training_learns_and_reports_every_epoch(blobs):
    model = nn.Linear(3, 2)
    config = TrainConfig(epochs=3, batch_size=8, learning_rate=0.1)
    epochs = list(fit(model, blobs, blobs, config, generator=torch.Generator().manual_seed(0)))
    assert [metrics.epoch for metrics in epochs] == [1, 2, 3]
    assert [metrics.step for metrics in epochs] == [5, 10, 15]
    assert epochs[-1].test_top1 == evaluate(model, blobs).top1 >= 0.95
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert epochs[-1].learning_rate < 0.001


def test_steps_are_those_of_momentum_under_a_one_cycle_rate(blobs):
    model = nn.Linear(3, 2)
    expected = copy.deepcopy(model)
    config = TrainConfig(epochs=100, batch_size=40, learning_rate=0.1, momentum=0.8, weight_decay=0.5)
    epochs = fit(model, blobs, blobs, config, generator=torch.Generator().manual_seed(0))
    images, labels = blobs.tensors
    velocities = [torch.zeros_like(parameter) for parameter in expected.parameters()]
    for done in range(4):  # an epoch is one step
        next(epochs)
        rate = 0.004 + (0.1 - 0.004) * (1 - math.cos(math.pi * done / (0.2 * 101 - 1))) / 2
        gradients = torch.autograd.grad(
            nn.functional.cross_entropy(expected(images), labels), list(expected.parameters())
        )
        with torch.no_grad():
            for parameter, gradient, velocity in zip(expected.parameters(), gradients, velocities):
                velocity.mul_(0.8).add_(gradient + 0.5 * parameter)
                parameter -= rate * velocity
        for ours, theirs in zip(model.parameters(), expected.parameters()):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_same_seed_gives_the_same_network_to_the_last_bit(blobs):
    def train():
        torch.manual_seed(1)
        model = nn.Linear(3, 2)
        list(fit(model, blobs, blobs, TrainConfig(epochs=2, batch_size=8), generator=torch.Generator().manual_seed(2)))
        return model.weight

    assert torch.equal(train(), train())


def test_a_loss_that_is_not_finite_stops_with_the_step(blobs):
    model = nn.Linear(3, 2)
    epochs = fit(
        model,
        TensorDataset(torch.full((40, 3), torch.inf), blobs.tensors[1]),
        blobs,
        TrainConfig(batch_size=8),
        generator=torch.Generator(),
    )
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 1, learning rate 0\.004; try a lower"):
        next(epochs)


def test_a_batch_larger_than_the_training_set_is_refused(blobs):
    with pytest.raises(ValueError, match="a batch of 64 images is larger than the training set"):
        fit(nn.Linear(3, 2), blobs, blobs, TrainConfig(), generator=torch.Generator())


def images_and_labels(config) -> TensorDataset:
    return TensorDataset(torch.rand(12, *config.input_shape), torch.arange(12) % config.num_classes)


def test_gradients_from_a_wrong_reconstruction_stop_training(bijective_config):
    data = images_and_labels(bijective_config)
    config = TrainConfig(epochs=2, batch_size=4, memory="reversible", check_reconstruction=2)
    epochs = fit(IRevNet(bijective_config), data, data, config, generator=torch.Generator())
    assert next(epochs).epoch == 1
    model = IRevNet(bijective_config)
    with torch.no_grad():
        model.blocks[3].bottleneck[-1].weight *= 1e6
    epochs = fit(model, data, data, config, generator=torch.Generator())
    with pytest.raises(FloatingPointError, match=r"at step 1 back-propagation rebuilt its input with a relative error"):
        next(epochs)


def test_memory_is_saved_by_networks_that_can(bijective_config, blobs):
    model = IRevNet(bijective_config)
    data = images_and_labels(bijective_config)
    fit(model, data, data, TrainConfig(batch_size=4, memory="checkpoint"), generator=torch.Generator())
    assert model.memory == "checkpoint"
    config = TrainConfig(batch_size=4, memory="reversible")
    with pytest.raises(ValueError, match="memory='reversible' needs an i-RevNet; a Linear takes 'plain'"):
        fit(nn.Linear(3, 2), blobs, blobs, config, generator=torch.Generator())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs=0, .* at least 1 epoch"),
        ("batch_size", 1, "batch_size=1; .* 2 images a batch"),
        ("learning_rate", 0.0, "learning_rate=0.0, .* a positive rate"),
        ("momentum", 1.0, r"momentum=1.0, .* a momentum in \[0, 1\)"),
        ("check_reconstruction", 5, "check_reconstruction=5, memory='plain'; expected a number of steps and memory="),
        ("check_reconstruction", -1, "check_reconstruction=-1, "),
        ("weight_decay", -1.0, "weight_decay=-1.0; .* a decay of 0 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{field: value})
