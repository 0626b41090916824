"""Back-propagation through the cascade without storing its activations (section 3.2; Gomez et al., 2017).

The gradients of a block, from those g, g~ of its outputs (S x~, S x + F x~), are S^T g~ for x and S^T g + F'(x~)^T g~
for x~: only x~ is needed. It is either stored, or rebuilt from the block's outputs by its inverse; then F is evaluated
again, with gradients (`irevnet.models.memory.replay`).

In float32 a rebuilt stream is rounding error off. Where F rounds its inputs to fewer bits, in mixed precision or in
TF32, that turns some of them to the next number, and each block adds errors of that size: after 100 blocks streams
were rebuilt to a tenth or not at all. There streams are kept on multiples of 2^-16, by rounding F x~ to them, which is
finer than what 11 bits can say of numbers above 1/32. Sums and differences below 2^8 are then exact in float32: streams
are rebuilt, and F is repeated, to the last bit.
"""

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from irevnet.models.config import Memory
from irevnet.models.coupling import Coupling
from irevnet.models.memory.forward_hooks import PLAIN
from irevnet.models.memory.replay import Replay
from irevnet.utils.precision import epsilon

Streams = tuple[Tensor, Tensor]

SPACING = 2.0**-16
"""Spacing of the numbers in streams that are rebuilt in mixed precision."""


@torch.compiler.disable  # a compiled network calls it as ordinary code
def run_blocks(
    blocks: Sequence[Coupling],
    x: Tensor,
    x_tilde: Tensor,
    *,
    memory: Memory,
    outputs: Collection[int] = (),
    report: Callable[[Tensor], None] = lambda error: None,
) -> list[Streams]:
    """The streams after each block of the cascade, with a graph for first-order gradients that stores little.

    Gradients are those of the plain cascade up to rounding, also where parameters are frozen or inputs need none.
    Batch-norm statistics are updated once, random draws and the autocast state are those of the forward pass, forward
    hooks are called once, and random generators are left in the state after the forward pass.

    Args:
        blocks: blocks of the cascade.
        x: first stream.
        x_tilde: second stream, which the first block's bottleneck reads.
        memory: `"checkpoint"` stores one stream per block; `"reversible"` stores those of the last output and one for
            each of the first two blocks.
        outputs: numbers of blocks, from 1 on, besides the last, at which back-propagation may begin.
        report: function that, with `"reversible"`, is called after back-propagation with the relative error of the
            rebuilt input stream, ||x~' - x~|| / ||(x, x~)||, a tensor of one element. It is rounding error, which
            grows with depth, and none in mixed precision.

    Raises:
        RuntimeError: forward-mode differentiation, `torch.func` transforms and double backward, which need the full
            graph; and evaluations that cannot be repeated, see `irevnet.models.memory.replay`.
    """
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(refusal(memory, "torch.func transforms"))
    tape = Tape(memory, report, rounds=memory == "reversible" and _is_mixed(x))
    after: list[Streams] = []
    trained = 0
    for number, block in enumerate(blocks, start=1):
        replay = Replay(block.bottleneck, x_tilde)
        if replay.tensors or x.requires_grad or x_tilde.requires_grad:
            # The inputs of the bottlenecks in the first two blocks are always stored. There the zeros appended in an
            # injective network are constant: rebuilt as 1e-17 instead of 0 they would fall on either side of a ReLU,
            # and be magnified by each batch normalisation, which divides a constant channel by the root of its epsilon.
            # Later streams vary in every channel.
            position = Position(
                number=number,
                keeps_input=memory == "checkpoint" or trained < 2,
                keeps_output=memory == "reversible" and (number == len(blocks) or number in outputs),
                first=trained == 0,
            )
            if trained == 0 and tape.rounds:
                x, x_tilde = _begin_rounded(x), _begin_rounded(x_tilde)
            trained += 1
            x, x_tilde = _through(
                block, position, functools.partial(_evaluate, tape, block, position, replay), x, x_tilde
            )
        else:  # frozen, as are all blocks before it
            x, x_tilde = block(x, x_tilde)
        after.append((x, x_tilde))
    return after


def _is_mixed(x: Tensor) -> bool:
    """Whether F is computed in less precision than a stream, of float32, has."""
    return x.dtype == torch.float32 and epsilon(x.device.type) > torch.finfo(x.dtype).eps


def _rounded(x: Tensor) -> Tensor:
    return (x.float() / SPACING).round() * SPACING


def _laid_out(x: Tensor, strides: tuple[int, ...]) -> Tensor:
    """The same numbers with these strides in memory, by which operations choose in which order they add."""
    if x.stride() == strides:
        return x
    return torch.empty_strided(x.shape, strides, dtype=x.dtype, device=x.device).copy_(x)


def _begin_rounded(x: Tensor) -> Tensor:
    """The rounded stream; its gradients are those of the stream."""
    return x + (_rounded(x) - x).detach()


def refusal(memory: Memory, what: str) -> str:
    return f'{what} cannot go through memory = "{memory}", which keeps no graph; {PLAIN}'


