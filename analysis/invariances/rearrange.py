"""Features with their values in another order within each channel, which leaves all averages of a channel as they are.

The order of n values that is nearest to other n values is the order of these, and the farthest is the reverse one: the
rearrangement inequality, sum x_i y_i being largest if both are sorted alike.
"""

import torch
from jaxtyping import Float
from torch import Tensor

Maps = Float[Tensor, "images channels h w"]


def in_order_of(phi: Maps, other: Maps) -> Maps:
    """The values of each channel of `phi` in the order of those of `other`: of all orders the nearest to `other`.

    >>> in_order_of(torch.tensor([[[[1.0, 2.0, 3.0]]]]), torch.tensor([[[[0.2, 0.9, 0.1]]]])).flatten().tolist()
    [2.0, 3.0, 1.0]
    """
    ranks = torch.argsort(other.flatten(2), dim=2, stable=True).argsort(dim=2)
    return torch.gather(phi.flatten(2).sort(dim=2).values, 2, ranks).reshape(phi.shape)


def in_reverse_order(phi: Maps) -> Maps:
    """The values of each channel with the largest where the smallest was: of all orders the farthest from `phi`.

    >>> in_reverse_order(torch.tensor([[[[2.0, 3.0, 1.0]]]])).flatten().tolist()
    [2.0, 1.0, 3.0]
    """
    return in_order_of(phi, -phi)
