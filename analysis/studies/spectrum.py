"""Singular values of the Jacobians of networks, at several layers and images (section 4.1, Fig. 4)."""

import copy
import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from analysis.cache import Cache
from analysis.experiment import Experiment, StudyOptions
from analysis.features.layers import Layer
from analysis.jacobian import features_function, layer_jacobian
from analysis.linalg.autosave import Autosave
from analysis.linalg.linear_operator import LinearOperator
from analysis.linalg.singular_values import choose_method, singular_values
from analysis.paths.endpoints import draw_images, read_files
from analysis.paths.equal_moves import move_along
from analysis.results import Spectrum, SpectrumResult
from analysis.results.directions import Directions
from analysis.results.singular_values import SingularVectors
from analysis.subjects import labels_of
from irevnet.checkpoints.checkpoint import weights_sha256
from irevnet.models.invertible import Invertible
from irevnet.utils.files import write_json
from irevnet.utils.lookup import check_depth, find, names_apart
from irevnet.utils.precision import true_float32
from irevnet.utils.untrusted import parse_json

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}

MOST_VALUES = 1_000
"""Number of singular values that `SpectrumOptions.sized` finds one by one, where a fifteenth of them is more."""


@dataclass(frozen=True, kw_only=True)
class SpectrumOptions(StudyOptions):
    """Options of `spectrum`.

    Attributes:
        files: images; without them, images are drawn from the test set.
        num_images: number of images drawn.
        depths: blocks whose features are differentiated, from 1 on; the last by default.
        layers: names of modules in place of blocks.
        precision: precision of the products, `"float32"` or `"float64"`; by default float64 where the matrix is
            decomposed, which is then small, and float32 otherwise.
        method: method, see `analysis.linalg.singular_values.singular_values`, as for all that follows.
        num_values: number of the largest singular values to find one by one.
        block_width: number of vectors in a block.
        tolerance: largest relative residual of a converged value.
        vectors: number of the most and, with an inverse, of the least magnified directions that are kept as images.
        pixel_change: root-mean-square change of pixel values, which are in [0, 1], by the move along the least
            magnified of these directions. Moves along all others change the features by as much.
    """

    STOPS: ClassVar[bool] = True

    files: Sequence[Path] = ()
    num_images: int = 4
    depths: Sequence[int] | None = None
    layers: Sequence[str] | None = None
    precision: str | None = None
    method: str = "auto"
    num_values: int | None = None
    block_width: int = 16
    tolerance: float = 1e-3
    vectors: int = 0
    pixel_change: float = 0.1

    def __post_init__(self):
        if not 0 < self.pixel_change <= 1:
            raise ValueError(f"`pixel_change` is {self.pixel_change:g}; expected more than 0 and at most 1")

    @classmethod
    def sized(cls, experiment: Experiment):
        """At most `MOST_VALUES` singular values one by one."""
        transform = experiment.checkpoint.transform
        inputs = transform.channels * math.prod(transform.image_size)
        return cls(num_values=MOST_VALUES) if inputs // 15 > MOST_VALUES else cls()


@true_float32()
def spectrum(experiments: Sequence[Experiment], options: SpectrumOptions = SpectrumOptions()) -> SpectrumResult:
    """The singular values of the Jacobian of features with respect to the network's input (section 4.1).

    Of a call that was stopped or killed, finished spectra and the Lanczos vectors of the next one are in the folder
    `spectrum.state` among the results; the same call goes on from there, and one with other options begins anew.

    Args:
        experiments: the networks to compare, which look at the same data.
        options: which images and layers, and how the singular values are found.

    Raises:
        FileNotFoundError: an image is missing.
        Interrupted: the work was stopped on request.
        ValueError: what was asked for does not exist or does not fit, or a product is not finite.
    """
    first = experiments[0]
    labels = labels_of(experiments)
    inputs = [_images(each, options) for each in experiments]
    jobs = [
        _Job(experiment, network, layer, image, x, f"{labels[network]} {layer.name}, {name}")
        for network, (experiment, images) in enumerate(zip(experiments, inputs))
        for layer in _layers(experiment, options)
        for image, (name, x) in enumerate(images.items())
    ]
    folder = first.results_folder(SpectrumResult.STUDY) / f"{SpectrumResult.STUDY}.state"
    weights = [weights_sha256(each.checkpoint.model) for each in experiments]
    found = [
        _find(job, number, len(jobs), options, folder, {"weights": weights[job.network], "seed": first.seed})
        for number, job in enumerate(jobs)
    ]
    return SpectrumResult.of(
        [spectrum for spectrum, _ in found],
        directions=[directions for _, directions in found],
        networks=labels,
        images=list(inputs[0]),
        network=[job.network for job in jobs],
        layer=[job.layer.name for job in jobs],
        depth=[job.layer.depth for job in jobs],
        image=[job.image for job in jobs],
    )


