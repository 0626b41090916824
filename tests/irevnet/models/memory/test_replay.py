"""Memory-saving back-propagation in loops and with foreign layers: its gradients are correct, or it refuses."""

import copy
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, spectral_norm
from torch.utils.checkpoint import checkpoint

from irevnet import IRevNet, IRevNetConfig

MODES = ["checkpoint", "reversible"]
CONFIG = IRevNetConfig(input_shape=(3, 8, 8), num_classes=5, blocks=(2, 2), strides=(1, 2))
WAY_OUT = 'set model.memory = "plain"'


class Noise(nn.Module):
    """Multiplication by one random number, from any generator."""

    def __init__(self, draw: Callable[["Noise"], float]):
        super().__init__()
        self.draw = draw
        self.generator = torch.Generator().manual_seed(3)
        self.numpy = np.random.default_rng(3)
        self.own = random.Random(3)

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self.draw(self))


class Counting(nn.Module):
    """A layer whose output depends on its number of calls, by an attribute, a list and a buffer."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.seen: list[int] = []
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(self.calls)
        self.mean.mul_(0.5).add_(x.detach().mean())
        return x * (1 + 0.1 * self.calls + 0.1 * len(self.seen) + self.mean)


def pointwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 1)


LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "dropout": lambda c: nn.Dropout(0.4),
    "dropout2d": lambda c: nn.Dropout2d(0.4),
    "alpha dropout": lambda c: nn.AlphaDropout(0.4),
    "feature alpha dropout": lambda c: nn.FeatureAlphaDropout(0.4),
    "rrelu": lambda c: nn.RReLU(),
    "gelu": lambda c: nn.GELU(),
    "batch norm": lambda c: nn.BatchNorm2d(c),
    "cumulative batch norm": lambda c: nn.BatchNorm2d(c, momentum=None),
    "frozen batch norm": lambda c: nn.BatchNorm2d(c).eval(),
    "instance norm": lambda c: nn.InstanceNorm2d(c, affine=True, track_running_stats=True),
    "group norm": lambda c: nn.GroupNorm(1, c),
    "spectral norm": lambda c: parametrizations.spectral_norm(pointwise(c)),
    "weight norm": lambda c: parametrizations.weight_norm(pointwise(c)),
    "spectral norm by a hook": lambda c: spectral_norm(pointwise(c)),
    "torch's generator": lambda c: Noise(lambda layer: torch.rand(()).item()),
    "its own generator": lambda c: Noise(lambda layer: torch.rand((), generator=layer.generator).item()),
    "python's generator of its own": lambda c: Noise(lambda layer: layer.own.random()),
    "numpy's generator": lambda c: Noise(lambda layer: np.random.rand()),  # noqa: NPY002
    "numpy's generator of its own": lambda c: Noise(lambda layer: layer.numpy.random()),
    "counting": lambda c: Counting(),
}


def seed() -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002


def drawn() -> tuple:
    return torch.rand(()).item(), np.random.rand()  # noqa: NPY002


def network(names: list[str]) -> IRevNet:
    """A network in train mode and float64, with each of these layers after the bottleneck of one block."""
    model = IRevNet(CONFIG).double()
    for number, name in enumerate(names):
        block = model.blocks[number % len(model.blocks)]
        channels = 6 if number % len(model.blocks) < 2 else 24
        block.bottleneck.append(LAYERS[name](channels).double())
    return model


def gradients(
    model: IRevNet, memory: str, change: Callable[[IRevNet], object] = lambda model: None
) -> tuple[list[Tensor | None], dict[str, Tensor], tuple]:
    """Gradients of a copy, its state, and the next draws of the generators, with an optional change in between."""
    model = copy.deepcopy(model)
    model.memory = memory
    images = torch.rand(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    seed()
    logits = model(images)
    following = drawn()
    parameters = [images, *model.parameters()]
    change(model)
    logits.square().sum().backward()
    return [parameter.grad for parameter in parameters], dict(model.state_dict()), following


def assert_same(found: list[Tensor | None], expected: list[Tensor | None]) -> None:
    """Up to rounding in float64, for a network with a condition number of some thousands."""
    whole = torch.cat([each.flatten() for each in expected if each is not None]).norm()
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert (one - other).norm() <= 1e-10 * whole


@pytest.mark.parametrize("memory", MODES)
@settings(max_examples=25)
@given(names=st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=6))
def test_any_layers_in_a_bottleneck(names, memory):
    model = network(names)
    found, state, following = gradients(model, memory)
    expected, plain_state, plain_following = gradients(model, "plain")
    assert_same(found, expected)
    assert following == plain_following
    for key, value in plain_state.items():  # everything is updated once
        assert torch.equal(state[key], value), key


DRAWING_FROM_PYTHONS_GENERATOR = """
import random, torch
from irevnet import IRevNet, IRevNetConfig

