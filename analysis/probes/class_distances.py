"""Distances between images of one class relative to distances between classes."""

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor


def distance_ratio(features: Float[Tensor, "n dims"], labels: Int[ndarray, " n"]) -> float:
    """The root mean square distance of images of one class over that of images of different classes.

        sqrt( mean |x_i - x_j|^2 over pairs i < j of one class  /  mean |x_i - x_j|^2 over pairs of two classes )

    It is 1 where classes are not separated at all, 0 where each is contracted to a point, and NaN where there are no
    pairs of one of the two kinds, or all images are the same. All pairs count, but none is computed: with n_k images of
    class k, their sum s_k and the sum q_k of their squared norms,

        sum over the pairs of class k of |x_i - x_j|^2 = n_k q_k - |s_k|^2 ,

    and likewise for all images together.

    Args:
        features: features with an image in each row; used in float64.
        labels: class of each image, as integers from 0 on.

    >>> distance_ratio(torch.tensor([[0.0], [2.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1]).numpy())
    0.19802950859533486
    """
    points = features.double()
    points = points - points.mean(dim=0)  # changes no distance, but avoids cancellation in the differences below
    of_class = torch.as_tensor(labels, dtype=torch.int64, device=points.device)
    num_classes = int(of_class.max()) + 1
    counts = torch.bincount(of_class, minlength=num_classes).double()
    sums = points.new_zeros(num_classes, points.shape[1]).index_add_(0, of_class, points)
    squares = points.new_zeros(num_classes).index_add_(0, of_class, points.square().sum(dim=1))
    # Sums of squared distances over all pairs of one class, of all images, and so of two classes.
    within = (counts * squares - sums.square().sum(dim=1)).sum().clamp(min=0)
    overall = counts.sum() * squares.sum() - sums.sum(dim=0).square().sum()
    pairs_within = (counts * (counts - 1) / 2).sum()
    pairs_between = counts.sum() * (counts.sum() - 1) / 2 - pairs_within
    return float(((within / pairs_within) / ((overall - within) / pairs_between)).sqrt())