class Tape:
    """Passes the rebuilt outputs of a block, one tensor or several, on to the backward pass of that block."""

    def __init__(self, memory: Memory, report: Callable[[Tensor], None], *, rounds: bool = False):
        self.memory: Memory = memory
        self.report = report
        self.rounds = rounds
        self.rebuilt: tuple[int, Any] | None = None

    def addend(self, moved: Tensor) -> Tensor:
        """What is added to a stream, and taken from it again, for F x~."""
        return _rounded(moved) if self.rounds else moved

    def take(self, number: int) -> Any:
        if self.rebuilt is None or self.rebuilt[0] != number:
            raise RuntimeError(
                f"back-propagation begins after block {number}, whose output was not kept; get it as one of "
                f"features(images, depth=[...]), or {PLAIN}"
            )
        (_, output), self.rebuilt = self.rebuilt, None
        return output


@dataclass(frozen=True, kw_only=True)
class Position:
    """The position of a block in the cascade, and what is stored for it."""

    number: int
    keeps_input: bool
    keeps_output: bool
    first: bool


def _through(
    block: Coupling, position: Position, evaluate: Callable[[Tensor, Tensor], Streams], x: Tensor, x_tilde: Tensor
) -> Streams:
    """Calls the block as a module, with its hooks, and computes its output by `evaluate`."""
    inner: list[Streams] = []

    def path(x_in: Tensor, x_tilde_in: Tensor) -> Streams:
        inner.extend([(x_in, x_tilde_in), evaluate(x_in, x_tilde_in)])
        return inner[1]

    block.path = path
    try:
        result = block(x, x_tilde)
    finally:
        block.path = None
    given, computed = inner
    if not (_are(given, (x, x_tilde)) and isinstance(result, tuple) and _are(result, computed)):
        raise RuntimeError(
            f"a forward hook of block {position.number} changes its streams, so that the inverse cannot rebuild them; "
            f"{PLAIN}"
        )
    return result


def _are(these: tuple, those: Streams) -> bool:
    """Whether tensors share their memory; backward hooks make new tensors of the same memory."""
    return len(these) == len(those) and all(
        one is other or (one.data_ptr(), one.shape, one.stride()) == (other.data_ptr(), other.shape, other.stride())
        for one, other in zip(these, those)
    )


def _evaluate(tape: Tape, block: Coupling, position: Position, replay: Replay, x: Tensor, x_tilde: Tensor) -> Streams:
    return _Block.apply(tape, block, position, replay, x, x_tilde, *replay.tensors)  # type: ignore[return-value]


class _Block(torch.autograd.Function):
    """A block as a function of its streams and of its tensors, which are inputs so that autograd knows of them."""

    @staticmethod
    def forward(
        ctx: Any,
        tape: Tape,
        block: Coupling,
        position: Position,
        replay: Replay,
        x: Tensor,
        x_tilde: Tensor,
        *tensors: Tensor,
    ) -> Streams:
        ctx.tape, ctx.block, ctx.position, ctx.replay = tape, block, position, replay
        with replay.first():
            moved = replay.module(x_tilde)
        y, y_tilde = block.couple(x, x_tilde, tape.addend(moved))
        ctx.strides = x_tilde.stride()
        kept = (y, y_tilde) if position.keeps_output else (None, None)
        ctx.save_for_backward(x_tilde if position.keeps_input else None, *kept)
        return y, y_tilde

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        block: Coupling = ctx.block
        position: Position = ctx.position
        tape: Tape = ctx.tape
        if torch.is_grad_enabled():
            raise RuntimeError(refusal(tape.memory, "double backward"))
        x_tilde, y, y_tilde = ctx.saved_tensors
        rebuilt = None
        if tape.memory == "reversible":
            if y is None:
                y, y_tilde = tape.take(position.number)
            rebuilt = block.unsqueeze(y)
            if x_tilde is None:
                x_tilde = _laid_out(rebuilt, ctx.strides) if tape.rounds else rebuilt
        moved, through_f, of_tensors = differentiate(ctx.replay, x_tilde, gradients[1])
        if rebuilt is not None:
            x = block.unsqueeze(y_tilde - tape.addend(moved))
            if position.first:
                size = torch.hypot(torch.linalg.vector_norm(x), torch.linalg.vector_norm(x_tilde))
                tape.report(torch.linalg.vector_norm(rebuilt - x_tilde) / size)
            else:
                tape.rebuilt = position.number - 1, (x, x_tilde)
        # S is orthogonal: its transpose is its inverse.
        grad_x, grad_x_tilde = block.unsqueeze(gradients[1]), block.unsqueeze(gradients[0])
        return None, None, None, None, grad_x, grad_x_tilde + through_f, *of_tensors

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError(refusal(ctx.tape.memory, "forward-mode differentiation"))


def differentiate(
    replay: Replay, x_tilde: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor | float, tuple[Tensor | None, ...]]:
    """F x~, evaluated once more, F'(x~)^T times the gradient, and the gradients of the tensors of F, where F is the
    module that is replayed."""
    leaves = replay.leaves()
    with torch.enable_grad(), replay.again(leaves):
        x_tilde = x_tilde.detach().requires_grad_()
        moved = replay.module(x_tilde)
    if not moved.requires_grad:  # F is constant
        return moved, 0.0, (None,) * len(leaves)
    replay.check_leaves(moved, [x_tilde, *leaves])
    through_f, *of_tensors = torch.autograd.grad(moved, [x_tilde, *leaves], gradient.to(moved.dtype), allow_unused=True)
    return moved.detach(), 0.0 if through_f is None else through_f, tuple(of_tensors)
