"""The principal components of standardised features: the one basis that the SVM, 1-NN and every truncation share.

Both classifiers of section 5 stay the same when features are rotated. In the basis of the principal components the
Gram matrix of the training set is diagonal, which preconditions the SVM, and keeping d components is to keep the first
d columns. As in Fig. 7 features are standardised once, and never again after the rotation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from analysis.linalg.precision import row_parts, true_float32


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """The standardisation and the principal axes of a training set; all in float64.

    Attributes:
        mean: of each feature, `(dims,)`.
        scale: its standard deviation; 1 where it is constant up to the rounding of a float32, which differs from batch
            to batch and must not be taken for a feature, `(dims,)`.
        axes: orthonormal principal axes of the standardised features, one a column, `(dims, dims)`; of the two signs of
            an axis the one that makes its largest entry positive.
        variance: of the standardised features along each axis, in decreasing order, `(dims,)`.
    """

    mean: Float[Tensor, " dims"]
    scale: Float[Tensor, " dims"]
    axes: Float[Tensor, "dims dims"]
    variance: Float[Tensor, " dims"]

    @property
    def explained(self) -> Float[ndarray, " dims"]:
        """The share of the variance that the first d components hold, for d = 1, 2, ..."""
        share = self.variance.cumsum(dim=0).cpu().numpy()
        return share / share[-1] if share[-1] > 0 else np.ones_like(share)

    def transform(self, features: Float[ndarray, "n dims"]) -> Float[Tensor, "n dims"]:
        """The coordinates of features along the axes, in float32.

        Raises `ValueError` for features that are not finite.
        """
        coordinates = torch.empty(features.shape, dtype=torch.float32, device=self.axes.device)
        axes = self.axes.float()
        with true_float32():
            for rows in row_parts(len(features), axes.device):
                coordinates[rows] = self.standardise(features[rows]) @ axes
        return coordinates

    def standardise(self, features: Float[ndarray, "n dims"]) -> Float[Tensor, "n dims"]:
        """(x - mean) / scale, computed in float64 and rounded to float32."""
        points = torch.from_numpy(_finite(features).astype(np.float64)).to(self.axes.device)
        return ((points - self.mean) / self.scale).float()


def principal_components(features: Float[ndarray, "n dims"], *, device: str = "cpu") -> PrincipalComponents:
    """The principal components of features that are standardised by their own mean and standard deviation.

    The Gram matrix is summed in float64 over products in float32, and its eigenvectors are those of float64.

    Args:
        features: one row an image; may be a memory map, of which a part is read at a time.
        device: where to compute.

    Raises:
        ValueError: features that are not finite.

    >>> points = np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])
    >>> principal_components(points).explained.round(6).tolist()
    [1.0, 1.0]
    """
    dims = features.shape[1]
    scaler = StandardScaler()
    parts = list(row_parts(len(features), torch.device(device)))
    for rows in parts:
        scaler.partial_fit(_finite(features[rows]))
    mean, scale = (torch.as_tensor(part, dtype=torch.float64, device=device) for part in (scaler.mean_, scaler.scale_))
    scale[scale <= 4 * torch.finfo(torch.float32).eps * mean.abs()] = 1
    identity = torch.eye(dims, dtype=torch.float64, device=device)
    standard = PrincipalComponents(mean=mean, scale=scale, axes=identity, variance=torch.ones_like(mean))
    gram = torch.zeros_like(identity)
    with true_float32():
        for rows in parts:
            points = standard.standardise(features[rows])
            gram += (points.T @ points).double()
    variance, axes = torch.linalg.eigh(gram / len(features))
    axes = axes.flip(dims=(1,))
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    return PrincipalComponents(
        mean=mean, scale=scale, axes=axes * largest.sign(), variance=variance.flip(dims=(0,)).clamp(min=0)
    )


def _finite(features: Float[ndarray, "n dims"]) -> Float[ndarray, "n dims"]:
    if not np.isfinite(features).all():
        raise ValueError("the features are not finite; the network's weights or inputs are broken")
    return features
