"""The features nearest to given ones that have given logits.

The logits of an i-RevNet see the spatial mean of ReLU(a phi + d) alone, with a and d of its batch normalisation:

    logits = W mean_p ReLU(z_p) + b,    z_p = a phi_p + d.

Of all features with the logits w, those nearest to phi solve

    minimise 1/2 sum_{c, p} (psi_cp - phi_cp)^2    subject to    W mean_p ReLU(a psi_p + d) + b = w.

Values below zero do not reach the logits. As long as they stay there, the problem is convex, and of its dual with one
unknown for each class, lambda,

    g(lambda) = lambda . (w - b) + sum_{c, p} v_cp,    s_c = a_c^2 (W^T lambda)_c / (number of positions),
    v = -s^2 / (2 a^2) - s z / a^2 if z + s > 0, else z^2 / (2 a^2),    psi = phi + (max(z + s, 0) - z) / a,

is concave and piecewise quadratic: Newton's method ends after a few steps. If values below zero may rise above it, v of
these becomes min(0, -s^2 / (2 a^2) - s z / a^2), and by weak duality sqrt(2 g) bounds the distance of any features with
these logits from below, for every lambda: a certificate. Values that gain from rising, those with z > -s / 2, join the
others in further rounds, and the nearest features of all rounds are kept.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from irevnet.models.irevnet import Head

NEWTON_STEPS, HALVINGS, ROUNDS = 100, 30, 5
"""Most steps of Newton's method, most halvings of one, and most choices of the values above zero."""

WITHIN = 1e-10
"""Largest difference of logits, in float64 and relative to their norm, that counts as none."""

_Normalised = Float[Tensor, "images channels positions"]
_Multipliers = Float[Tensor, "images classes"]


@dataclass(frozen=True, eq=False)
class MeanHead:
    """Logits W mean ReLU(a phi + d) + b of features phi, in float64.

    Attributes:
        scale: factor a of each channel, `(channels,)`.
        shift: summand d of each channel, `(channels,)`.
        weight: matrix W, `(classes, channels)`.
        bias: summand b of each class, `(classes,)`.

    >>> head = MeanHead(*(torch.tensor(x).double() for x in ([2.0], [-1.0], [[3.0]], [0.5])))
    >>> head(torch.tensor([[[[1.0, 0.0]]]])).tolist()  # 3 (ReLU(1) + ReLU(-1)) / 2 + 0.5
    [[2.0]]
    """

    scale: Float[Tensor, " channels"]
    shift: Float[Tensor, " channels"]
    weight: Float[Tensor, "classes channels"]
    bias: Float[Tensor, " classes"]

    @classmethod
    @torch.no_grad()
    def of(cls, head: Head) -> "MeanHead":
        """What a head computes in eval mode."""
        norm, classifier = head.norm, head.classifier
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        bias = classifier.weight.new_zeros(len(classifier.weight)) if classifier.bias is None else classifier.bias
        return cls(
            scale=scale,
            shift=norm.bias.double() - norm.running_mean.double() * scale,
            weight=classifier.weight.double(),
            bias=bias.double(),
        )

    def __call__(self, phi: Float[Tensor, "images channels h w"]) -> Float[Tensor, "images classes"]:
        return self.normalised(phi).relu().mean(dim=2) @ self.weight.T + self.bias

    def normalised(self, phi: Float[Tensor, "images channels h w"]) -> Float[Tensor, "images channels positions"]:
        """z = a phi + d."""
        return phi.double().flatten(2) * self.scale[:, None] + self.shift[:, None]

    def rows(self, phi: Float[Tensor, "images channels h w"]) -> Float[Tensor, "images classes dims"]:
        """The derivative of the logits with respect to the features, `dims` = channels h w."""
        z = self.normalised(phi)
        slope = (z > 0) * (self.scale[:, None] / z.shape[2])
        return (self.weight[None, :, :, None] * slope[:, None]).flatten(2)


