"""Memory-saving back-propagation in loops and with foreign layers: its gradients are correct, or it refuses."""

import copy
import random
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

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
from irevnet.models.memory import reversible

MODES = ["checkpoint", "reversible"]
CONFIG = IRevNetConfig(input_shape=(3, 8, 8), num_classes=5, blocks=(2, 2), strides=(1, 2))
WAY_OUT = 'set model.memory = "plain"'
IMAGES = torch.linspace(0, 1, 384, dtype=torch.float64).reshape(2, 3, 8, 8)


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
    following = torch.rand(()).item(), np.random.rand()  # noqa: NPY002
    parameters = [images, *model.parameters()]
    change(model)
    logits.square().sum().backward()
    return [parameter.grad for parameter in parameters], dict(model.state_dict()), following


def assert_same(found: list[Tensor | None], expected: list[Tensor | None], tolerance: float = 1e-10) -> None:
    """Up to rounding in float64, for a network with a condition number of some thousands."""
    whole = torch.cat([each.flatten() for each in expected if each is not None]).norm()
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert (one - other).norm() <= tolerance * whole


def assert_as_plain(model: IRevNet, memory: str, work: Callable[[IRevNet], Any], tolerance: float = 1e-10) -> None:
    """What `work` returns for a copy of the network, or the gradients that it leaves, are those of plain memory."""
    found = []
    for mode in (memory, "plain"):
        tried = copy.deepcopy(model)
        tried.memory = mode
        seed()
        returned = work(tried)
        found.append([each.grad for each in tried.parameters()] if returned is None else list(returned))
    assert_same(*found, tolerance)


def check_layers(names: list[str], memory: str) -> None:
    model = network(names)
    found, state, following = gradients(model, memory)
    expected, plain_state, plain_following = gradients(model, "plain")
    assert_same(found, expected)
    assert following == plain_following
    for key, value in plain_state.items():  # everything is updated once
        assert torch.equal(state[key], value), key


@pytest.mark.parametrize("memory", MODES)
def test_each_layer_in_a_bottleneck(memory):
    for first in range(4):
        check_layers(sorted(LAYERS)[first::4], memory)


@settings(max_examples=20)
@given(names=st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=6), memory=st.sampled_from(MODES))
def test_any_layers_in_a_bottleneck(names, memory):
    check_layers(names, memory)


@pytest.mark.parametrize("memory", MODES)
def test_a_layer_that_draws_from_pythons_generator(memory, unchecked_types):
    """Without type checks, which draw from that generator too."""
    values = []
    model = network([])
    model.blocks[2].bottleneck.append(Noise(lambda layer: values.append(random.random()) or values[-1]))
    model.memory = memory
    loss = model(IMAGES).sum()
    following = random.getstate()
    loss.backward()
    assert values[0] == values[1]
    assert random.getstate() == following


def change_weights(model: IRevNet) -> None:
    with torch.no_grad():
        model.blocks[1].bottleneck[0].weight += 1


def exchange_data(model: IRevNet) -> None:
    for parameter in model.blocks[2].parameters():
        parameter.data = parameter.data + 1


def exchange_parameter(model: IRevNet) -> None:
    convolution = model.blocks[1].bottleneck[2]
    convolution.weight = nn.Parameter(convolution.weight.detach() + 1)


