"""How exactly the inverse network returns its input, from every depth and in every arithmetic (section 4.2)."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor
from torch.utils.data import Dataset

from analysis.experiment import Experiment, StudyOptions, only
from analysis.jacobian import jacobian_of
from analysis.linalg.amplification import Amplification, amplification
from analysis.results import InversionResult
from irevnet.data.loaders import batches
from irevnet.data.transforms import InputTransform
from irevnet.models.exact import Lattice
from irevnet.models.invertible import Invertible
from irevnet.models.irevnet import IRevNet
from irevnet.utils.lookup import check_depth
from irevnet.utils.modules import as_input, device_of
from irevnet.utils.precision import tensor_float32, true_float32
from irevnet.utils.progress import Track, no_progress

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "TF32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
EXACT = "exact"
"""The arithmetic of `irevnet.models.exact`, beside those of torch."""

AMPLIFIED = 4
"""Of the images that are looked at from every depth, those whose features are changed a little."""


def relative_errors(
    inputs: Float[Tensor, "batch channels height width"], outputs: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, " batch"]:
    """||x - y|| / ||x|| of each input x and its reconstruction y, in float64.

    NaN where x is zero, infinite where y is not finite.

    >>> x = torch.ones(1, 1, 2, 2)
    >>> relative_errors(x, 1.5 * x).item()
    0.5
    """
    x, y = inputs.double(), outputs.double()
    norms = torch.linalg.vector_norm(x, dim=(1, 2, 3))
    errors = torch.linalg.vector_norm(x - y, dim=(1, 2, 3)) / norms
    return errors.nan_to_num(nan=torch.inf, posinf=torch.inf).where(norms > 0, torch.nan)


@dataclass(frozen=True, kw_only=True)
class InversionOptions(StudyOptions):
    """Options of `invert`.

    Attributes:
        num_noise: number of images of noise; 10^4 in the paper.
        depths: depths that a few images are inverted from, and both sets from the last of them; by default every block,
            or 16 of them.
        num_images: number of these few images.
        num_shown: number of images pictured of either set, those with the largest errors.
        exact: whether both sets are inverted in exact arithmetic rather than in float32.
        bits: bits of the lattice of exact arithmetic.
    """

    num_noise: int = 10_000
    depths: Sequence[int] | None = None
    num_images: int = 32
    num_shown: int = 6
    exact: bool = False
    bits: int = 14

    @classmethod
    def sized(cls, experiment: Experiment):
        """As much noise as there are test images, up to the paper's."""
        return cls(num_noise=min(cls.num_noise, len(experiment.images("test"))))


@true_float32()
def invert(experiments: Sequence[Experiment], options: InversionOptions = InversionOptions()) -> InversionResult:
    """Relative reconstruction errors of a network's test images and of uniform noise, see `reconstruct`.

    Raises `ValueError` for several networks, one without an inverse, or a depth that it does not have.
    """
    experiment = only(experiments, InversionResult.STUDY)
    return reconstruct(
        experiment.checkpoint.invertible,
        experiment.images("test"),
        experiment.checkpoint.transform,
        options,
        generator=torch.Generator().manual_seed(experiment.seed),
        batch_size=experiment.batch_size,
        workers=experiment.workers,
        track=experiment.progress.track,
    )


@torch.no_grad()
def reconstruct(
    model: Invertible,
    data: Dataset[tuple[Tensor, int]],
    transform: InputTransform,
    options: InversionOptions = InversionOptions(),
    *,
    generator: torch.Generator,
    batch_size: int = 256,
    workers: int = 0,
    track: Track = no_progress,
) -> InversionResult:
    """epsilon(X) = 1 / |X| sum ||x - Phi^-1 Phi x|| / ||x|| on test images and on uniform noise (section 4.2).

    The error is that of the network's input tensor, after normalisation; noise is uniform in [0, 1] in each pixel
    before normalisation, as images are. Then, of a few test images, the same from every depth and in every arithmetic,
    and how much the inverse magnifies small changes of their features. Memory does not grow with the images' number.

    Args:
        model: a network in eval mode, in float32.
        data: the test images.
        transform: transform of that data, which also turns inputs back into pixels to be pictured.
        options: how many images, from which depths, and in which arithmetic.
        generator: draws the noise, the few images and the changes of features, on the CPU.
        batch_size: number of images in a forward pass.
        workers: number of processes that load images.
        track: shows progress.
    """
    num_noise, num_shown, bits = options.num_noise, options.num_shown, options.bits
    depths = [check_depth(each, model.num_blocks) for each in options.depths or spread(model.num_blocks)]
    depth = max(depths)
    shape = (transform.channels, *transform.image_size)
    noise_sizes = [min(batch_size, num_noise - start) for start in range(0, num_noise, batch_size)]
    noise_inputs = (
        transform.normalise(torch.rand(size, *shape, generator=generator))
        for size in track(noise_sizes, "uniform noise")
    )
    image_inputs = (images for images, _ in track(batches(data, batch_size, workers=workers), "test images"))
    arithmetic = EXACT if options.exact else "float32"
    with in_arithmetic(model, arithmetic, bits) as network:
        image_errors, images = _round_trips(network, image_inputs, depth, num_shown)
        noise_errors, noise = _round_trips(network, noise_inputs, depth, num_shown)
    sample = _sample(data, options.num_images, generator)
    arithmetics, errors = _errors_by_depth(model, sample, depths, bits=bits, track=track)
    few = as_input(sample[:AMPLIFIED], model)
    magnified = _amplification_by_depth(model, few, depths, generator=generator, track=track)
    scale = _feature_norms(model, few, depths)
    return InversionResult(
        arithmetic=np.array(arithmetic),
        depth=np.array(depth),
        image_errors=image_errors,
        noise_errors=noise_errors,
        shown=np.concatenate((images.rows, noise.rows)),
        num_image_shown=np.array(len(images.rows)),
        originals=transform.to_pixels(torch.cat((images.inputs, noise.inputs))).float().numpy(),
        reconstructions=transform.to_pixels(torch.cat((images.outputs, noise.outputs))).float().numpy(),
        depths=np.array(depths),
        arithmetics=np.array(arithmetics),
        depth_errors=errors,
        amplification_random=scale * [[each.random for each in images] for images in magnified],
        amplification_largest=scale * [[each.largest for each in images] for images in magnified],
        amplification_residual=np.array([[each.residual for each in images] for images in magnified]),
    )


