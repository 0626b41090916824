"""Singular vectors at both ends of a spectrum, with residuals computed anew from products.

The right singular vectors v of A are those of A^-T too, and so are the left ones u: A^-T v = u / s where A v = s u.
Those of the smallest values of A are those of the largest of A^-T, and their residuals are measured there: as residuals
of A they would be small for any vectors that A makes small.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from analysis.linalg.linear_operator import LinearOperator
from analysis.results.singular_values import SingularVectors


@dataclass(frozen=True, eq=False)
class SingularPairs:
    """Singular values s of a linear operator B, and their vectors, one in each row.

    Attributes:
        values: singular values s, `(count,)`.
        right: right singular vectors v, of length 1, whose largest entry is positive, `(count, n)`.
        left: left singular vectors u, of length 1, `(count, m)`.
        residuals: ||B v - s u|| and ||B^T u - s v||, both relative to s, `(count, 2)`.
    """

    values: Float[Tensor, " count"]
    right: Float[Tensor, "count n"]
    left: Float[Tensor, "count m"]
    residuals: Float[Tensor, "count 2"]

    @classmethod
    def of(
        cls,
        operator: LinearOperator,
        values: Float[Tensor, " count"],
        right: Float[Tensor, "count n"],
        left: Float[Tensor, "count m"] | None = None,
    ) -> "SingularPairs":
        """The pairs of an operator with these values and right singular vectors; u = B v / ||B v|| if not given."""
        largest = right.gather(1, right.abs().argmax(dim=1, keepdim=True))
        right = right.double() * largest.sign()
        images = operator.matvec(right).double()
        left = torch.nn.functional.normalize(images) if left is None else left.double() * largest.sign()
        scale = values[:, None].double()
        misses = images - scale * left, operator.rmatvec(left).double() - scale * right
        residuals = torch.stack([torch.linalg.vector_norm(each, dim=1) for each in misses], dim=1) / scale
        return cls(values=scale[:, 0], right=right, left=left, residuals=residuals)

    @property
    def transposed(self) -> "SingularPairs":
        """The same pairs as those of B^T."""
        largest = self.left.gather(1, self.left.abs().argmax(dim=1, keepdim=True))
        return SingularPairs(
            values=self.values,
            right=self.left * largest.sign(),
            left=self.right * largest.sign(),
            residuals=self.residuals.flip(1),
        )


def both_ends(largest: SingularPairs, smallest: SingularPairs | None = None) -> SingularVectors:
    """The singular vectors of A at both ends, from pairs of A and, where it has an inverse, of A^-T."""
    ends = [largest]
    if smallest is None:
        unknown = {name: torch.full_like(each, torch.nan) for name, each in vars(largest).items()}
        ends.append(SingularPairs(**unknown))
    else:
        ends.append(
            SingularPairs(
                values=1 / smallest.values,
                right=smallest.right,
                left=smallest.left,
                residuals=smallest.residuals,
            )
        )
    return SingularVectors(
        **{name: torch.stack([getattr(each, name) for each in ends]).cpu().numpy() for name in vars(largest)}
    )
