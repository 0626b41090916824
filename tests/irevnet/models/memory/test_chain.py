import copy

import pytest
import torch
from torch import nn

from irevnet.models.invertible import InvertibleChain


class Additive(nn.Module):
    """(x, x~) -> (x + F x~, x~ + G(x + F x~))."""

    def __init__(self, channels, *layers):
        super().__init__()
        half = channels // 2
        self.f, self.g = (
            nn.Sequential(nn.Conv2d(half, half, 3, padding=1), nn.BatchNorm2d(half), nn.ReLU(), *copy.deepcopy(layers))
            for _ in range(2)
        )

    def forward(self, x):
        x, x_tilde = x.chunk(2, dim=1)
        y = x + self.f(x_tilde)
        return torch.cat((y, x_tilde + self.g(y)), dim=1)

    def inverse(self, y):
        y, y_tilde = y.chunk(2, dim=1)
        x_tilde = y_tilde - self.g(y)
        return torch.cat((y - self.f(x_tilde), x_tilde), dim=1)


def chain(*layers, blocks=4):
    parts = [nn.PixelUnshuffle(2), *(Additive(4, *layers) for _ in range(blocks))]
    head = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    return InvertibleChain(parts, head).double()


def gradients(model, x, memory):
    """Of the weights and the images, with the buffers after one step, for a model of that memory."""
    model = copy.deepcopy(model).train()
    model.memory = memory
    x = x.clone().requires_grad_()
    torch.manual_seed(1)
    model(x).square().sum().backward()
    return [x.grad, *(parameter.grad for parameter in model.parameters()), *model.buffers()], model


@pytest.fixture
def images():
    return torch.rand(5, 1, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize("memory", ["checkpoint", "reversible"])
def test_gradients_and_statistics_are_those_of_plain_back_propagation(images, memory):
    model = chain()
    expected, _ = gradients(model, images, "plain")
    found, trained = gradients(model, images, memory)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    if memory == "reversible":
        assert trained.reconstruction_error < 1e-12


def test_checkpoints_repeat_the_masks_of_dropout(images):
    model = chain(nn.Dropout(0.3))
    expected, _ = gradients(model, images, "plain")
    found, _ = gradients(model, images, "checkpoint")
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_an_inverse_that_draws_other_masks_is_refused(images):
    with pytest.raises(RuntimeError, match=r"inverse of block 5 does not undo it in train mode .*\"checkpoint\""):
        gradients(chain(nn.Dropout(0.3)), images, "reversible")


def test_frozen_blocks_store_nothing_and_get_no_gradient(images):
    model = chain()
    for parameter in list(model.blocks[1].parameters()):
        parameter.requires_grad_(False)
    model.memory = "reversible"
    model.train()(images).sum().backward()
    assert all(parameter.grad is None for parameter in model.blocks[1].parameters())
    assert all(parameter.grad is not None for parameter in model.blocks[2].parameters())


def test_what_needs_the_full_graph_is_refused(images):
    model = chain().train()
    model.memory = "reversible"
    x = images.requires_grad_()
    (first,) = torch.autograd.grad(model(x).sum(), x, create_graph=False)
    assert first.shape == x.shape
    with pytest.raises(RuntimeError, match="double backward cannot go through"):
        torch.autograd.grad(model(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"torch\.func transforms cannot go through"):
        torch.func.grad(lambda each: model(each).sum())(images)
    with pytest.raises(RuntimeError, match="forward-mode differentiation"), torch.autograd.forward_ad.dual_level():
        model(torch.autograd.forward_ad.make_dual(images, images))


def test_it_stores_one_activation_for_any_number_of_blocks(images):
    def stored(memory, blocks):
        model = chain(blocks=blocks).train()
        model.memory = memory
        seen = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda each: seen.append(each.numel()) or each, lambda each: each
        ):
            model(images)
        return sum(seen)

    assert stored("reversible", 2) == stored("reversible", 8)
    assert stored("checkpoint", 8) - stored("checkpoint", 2) == 6 * images.numel()