class Noise(torch.nn.Module):
    def forward(self, x):
        values.append(random.random())
        return x * values[-1]

for memory in ("checkpoint", "reversible"):
    values = []
    model = IRevNet(IRevNetConfig(input_shape=(3, 8, 8), num_classes=5, blocks=(2, 2), strides=(1, 2)))
    model.blocks[2].bottleneck.append(Noise())
    model.memory = memory
    loss = model(torch.rand(2, 3, 8, 8)).sum()
    following = random.getstate()
    loss.backward()
    assert values[0] == values[1] and random.getstate() == following
"""


def test_a_layer_that_draws_from_pythons_generator():
    """In a process without type checks, which draw from that generator too."""
    environment = {**os.environ, "JAXTYPING_DISABLE": "1"}
    subprocess.run([sys.executable, "-c", DRAWING_FROM_PYTHONS_GENERATOR], check=True, env=environment)


@pytest.mark.parametrize("memory", MODES)
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_each_layer_in_a_bottleneck(name, memory):
    model = network([name] * 4)
    assert_same(gradients(model, memory)[0], gradients(model, "plain")[0])


def once_more(model: IRevNet) -> None:
    model(torch.rand(4, 3, 8, 8, dtype=torch.float64))


def change_weights(model: IRevNet) -> None:
    with torch.no_grad():
        model.blocks[1].bottleneck[0].weight += 1


def exchange_data(model: IRevNet) -> None:
    for parameter in model.blocks[2].parameters():
        parameter.data = parameter.data + 1


def exchange_layer(model: IRevNet) -> None:
    model.blocks[1].bottleneck[2] = nn.Conv2d(6, 1, 1, bias=False).double()


def exchange_parameter(model: IRevNet) -> None:
    convolution = model.blocks[1].bottleneck[2]
    convolution.weight = nn.Parameter(convolution.weight.detach() + 1)


def load_others(model: IRevNet) -> None:
    others = IRevNet(CONFIG).double().blocks.state_dict()
    model.blocks.load_state_dict(others, strict=False)


CHANGES: dict[str, Callable[[IRevNet], object]] = {
    "eval mode": lambda model: model.eval(),
    "another seed": lambda model: torch.manual_seed(99),
    "another forward pass": once_more,
    "another memory": lambda model: setattr(model, "memory", "plain"),
    "another probability": lambda model: [setattr(m, "p", 0.9) for m in model.modules() if isinstance(m, nn.Dropout)],
    "frozen": lambda model: model.requires_grad_(False),
    "gradients set to zero": lambda model: model.zero_grad(),
    "another layer": exchange_layer,
    "another bottleneck": lambda model: setattr(model.blocks[1], "bottleneck", network([]).blocks[1].bottleneck),
    "another parameter": exchange_parameter,
    "weights changed": change_weights,
    "data exchanged": exchange_data,
    "other weights loaded": load_others,
    "statistics reset": lambda model: [
        m.reset_running_stats() for m in model.blocks.modules() if hasattr(m, "running_mean")
    ],
    "half precision": lambda model: model.blocks.float(),
}
REFUSED = {"weights changed", "data exchanged", "other weights loaded", "half precision"}
"""Changes that cannot be undone; for the first and the third torch refuses plain back-propagation too."""


@pytest.mark.parametrize("memory", MODES)
@pytest.mark.parametrize("name", sorted(CHANGES))
def test_each_change_between_forward_pass_and_back_propagation(name, memory):
    model = network(["dropout", "batch norm", "gelu"])
    if name in REFUSED:
        with pytest.raises(RuntimeError, match=f"was changed in place between the forward pass .*{WAY_OUT}"):
            gradients(model, memory, CHANGES[name])
    elif name == "frozen":  # torch accumulates no gradients of tensors that were frozen meanwhile
        assert all(each is None for each in gradients(model, memory, CHANGES[name])[0][1:])
    else:
        assert_same(gradients(model, memory, CHANGES[name])[0], gradients(model, "plain")[0])


@pytest.mark.parametrize("memory", MODES)
@settings(max_examples=40)
@given(
    names=st.lists(st.sampled_from(sorted(LAYERS)), max_size=4),
    changes=st.lists(st.sampled_from(sorted(CHANGES.keys() - {"frozen"})), min_size=1, max_size=3),
)
def test_any_changes_give_the_right_gradients_or_are_refused(names, changes, memory):
    model = network(names)

    def change(changed: IRevNet) -> None:
        for name in changes:
            CHANGES[name](changed)

    try:
        found, _, _ = gradients(model, memory, change)
    except RuntimeError as error:
        if WAY_OUT not in str(error):  # torch's own error
            with pytest.raises(RuntimeError):
                gradients(model, "plain", change)
        return
    assert_same(found, gradients(model, "plain")[0])


def as_data_parallel_does(model: IRevNet) -> tuple[IRevNet, list[Tensor]]:
    """A replica whose weights are plain tensors, as by `torch.nn.parallel.replicate`, and these tensors."""
    modules = list(model.modules())
    numbers = {module: number for number, module in enumerate(modules)}
    replicas = [module._replicate_for_data_parallel() for module in modules]
    copies = []
    for module, replica in zip(modules, replicas):
        for name, child in module._modules.items():
            setattr(replica, name, replicas[numbers[child]])
        for name, parameter in module._parameters.items():
            if parameter is None:
                replica._parameters[name] = None
            else:
                copies.append(parameter * 1)
                setattr(replica, name, copies[-1])
    return replicas[0], copies


@pytest.mark.parametrize("memory", MODES)
def test_replicas_of_data_parallel(memory):
    found = {}
    for mode in (memory, "plain"):
        torch.manual_seed(0)
        model = network(["dropout"])
        model.memory = mode
        replica, copies = as_data_parallel_does(model)
        seed()
        replica(torch.linspace(0, 1, 384, dtype=torch.float64).reshape(2, 3, 8, 8)).square().sum().backward()
        assert len(copies) == len(list(model.parameters()))
        found[mode] = [parameter.grad for parameter in model.parameters()]
        assert all(gradient is not None for gradient in found[mode])
    assert_same(found[memory], found["plain"])


@pytest.mark.parametrize("memory", MODES)
@pytest.mark.parametrize("leaves", [True, False])
def test_functional_call_with_other_tensors(memory, leaves):
    model = network(["spectral norm", "dropout"])
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    factor = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    others = {
        name: (p.detach() * 1.5).requires_grad_() if leaves else p * factor for name, p in model.named_parameters()
    }
    wanted = [*others.values()] if leaves else [*model.parameters(), factor]
    found = {}
    for mode in (memory, "plain"):
        tried = copy.deepcopy(model)
        tried.memory = mode
        seed()
        loss = torch.func.functional_call(tried, others, (images,)).square().sum()
        found[mode] = list(torch.autograd.grad(loss, wanted, retain_graph=True))
    assert_same(found[memory], found["plain"])


@pytest.mark.parametrize("memory", MODES)
def test_back_propagation_within_autocast(memory):
    """The first evaluation leaves no weights without gradients in its cache."""
    model = IRevNet(CONFIG)
    images = torch.rand(4, 3, 8, 8)
    found = {}
    for mode in (memory, "plain"):
        tried = copy.deepcopy(model)
        tried.memory = mode
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (tried(images).float().square().sum() + tried(images).float().sum()).backward()
        found[mode] = torch.cat([parameter.grad.flatten() for parameter in tried.parameters()])
    assert (found[memory] - found["plain"]).norm() <= 0.02 * found["plain"].norm()  # of bfloat16, which has 8 bits


@pytest.mark.parametrize("memory", MODES)
def test_hooks_are_called_once_with_the_usual_tensors(memory):
    seen: dict[str, list[Tensor]] = {}
    model = network([])
    for mode in (memory, "plain"):
        tried = copy.deepcopy(model)
        tried.memory = mode
        kept = seen.setdefault(mode, [])
        handles = [
            register_module_forward_hook(lambda module, inputs, output, kept=kept: kept.append(inputs[0].detach()))
        ]
        for module in tried.modules():
            handles += [
                module.register_forward_hook(lambda module, inputs, output, kept=kept: kept.append(inputs[0].detach())),
                module.register_forward_pre_hook(
                    lambda module, inputs, keywords, kept=kept: kept.append(inputs[0].detach()), with_kwargs=True
                ),
            ]
        tried.blocks[1].bottleneck[2].register_full_backward_hook(lambda *_, kept=kept: kept.append(torch.tensor(7.0)))
        tried.blocks[2].register_full_backward_hook(lambda *_, kept=kept: kept.append(torch.tensor(8.0)))
        tried(torch.ones(2, 3, 8, 8, dtype=torch.float64)).sum().backward()
        for handle in handles:
            handle.remove()
    assert len(seen[memory]) == len(seen["plain"]) > 40
    assert all(torch.equal(one, other) for one, other in zip(seen[memory], seen["plain"]))


@pytest.mark.parametrize("memory", MODES)
@pytest.mark.parametrize("where", ["convolution", "block", "all"])
def test_hooks_that_change_what_is_computed_are_refused(memory, where):
    model = network([])
    model.memory = memory
    module = model.blocks[1].bottleneck[2] if where == "convolution" else model.blocks[1]

    def double(module: nn.Module, inputs: tuple, output: Tensor | tuple) -> Tensor | tuple:
        return (output[0], 2 * output[1]) if isinstance(output, tuple) else 2 * output

    handle = register_module_forward_hook(double) if where == "all" else module.register_forward_hook(double)
    try:
        with pytest.raises(RuntimeError, match=f"a forward hook of .* changes .*{WAY_OUT}"):
            model(torch.rand(2, 3, 8, 8, dtype=torch.float64))
    finally:
        handle.remove()


@pytest.mark.parametrize("memory", MODES)
def test_a_hook_that_changes_its_input_in_place_is_refused(memory):
    model = network([])
    model.memory = memory
    model.blocks[1].bottleneck[3].register_forward_pre_hook(lambda module, inputs: inputs[0].detach().mul_(2))
    with pytest.raises(RuntimeError, match="a forward hook of '3' of a bottleneck changes what the module computes"):
        model(torch.rand(2, 3, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize("memory", MODES)
def test_a_loss_on_what_a_hook_saw(memory):
    """Gradients through a block's output are correct; inside a bottleneck there is no graph, which is an error."""
    found = {}
    model = network([])
    for mode in (memory, "plain"):
        tried = copy.deepcopy(model)
        tried.memory = mode
        kept: list[Tensor] = []
        tried.blocks[1].register_forward_hook(lambda module, inputs, output, kept=kept: kept.append(output[1]))
        seed()
        loss = tried(torch.rand(2, 3, 8, 8, dtype=torch.float64)).sum()
        (loss + kept[0].square().sum()).backward()
        found[mode] = [parameter.grad for parameter in tried.parameters()]
    assert_same(found[memory], found["plain"])
    kept = []
    model.memory = memory
    model.blocks[1].bottleneck[2].register_forward_hook(lambda module, inputs, output: kept.append(output))
    loss = model(torch.ones(2, 3, 8, 8, dtype=torch.float64)).sum()
    with pytest.raises(
        RuntimeError, match=f"tensors that a forward hook gets inside a bottleneck have no graph .*{WAY_OUT}"
    ):
        (loss + kept[0].sum()).backward()


