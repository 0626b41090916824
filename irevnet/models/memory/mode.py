"""The property `memory` of networks that can be trained without storing activations, and its warning."""

import warnings
from typing import cast, get_args

import torch
from torch import Tensor, nn

from irevnet.models.config import Memory
from irevnet.utils.precision import epsilon

MAX_RECONSTRUCTION_ERROR = 1e-3
"""Relative error of a rebuilt stream in float32 above which its gradients are not to be trusted: thousands of times the
rounding of its numbers."""


def largest_error(device_type: str) -> float:
    """The relative error of a rebuilt stream that is no worse than the arithmetic of convolutions, as it is now.

    In mixed precision the blocks of others round otherwise on an input that is a little off, as i-RevNets did before
    they rounded their streams (`irevnet.models.memory.reversible`): the 100 blocks of (b), fresh, had gathered 10
    epsilon at 32 x 32, in bfloat16 and in float16, by which gradients 40% and 15% off were 49% and 19% off.
    """
    return max(MAX_RECONSTRUCTION_ERROR, 16 * epsilon(device_type))


def reconstruction_problem(error: float, largest: float) -> str | None:
    """What is wrong if reversible back-propagation rebuilt its input with that relative error; `None` if nothing is."""
    if error <= largest:
        return None
    return (
        f"reversible back-propagation rebuilt its input with a relative error of {error:.1e}, above "
        f"{largest:.0e}: its gradients are wrong; set `memory` to 'plain' or 'checkpoint'"
    )


class MemoryMode(nn.Module):
    """A network with a choice of how back-propagation gets its activations."""

    def __init__(self):
        super().__init__()
        self.memory = "plain"
        self.reconstruction_error: Tensor | None = None
        """Relative error of the input stream that the last reversible back-propagation rebuilt."""
        self.largest_reconstruction_error = MAX_RECONSTRUCTION_ERROR
        """What that may be, in the arithmetic of the last forward pass, for gradients to be trusted."""
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

    def _begin_saving_memory(self, images: Tensor) -> None:
        """Looks at what the last back-propagation rebuilt, and notes the arithmetic of this pass."""
        self._check_reconstruction()
        self.largest_reconstruction_error = largest_error(images.device.type)

    def _note_reconstruction(self, error: Tensor) -> None:
        self.reconstruction_error = error
        if error.device.type == "cpu":  # a look at it now would hold up a GPU; the next forward pass looks
            self._check_reconstruction()

    def _check_reconstruction(self) -> None:
        """Warns, once, if the gradients of the last reversible back-propagation are wrong."""
        error = self.reconstruction_error
        if self._warned or type(error) is not Tensor:  # none yet, or a fake tensor, which has a shape alone
            return
        if problem := reconstruction_problem(error.item(), self.largest_reconstruction_error):
            self._warned = True
            warnings.warn(problem, RuntimeWarning, stacklevel=2)
