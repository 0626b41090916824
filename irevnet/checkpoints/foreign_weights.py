"""Weights that others saved, fitted to a network by the names of its tensors.

Frameworks put a prefix before every name (`module.` of DataParallel, `_orig_mod.` of `torch.compile`, `model.` of
Lightning), and save tensors in any order. The prefix under which most names of the network are found is taken.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from irevnet.checkpoints.architecture import check_shapes


@dataclass(frozen=True)
class Fitted:
    """A network with weights from elsewhere.

    Attributes:
        model: network.
        classifier: name of its last layer if the weights have none, which then is a fresh one; else empty.
    """

    model: nn.Module
    classifier: str = ""


def fit_weights(build: Callable[[int | None], nn.Module], weights: Mapping[str, Tensor]) -> Fitted:
    """Builds a network with as many outputs as its weights have, and gives it these weights.

    Args:
        build: returns the network for a number of outputs, or for `None` with its own number.
        weights: tensors by name, with or without a prefix, in any order.

    Raises:
        ValueError: a tensor of the network is missing, has another shape or type, or belongs to none of its modules; or
            the weights are those of several networks.
    """
    expected = _build_empty(build).state_dict()
    own = _without_prefix(weights, expected)
    head = _last_layer(expected)
    in_head = [name for name in expected if name.startswith(f"{head}.")]
    without_head = bool(in_head) and not any(name in own for name in in_head)
    num_outputs = None if without_head else _num_outputs(own, expected, in_head)
    model = build(num_outputs)
    fresh = model.state_dict()
    # Old releases of torch did not count batches, and nothing in eval mode depends on the count.
    optional = [name for name in fresh if name.endswith(".num_batches_tracked")] + (in_head if without_head else [])
    own = {**{name: fresh[name] for name in optional if name not in own}, **own}
    check_shapes(model, own)
    model.load_state_dict(own)
    return Fitted(model, head if without_head else "")


def _build_empty(build: Callable[[int | None], nn.Module]) -> nn.Module:
    """The network without memory for its weights, where its code allows that."""
    try:
        with torch.device("meta"):
            return build(None)
    except Exception:  # code that looks into a tensor as it builds the network raises all kinds
        return build(None)


def _without_prefix(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the prefix at which the most names of the network are found, without that prefix."""
    prefixes = {"", *(name[: end + 1] for name in weights for end, letter in enumerate(name) if letter == ".")}
    found = {prefix: sum(prefix + name in weights for name in expected) for prefix in prefixes}
    most = max(found.values())
    best = sorted((prefix for prefix in prefixes if found[prefix] == most), key=lambda prefix: (len(prefix), prefix))
    if most and len(best) > 1:
        raise ValueError(
            f"there are weights of several such networks, under {best[0] or 'no prefix'!r} and {best[1]!r}; save one"
        )
    prefix = best[0]
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _last_layer(expected: Mapping[str, Tensor]) -> str:
    """Name of the module of the last tensor, the classifier in most networks; empty where that is the network."""
    return [*expected, ""][len(expected) - 1].rpartition(".")[0]


def _num_outputs(own: Mapping[str, Tensor], expected: Mapping[str, Tensor], in_head: list[str]) -> int | None:
    """The number of outputs of the weights, if it is another than that of the network."""
    for name in in_head:
        if name in own and own[name].ndim == expected[name].ndim and own[name].shape[0] != expected[name].shape[0]:
            return own[name].shape[0]
    return None