@dataclass(frozen=True, eq=False)
class Nearest:
    """Features with given logits, the nearest to given ones.

    Attributes:
        features: these features, in the precision and shape of the given ones, `(images, channels, h, w)`.
        bound: lower bound of the distance of any features with these logits, `(images,)`.
        found: whether features with these logits were found, `(images,)`; where not, `features` are the given ones.
    """

    features: Float[Tensor, "images channels h w"]
    bound: Float[Tensor, " images"]
    found: Bool[Tensor, " images"]


@torch.no_grad()
def nearest_features(
    head: MeanHead, phi: Float[Tensor, "images channels h w"], logits: Float[Tensor, "images classes"]
) -> Nearest:
    """The features nearest to `phi`, in the Euclidean norm, that have these logits.

    Args:
        head: head, which computes logits from features.
        phi: features.
        logits: logits to have.

    >>> head = MeanHead(*(torch.tensor(x).double() for x in ([1.0], [0.0], [[1.0]], [0.0])))
    >>> phi = torch.tensor([[[[3.0, 1.0, -5.0, -9.0]]]], dtype=torch.float64)
    >>> nearest = nearest_features(head, phi, torch.tensor([[0.25]]))  # the mean of what is positive
    >>> nearest.features.flatten().round(decimals=6).tolist(), round(nearest.bound.item(), 6)
    ([1.0, 0.0, -5.0, -9.0], 2.236068)
    """
    z, wanted = head.normalised(phi), logits.double() - head.bias
    move, bound = torch.zeros_like(z), wanted.new_zeros(len(z))
    distance = torch.full_like(bound, torch.inf)
    active = z > 0
    for number in range(ROUNDS):
        multipliers, found = _maximise_dual(head, z, active, wanted)
        bound = torch.maximum(bound, _bound(head, z, multipliers, wanted))
        moved = _moves(head, z, active, multipliers)
        better = found & (norms(moved) < distance)
        move = torch.where(better[:, None, None], moved, move)
        distance = torch.where(better, norms(moved), distance)
        # Values that gain from rising above zero join; all of them where there is no solution without.
        gains = (z > 0) | (2 * z + _shift(head, multipliers, z) > 0) | ~found[:, None, None]
        if number > 0 and not (gains & ~active).any():
            break
        active = gains
    return Nearest(features=phi + move.reshape(phi.shape).to(phi.dtype), bound=bound, found=distance.isfinite())


def _maximise_dual(
    head: MeanHead, z: _Normalised, active: Bool[Tensor, "images channels positions"], wanted: _Multipliers
) -> tuple[_Multipliers, Bool[Tensor, " images"]]:
    """The multipliers lambda at which the dual is largest, and whether the logits are then those wanted."""
    multipliers, done = torch.zeros_like(wanted), torch.zeros_like(wanted[:, 0], dtype=torch.bool)
    size = torch.linalg.vector_norm(wanted, dim=1) + torch.linalg.vector_norm(head.bias)
    for _ in range(NEWTON_STEPS):
        s = _shift(head, multipliers, z)
        above = active & (z + s > 0)
        means = torch.where(above, z + s, 0).mean(dim=2)
        gradient = wanted - means @ head.weight.T
        done = torch.linalg.vector_norm(gradient, dim=1) <= WITHIN * size
        if done.all():
            break
        # The second derivative is -W diag(a^2 n_c / N^2) W^T, with n_c of N positions above zero. Where the dual still
        # rises in a direction without curvature, n_c = N, which majorises it, makes a step that cannot go wrong.
        hessian = _weighted_gram(head, above.double().mean(dim=2) / z.shape[2])
        step = solve(hessian, gradient)
        left = torch.linalg.vector_norm((hessian @ step[:, :, None])[:, :, 0] - gradient, dim=1)
        flat = left > 1e-6 * torch.linalg.vector_norm(gradient, dim=1)
        if flat.any():
            whole = _weighted_gram(head, torch.full_like(means, 1 / z.shape[2]))
            step = torch.where(flat[:, None], solve(whole, gradient), step)
        step[done] = 0
        multipliers = multipliers + step * _length(head, z, active, wanted, multipliers, step, gradient)
    return multipliers, done