CHANGES: dict[str, Callable[[IRevNet], object]] = {
    "eval mode": lambda model: model.eval(),
    "another seed": lambda model: torch.manual_seed(99),
    "another forward pass": lambda model: model(IMAGES),
    "another memory": lambda model: setattr(model, "memory", "plain"),
    "another probability": lambda model: [setattr(m, "p", 0.9) for m in model.modules() if isinstance(m, nn.Dropout)],
    "frozen": lambda model: model.requires_grad_(False),
    "gradients set to zero": lambda model: model.zero_grad(),
    "another layer": lambda model: setattr(model.blocks[1].bottleneck, "2", nn.Conv2d(6, 1, 1, bias=False).double()),
    "another bottleneck": lambda model: setattr(model.blocks[1], "bottleneck", network([]).blocks[1].bottleneck),
    "another parameter": exchange_parameter,
    "weights changed": change_weights,
    "data exchanged": exchange_data,
    "other weights loaded": lambda model: model.blocks.load_state_dict(network([]).blocks.state_dict(), strict=False),
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


@settings(max_examples=30)
@given(
    names=st.lists(st.sampled_from(sorted(LAYERS)), max_size=4),
    changes=st.lists(st.sampled_from(sorted(CHANGES.keys() - {"frozen"})), min_size=1, max_size=3),
    memory=st.sampled_from(MODES),
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


def as_data_parallel_does(module: nn.Module) -> nn.Module:
    """A replica whose weights are plain tensors, as by `torch.nn.parallel.replicate`."""
    replica = module._replicate_for_data_parallel()
    for name, child in module.named_children():
        setattr(replica, name, as_data_parallel_does(child))
    replica._parameters.update({name: None for name, parameter in module._parameters.items() if parameter is None})
    for name, parameter in module.named_parameters(recurse=False):
        setattr(replica, name, parameter * 1)
    return replica


class Constant(nn.Module):
    """A bottleneck that ignores its input."""

    def __init__(self, trained: bool):
        super().__init__()
        self.value = nn.Parameter(torch.ones((), dtype=torch.float64), requires_grad=trained)

    def forward(self, x: Tensor) -> Tensor:
        return self.value.expand_as(x)


@pytest.mark.parametrize("memory", MODES)
def test_unusual_calls_of_a_network(memory):
    def replicated(model: IRevNet) -> None:
        as_data_parallel_does(model)(IMAGES).square().sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())

    def within_a_checkpoint_of_torch(model: IRevNet) -> list[Tensor | None]:
        images = IMAGES.clone().requires_grad_()
        checkpoint(model, images, use_reentrant=False).square().sum().backward()
        return [images.grad, *(parameter.grad for parameter in model.parameters())]

    def functional(model: IRevNet, *, leaves: bool) -> tuple[Tensor, ...]:
        factor = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
        named = dict(model.named_parameters())
        others = {name: (p.detach() * 1.5).requires_grad_() if leaves else p * factor for name, p in named.items()}
        loss = torch.func.functional_call(model, others, (IMAGES,)).square().sum()
        return torch.autograd.grad(loss, [*others.values()] if leaves else [*named.values(), factor])

    assert_as_plain(network(["dropout"]), memory, replicated)
    assert_as_plain(network(["dropout"]), memory, within_a_checkpoint_of_torch)
    for leaves in (True, False):
        assert_as_plain(network(["spectral norm", "dropout"]), memory, partial(functional, leaves=leaves))
    model = network([])
    model.blocks[0].bottleneck, model.blocks[1].bottleneck = Constant(True), Constant(False)
    assert_as_plain(model, memory, lambda model: model(torch.ones_like(IMAGES)).square().sum().backward())


@pytest.mark.parametrize("memory", MODES)
def test_autocast_is_replayed(memory):
    """With back-propagation inside of it too, the first evaluation leaves no weights without gradients in its cache.

    Gradients are those of the plain path, but that streams which are to be rebuilt are rounded there, too."""
    images = reversible._rounded(IMAGES)

    def work(model: IRevNet, *, inside: bool) -> None:
        if (memory, model.memory) == ("reversible", "plain"):
            for block in model.blocks:
                block.bottleneck.register_forward_hook(lambda module, inputs, output: begin_rounded(output.float()))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(images)
            assert logits.dtype == torch.bfloat16
            loss = logits.float().square().sum() + model(images).float().sum()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())

    begin_rounded = reversible._begin_rounded
    for inside in (True, False):  # gradients of weights are bfloat16 before they are added up
        tolerance = torch.finfo(torch.bfloat16).eps
        assert_as_plain(IRevNet(CONFIG), memory, partial(work, inside=inside), tolerance=tolerance)


@pytest.mark.parametrize("memory", MODES)
def test_hooks_are_called_once_with_the_usual_tensors(memory):
    def work(model: IRevNet) -> list[Tensor]:
        kept: list[Tensor] = []

        def keep(module: nn.Module, inputs: tuple, *_: Any) -> None:
            kept.append(inputs[0].detach())

        handle = register_module_forward_hook(keep)
        for module in model.modules():
            module.register_forward_hook(keep)
            module.register_forward_pre_hook(keep, with_kwargs=True)
        for number, module in enumerate((model.blocks[1].bottleneck[2], model.blocks[2])):
            module.register_full_backward_hook(lambda *_, number=number: kept.append(torch.tensor([7.0 + number])))
        model(IMAGES).sum().backward()
        handle.remove()
        assert len(kept) > 40
        return kept

    assert_as_plain(network([]), memory, work)


