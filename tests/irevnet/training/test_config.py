import dataclasses

import numpy as np
import pytest
import torch

from irevnet.training.config import RECIPES, TrainConfig, recipe


@pytest.mark.parametrize("num_steps", [4, 17, 440])
def test_the_one_cycle_rate_is_torchs(num_steps):
    config = TrainConfig(epochs=1, learning_rate=0.3)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.3, total_steps=num_steps + 2, pct_start=0.2)
    theirs = []
    for _ in range(num_steps + 1):
        theirs.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    assert [config.rate(step, num_steps + 1) for step in range(num_steps + 1)] == pytest.approx(theirs, rel=1e-9)


def test_imagenet_recipe_is_that_of_the_paper():
    config = recipe("imagenet")
    assert config.num_steps(5004) == 600_000
    rates = [config.rate(first + step, 600_000) for first in range(0, 600_000, 160_000) for step in (0, 119_999)]
    assert rates == pytest.approx(np.repeat([0.1, 0.01, 0.001, 0.0001], 2))
    assert config.milestones(600_000) == [0, 160_000, 320_000, 480_000]
    assert (config.batch_size, config.momentum, config.weight_decay) == (256, 0.9, 1e-4)
    assert (config.augmentation, config.normalise, config.memory) == ("imagenet", False, "reversible")


def test_cifar_recipe_is_that_of_the_release():
    config = recipe("cifar")
    num_steps = config.num_steps(390)
    assert num_steps == 200 * 390
    rates = [config.rate(epoch * 390, num_steps) for epoch in range(200)]
    changes = [epoch for epoch in range(1, 200) if rates[epoch] != rates[epoch - 1]]
    assert changes == [60, 120, 160]
    assert [rates[epoch] for epoch in changes] == pytest.approx([0.02, 0.004, 0.0008])
    assert (config.batch_size, config.weight_decay, config.augmentation) == (128, 5e-4, "cifar")
    assert config.normalise


def test_the_linear_rate_rises_over_a_fifth_and_falls_to_zero():
    rates = [recipe("fast", learning_rate=1.0).rate(step, 99) for step in range(99)]
    assert rates == pytest.approx(np.interp(np.arange(1, 100), [0, 20, 100], [0, 1, 0]))


@pytest.mark.parametrize("num_steps", [1, 3, 9, 441])
@pytest.mark.parametrize("schedule", ["one-cycle", "linear"])
def test_milestones_are_where_the_rate_changes_or_peaks(schedule, num_steps):
    cycle = recipe("fast", schedule=schedule)
    rates = [cycle.rate(step, num_steps) for step in range(num_steps)]
    assert cycle.milestones(num_steps) == sorted({0, rates.index(max(rates)), num_steps - 1})
    for few in (1, 2, 3):
        assert all(0 < cycle.rate(step, few) <= cycle.learning_rate for step in range(few))
    stairs = recipe("fast", schedule="step", decay_at=(0.7, 0.4))
    rates = [stairs.rate(step, num_steps) for step in range(num_steps)]
    changes = [step for step in range(1, num_steps) if rates[step] != rates[step - 1]]
    assert stairs.milestones(num_steps) == [0, *changes]


def test_every_setting_of_a_recipe_can_be_changed():
    changes = dict(batch_size=8, learning_rate=0.2, decay=0.5, momentum=0.0, weight_decay=0.0, augmentation="none")
    changes |= dict(normalise=True, memory="checkpoint", amp="bf16", channels_last=True)
    assert recipe("imagenet", **changes) == dataclasses.replace(RECIPES["imagenet"], **changes)


def test_a_change_takes_with_it_what_it_excludes():
    by_epochs = recipe("imagenet", epochs=3)
    assert (by_epochs.epochs, by_epochs.steps) == (3, None)
    by_steps = recipe("cifar", steps=30)
    assert (by_steps.epochs, by_steps.steps) == (None, 30)
    assert recipe("cifar", schedule="one-cycle").decay_at == ()
    assert recipe("imagenet", compile=True).memory == "plain"
    assert recipe("imagenet", invertible=False).memory == "plain"
    with pytest.raises(ValueError, match="epochs=3, steps=4"):
        recipe("fast", epochs=3, steps=4)
    with pytest.raises(ValueError, match="there is no recipe 'cifar10'; did you mean cifar"):
        recipe("cifar10")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs=0, .* at least 1 epoch"),
        ({"epochs": None}, "epochs=None, steps=None, .* at least 1 epoch"),
        ({"batch_size": 1}, "batch_size=1; .* 2 images a batch"),
        ({"learning_rate": 0.0}, "learning_rate=0.0, .* a positive rate"),
        ({"momentum": 1.0}, r"momentum=1.0, .* a momentum in \[0, 1\)"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0; .* a decay of 0 or more"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0; expected a share from 0 up to, but not including, 1"),
        ({"check_reconstruction": 5}, "check_reconstruction=5, memory='plain'; expected a number of steps and memory="),
        ({"check_reconstruction": -1}, "check_reconstruction=-1, "),
        ({"schedule": "step", "decay_at": (0.5, 1.0)}, r"decay_at=\(0.5, 1.0\), decay=0.1; expected parts of the run"),
        ({"decay": 0.0}, "decay=0.0; expected parts of the run between 0 and 1, and a positive factor"),
        ({"decay_at": (0.5,)}, r"decay_at=\(0.5,\) is for schedule='step'; the schedule is 'one-cycle'"),
        ({"compile": True, "memory": "reversible"}, "compile=True with memory='reversible'; .* needs memory='plain'"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{"epochs": 2, **changes})
