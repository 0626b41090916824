import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from irevnet import IRevNet, IRevNetConfig
from irevnet.models.memory.reversible import run_blocks
from irevnet.utils.precision import mixed_precision

MODES = ["checkpoint", "reversible"]


@pytest.fixture
def model(bijective_config) -> IRevNet:
    return IRevNet(dataclasses.replace(bijective_config, dropout=0.4)).double()


@pytest.fixture(params=["bijective", "injective", "dropout", "fresh injective"])
def any_model(request, bijective_config, injective_config, trained_looking) -> IRevNet:
    """A network in train mode and float64. Appended zeros of a fresh injective one are 0 before the first ReLUs."""
    config = {
        "bijective": bijective_config,
        "injective": injective_config,
        "dropout": dataclasses.replace(bijective_config, dropout=0.4),
        "fresh injective": dataclasses.replace(injective_config, channels=16, kernel_sizes=(3, 3, 3), blocks=(4, 3)),
    }[request.param]
    model = IRevNet(config).double()
    return model if request.param.startswith("fresh") else trained_looking(model).train()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 3, 8, 8, dtype=torch.float64)


def step(model: IRevNet, memory: str, images: torch.Tensor) -> tuple[torch.Tensor, list, dict]:
    """Loss, gradients and state after a forward and a backward pass of a copy of the network."""
    model = copy.deepcopy(model)
    model.memory = memory
    images = images.clone().requires_grad_()
    torch.manual_seed(7)
    loss = model(images).square().sum()
    loss.backward()
    gradients = [images.grad, *(parameter.grad for parameter in model.parameters())]
    return loss.detach(), gradients, dict(model.state_dict()) | {"generator": torch.get_rng_state()}


@pytest.mark.parametrize("memory", MODES)
def test_gradients_statistics_and_draws_match_plain_memory(any_model, images, memory):
    loss, gradients, state = step(any_model, memory, images)
    plain_loss, plain_gradients, plain_state = step(any_model, "plain", images)
    assert torch.equal(loss, plain_loss)
    whole = torch.cat([gradient.flatten() for gradient in plain_gradients]).norm()
    for found, expected in zip(gradients, plain_gradients, strict=True):
        scale = expected.norm() or whole  # the first bottleneck of an injective net sees zeros: its gradient is 0
        assert (found - expected).norm() <= 1e-10 * scale
    for key, value in plain_state.items():  # one update of each running statistic, one count of the batch
        assert torch.equal(state[key], value), key


@pytest.mark.parametrize("memory", MODES)
def test_frozen_parameters_and_inputs_without_gradient(model, images, memory):
    """And, in the end, blocks that are all frozen, before a head that is trained."""
    model.blocks[1].requires_grad_(False)
    model.blocks[0].bottleneck[0].weight.requires_grad_(False)
    gradients = {}
    for mode in (memory, "plain"):
        model.memory = mode
        model.zero_grad()
        torch.manual_seed(0)
        model(images).sum().backward()
        gradients[mode] = [parameter.grad for parameter in model.parameters()]
    for parameter, found, expected in zip(model.parameters(), gradients[memory], gradients["plain"]):
        assert (found is None) == (expected is None) == (not parameter.requires_grad)
        if found is not None:
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    model.zero_grad()
    model.memory = memory
    model.blocks.requires_grad_(False)
    model(images).sum().backward()
    assert model.head.classifier.weight.grad is not None
    assert all(parameter.grad is None for parameter in model.blocks.parameters())


