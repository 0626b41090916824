"""Back-propagation through the cascade without storing its activations (section 3.2; Gomez et al., 2017).

Each block is inverted on the way back: from its output the input is rebuilt, the bottleneck is evaluated again with
gradients, and the output is forgotten. Kept are the output of the cascade and one stream of each of the first two
blocks, whatever the number of blocks; where dropout is active, also the random generator's state (5 kB a block).
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


def run_reversibly(
    blocks: Sequence[Coupling], x: Tensor, x_tilde: Tensor, report: Callable[[Tensor], None] = lambda error: None
) -> Streams:
    """The cascade, with its output and a stream of each of the first two blocks stored for back-propagation alone.

    Gradients are those of the plain cascade up to rounding, for parameters, for frozen parameters (none) and for
    inputs that need none. Batch-norm statistics are updated once, dropout masks and the autocast state are those of
    the forward pass, and the global random generator is left where the forward pass left it.

    After back-propagation `report` is given how far the stream that the first block reads, rebuilt from the output,
    lies from the one that was kept: ||x~' - x~|| / ||(x, x~)||, a tensor with one element. It is rounding error, which
    grows with depth.

    Raises `RuntimeError`, naming the plain path, for forward-mode differentiation, `torch.func` transforms and double
    backward: they need the graph that is not kept.
    """
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(_REFUSAL.format("torch.func transforms"))
    tape = _Tape(report)
    for j, block in enumerate(blocks):
        place = _Place(keep=j < 2, first=j == 0, last=j == len(blocks) - 1)
        x, x_tilde = _ReversibleBlock.apply(tape, block, place, x, x_tilde, *block.parameters())  # type: ignore[misc]
    return x, x_tilde


_REFUSAL = '{} cannot go through the reversible path, which keeps no graph; set model.memory = "plain"'


class _Tape:
    """Hands the rebuilt streams from the backward pass of each block to that of the block before it."""

    def __init__(self, report: Callable[[Tensor], None]):
        self.report = report
        self.streams: Streams | None = None


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Of a block in the cascade.

    What the bottlenecks of the first two blocks read is kept. Zeros appended to an injective network are constant
    there: rebuilt to 1e-17 instead of 0 they would fall on either side of a ReLU, and be magnified by each batch
    normalisation, which divides a constant channel by the root of its epsilon. Later streams vary in every channel.
    """

    keep: bool
    first: bool
    last: bool


class _ReversibleBlock(torch.autograd.Function):
    """A block's streams and parameters in, streams out. The parameters are inputs so that autograd knows of them."""

    @staticmethod
    def forward(
        ctx: Any, tape: _Tape, block: Coupling, place: _Place, x: Tensor, x_tilde: Tensor, *parameters: Tensor
    ) -> Streams:
        ctx.tape, ctx.block, ctx.place, ctx.replay = tape, block, place, _Replay.record(block, x_tilde)
        y, y_tilde = block(x, x_tilde)
        ctx.save_for_backward(x_tilde if place.keep else None, *((y, y_tilde) if place.last else (None, None)))
        return y, y_tilde

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(_REFUSAL.format("double backward"))
        block: Coupling = ctx.block
        tape: _Tape = ctx.tape
        kept, y, y_tilde = ctx.saved_tensors
        if not ctx.place.last:
            assert tape.streams is not None
            y, y_tilde = tape.streams
        rebuilt = block.unsqueeze(y)
        x_tilde = rebuilt if kept is None else kept
        moved, through_f, of_parameters = _differentiate(block, ctx.replay, x_tilde, gradients[1])
        x = block.unsqueeze(y_tilde - moved)
        tape.streams = x, x_tilde
        if ctx.place.first:
            size = torch.hypot(torch.linalg.vector_norm(x), torch.linalg.vector_norm(x_tilde))
            tape.report(torch.linalg.vector_norm(rebuilt - x_tilde) / size)
        # S is orthogonal: its transpose is its inverse.
        grad_x, grad_x_tilde = block.unsqueeze(gradients[1]), block.unsqueeze(gradients[0]) + through_f
        return None, None, None, grad_x, grad_x_tilde, *of_parameters

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
    norms = [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
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