def _images(experiment: Experiment, options: SpectrumOptions) -> dict[str, Tensor]:
    """Inputs of the network by name."""
    files = options.files
    if files:
        names = names_apart([path.stem for path in files], [str(path) for path in files])
        transform = experiment.checkpoint.transform
        return {name: read_files([path], transform).inputs[0, 0] for name, path in zip(names, files)}
    generator = torch.Generator().manual_seed(experiment.seed)
    ends = draw_images(experiment.images("test"), options.num_images, generator)
    return dict(zip(ends.names, ends.inputs[:, 0]))


def _layers(experiment: Experiment, options: SpectrumOptions) -> list[Layer]:
    model = experiment.checkpoint.model
    if isinstance(model, Invertible) and options.layers is None:  # its depths need not be modules
        last = model.num_blocks
        depths = [check_depth(each, last, first=1) for each in options.depths or [last]]
        return [Layer(f"block-{depth}", depth, depth / last, model) for depth in depths]
    chosen = experiment.layers(options.depths, options.layers)
    return chosen if options.depths or options.layers else chosen[-1:]


@dataclass(frozen=True, eq=False)
class _Job:
    """A spectrum to find: the Jacobian of a layer of a network at an image.

    Attributes:
        experiment: the network.
        network: number of the network.
        layer: layer of the network.
        image: number of the image.
        x: the image as an input of the network, `(c, h, w)`.
        name: names of network, layer and image.
    """

    experiment: Experiment
    network: int
    layer: Layer
    image: int
    x: Tensor
    name: str

    def jacobian(self, options: SpectrumOptions) -> tuple[LinearOperator, LinearOperator | None]:
        """J, and J^-1 if the network has an inverse and as many features as inputs."""
        if options.precision is not None:
            return self._jacobian(options.precision, options.block_width)
        inputs = self.x.numel()
        if choose_method(options.method, (inputs, inputs)) == "dense":  # with any number of features
            return self._jacobian("float64", options.block_width)
        found = self._jacobian("float32", options.block_width)
        dense = choose_method(options.method, found[0].shape) == "dense"
        return self._jacobian("float64", options.block_width) if dense else found

    def _jacobian(self, precision: str, width: int) -> tuple[LinearOperator, LinearOperator | None]:
        return layer_jacobian(*self._in(find("precision", precision, PRECISIONS)), width=width)

    def directions(
        self, vectors: SingularVectors, options: SpectrumOptions, step_done: Callable[[], object]
    ) -> Directions:
        """The image moved along singular vectors of J, in float64: small changes of features are differences."""
        model, layer, x = self._in(torch.float64)
        return move_along(
            vectors,
            features_function(model, layer),
            x,
            self.experiment.checkpoint.transform,
            pixel_change=options.pixel_change,
            step_done=step_done,
        )

    def _in(self, dtype: torch.dtype) -> tuple[nn.Module, Layer, Tensor]:
        """Copies of the network and of the layer in it, and the image, in a precision."""
        # The module goes along, so that the copy is of the network and of its layer.
        model, layer = copy.deepcopy((self.experiment.checkpoint.model, self.layer))
        return model.to(dtype), layer, self.x.to(self.experiment.device, dtype)