def _weighted_gram(head: MeanHead, weights: Float[Tensor, "images channels"]) -> Float[Tensor, "images k k"]:
    """W diag(a^2 weights) W^T."""
    return torch.einsum("kc,nc,lc->nkl", head.weight, head.scale**2 * weights, head.weight)


def _length(
    head: MeanHead,
    z: _Normalised,
    active: Bool[Tensor, "images channels positions"],
    wanted: _Multipliers,
    multipliers: _Multipliers,
    step: _Multipliers,
    gradient: _Multipliers,
) -> Float[Tensor, "images 1"]:
    """The longest of 1, 1/2, 1/4, ... times a step by which the dual rises enough (Armijo's rule)."""
    rise = (step * gradient).sum(dim=1)
    start = _dual(head, z, active, wanted, multipliers)
    length = torch.ones_like(rise)
    for _ in range(HALVINGS):
        value = _dual(head, z, active, wanted, multipliers + length[:, None] * step)
        # Differences below the rounding of the dual itself are no reason for a shorter step.
        short = value < start + 1e-4 * length * rise - 1e-13 * start.abs()
        if not short.any():
            break
        length = torch.where(short, length / 2, length)
    return length[:, None]


def solve(matrix: Float[Tensor, "images k k"], right: Float[Tensor, "images k"]) -> Float[Tensor, "images k"]:
    """The solution of symmetric positive semidefinite systems, of least norm where they are singular."""
    values, vectors = torch.linalg.eigh(matrix)
    small = values <= 1e-13 * values[:, -1:].clamp(min=torch.finfo(values.dtype).tiny)
    inverse = torch.where(small, 0, 1 / torch.where(small, 1, values))
    return (vectors @ (inverse * (right[:, None] @ vectors)[:, 0])[:, :, None])[:, :, 0]


def _shift(head: MeanHead, multipliers: _Multipliers, z: _Normalised) -> Float[Tensor, "images channels 1"]:
    """s, by which the values above zero of each channel rise."""
    return (head.scale**2 / z.shape[2] * (multipliers @ head.weight))[:, :, None]


def _moves(
    head: MeanHead, z: _Normalised, active: Bool[Tensor, "images channels positions"], multipliers: _Multipliers
) -> _Normalised:
    """psi - phi."""
    s = _shift(head, multipliers, z)
    change = torch.where(active & ((z > 0) | (z + s > 0)), (z + s).clamp(min=0) - z, 0)
    return change * _reciprocal(head.scale)[:, None]


def _dual(
    head: MeanHead,
    z: _Normalised,
    active: Bool[Tensor, "images channels positions"],
    wanted: _Multipliers,
    multipliers: _Multipliers,
) -> Float[Tensor, " images"]:
    """g(lambda) of the convex problem."""
    s = _shift(head, multipliers, z)
    values = torch.where(z + s > 0, -s * (s / 2 + z), z**2 / 2)
    return _weighted(head, torch.where(active, values, 0)) + (multipliers * wanted).sum(dim=1)


def _bound(head: MeanHead, z: _Normalised, multipliers: _Multipliers, wanted: _Multipliers) -> Float[Tensor, " images"]:
    """sqrt(2 g(lambda)) of the problem in which values below zero may rise: no features are nearer."""
    s = _shift(head, multipliers, z)
    below = torch.where(z + s > 0, -s * (s / 2 + z), 0).clamp(max=0)
    above = torch.where(z + s > 0, -s * (s / 2 + z), z**2 / 2)
    value = _weighted(head, torch.where(z > 0, above, below)) + (multipliers * wanted).sum(dim=1)
    return (2 * value).clamp(min=0).sqrt()


def _weighted(head: MeanHead, values: _Normalised) -> Float[Tensor, " images"]:
    """The sum of values over a^2, in units of features; channels with a = 0 do not move."""
    return (values.sum(dim=2) * _reciprocal(head.scale) ** 2).sum(dim=1)


def _reciprocal(scale: Float[Tensor, " channels"]) -> Float[Tensor, " channels"]:
    return torch.where(scale == 0, 0, 1 / torch.where(scale == 0, 1, scale))


def norms(x: Tensor) -> Float[Tensor, " images"]:
    """The Euclidean norm of each image, or vector."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1)