@pytest.mark.parametrize("memory", MODES)
def test_hooks_that_change_what_is_computed_are_refused(memory):
    def double(module: nn.Module, inputs: tuple, output: Tensor | tuple) -> Tensor | tuple:
        return (output[0], 2 * output[1]) if isinstance(output, tuple) else 2 * output

    def double_in_place(module: nn.Module, inputs: tuple) -> None:
        inputs[0].detach().mul_(2)

    model = network([])
    model.memory = memory
    block = model.blocks[1]
    for register, hook, where in (
        (block.bottleneck[2].register_forward_hook, double, "'2' of a block"),
        (block.bottleneck[3].register_forward_pre_hook, double_in_place, "'3' of a block"),
        (block.register_forward_hook, double, "block 2"),
        (register_module_forward_hook, double, ""),
    ):
        handle = register(hook)
        try:
            with pytest.raises(RuntimeError, match=f"a forward hook of {where}.* changes .*{WAY_OUT}"):
                model(IMAGES)
        finally:
            handle.remove()


@pytest.mark.parametrize("memory", MODES)
def test_a_loss_on_what_a_hook_saw(memory):
    """Gradients through a block's output are correct; inside a block there is no graph, which is an error."""

    def work(model: IRevNet, module: nn.Module | None = None) -> None:
        kept: list[Any] = []
        (module or model.blocks[1]).register_forward_hook(lambda module, inputs, output: kept.append(output))
        loss = model(IMAGES).sum()
        (loss + kept[0][-1].square().sum()).backward()

    model = network([])
    assert_as_plain(model, memory, work)
    model.memory = memory
    refusal = f"tensors that a forward hook gets inside a block have no graph .*{WAY_OUT}"
    with pytest.raises(RuntimeError, match=refusal):
        work(model, model.blocks[1].bottleneck[2])


def test_a_graph_that_is_entered_in_the_middle():
    model = network([])
    model.memory = "reversible"
    kept: list[Tensor] = []
    handle = model.blocks[1].register_forward_hook(lambda module, inputs, output: kept.append(output[1]))
    model(IMAGES)
    refusal = f"begins after block 2, whose output was not kept; .*{WAY_OUT}"
    with pytest.raises(RuntimeError, match=refusal):
        kept[0].sum().backward()
    loss = model(IMAGES).sum()  # block 4 passes on the output of block 3
    torch.autograd.grad(loss, list(model.blocks[3].parameters()), retain_graph=True)
    with pytest.raises(RuntimeError, match=refusal):
        kept[1].sum().backward()
    handle.remove()
    model.zero_grad()
    assert_as_plain(
        model,
        "reversible",
        lambda model: model.features(IMAGES, [2, 4], allow_train=True)[0].square().sum().backward(),
    )


@pytest.mark.parametrize("memory", MODES)
def test_what_cannot_be_evaluated_twice_is_refused(memory):
    class Hidden(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * hidden

    class SelfChanging(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.weight.data = self.weight.data * 2
            return x * self.weight

    hidden = torch.ones((), dtype=torch.float64, requires_grad=True)
    with warnings.catch_warnings(action="ignore"):  # newer releases call torch.jit deprecated
        scripted = torch.jit.script(nn.Softplus())
    for layer, message in (
        (Hidden(), r"uses a tensor of shape \(\) that is no parameter, .*register it, or set"),
        (SelfChanging(1, 1).double(), "weight' of a block was changed in place while it was evaluated"),
        (scripted, "TorchScript module, whose state cannot be replayed"),
    ):
        model = network([])
        model.memory = memory
        model.blocks[1].bottleneck.append(layer)
        with pytest.raises(RuntimeError, match=message):
            model(IMAGES).sum().backward()


@pytest.mark.parametrize("memory", ["plain", *MODES])
def test_a_head_of_ones_own(memory):
    """In training on Phi x, gradients of the blocks come by way of `memory`."""
    model = network([])
    model.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.memory = memory
    found = torch.autograd.grad(model(IMAGES).square().sum(), list(model.parameters()))
    loss = model.features(IMAGES, allow_train=True).mean(dim=(2, 3)).square().sum()
    assert_same(list(found), list(torch.autograd.grad(loss, list(model.parameters()))))
