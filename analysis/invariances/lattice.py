"""Features on a lattice whose logits in exact arithmetic are given ones, to the last bit.

Logits in exact arithmetic are exact sums, rounded to multiples of q = 2^-bits at the end (`irevnet.models.exact`):
those of two features are the same to the last bit if their unrounded logits are nearest to the same multiples. Features
that have the wanted logits are rounded to the lattice, which moves each logit by a part of q. The rest is taken away by
moving single values, each of channel c above zero, by one step q: that changes the logits by W_c a_c q / (number of
positions).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from analysis.invariances.nearest import MeanHead
from irevnet.models.exact import Lattice, unrounded_logits
from irevnet.models.irevnet import Head

ROUNDS, MOST_MOVES = 8, 2_000
"""Most rounds of moves, after each of which logits are computed anew, and most moves in a round."""

ENOUGH = 0.25
"""Distance from the wanted logits, in units of q, at which moves end: the rounding takes away up to half a unit."""


def on_lattice_with_logits(
    head: Head, phi: Float[Tensor, "images channels h w"], logits: Float[Tensor, "images classes"], lattice: Lattice
) -> Float[Tensor, "images channels h w"]:
    """Features on the lattice near `phi` that have these logits, to the last bit where moves suffice.

    Args:
        head: head of a network in exact arithmetic.
        phi: features with nearly these logits.
        logits: logits in exact arithmetic, multiples of the lattice's spacing.
        lattice: lattice of the network.
    """
    closed = MeanHead.of(head)
    phi = lattice.round(phi, "features")
    for _ in range(ROUNDS):
        missing = (logits - unrounded_logits(phi, head.norm, head.classifier, lattice)) / lattice.spacing
        left = (missing.abs().amax(dim=1) > ENOUGH).nonzero()[:, 0].tolist()
        for image in left:
            phi[image] = _moved(closed, phi[image], missing[image], lattice)
        if not left:
            break
    return phi


def _moved(
    head: MeanHead, phi: Float[Tensor, "channels h w"], missing: Float[Tensor, " classes"], lattice: Lattice
) -> Float[Tensor, "channels h w"]:
    """Features of an image after moves of single values by one step, the one that helps most at each time."""
    z = head.normalised(phi[None])[0]
    most = z.argmax(dim=1)
    # Values that stay above zero after some hundred steps; others are not moved.
    usable = z.amax(dim=1) > 256 * lattice.spacing * head.scale.abs()
    effects = head.weight * (head.scale * usable / z.shape[1])
    squares = effects.square().sum(dim=0)
    steps = torch.zeros_like(head.scale)
    for _ in range(MOST_MOVES):
        if missing.abs().max() <= ENOUGH:
            break
        along = effects.T @ missing
        gain = 2 * along.abs() - squares  # fall of the squared distance
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        sign = along[best].sign()
        steps[best] += sign
        missing = missing - sign * effects[:, best]
    moved = phi.flatten(1).clone()
    moved[torch.arange(len(moved)), most] += steps.clamp(-256, 256) * lattice.spacing
    return moved.reshape(phi.shape)