@pytest.mark.parametrize("memory", MODES)
def test_a_graph_can_be_walked_twice_and_gradients_add_up(model, images, memory):
    model.memory = memory
    loss = model(images).square().sum()
    parameters = list(model.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    loss.backward(retain_graph=True)
    loss.backward()
    assert all(torch.equal(2 * gradient, each.grad) for gradient, each in zip(first, parameters, strict=True))


def saved_bytes(model: IRevNet, images: torch.Tensor) -> int:
    """Bytes of the distinct tensors that a forward pass keeps for the backward pass, parameters aside."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(images).sum()
    del loss
    return sum(kept.values())


@pytest.mark.parametrize(("memory", "living"), [("plain", 7), ("checkpoint", 7), ("reversible", 3)])
def test_streams_are_given_up(memory, living):
    """For eight blocks, all that the graph holds apart from saved tensors; no bottleneck reads the last output."""
    config = IRevNetConfig(input_shape=(3, 8, 8), num_classes=2, blocks=(8,), strides=(1,))
    model = IRevNet(config)
    model.memory = memory
    seen: list[StorageWeakRef] = []
    for block in model.blocks:
        block.register_forward_hook(
            lambda module, inputs, outputs: seen.append(StorageWeakRef(outputs[1].untyped_storage()))
        )
    loss = model(torch.rand(4, 3, 8, 8)).sum()
    assert sum(not each.expired() for each in seen) == living
    loss.backward()
    del loss
    assert all(each.expired() for each in seen)


def test_saved_tensors_do_not_grow_with_the_number_of_blocks():
    def measure(memory: str, blocks: int) -> int:
        config = IRevNetConfig(input_shape=(3, 8, 8), num_classes=2, blocks=(blocks, blocks), strides=(1, 2))
        model = IRevNet(config)
        model.memory = memory
        return saved_bytes(model, torch.rand(4, 3, 8, 8))

    assert measure("reversible", 2) == measure("reversible", 20)
    assert measure("plain", 20) > 5 * measure("plain", 2) > 5 * measure("reversible", 2)
    assert measure("plain", 20) > measure("checkpoint", 20) > 3 * measure("reversible", 20)


@pytest.mark.parametrize("memory", MODES)
def test_eval_mode_and_no_grad_take_the_plain_path(bijective_config, images, memory):
    model = IRevNet(bijective_config).double().eval()
    model.memory = memory
    image = images[:1]
    dense = torch.func.jacrev(lambda x: model.features(x).flatten())(image).reshape(192, 192)
    forward = torch.func.jacfwd(lambda x: model.features(x).flatten())(image).reshape(192, 192)
    torch.testing.assert_close(dense, forward, rtol=1e-9, atol=1e-12)
    model.train()
    with torch.no_grad():
        assert not model(images).requires_grad


@pytest.mark.parametrize("memory", MODES)
def test_what_needs_the_graph_is_refused(bijective_config, images, memory):
    model = IRevNet(bijective_config).double()
    model.memory = memory
    way_out = f'cannot go through memory = "{memory}", which keeps no graph; set model.memory = "plain"'
    with pytest.raises(RuntimeError, match=f"double backward {way_out}"):
        torch.autograd.grad(model(images).square().sum(), list(model.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match=f"torch.func transforms {way_out}"):
        torch.func.grad(lambda x: model(x).sum())(images)
    with pytest.raises(RuntimeError, match=f"forward-mode differentiation {way_out}"), forward_ad.dual_level():
        model(forward_ad.make_dual(images, torch.ones_like(images)))
    unknown = r"memory is 'reversibel'; expected one of \('plain', 'checkpoint', 'reversible'\)"
    with pytest.raises(ValueError, match=unknown):
        model.memory = "reversibel"


@pytest.mark.parametrize("frozen", [0, 2])
def test_the_error_of_the_rebuilt_stream_is_reported(model, images, frozen):
    model.blocks[:frozen].requires_grad_(False)
    assert model.reconstruction_error is None
    model.memory = "reversible"
    model(images).sum().backward()
    error = model.reconstruction_error.item()
    assert error < 1e-12
    assert error > 0 or frozen
    with torch.no_grad():  # F is so large that adding it loses the stream
        model.blocks[3].bottleneck[-1].weight *= 1e17
    with pytest.warns(RuntimeWarning, match=r"rebuilt its input with a relative error of .*, above 1e-03: .* wrong"):
        model(images).sum().backward()
    assert model.reconstruction_error.item() > 1e-3
    model(images).sum().backward()  # there is one warning only


@pytest.mark.parametrize(
    ("amp", "shown", "largest"), [("none", "1e-03", 1e-3), ("bf16", "1e-01", 2**-3), ("fp16", "2e-02", 2**-6)]
)
def test_the_error_of_the_rebuilt_stream_is_held_against_the_arithmetic(bijective_config, images, amp, shown, largest):
    model = IRevNet(bijective_config)
    model.memory = "reversible"

    def rebuild() -> float:
        with mixed_precision(amp, "cpu"):
            loss = model(images.float()).sum()
        loss.backward()
        assert model.largest_reconstruction_error == largest
        return model.reconstruction_error.item()

    error = rebuild()  # without a warning
    assert error < 1e-5 if amp == "none" else error == 0
    with torch.no_grad():
        model.blocks[3].bottleneck[-1].weight *= 1e10  # adding F loses the stream; float16 overflows
    with pytest.warns(RuntimeWarning, match=f"above {shown}: its gradients are wrong"):
        assert not rebuild() <= largest


@pytest.mark.parametrize("kernel_sizes", [(1, 3, 1), (3, 3, 3)])
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_streams_are_rebuilt_to_the_last_bit_in_mixed_precision(amp, kernel_sizes):
    """As deep as rounding would have grown to percents; so gradients are as good as those of stored activations."""
    config = IRevNetConfig(
        input_shape=(3, 16, 16), num_classes=10, blocks=(10, 20), strides=(2, 2), kernel_sizes=kernel_sizes
    )
    model, images = IRevNet(config), torch.randn(8, 3, 16, 16, requires_grad=True)
    found = {}
    for memory, arithmetic in (("checkpoint", "none"), ("checkpoint", amp), ("reversible", amp)):
        dtype = torch.float64 if arithmetic == "none" else torch.float32
        network = copy.deepcopy(model).to(dtype)
        network.memory = memory
        with mixed_precision(arithmetic, "cpu"):
            loss = nn.functional.cross_entropy(network(images.to(dtype)), torch.arange(8))
        inputs = [images, *network.parameters()]
        found[memory, arithmetic] = torch.cat([each.double().flatten() for each in torch.autograd.grad(loss, inputs)])
    assert network.reconstruction_error == 0
    true = found["checkpoint", "none"]
    stored, rebuilt = (((found[memory, amp] - true).norm() / true.norm()).item() for memory in MODES)
    assert 0 < rebuilt < 2 * stored  # other activations fall on the other side of a ReLU


def test_an_output_changed_in_place_is_noticed(bijective_config, images):
    model = IRevNet(bijective_config).double()
    model.memory = "reversible"
    streams = torch.rand(2, 2, 6, 4, 4, dtype=torch.float64)
    x, x_tilde = run_blocks(list(model.blocks), *streams, memory="reversible")[-1]
    loss = (x + x_tilde).sum()
    x_tilde.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
