"""How the output of a layer becomes one vector an image: averages, maxima, the CLS token, or everything.

A network says which of its tokens belong to no part of the image: timm's by `num_prefix_tokens`, those of Hugging Face
and torchvision by parameters such as `cls_token`. Not every layer has them, as CLS tokens may join late: they are taken
from a layer only where they and a grid of square patches make up all of its tokens.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from analysis.features.layout import Layout

Pool = Literal["mean", "max", "cls", "patches", "flatten"]
"""`"mean"` and `"max"` over all positions in space or all tokens; `"cls"`, the CLS token; `"patches"`, the mean of the
tokens of patches, without CLS, distillation and register tokens; `"flatten"`, everything in the network's own order."""

CLS_TOKENS = ("cls_token", "class_token", "class_embedding")
"""Names of the parameter that is a CLS token, in timm, Hugging Face and torchvision."""

OTHER_TOKENS = ("dist_token", "distillation_token", "reg_token", "register_tokens")
"""Names of parameters that are tokens between the CLS token and those of patches."""

TOKENS = ("cls", "patches")
"""Kinds of pooling that have to know which tokens are those of patches."""


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """A kind of pooling, for a network and the size of its images.

    Attributes:
        kind: kind of pooling.
        prefix: number of tokens before those of patches, the CLS token first; 0 where it is not needed.
        image_size: height and width of the images.
    """

    kind: Pool
    prefix: int
    image_size: tuple[int, int]

    @classmethod
    def of(cls, kind: Pool, model: nn.Module, image: Tensor) -> "Pooling":
        """The pooling for a network and images of the shape of this one, `(c, h, w)`.

        Raises `ValueError` for a kind that does not exist, or that needs a CLS token of which the network says nothing.
        """
        if kind not in get_args(Pool):
            raise ValueError(f"there is no `pool` {kind!r}; expected one of {', '.join(get_args(Pool))}")
        prefix = _prefix_tokens(model, kind) if kind in TOKENS else 0
        return cls(kind=kind, prefix=prefix, image_size=(image.shape[1], image.shape[2]))

    def __call__(self, name: str, output: Tensor, layout: Layout) -> Tensor:
        """The vectors of the images in the output of a layer, `(images, dims)`, in float64 if the output is, else in
        float32.

        Raises `ValueError`, with the name of the layer, where tokens are asked for that it does not have.
        """
        precision = torch.float64 if output.dtype == torch.float64 else torch.float32
        match self.kind:
            case "mean":
                return layout.average(output)
            case "flatten":
                return output.movedim(layout.images, 0).flatten(1).to(precision)
            case "max":
                return layout.positions(output).amax(dim=1).to(precision)
            case "cls":
                return self._tokens(name, output, layout)[:, 0].to(precision)
            case "patches":
                return self._tokens(name, output, layout)[:, self.prefix :].mean(dim=1, dtype=precision)

    def _tokens(self, name: str, output: Tensor, layout: Layout) -> Tensor:
        shape = tuple(output.shape)
        if output.ndim != 3:
            raise ValueError(
                f"the output of {name} has shape {shape}, which is not of tokens; choose another `pool` than "
                f"{self.kind!r}, or other layers"
            )
        tokens = layout.positions(output)
        if not self._has_patches(tokens.shape[1] - self.prefix):
            height, width = self.image_size
            raise ValueError(
                f"the output of {name} has shape {shape}: {tokens.shape[1]} tokens, which are not {self.prefix} and "
                f"those of the patches of a {height} x {width} image; choose another `pool` than {self.kind!r}, or "
                "other layers"
            )
        return tokens

    def _has_patches(self, count: int) -> bool:
        """Whether the image has so many square patches, of any size."""
        height, width = self.image_size
        return any((height // side) * (width // side) == count for side in range(1, min(height, width) + 1))


def _prefix_tokens(model: nn.Module, kind: Pool) -> int:
    """The number of tokens before those of patches, of which the first is the CLS token, if that is asked for.

    Raises `ValueError` if the network does not say.
    """
    counted = next(
        (each for each in model.modules() if isinstance(getattr(each, "num_prefix_tokens", None), int)), None
    )
    parameters = [(name.rpartition(".")[2], each) for name, each in model.named_parameters()]
    cls_tokens = sum(name in CLS_TOKENS for name, _ in parameters)
    count = int(getattr(counted, "num_prefix_tokens", 0))
    if count > 0 and (kind == "patches" or cls_tokens == 1 or not hasattr(counted, "cls_token")):
        return count
    if counted is None and cls_tokens == 1:
        return 1 + sum(each.shape[-2] for name, each in parameters if name in OTHER_TOKENS)
    raise ValueError(
        f"this {type(model).__name__} is not known to have a CLS token; expected one parameter called "
        f"{', '.join(CLS_TOKENS[:-1])} or {CLS_TOKENS[-1]}, or an attribute num_prefix_tokens of the network; choose "
        "another `pool`"
    )
