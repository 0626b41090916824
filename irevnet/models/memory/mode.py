"""The property `memory` of networks that can be trained without storing activations, and its warning."""

import warnings
from typing import cast, get_args

import torch
from torch import Tensor, nn

from irevnet.models.config import Memory

MAX_RECONSTRUCTION_ERROR = 1e-3
"""Relative error of a rebuilt stream above which its gradients are not to be trusted: thousands of times the rounding
of a float32, and less than that of a bfloat16."""


def reconstruction_problem(error: float) -> str | None:
    """What is wrong if reversible back-propagation rebuilt its input with that relative error; `None` if nothing is."""
    if error <= MAX_RECONSTRUCTION_ERROR:
        return None
    return (
        f"reversible back-propagation rebuilt its input with a relative error of {error:.1e}, above "
        f"{MAX_RECONSTRUCTION_ERROR:.0e}: its gradients are wrong; set `memory` to 'plain' or 'checkpoint'"
    )


class MemoryMode(nn.Module):
    """A network with a choice of how back-propagation gets its activations."""

    def __init__(self):
        super().__init__()
        self.memory = "plain"
        self.reconstruction_error: Tensor | None = None
        """Relative error of the input stream that the last reversible back-propagation rebuilt."""
        self._warned = False

    @property
    def memory(self) -> Memory:
        """How back-propagation gets its activations in train mode: `"plain"`, `"checkpoint"` or `"reversible"`.

        See `irevnet.models.config.Memory`. Gradients are the same up to rounding; memory and time differ. Eval mode,
        and computation without gradients, are always plain.
        """
        return self._memory

    @memory.setter
    def memory(self, memory: str) -> None:
        if memory not in get_args(Memory):
            raise ValueError(f"memory is {memory!r}; expected one of {get_args(Memory)}")
        self._memory: Memory = cast(Memory, memory)

    def _saves_memory(self) -> bool:
        """Whether a forward pass now is to store less than autograd would."""
        return self.memory != "plain" and self.training and torch.is_grad_enabled()

    def _note_reconstruction(self, error: Tensor) -> None:
        self.reconstruction_error = error
        if error.device.type == "cpu":  # a look at it now would hold up a GPU; the next forward pass looks
            self._check_reconstruction()

    def _check_reconstruction(self) -> None:
        """Warns, once, if the gradients of the last reversible back-propagation are wrong."""
        error = self.reconstruction_error
        if self._warned or type(error) is not Tensor:  # none yet, or a fake tensor, which has a shape alone
            return
        if problem := reconstruction_problem(error.item()):
            self._warned = True
            warnings.warn(problem, RuntimeWarning, stacklevel=2)
