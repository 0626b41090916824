import itertools

import torch

from analysis.invariances.rearrange import in_order_of, in_reverse_order


def test_no_order_is_nearer_or_farther():
    phi, other = torch.randn(2, 2, 3, 1, 5)
    near, far = in_order_of(phi, other), in_reverse_order(phi)
    for image in range(2):
        for channel in range(3):
            values = phi[image, channel, 0]
            orders = torch.stack([values[list(order)] for order in itertools.permutations(range(5))])
            to_other = (orders - other[image, channel, 0]).norm(dim=1)
            to_itself = (orders - values).norm(dim=1)
            assert torch.equal(near[image, channel, 0], orders[to_other.argmin()])
            assert torch.isclose((far[image, channel, 0] - values).norm(), to_itself.max())
