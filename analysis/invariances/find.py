"""Metamers of a bijective network: images with the logits, or the averaged features, of other images."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from analysis.invariances.approach import approach
from analysis.invariances.lattice import on_lattice_with_logits
from analysis.invariances.nearest import MeanHead, nearest_features, norms
from analysis.invariances.rearrange import in_order_of, in_reverse_order
from irevnet.models.invertible import Invertible, InvertibleChain
from irevnet.models.irevnet import Head, IRevNet, is_ordinary_head

Kept = Literal["logits", "averages"]

WITHIN, REFINEMENTS = 1e-6, 2
"""Relative difference at which a metamer is not refined, and most refinements: what rounding took away is asked for."""

NEARLY = 1e-3
"""Relative difference of logits from which on their rest is taken away in the features: it moves an image by about as
small a part of what all of it would."""

Images = Float[Tensor, "images c h w"]
Maps = Float[Tensor, "images channels height width"]
Values = Float[Tensor, "images values"]


@dataclass(frozen=True, eq=False)
class Metamers:
    """Images, and what is known of the features nearest to those given.

    Attributes:
        images: inputs of the network, `(images, c, h, w)`.
        bound: lower bound of the distance of any features with the same logits, NaN where there is none, `(images,)`.
    """

    images: Images
    bound: Float[Tensor, " images"]


class MetamerFinder:
    """What finds metamers of a network, at one depth.

    Args:
        model: bijective network in eval mode.
        depth: depth of the features.
        keep: what metamers share, `"logits"`, which the last depth alone determines, or `"averages"`: the features of
            that depth averaged over space, which probes see.

    Raises `ValueError` for logits of a network whose head is not known, or at another depth than the last.
    """

    def __init__(self, model: Invertible, *, depth: int, keep: Kept):
        self.model = model
        self.depth = depth
        self.keep: Kept = keep
        self.lattice = model.lattice if isinstance(model, IRevNet) else None
        """Lattice of a network in exact arithmetic, `None` in floating point."""
        self._head: nn.Module | None = None
        self._closed: MeanHead | None = None
        if keep == "logits":
            self._head = known_head(model)
            if self._head is None:
                raise ValueError(
                    f"what a {type(model).__name__} makes of its last features is not known; metamers of logits take "
                    "an i-RevNet, or a chain of blocks with a head: keep the averages"
                )
            if depth != model.num_blocks:
                raise ValueError(
                    f"logits are known from the features of the last depth, {model.num_blocks}, and `depth` is "
                    f"{depth}; keep the averages, or choose the last depth"
                )
            if is_ordinary_head(self._head):
                self._closed = MeanHead.of(self._head)

    def features(self, images: Images) -> Maps:
        """Phi_depth of images, as maps. Raises `ValueError` for features that are none."""
        phi = self.model.features(images, self.depth)
        if phi.ndim != 4:
            raise ValueError(
                f"features at depth {self.depth} are of shape {tuple(phi.shape[1:])} an image; metamers take maps, "
                "(channels, height, width)"
            )
        return phi

    def kept(self, images: Images) -> Values:
        """What metamers share, computed from images, in float64."""
        if self.keep == "logits":
            return self.model(images).double()
        return self.features(images).double().mean(dim=(2, 3))

    @torch.no_grad()
    def nearest_features(self, phi: Maps, wanted: Values) -> Metamers:
        """The images whose features, of all that have the wanted values, are nearest to `phi`."""
        asked = wanted
        best = self._nearest(phi, asked)
        difference = self._difference(best.images, wanted)
        for _ in range(REFINEMENTS if self.lattice is None else 0):
            if (difference <= WITHIN).all():
                break
            asked = asked + wanted - self.kept(best.images)
            again = self._nearest(phi, asked)
            found = self._difference(again.images, wanted)
            nearer = found < difference
            best = Metamers(torch.where(nearer[:, None, None, None], again.images, best.images), best.bound)
            difference = torch.minimum(difference, found)
        return best

    @torch.no_grad()
    def nearest_image(self, images: Images, wanted: Values, *, bounds: tuple[Tensor, Tensor] | None = None) -> Metamers:
        """Images near these that have the wanted values, within the bounds of pixels where given.

        Raises `ValueError` in exact arithmetic, which has no derivative.
        """
        if self.lattice is not None:
            raise ValueError("exact arithmetic rounds and has no derivative; leave nearest-image and bounds out")
        # What few steps leave is taken away in the features, at the price of one more, where there is a closed form.
        closes = bounds is None and self._closed is not None
        found = approach(self._float_kept, images, wanted, within=NEARLY if closes else WITHIN, bounds=bounds)
        result = found.points
        if closes:
            result = self.nearest_features(self.features(result), wanted).images
        return Metamers(result, torch.full_like(found.difference, torch.nan))

    @torch.no_grad()
    def rearranged(self, phi: Maps, other: Maps) -> Metamers:
        """The images of features `phi` in the order of `other` within each channel.

        Raises `ValueError` for features with one value a channel.
        """
        self._check_order(phi)
        return self._image_of(in_order_of(phi, other))

    @torch.no_grad()
    def reversed(self, phi: Maps) -> Metamers:
        """The images of features `phi` in the order within each channel that is farthest from their own.

        Raises `ValueError` for features with one value a channel.
        """
        self._check_order(phi)
        return self._image_of(in_reverse_order(phi))

    def _check_order(self, phi: Maps) -> None:
        if phi[0, 0].numel() == 1:
            raise ValueError(
                f"features of depth {self.depth} have one value a channel, and there is nothing to rearrange; choose a "
                "lower `depth`"
            )

    def _image_of(self, phi: Maps, bound: Tensor | None = None) -> Metamers:
        unknown = phi.new_full((len(phi),), torch.nan, dtype=torch.float64)
        return Metamers(self.model.inverse(phi, self.depth), unknown if bound is None else bound)

    def _nearest(self, phi: Maps, wanted: Values) -> Metamers:
        if self.keep == "averages":
            return self._image_of(self._with_averages(phi, wanted))
        if self._closed is None:
            assert self._head is not None
            return self._image_of(approach(self._head, phi, wanted, within=WITHIN).points)
        nearest = nearest_features(self._closed, phi, wanted)
        features = nearest.features
        if self.lattice is not None:
            assert isinstance(self._head, Head)
            features = on_lattice_with_logits(self._head, features, wanted, self.lattice)
        return self._image_of(features, nearest.bound)

    def _with_averages(self, phi: Maps, wanted: Values) -> Maps:
        """The nearest features with these averages: all values of a channel are moved alike."""
        move = wanted[:, :, None, None] - phi.double().mean(dim=(2, 3), keepdim=True)
        if self.lattice is None:
            return phi + move.to(phi)
        # On the lattice, whole steps: some values of a channel are moved by one more than the others.
        positions, spacing = phi[0, 0].numel(), self.lattice.spacing
        steps = (move.flatten(2) * positions / spacing).round()
        more = torch.arange(positions, device=phi.device) < steps.remainder(positions)
        return phi + spacing * (steps.div(positions, rounding_mode="floor") + more).reshape(phi.shape)

    def _float_kept(self, images: Images) -> Values:
        """As `kept`, differentiable and in the precision of the network."""
        return self.model(images) if self.keep == "logits" else self.features(images).mean(dim=(2, 3))

    def _difference(self, images: Images, wanted: Values) -> Float[Tensor, " images"]:
        return relative_difference(self.kept(images), wanted)


def relative_difference(values: Values, wanted: Values) -> Float[Tensor, " images"]:
    """Norm of the difference of each row, over the norm of the wanted one."""
    return norms(values - wanted) / norms(wanted).clamp(min=torch.finfo(wanted.dtype).tiny)


@torch.no_grad()
def check_bijective(finder: MetamerFinder, images: Images) -> None:
    """Raises `ValueError` unless there are as many features as inputs: else few features are those of an image."""
    phi = finder.features(images)
    if phi[0].numel() == images[0].numel():
        return
    other = torch.lerp(phi[:1], phi[-1:], 0.5)
    again = finder.features(finder.model.inverse(other, finder.depth))
    residual = torch.linalg.vector_norm(again - other) / torch.linalg.vector_norm(other)
    raise ValueError(
        f"the network is not bijective: it makes {phi[0].numel():,} features of {images[0].numel():,} inputs, and the "
        f"midpoint of two features comes back from its image changed by {residual:.1%}; so would features with other "
        "logits. Give a bijective network"
    )


def known_head(model: Invertible) -> nn.Module | None:
    """What makes logits of the last features, where that is a module of the network."""
    if isinstance(model, IRevNet | InvertibleChain) and isinstance(model.head, nn.Module):
        return model.head
    return None
