"""Back-propagation through any blocks with an inverse, without storing their activations.

The input of a block is stored, or rebuilt from its output by its inverse; then the block is evaluated again, with
gradients (`irevnet.models.memory.replay`). An inverse that is no such thing in train mode, where layers may draw random
numbers or depend on the batch, is noticed: the second evaluation has to return the output that the inverse was given.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from irevnet.models.config import Memory
from irevnet.models.memory.mode import MAX_RECONSTRUCTION_ERROR
from irevnet.models.memory.replay import Replay
from irevnet.models.memory.reversible import Position, Tape, differentiate, refusal


@torch.compiler.disable  # a compiled network calls it as ordinary code
def run_chain(
    blocks: Sequence[nn.Module], x: Tensor, *, memory: Memory, report: Callable[[Tensor], None] = lambda error: None
) -> Tensor:
    """The output of the last block, with a graph for first-order gradients that stores little.

    Args:
        blocks: modules from one tensor to one tensor, each with a method `inverse`.
        x: input of the first block.
        memory: `"checkpoint"` stores the input of each block; `"reversible"` that of the first and the last output.
        report: function that, with `"reversible"`, is called after back-propagation with the relative error of the
            rebuilt input, ||x' - x|| / ||x||, a tensor of one element.

    Raises:
        RuntimeError: forward-mode differentiation, `torch.func` transforms and double backward, which need the full
            graph; evaluations that cannot be repeated, see `irevnet.models.memory.replay`; and, in back-propagation,
            a block that its inverse does not undo.
    """
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(refusal(memory, "torch.func transforms"))
    tape = Tape(memory, report)
    trained = 0
    for number, block in enumerate(blocks, start=1):
        replay = Replay(block, x)
        if replay.tensors or x.requires_grad:
            first = trained == 0
            position = Position(
                number=number,
                keeps_input=memory == "checkpoint" or first,
                keeps_output=memory == "reversible" and number == len(blocks),
                first=first,
            )
            trained += 1
            x = _Block.apply(tape, position, replay, x, *replay.tensors)  # type: ignore[assignment]
        else:  # frozen, as are all blocks before it
            x = block(x)
    return x


class _Block(torch.autograd.Function):
    """A block as a function of its input and of its tensors, which are inputs so that autograd knows of them."""

    @staticmethod
    def forward(ctx: Any, tape: Tape, position: Position, replay: Replay, x: Tensor, *tensors: Tensor) -> Tensor:
        ctx.tape, ctx.position, ctx.replay = tape, position, replay
        with replay.first():
            y = replay.module(x)
        y = y.view_as(y) if y is x else y  # autograd would take an output that is an input for that
        ctx.save_for_backward(x if position.keeps_input else None, y if position.keeps_output else None)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        tape: Tape = ctx.tape
        position: Position = ctx.position
        replay: Replay = ctx.replay
        if torch.is_grad_enabled():
            raise RuntimeError(refusal(tape.memory, "double backward"))
        x, y = ctx.saved_tensors
        if tape.memory == "reversible":
            y = tape.take(position.number) if y is None else y
            with replay.again(replay.leaves()):
                rebuilt = replay.module.inverse(y)  # type: ignore[operator]
            if position.first:
                tape.report(torch.linalg.vector_norm(rebuilt - x) / torch.linalg.vector_norm(x))
            else:
                tape.rebuilt = position.number - 1, rebuilt
            x = rebuilt if x is None else x
        again, through, of_tensors = differentiate(replay, x, gradients[0])
        if tape.memory == "reversible" and not position.first:
            _check_undone(again, y, f"block {position.number}")
        return None, None, None, through if isinstance(through, Tensor) else None, *of_tensors

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError(refusal(ctx.tape.memory, "forward-mode differentiation"))


def _check_undone(again: Tensor, y: Tensor, name: str) -> None:
    """Raises `RuntimeError` unless a block puts out y again for what its inverse made of y."""
    error = (torch.linalg.vector_norm(again - y) / torch.linalg.vector_norm(y)).item()
    if not error <= MAX_RECONSTRUCTION_ERROR:
        raise RuntimeError(
            f"the inverse of {name} does not undo it in train mode (relative error {error:.1e}), as where layers draw "
            'random numbers in another order; set model.memory = "checkpoint"'
        )
