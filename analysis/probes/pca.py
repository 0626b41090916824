"""Principal components of features: of many images that are standardised, and of few images with many features each.

Both classifiers of section 5 stay the same when features are rotated. In the basis of the principal components the
Gram matrix of the training set is diagonal, which preconditions the SVM, and to keep d components is to keep the first
d columns (`principal_components`). As in Fig. 7 features are standardised once, and not again after the rotation.

Directions through feature space are found from at most 1,000 images, with up to 10^5 features each: the Gram matrix of
the features would not fit into memory, that of the images does (`dual_components`). Features are only centred there,
so that steps along a component have a length in feature space.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from analysis.linalg.parts import row_parts
from irevnet.utils.precision import true_float32

MOST_DIMS = 2**14
"""Most features of an image: their Gram matrix then takes 2 GiB in float64, and its decomposition some times that, and
tens of minutes on a few CPU cores."""

COLUMNS = 4096
"""Number of features converted to float64 at once where there are many of them."""


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """The standardisation and the principal axes of a training set, in float64.

    Attributes:
        mean: mean of each feature, `(dims,)`.
        scale: standard deviation of each feature, `(dims,)`; 1 where the feature is constant up to the rounding of a
            float32, which differs from batch to batch and must not be standardised to a feature.
        axes: orthonormal principal axes of the standardised features, one in each column, with the sign that makes the
            largest entry positive, `(dims, dims)`.
        variance: variance of the standardised features along each axis, in decreasing order, `(dims,)`.
    """

    mean: Float[Tensor, " dims"]
    scale: Float[Tensor, " dims"]
    axes: Float[Tensor, "dims dims"]
    variance: Float[Tensor, " dims"]

    @property
    def explained(self) -> Float[ndarray, " dims"]:
        """Share of the variance explained by the first d components, for d = 1, 2, ..."""
        share = self.variance.cumsum(dim=0).cpu().numpy()
        return share / share[-1] if share[-1] > 0 else np.ones_like(share)

    def transform(self, features: Float[ndarray, "n dims"]) -> Float[Tensor, "n dims"]:
        """Coordinates of the standardised features along the axes, in float32.

        Raises `ValueError` if a feature is not finite.
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
    """The principal components of features standardised by their own mean and standard deviation.

    The Gram matrix is the sum in float64 of products in float32, and is decomposed in float64.

    Args:
        features: features with an image in each row; may be a memory map, which is read in parts.
        device: device on which to compute.

    Raises:
        ValueError: a feature is not finite, or there are more than `MOST_DIMS` of an image.

    >>> points = np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])
    >>> principal_components(points).explained.round(6).tolist()
    [1.0, 1.0]
    """
    dims = features.shape[1]
    if dims > MOST_DIMS:
        raise ValueError(
            f"there are {dims:,} features an image, and principal components are found of at most {MOST_DIMS:,}; give "
            "fewer of them, such as averages"
        )
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


@dataclass(frozen=True, eq=False)
class DualComponents:
    """The principal components of few images with many features each, in terms of the images.

    With X the centred features, `(images, dims)`, and X X^T = U S^2 U^T, the principal axes are the rows of S^-1 U^T X.
    They are linear combinations of the images, and need not be stored.

    Attributes:
        features: features as they were given, `(images, dims)`.
        coordinates: coordinates U S of the centred features along the axes, in decreasing order of variance and in
            float64, `(images, components)`.
    """

    features: Float[Tensor, "images dims"]
    coordinates: Float[Tensor, "images components"]

    @property
    def deviation(self) -> Float[Tensor, " components"]:
        """Standard deviation of the features along each axis."""
        return self.coordinates.square().mean(dim=0).sqrt()

    def combine(self, coefficients: Float[Tensor, " components"]) -> Float[Tensor, " dims"]:
        """The vector with these coordinates: the sum of the axes with these coefficients, in float64."""
        # c S^-1 U^T X = w X with a weight for each image, w = c S^-2 (U S)^T.
        weights = self.coordinates @ (coefficients / self.coordinates.square().sum(dim=0))
        return torch.cat([weights @ part for part in _centred_parts(self.features)])


def dual_components(features: Float[Tensor, "images dims"]) -> DualComponents:
    """The principal components of features that are centred, from the Gram matrix of the images, in float64.

    Components are returned as far as their variance is above the rounding of the Gram matrix, and thus at most
    min(images - 1, dims) of them.

    Args:
        features: features with an image in each row, finite, on the CPU.

    >>> points = torch.tensor([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [3.0, 6.0, 0.0]])
    >>> found = dual_components(points)
    >>> found.deviation.square().round(decimals=4).tolist()
    [3.3333]
    >>> found.combine(found.deviation).abs().round(decimals=4).tolist()
    [0.8165, 1.633, 0.0]
    """
    images = len(features)
    gram = torch.zeros(images, images, dtype=torch.float64)
    for part in _centred_parts(features):
        gram += part @ part.T
    squares, left = torch.linalg.eigh(gram)
    squares, left = squares.flip(0), left.flip(1)
    kept = squares > images * torch.finfo(torch.float64).eps * squares[0]
    return DualComponents(features=features, coordinates=left[:, kept] * squares[kept].sqrt())


def _centred_parts(features: Float[Tensor, "images dims"]) -> Iterator[Float[Tensor, "images _"]]:
    """The centred features in float64, some columns at a time."""
    for part in features.split(COLUMNS, dim=1):
        yield part.double() - part.mean(dim=0, dtype=torch.float64)


def _finite(features: Float[ndarray, "n dims"]) -> Float[ndarray, "n dims"]:
    if not np.isfinite(features).all():
        raise ValueError("the features are not finite; the network's weights or inputs are broken")
    return features
