"""What a network puts out, as one vector an image: its logits, or an average over space or tokens."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from analysis.features.layout import find_layouts
from irevnet.utils.modules import as_input, in_eval_mode

NAMES = ("logits", "out", "last_hidden_state")
"""Names of the output that is taken of several, in the order in which they are preferred."""


def main_output(output: Any) -> Any:
    """The logits in the output of a network, else its last hidden state, else its first tensor.

    >>> main_output({"features": torch.zeros(2, 3), "logits": torch.ones(2, 1)}).shape
    torch.Size([2, 1])
    """
    for name in NAMES:
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, tuple | list):
        return next((each for each in output if isinstance(each, Tensor)), output)
    return output


def set_output(model: nn.Module, name: str, image: Tensor) -> tuple[int, bool]:
    """Makes a network put out one vector an image, `(n, outputs)`; returns their number, and whether they are logits.

    Args:
        model: network, whose forward pass is changed by hooks.
        name: name of the network in errors.
        image: tensor of the shape of one image, `(c, h, w)`.

    Raises:
        ValueError: the network does not take such images, or puts out no tensor or one whose layout is ambiguous.
    """
    model.register_forward_hook(lambda module, inputs, output: main_output(output))
    try:
        with in_eval_mode(model), torch.no_grad():
            output = model(as_input(image.new_zeros(2, *image.shape), model))
    except Exception as error:  # networks that do not take such images raise all kinds
        c, h, w = image.shape
        reason = " ".join(str(error).split())[:150]
        raise ValueError(
            f"{name} does not take images of {c} x {h} x {w} ({type(error).__name__}: {reason}); choose their size by "
            "`image_size`"
        ) from error
    if not isinstance(output, Tensor):
        raise ValueError(f"{name} puts out a {type(output).__name__}; expected a tensor, or several by name")
    if output.ndim == 2 and len(output) == 2:
        return output.shape[1], True
    ((layout,),) = find_layouts(model, {name: model}, image).values()

    def average(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return layout.average(output)

    model.register_forward_hook(average)
    return output.shape[layout.channels], False


def last_linear(
    model: nn.Module, outputs: int
) -> tuple[Float[ndarray, "outputs width"], Float[ndarray, " outputs"]] | None:
    """Weights and biases, in float64, of the last `nn.Linear` of a network with so many outputs; `None` if none has.

    >>> weights, bias = last_linear(nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 3, bias=False)), 3)
    >>> weights.shape, bias.tolist()
    ((3, 5), [0.0, 0.0, 0.0])
    """
    found = [each for each in model.modules() if isinstance(each, nn.Linear) and each.out_features == outputs]
    if not found:
        return None
    weights = found[-1].weight.detach().double().cpu().numpy()
    bias = found[-1].bias
    return weights, np.zeros(len(weights)) if bias is None else bias.detach().double().cpu().numpy()