def _find(
    job: _Job, number: int, count: int, options: SpectrumOptions, folder: Path, identity: dict[str, Any]
) -> tuple[Spectrum, Directions | None]:
    """The spectrum of a job, from the cache or computed; the job may have been begun by an earlier call."""
    progress = job.experiment.progress
    described = f"{number + 1} of {count}: {job.name}"
    settings = identity | {
        "number": number,
        "layer": job.layer.name,
        "image_sha256": hashlib.sha256(job.x.numpy().tobytes()).hexdigest(),
        **{name: getattr(options, name) for name in ("precision", "method", "num_values", "block_width", "tolerance")},
    }
    if options.vectors:
        settings |= {"vectors": options.vectors, "pixel_change": options.pixel_change}
    lanczos = folder / f"lanczos-{number}"

    def compute() -> dict[str, Any]:
        progress.report(described)
        _begin(lanczos, settings)
        try:
            found = _compute(job, number, options, lanczos, described, identity["seed"])
        finally:
            _remove_unless_begun(lanczos)
        return found

    arrays = [field.name for field in dataclasses.fields(Directions)] if options.vectors else []
    kept = Cache(folder).get(f"spectrum-{number}", compute, _Kept, arrays=arrays, **settings)
    shutil.rmtree(lanczos, ignore_errors=True)
    Autosave(stop=progress.stop).step_done()  # what comes next, such as drawing the result, may take long as well
    directions = Directions(**{name: kept.pop(name) for name in arrays}) if arrays else None
    fields = {name: np.array(value) if isinstance(value, list) else value for name, value in kept.items()}
    return Spectrum(**fields), directions  # pyright: ignore[reportArgumentType]


def _compute(
    job: _Job, number: int, options: SpectrumOptions, lanczos: Path, described: str, seed: int
) -> dict[str, Any]:
    """The fields of the spectrum, as plain values, and those of the directions, as arrays."""
    # Random numbers of its own, so that those of spectra in the cache need not be drawn again.
    own = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0]
    forward, inverse = job.jacobian(options)
    progress = job.experiment.progress
    autosave = Autosave(lanczos, stop=progress.stop)
    found = singular_values(
        forward,
        inverse,
        generator=torch.Generator().manual_seed(int(own)),
        num_values=options.num_values,
        num_vectors=options.vectors,
        method=options.method,
        width=options.block_width,
        tolerance=options.tolerance,
        autosave=autosave,
        report=lambda line: progress.report(f"{described}, {line}"),
    )
    if found.vectors is None:
        return _plain(found)
    progress.report(f"{described}, moves along its directions")
    return _plain(found) | vars(job.directions(found.vectors, options, autosave.step_done))


def _begin(lanczos: Path, settings: dict[str, Any]) -> None:
    """Prepares the folder of a spectrum's Lanczos vectors; those of other settings are removed."""
    settings, path = json.loads(json.dumps(settings)), lanczos / "settings.json"
    try:
        kept = parse_json(path.read_bytes())
    except (OSError, ValueError):  # there are none, or the file is damaged
        kept = None
    if kept != settings:
        shutil.rmtree(lanczos, ignore_errors=True)
        lanczos.mkdir(parents=True)
        write_json(path, settings)


def _remove_unless_begun(lanczos: Path) -> None:
    """Removes the folder of a spectrum if there are no Lanczos vectors in it, as where input was wrong."""
    if lanczos.is_dir() and all(path.name == "settings.json" for path in lanczos.iterdir()):
        shutil.rmtree(lanczos)
        with suppress(OSError):  # there are other spectra
            lanczos.parent.rmdir()


class _Kept(TypedDict):
    """A `Spectrum` in JSON."""

    num_outputs: int
    num_inputs: int
    method: str
    largest: list[float]
    largest_residuals: list[float]
    smallest: list[float]
    smallest_residuals: list[float]
    num_converged: int
    squared_norm: float
    squared_norm_error: float
    nodes: list[float]
    weights: list[list[float]]
    log_volume: tuple[float, float]
    log_volume_error: float
    num_products: int
    loss_of_orthogonality: float


def _plain(found: Spectrum) -> dict[str, Any]:
    """For JSON, which returns numbers as they are."""
    return {
        name: value.tolist() if isinstance(value, ndarray) else value
        for name, value in vars(found).items()
        if name != "vectors"
    }
