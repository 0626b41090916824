"""How exactly the inverse network returns its input (section 4.2)."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor
from torch.utils.data import Dataset

from analysis.results import InversionResult
from irevnet.data import batches
from irevnet.model import IRevNet
from irevnet.train import Track, no_progress
from irevnet.transforms import InputTransform


def relative_errors(
    inputs: Float[Tensor, "batch channels height width"], outputs: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, " batch"]:
    """||x - y|| / ||x|| of each input x and its reconstruction y, in float64; NaN where x is zero.

    >>> x = torch.ones(1, 1, 2, 2)
    >>> relative_errors(x, 1.5 * x).item()
    0.5
    """
    x, y = inputs.double(), outputs.double()
    norms = torch.linalg.vector_norm(x, dim=(1, 2, 3))
    errors = torch.linalg.vector_norm(x - y, dim=(1, 2, 3)) / norms
    return errors.where(norms > 0, torch.nan)


@torch.no_grad()
def reconstruction_error(
    model: IRevNet,
    data: Dataset[tuple[Tensor, int]],
    transform: InputTransform,
    *,
    generator: torch.Generator,
    num_noise: int = 10_000,
    depth: int | None = None,
    num_shown: int = 6,
    batch_size: int = 256,
    workers: int = 0,
    track: Track = no_progress,
) -> InversionResult:
    """epsilon(X) = 1 / |X| sum ||x - Phi^-1 Phi x|| / ||x|| on test images and on uniform noise (section 4.2).

    The error is that of the network's input tensor, after normalisation, in the network's own precision; noise is
    uniform in [0, 1] in each pixel before normalisation, as images are. Memory does not grow with the number of images.

    Args:
        model: an i-RevNet in eval mode.
        data: the test images.
        transform: of that data, which also turns inputs back into pixels to be pictured.
        generator: draws the noise, on the CPU.
        num_noise: images of noise; 10^4 in the paper.
        depth: invert from Phi_depth; the last layer by default.
        num_shown: how many of either set are kept to be pictured.
        batch_size: images a pass.
        workers: processes that load images.
        track: shows progress.
    """
    device = next(model.parameters()).device
    depth = model.config.num_blocks if depth is None else depth
    shape = (transform.channels, *transform.image_size)
    loader = batches(data, batch_size, workers=workers)
    noise_sizes = [min(batch_size, num_noise - start) for start in range(0, num_noise, batch_size)]
    image_inputs = (images for images, _ in track(loader, "test images"))
    noise_inputs = (
        transform.normalise(torch.rand(size, *shape, generator=generator))
        for size in track(noise_sizes, "uniform noise")
    )
    image_errors, image_shown, image_rebuilt = _round_trips(model, image_inputs, depth, num_shown, device)
    noise_errors, noise_shown, noise_rebuilt = _round_trips(model, noise_inputs, depth, num_shown, device)
    return InversionResult(
        image_errors=image_errors,
        noise_errors=noise_errors,
        originals=transform.to_pixels(torch.cat((image_shown, noise_shown))).numpy(),
        reconstructions=transform.to_pixels(torch.cat((image_rebuilt, noise_rebuilt))).numpy(),
        shown_errors=np.concatenate((image_errors[:num_shown], noise_errors[:num_shown])),
        num_image_shown=np.array(len(image_shown)),
        depth=np.array(depth),
    )


def _round_trips(
    model: IRevNet, loop: Iterable[Tensor], depth: int, num_shown: int, device: torch.device
) -> tuple[Float[ndarray, " images"], Tensor, Tensor]:
    """The relative error of every input, and the first inputs with their reconstructions."""
    errors, shown, rebuilt = [], [], []
    for inputs in loop:
        inputs = inputs.to(device)
        outputs = model.inverse(model.features(inputs, depth), depth)
        errors.append(relative_errors(inputs, outputs).cpu().numpy())
        missing = num_shown - sum(map(len, shown))
        if missing > 0:
            shown.append(inputs[:missing].cpu())
            rebuilt.append(outputs[:missing].cpu())
    return np.concatenate(errors), torch.cat(shown), torch.cat(rebuilt)