def test_a_graph_that_is_entered_in_the_middle():
    model = network([])
    model.memory = "reversible"
    kept: list[Tensor] = []
    model.blocks[1].register_forward_hook(lambda module, inputs, output: kept.append(output[1]))
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    model(images)
    refusal = f"begins after block 2, whose output was not kept; .*{WAY_OUT}"
    with pytest.raises(RuntimeError, match=refusal):
        kept[0].sum().backward()
    loss = model(images).sum()  # block 4 passes on the output of block 3
    torch.autograd.grad(loss, list(model.blocks[3].parameters()), retain_graph=True)
    with pytest.raises(RuntimeError, match=refusal):
        kept[1].sum().backward()
    model.zero_grad()
    model.features(images, [2, 4], allow_train=True)[0].square().sum().backward()
    found = [parameter.grad for parameter in model.blocks.parameters()]
    model.zero_grad()
    model.memory = "plain"
    model.features(images, 2, allow_train=True).square().sum().backward()
    expected = [parameter.grad for parameter in model.blocks.parameters()]
    assert_same(
        [each for each in found if each is not None and each.any()], [each for each in expected if each is not None]
    )


@pytest.mark.parametrize("memory", MODES)
def test_what_cannot_be_evaluated_twice_is_refused(memory):
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)

    class Hidden(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * hidden

    class SelfChanging(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.weight.data = self.weight.data * 2
            return x * self.weight

    hidden = torch.ones((), dtype=torch.float64, requires_grad=True)
    model = network([])
    model.memory = memory
    model.blocks[1].bottleneck.append(Hidden())
    with pytest.raises(RuntimeError, match=r"uses a tensor of shape \(\) that is no parameter, .*register it, or set"):
        model(images).sum().backward()
    model.blocks[1].bottleneck[-1] = SelfChanging(1, 1).double()
    with pytest.raises(RuntimeError, match="weight' of a bottleneck was changed in place while it was evaluated"):
        model(images)
    with warnings.catch_warnings(action="ignore"):  # newer releases call torch.jit deprecated
        model.blocks[1].bottleneck[-1] = torch.jit.script(nn.Softplus())
    with pytest.raises(RuntimeError, match="TorchScript module, whose state cannot be replayed"):
        model(images)


@pytest.mark.parametrize("memory", MODES)
def test_bottlenecks_without_gradients_of_their_own(memory):
    """A constant bottleneck, and one that ignores its input."""

    class Constant(nn.Module):
        def __init__(self, trained: bool):
            super().__init__()
            self.value = nn.Parameter(torch.ones((), dtype=torch.float64), requires_grad=trained)

        def forward(self, x: Tensor) -> Tensor:
            return self.value.expand_as(x)

    found = {}
    for mode in (memory, "plain"):
        torch.manual_seed(0)
        model = network([])
        model.memory = mode
        model.blocks[0].bottleneck, model.blocks[1].bottleneck = Constant(True), Constant(False)
        model(torch.ones(2, 3, 8, 8, dtype=torch.float64)).square().sum().backward()
        found[mode] = [parameter.grad for parameter in model.parameters()]
    assert_same(found[memory], found["plain"])


@pytest.mark.parametrize("memory", MODES)
def test_within_a_checkpoint_of_torch(memory):
    found = {}
    model = network(["dropout"])
    for mode in (memory, "plain"):
        tried = copy.deepcopy(model)
        tried.memory = mode
        images = torch.linspace(0, 1, 384, dtype=torch.float64).reshape(2, 3, 8, 8).requires_grad_()
        seed()
        checkpoint(tried, images, use_reentrant=False).square().sum().backward()
        found[mode] = [images.grad, *(parameter.grad for parameter in tried.parameters())]
    assert_same(found[memory], found["plain"])


def test_reconstruction_error_of_trained_blocks_is_reported():
    model = network([])
    model.memory = "reversible"
    model.blocks[:2].requires_grad_(False)
    model(torch.rand(2, 3, 8, 8, dtype=torch.float64)).sum().backward()
    assert 0 <= model.reconstruction_error.item() < 1e-12


@pytest.mark.parametrize("memory", ["plain", *MODES])
def test_a_head_of_ones_own(memory):
    """In training on Phi x, gradients of the blocks come by way of `memory`."""
    calls = count()

    class Mine(nn.Module):
        def forward(self, phi: Tensor) -> Tensor:
            next(calls)
            return phi.square().mean(dim=(1, 2, 3))

    model = network([])
    model.head = Mine()
    model.memory = memory
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    model(images).sum().backward()
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model.features(images, allow_train=True).square().mean(dim=(1, 2, 3)).sum().backward()
    assert_same(found, [parameter.grad for parameter in model.parameters()])
    assert next(calls) == 1
