"""Back-propagation through the cascade without storing its activations (section 3.2; Gomez et al., 2017).

Each block is inverted on the way back: from its output the input is rebuilt, the bottleneck is evaluated again with
gradients, and the output is forgotten. Kept are the output of the cascade and one stream of its input, whatever the
number of blocks; where dropout is active, also the state of the random generator before each block (5 kB).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, get_device_states, set_device_states

from irevnet.coupling import Coupling

Memory = Literal["plain", "checkpoint", "reversible"]
"""How back-propagation gets the activations inside the blocks.

- `"plain"`: all are stored.
- `"checkpoint"`: only the streams between blocks are stored, the rest is computed again (`torch.utils.checkpoint`).
- `"reversible"`: none is stored; the streams are rebuilt by the inverse, the rest is computed again.
"""

Streams = tuple[Tensor, Tensor]


def run_checkpointed(blocks: Sequence[Coupling], x: Tensor, x_tilde: Tensor) -> Streams:
    """The cascade, with only the streams between its blocks stored for back-propagation."""
    for block in blocks:
        contexts = _contexts_of(block)
        x, x_tilde = checkpoint(block, x, x_tilde, use_reentrant=False, context_fn=contexts)  # type: ignore[misc]
    return x, x_tilde


def _contexts_of(block: Coupling) -> Callable[[], tuple[Any, Any]]:
    """Contexts of the first evaluation, which updates batch-norm statistics, and of the second, which must not."""
    return lambda: (nullcontext(), _frozen_statistics(block))


def run_reversibly(blocks: Sequence[Coupling], x: Tensor, x_tilde: Tensor) -> Streams:
    """The cascade, with its output and one stream of its input stored for back-propagation, and nothing in between.

    Gradients are those of the plain cascade up to rounding, for parameters, for frozen parameters (none) and for
    inputs that need none. Batch-norm statistics are updated once, dropout masks and the autocast state are those of
    the forward pass, and the global random generator is left where the forward pass left it.

    Raises `RuntimeError`, naming the plain path, for forward-mode differentiation, `torch.func` transforms and double
    backward: they need the graph that is not kept.
    """
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(_REFUSAL.format("torch.func transforms"))
    parameters = [parameter for block in blocks for parameter in block.parameters()]
    return _Reversible.apply(blocks, x, x_tilde, *parameters)  # type: ignore[return-value]


_REFUSAL = '{} cannot go through the reversible path, which keeps no graph; set model.memory = "plain"'


class _Reversible(torch.autograd.Function):
    """Blocks, streams and parameters in, streams out; parameters are inputs so that autograd knows of them."""

    @staticmethod
    def forward(ctx: Any, blocks: Sequence[Coupling], x: Tensor, x_tilde: Tensor, *parameters: Tensor) -> Streams:
        ctx.blocks = blocks
        ctx.replays = []
        first = x_tilde
        for block in blocks:
            ctx.replays.append(_Replay.record(block, x_tilde))
            x, x_tilde = block(x, x_tilde)
        ctx.save_for_backward(first, x, x_tilde)
        return x, x_tilde

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(_REFUSAL.format("double backward"))
        first, y, y_tilde = ctx.saved_tensors
        grad, grad_tilde = gradients
        of_parameters: list[tuple[Tensor | None, ...]] = []
        for j in reversed(range(len(ctx.blocks))):
            block = ctx.blocks[j]
            # Appended zeros must come back as zeros: a batch normalisation divides them by the root of its epsilon.
            x_tilde = block.unsqueeze(y) if j > 0 else first
            moved, through_f, found = _differentiate(block, ctx.replays[j], x_tilde, grad_tilde)
            y, y_tilde = block.unsqueeze(y_tilde - moved), x_tilde
            # S is orthogonal: its transpose is its inverse.
            grad, grad_tilde = block.unsqueeze(grad_tilde), block.unsqueeze(grad) + through_f
            of_parameters.append(found)
        return None, grad, grad_tilde, *(g for found in reversed(of_parameters) for g in found)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError(_REFUSAL.format("forward-mode differentiation"))


def _differentiate(
    block: Coupling, replay: "_Replay", x_tilde: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
    """F x~, evaluated once more, F'(x~)^T times the gradient, and the gradients of the parameters of F, if any."""
    parameters = list(block.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    with torch.enable_grad(), _frozen_statistics(block), replay.restored():
        x_tilde = x_tilde.detach().requires_grad_()
        moved = block.bottleneck(x_tilde)
    through_f, *found = torch.autograd.grad(moved, [x_tilde, *trained], gradient.to(moved.dtype))
    by_parameter = dict(zip(trained, found))
    return moved.detach(), through_f, tuple(by_parameter.get(parameter) for parameter in parameters)


@contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """Lets batch normalisation update copies of its running statistics, so that they are updated once a step."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, kept):
        norm._buffers.update({name: buffer.clone() for name, buffer in buffers.items() if buffer is not None})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept):
            norm._buffers.update(buffers)


@dataclass(frozen=True)
class _Replay:
    """What the second evaluation of a block needs to repeat the first: autocast, and the generators if it drops out."""

    device_type: str
    autocast: bool
    autocast_dtype: torch.dtype
    generator: Tensor | None
    device_generators: tuple[list[int], list[Tensor]]

    @classmethod
    def record(cls, block: nn.Module, stream: Tensor):
        drops = any(isinstance(module, nn.Dropout) and module.training and module.p > 0 for module in block.modules())
        device_type = stream.device.type
        return cls(
            device_type=device_type,
            autocast=torch.is_autocast_enabled(device_type),
            autocast_dtype=torch.get_autocast_dtype(device_type),
            generator=torch.get_rng_state() if drops else None,
            device_generators=get_device_states(stream) if drops else ([], []),
        )

    @contextmanager
    def restored(self) -> Iterator[None]:
        """The state that was recorded; afterwards the global generators are as they were before."""
        devices, states = self.device_generators
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(self.device_type, dtype=self.autocast_dtype, enabled=self.autocast))
            if self.generator is not None:
                stack.enter_context(torch.random.fork_rng(devices))
                torch.set_rng_state(self.generator)
                set_device_states(devices, states)
            yield
