"""How often something happened, beside how often it would by chance."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray
from scipy.stats import binomtest


@dataclass(frozen=True, eq=False)
class Share:
    """How often something happened.

    Attributes:
        count: number of times that it did.
        total: number of times that it could.
        chance: the share to be expected by chance.
    """

    count: int
    total: int
    chance: float

    @property
    def value(self) -> float:
        """The share; NaN of nothing."""
        return self.count / self.total if self.total else np.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval."""
        return wilson_interval(self.count, self.total)


def wilson_interval(count: int, total: int) -> tuple[float, float]:
    """Wilson's 95% interval of the share `count` / `total`; NaN of nothing.

    >>> [round(end, 3) for end in wilson_interval(9, 10)]
    [0.596, 0.982]
    """
    if not total:
        return np.nan, np.nan
    ends = binomtest(count, total).proportion_ci(0.95, method="wilson")
    return float(ends.low), float(ends.high)


def share_of(given: Shaped[ndarray, " n"], asked: Shaped[ndarray, " n"]) -> Share:
    """How often answers are those asked for, and would be if they were given to other questions.

    >>> share = share_of(np.array(["cat", "dog", "cat"]), np.array(["cat", "cat", "dog"]))
    >>> share.count, share.total, round(share.chance, 2)
    (1, 3, 0.67)
    """
    count, total = int((given == asked).sum()), len(given)
    names = np.unique(np.concatenate((given, asked)))
    products = sum(int((given == name).sum()) * int((asked == name).sum()) for name in names)
    others = total * (total - 1)
    return Share(count=count, total=total, chance=(products - count) / others if others else np.nan)
