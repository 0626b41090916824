"""What the studies ask of a network with an inverse, and chains of blocks that each have one."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from irevnet.models.foreign_blocks import has_inverse, invertible_blocks, keep_activations
from irevnet.models.memory.chain import run_chain
from irevnet.models.memory.mode import MemoryMode
from irevnet.utils.lookup import check_depth


@runtime_checkable
class Invertible(Protocol):
    """A module whose features of some depths can be turned back into its input.

    Every module of torch with `num_blocks`, `features` and `inverse` can be inverted, interpolated and decomposed from
    both ends, an `IRevNet` and an `InvertibleChain` among them. Features of depth 0 are the input, as it is or
    rearranged.

    Attributes:
        num_blocks: largest depth.
    """

    @property
    def num_blocks(self) -> int: ...

    def features(self, images: Tensor, depth: int, /) -> Tensor:
        """Phi_depth of images `(n, c, h, w)`, a tensor with an image in each row, for depth 0 to `num_blocks`."""
        ...

    def inverse(self, phi: Tensor, depth: int, /) -> Tensor:
        """The images `(n, c, h, w)` whose Phi_depth is `phi`."""
        ...

    def __call__(self, images: Tensor, /) -> Tensor: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def buffers(self) -> Iterator[Tensor]: ...

    def to(self, dtype: torch.dtype, /) -> Any: ...


class InvertibleChain(MemoryMode):
    """Blocks that each have an inverse, one after the other, and a head on the last features.

    It can be trained without storing activations, as `memory` says, in any loop.

        Phi_j x = B_j( ... B_1(x)),    Phi_j^-1 phi = B_1^-1( ... B_j^-1(phi)).

    >>> class Shift(nn.Module):
    ...     def forward(self, x):
    ...         return x + 1
    ...
    ...     def inverse(self, y):
    ...         return y - 1
    >>> chain = InvertibleChain([nn.PixelUnshuffle(2), Shift()], head=nn.Flatten()).eval()
    >>> phi = chain.features(torch.zeros(1, 1, 2, 2))
    >>> tuple(phi.shape), chain.inverse(phi).abs().max().item()
    ((1, 4, 1, 1), 0.0)

    Args:
        blocks: modules of those that `irevnet.models.foreign_blocks` lists, from one tensor to one tensor; maps are
            `(n, c, h, w)`. Containers among them become several blocks.
        head: module that makes logits of the last features; without one, these are the output.
        image_shape: shape of an image, `(c, h, w)`, where the first module is one of FrEIA that takes vectors.

    Raises `ValueError` for a module without an inverse.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        head: nn.Module | None = None,
        *,
        image_shape: tuple[int, ...] | None = None,
    ):
        super().__init__()
        found: list[nn.Module] = []
        for number, module in enumerate(blocks):
            if not has_inverse(module):
                raise ValueError(
                    f"block {number + 1} is a {type(module).__name__}, which has no method `inverse`; give it one, or "
                    "put it into the head"
                )
            found += invertible_blocks(module, None if number else image_shape)
        if not found:
            raise ValueError("a chain has no blocks; expected one or more")
        self.blocks = nn.ModuleList(found)
        self.head = head
        keep_activations(self)

    @property
    def num_blocks(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    def forward(self, images: Tensor) -> Tensor:
        """What the head makes of the last features of images `(n, c, h, w)`, or these."""
        if self._saves_memory():
            self._begin_saving_memory(images)
            options = {"memory": self.memory, "report": self._note_reconstruction}
            phi = run_chain(list(self.blocks), images, **options)  # pyright: ignore[reportCallIssue]
        else:
            phi = self._encode(images, self.num_blocks)
        return phi if self.head is None else self.head(phi)

    def features(self, images: Tensor, depth: int | None = None) -> Tensor:
        """Phi_depth of images `(n, c, h, w)`; that of the last block by default.

        Raises `RuntimeError` in train mode, in which blocks may depend on the batch, and inverses be those of others.
        """
        self._require_eval("features")
        return self._encode(images, self._check_depth(depth))

    def inverse(self, phi: Tensor, depth: int | None = None) -> Tensor:
        """The images whose Phi_depth is `phi`. Raises `RuntimeError` in train mode."""
        self._require_eval("inverse")
        for block in reversed(list(self.blocks)[: self._check_depth(depth)]):
            phi = block.inverse(phi)  # pyright: ignore[reportCallIssue]
        return phi

    def _encode(self, images: Tensor, depth: int) -> Tensor:
        phi = images
        for block in list(self.blocks)[:depth]:
            phi = block(phi)
        return phi

    def _check_depth(self, depth: int | None) -> int:
        return check_depth(self.num_blocks if depth is None else depth, self.num_blocks)

    def _require_eval(self, method: str) -> None:
        if self.training:
            raise RuntimeError(
                f"{method} needs eval mode: in train mode blocks may depend on the batch, and the inverse would be "
                "wrong; call eval() first"
            )


def as_invertible(model: nn.Module, image_shape: tuple[int, ...]) -> nn.Module:
    """A network of other packages as one with an inverse, as far as it consists of what has one.

    A module of FrEIA becomes an `InvertibleChain`, and so does an `nn.Sequential` that begins with blocks that have an
    inverse; what follows them is the head. Any other network is returned as it is.

    Args:
        model: network, which is no longer to be used itself.
        image_shape: shape of an image, `(c, h, w)`.

    Raises `ValueError` for a module of FrEIA that does not take one such image.
    """
    keep_activations(model)
    if isinstance(model, Invertible) or not begins_invertibly(model):
        return model
    parts = list(model) if type(model) is nn.Sequential else [model]
    count = _num_invertible(parts)
    head = nn.Sequential(*parts[count:]) if count < len(parts) else None
    return InvertibleChain(parts[:count], head, image_shape=image_shape).train(model.training)


def begins_invertibly(model: nn.Module) -> bool:
    """Whether a network, or of an `nn.Sequential` its first modules, can be inverted and does more than rearrange."""
    parts = list(model) if type(model) is nn.Sequential else [model]
    rearranging = (nn.Identity, nn.PixelShuffle, nn.PixelUnshuffle)
    return isinstance(model, Invertible) or not all(
        isinstance(part, rearranging) for part in parts[: _num_invertible(parts)]
    )


def _num_invertible(parts: Sequence[nn.Module]) -> int:
    """Number of modules before the first one without an inverse."""
    return next((number for number, part in enumerate(parts) if not has_inverse(part)), len(parts))