def spread(last: int, count: int = 16) -> list[int]:
    """Every depth from 1 on or, if they are more than so many, as many as even as can be, the last among them.

    >>> spread(4)
    [1, 2, 3, 4]
    >>> spread(100, 5)
    [1, 26, 50, 75, 100]
    """
    return sorted({round(depth) for depth in np.linspace(1, last, min(last, count)).tolist()})


@dataclass(frozen=True)
class _Network:
    """A network in some arithmetic, and what rounds inputs to its numbers and brings them to its device."""

    model: Invertible
    prepare: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def errors(self, inputs: Tensor, depth: int) -> tuple[Float[ndarray, " images"], Tensor, Tensor]:
        """Of each input the relative error; the inputs as this arithmetic has them, and what came back."""
        inputs = self.prepare(inputs)
        outputs = self.model.inverse(self.model.features(inputs, depth), depth)
        return relative_errors(inputs, outputs).cpu().numpy(), inputs.cpu(), outputs.cpu()


@contextmanager
def in_arithmetic(model: Invertible, name: str, bits: int) -> Iterator[_Network]:
    """A network in float32 made one in an arithmetic of that name, which is `EXACT` or one of torch's."""
    device = device_of(model)
    with tensor_float32() if name == "TF32" else true_float32():
        if name == EXACT:
            if not isinstance(model, IRevNet):
                raise ValueError(f"a {type(model).__name__} has no exact arithmetic, which is that of an i-RevNet")
            exact, lattice = model.exact(bits=bits), Lattice(bits)
            yield _Network(exact, lambda inputs: lattice.round(inputs.to(device), "images"))
        else:
            dtype = _DTYPES[name]
            yield _Network(copy.deepcopy(model).to(dtype), lambda inputs: inputs.to(device, dtype))


@dataclass(frozen=True)
class _Worst:
    """The inputs that came back worst, worst first, what came back, and which rows they are."""

    inputs: Tensor
    outputs: Tensor
    rows: Int[ndarray, " shown"]


def _round_trips(
    network: _Network, loop: Iterable[Tensor], depth: int, num_shown: int
) -> tuple[Float[ndarray, " images"], _Worst]:
    """The relative error of every input; an error that is not defined is the least of all."""
    errors = np.empty(0)
    worst: _Worst | None = None
    for inputs in loop:
        rows = np.arange(len(errors), len(errors) + len(inputs))
        more, inputs, outputs = network.errors(inputs, depth)
        errors = np.concatenate((errors, more))
        if worst is not None:
            inputs, outputs = torch.cat((worst.inputs, inputs)), torch.cat((worst.outputs, outputs))
            rows = np.concatenate((worst.rows, rows))
        order = np.argsort(-np.nan_to_num(errors[rows], nan=-1), kind="stable")[:num_shown]
        worst = _Worst(inputs[order], outputs[order], rows[order])
    assert worst is not None
    return errors, worst


def _sample(data: Dataset[tuple[Tensor, int]], count: int, generator: torch.Generator) -> Tensor:
    order = torch.randperm(len(data), generator=generator)  # type: ignore[arg-type]
    return torch.stack([data[row][0] for row in order[:count].tolist()])


def _errors_by_depth(
    model: Invertible, sample: Tensor, depths: Sequence[int], *, bits: int, track: Track
) -> tuple[list[str], Float[ndarray, "arithmetics depths images"]]:
    """The names of all arithmetics that the device and the network have, and the errors in each."""
    own = isinstance(model, IRevNet)
    device = device_of(model).type
    errors: dict[str, list[ndarray]] = {}
    for name in [*_DTYPES, *[EXACT] * own]:
        if name == "TF32" and device != "cuda":
            continue
        with in_arithmetic(model, name, bits) as network:
            try:
                errors[name] = [network.errors(sample, depth)[0] for depth in track(depths, f"depths, in {name}")]
            except (RuntimeError, TypeError):  # another's network may not have it
                if own or name == "float32":
                    raise
    return list(errors), np.array(list(errors.values()))


def _amplification_by_depth(
    model: Invertible, images: Tensor, depths: Sequence[int], *, generator: torch.Generator, track: Track
) -> list[list[Amplification]]:
    """Of each depth and image, by the Jacobian of the inverse network at its features."""
    return [
        [amplification(jacobian_of(model, image, depth=depth).inverse, generator=generator) for image in images]
        for depth in track(depths, "depths, changes of features")
    ]


@true_float32()
def _feature_norms(model: Invertible, images: Tensor, depths: Sequence[int]) -> Float[ndarray, "depths images"]:
    """||phi|| / ||x||, by which a change relative to the features is larger than one relative to the image; NaN where x
    is zero."""
    norms = [torch.linalg.vector_norm(model.features(images, depth).flatten(1), dim=1) for depth in depths]
    of_images = torch.linalg.vector_norm(images.flatten(1), dim=1)
    return torch.stack(norms).div(of_images).where(of_images > 0, torch.nan).double().cpu().numpy()
