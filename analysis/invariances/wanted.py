"""The logits that metamers are to have: those of other images, of a class at a given confidence, or of a file."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from irevnet.utils.lookup import find
from irevnet.utils.untrusted import map_array

Values = Float[Tensor, "images values"]


def parse_wanted(text: str | None, names: Sequence[str], count: int) -> Callable[[Values, slice], Values]:
    """A function of what some images have of what is kept, and of their rows, which returns what is wanted.

    Args:
        text: class and confidence such as `cat:0.99`, or a `.npy` of logits; `None` for what the images have.
        names: names of the logits.
        count: number of images.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the text names no class and confidence, or the file holds no logits of that many classes and images.
    """
    if text is None:
        return lambda kept, _: kept
    if text.endswith(".npy"):
        rows = _read_logits(Path(text), len(names), count)
        return lambda kept, chosen: rows[chosen].to(kept)
    name, _, confidence = text.rpartition(":")
    try:
        number = float(confidence if name else "")
    except ValueError:
        raise ValueError(
            f"`towards` is {text!r}; expected a class and its confidence, such as {names[0]}:0.99, or a .npy of logits"
        ) from None
    find("class", name, dict.fromkeys(names))
    return lambda kept, _: towards(kept, names.index(name), number)


def towards(logits: Values, number: int, confidence: float) -> Values:
    """Logits with a class at a given confidence, and the odds of all others among each other as they were.

    Logit k is moved by tau, and all by -tau / K, so that their sum stays: softmax_k = p for
    tau = log(p / (1 - p)) - (l_k - log sum_{j != k} exp l_j).

    >>> round(towards(torch.tensor([[1.0, 2.0, 3.0]]).double(), 0, 0.9).softmax(dim=1)[0, 0].item(), 6)
    0.9

    Raises `ValueError` for a confidence that is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"the confidence is {confidence:g}; expected a number between 0 and 1, such as 0.99")
    others = torch.cat((logits[:, :number], logits[:, number + 1 :]), dim=1).logsumexp(dim=1)
    odds = torch.tensor(confidence / (1 - confidence), dtype=logits.dtype, device=logits.device).log()
    tau = odds - (logits[:, number] - others)
    change = torch.full_like(logits, -1 / logits.shape[1])
    change[:, number] += 1
    return logits + tau[:, None] * change


def _read_logits(path: Path, num_classes: int, count: int) -> Tensor:
    """Logits of a file for each image, `(count, classes)`."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of logits {path}; give a .npy of one row, or one for each image")
    found = np.array(map_array(path))
    rows = np.atleast_2d(found)
    if found.dtype.kind != "f" or rows.ndim != 2 or rows.shape[1] != num_classes or len(rows) not in (1, count):
        raise ValueError(
            f"{path} holds {found.dtype} of shape {found.shape}; expected floating-point logits, ({num_classes},) for "
            f"all images or ({count}, {num_classes})"
        )
    if not np.isfinite(rows).all():
        raise ValueError(f"{path} holds logits that are not finite; expected numbers")
    return torch.from_numpy(rows.astype(np.float64)).expand(count, -1)
