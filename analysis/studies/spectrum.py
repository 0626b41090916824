"""What `irevnet-analyze spectrum` is asked for: singular values of several networks' Jacobians, layers and images."""

import copy
import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from analysis.cache import Cache
from analysis.experiment import Experiment
from analysis.features.extract import Layer
from analysis.jacobian import differentiate, layer_function, linearise
from analysis.linalg.linear_operator import LinearMap
from analysis.linalg.search import Keeper
from analysis.linalg.singular_values import choose_method, spectrum
from analysis.paths.endpoints import draw_images, read_files
from analysis.results import Spectrum, SpectrumResult
from irevnet.checkpoints.checkpoint import weights_sha256
from irevnet.models.irevnet import IRevNet
from irevnet.utils.files import contents, write_json
from irevnet.utils.lookup import find, names_apart
from irevnet.utils.progress import Interrupted, Report, no_report
from irevnet.utils.untrusted import parse_json

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


def spectra(
    studies: Sequence[Experiment],
    *,
    files: Sequence[Path] = (),
    num_images: int = 4,
    depths: Sequence[int] | None = None,
    layers: Sequence[str] | None = None,
    precision: str | None = None,
    method: str = "auto",
    num_values: int | None = None,
    width: int = 16,
    tolerance: float = 1e-3,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
    report: Report = no_report,
    save: Callable[[SpectrumResult], object] = lambda result: None,
) -> SpectrumResult:
    """The singular values of the Jacobian of features with respect to the network's input (section 4.1).

    Args:
        studies: the networks, which look at the same data; results are going to the folder of the first.
        files: images; without them, images are drawn from the test set.
        num_images: how many are drawn.
        depths: the blocks whose features; the last by default.
        layers: modules in place of blocks, by name.
        precision: of the products: `"float32"` or `"float64"`; by default float64 where the matrix is decomposed, which
            is then small, and float32 otherwise.
        method: see `analysis.linalg.singular_values.spectrum`, as for all that follows.
        num_values: how many of the largest.
        width: vectors a block.
        tolerance: of the residuals.
        resume: go on with what an interrupted call kept.
        stop: is asked after each step whether to stop.
        report: is told how far the work is.
        save: is given the result before what was kept of the work is removed.

    Raises:
        FileExistsError: an interrupted call's work is there, and is not to be gone on with.
        FileNotFoundError: an image is missing.
        Interrupted: it was asked to stop; the work is kept.
        ValueError: what was asked for does not exist or does not fit, or a product is not finite.
    """
    options = {"method": method, "num_values": num_values, "width": width, "tolerance": tolerance}
    names = names_apart([study.model_name for study in studies], [study.name for study in studies])
    inputs = [_images(study, files, num_images) for study in studies]
    places = []
    for network, (study, images) in enumerate(zip(studies, inputs)):
        chosen = study.layers(depths, layers)
        for layer in chosen if depths or layers else chosen[-1:]:
            places += [
                _Place(study, network, layer, image, f"{names[network]} {layer.name}, {name}", x)
                for image, (name, x) in enumerate(images.items())
            ]
    settings = {
        **options,
        "precision": precision,
        "seed": studies[0].seed,
        "weights": [weights_sha256(study.checkpoint.model) for study in studies],
        "layers and images": [[place.name, hashlib.sha256(place.x.numpy().tobytes()).hexdigest()] for place in places],
    }
    folder = _state_folder(studies[0])

    def measure(number: int, place: _Place, state: _State) -> Spectrum:
        described = f"{number + 1} of {len(places)}: {place.name}"
        report(described)
        # Random numbers of its own, so that those of spectra which are kept need not be drawn again.
        seed = np.random.SeedSequence([studies[0].seed, number]).generate_state(1, np.uint64)[0]
        return spectrum(
            *place.jacobian(precision, method, width),
            generator=torch.Generator().manual_seed(int(seed)),
            keeper=state.keeper(number, stop),
            report=lambda line: report(f"{described}, {line}"),
            **options,
        )

    with _State(folder, settings, resume=resume) as state:
        found = []
        for number, place in enumerate(places):
            found.append(state.recall(number, functools.partial(measure, number, place, state)))
            Keeper(stop=stop).step_done()  # what comes next, such as drawing the result, may take long as well
        result = SpectrumResult.of(
            found,
            networks=names,
            images=list(inputs[0]),
            network=[place.network for place in places],
            layer=[place.layer.name for place in places],
            depth=[place.layer.depth for place in places],
            image=[place.image for place in places],
        )
        save(result)
    return result


def _images(study: Experiment, files: Sequence[Path], count: int) -> dict[str, Tensor]:
    """Inputs of the network by name."""
    if files:
        names = names_apart([path.stem for path in files], [str(path) for path in files])
        return {name: read_files([path], study.checkpoint.transform).inputs[0, 0] for name, path in zip(names, files)}
    ends = draw_images(study.images("test"), count, torch.Generator().manual_seed(study.seed))
    return dict(zip(ends.names, ends.inputs[:, 0]))


@dataclass(frozen=True, eq=False)
class _Place:
    """A layer of a network, and an image.

    Attributes:
        network: number of the network.
        layer: whose features.
        image: number of the image.
        name: all of it in words.
    """

    study: Experiment
    network: int
    layer: Layer
    image: int
    name: str
    x: Tensor

    def jacobian(self, precision: str | None, method: str, width: int) -> tuple[LinearMap, LinearMap | None]:
        """J, and J^-1 of a bijective i-RevNet."""
        if precision is not None:
            return self._jacobian(precision, width)
        found = self._jacobian("float32", width)
        dense = choose_method(method, found[0].shape) == "dense"
        return self._jacobian("float64", width) if dense else found

    def _jacobian(self, precision: str, width: int) -> tuple[LinearMap, LinearMap | None]:
        dtype = find("precision", precision, PRECISIONS)
        x = self.x.to(self.study.device, dtype)
        # The module goes along, so that the copy is of the network and of its layer.
        model, module = copy.deepcopy((self.study.checkpoint.model, self.layer.module))
        model, module = model.to(dtype), module.to(dtype)
        if isinstance(model, IRevNet) and self.layer.name == f"block-{self.layer.depth}":
            jacobian = linearise(model, x, depth=self.layer.depth)
            return jacobian.forward, jacobian.inverse if model.config.bijective else None
        return differentiate(layer_function(model, module), x, width=width), None


_SETTINGS = "settings.json"
"""What an interrupted call was asked for."""


def keeps_work(study: Experiment) -> bool:
    """Whether there is work of this network that `resume` goes on with."""
    return _has_work(_state_folder(study))


def _state_folder(study: Experiment) -> Path:
    return study.folder(SpectrumResult) / f"{SpectrumResult.STUDY}.state"


def _has_work(folder: Path) -> bool:
    return folder.is_dir() and any(path.name != _SETTINGS for path in contents(folder))


class _State:
    """What an interrupted call keeps beside the results: spectra that are done, and the Lanczos vectors of one.

    Raises `FileExistsError` if there is such work and it is not to be gone on with, `ValueError` if it is, and there is
    none or it was asked for otherwise.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], *, resume: bool):
        self._folder = folder
        self._cache = Cache(folder)
        self._settings = folder / _SETTINGS
        settings = json.loads(json.dumps(settings))
        work = _has_work(folder)
        if work and not resume:
            raise FileExistsError(
                f"{folder} keeps the work of an interrupted call; go on with --resume, or remove it to begin anew"
            )
        if resume and not (work or self._settings.exists()):
            raise ValueError(f"{folder} keeps no work of an interrupted call; leave --resume out to begin")
        if resume:
            kept = self._read_settings()
            if changed := [name for name, value in settings.items() if kept.get(name) != value]:
                raise ValueError(
                    f"{folder} keeps the work of a call that differed in {', '.join(changed)}; repeat its options, or "
                    "remove it and leave --resume out"
                )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(self._settings, settings)

    def _read_settings(self) -> dict[str, Any]:
        try:
            return dict(parse_json(self._settings.read_bytes()))
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"{self._settings} is damaged: {error}; remove {self._folder} to begin anew") from error

    def __enter__(self):
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A call that was stopped before there was any work has said to go on with --resume as well.
        if kind is None or not (kind is Interrupted or _has_work(self._folder)):
            shutil.rmtree(self._folder)

    def keeper(self, number: int, stop: Callable[[], bool]) -> Keeper:
        """Keeps the processes of that spectrum."""
        return Keeper(self._folder / f"lanczos-{number}", stop=stop)

    def recall(self, number: int, compute: Callable[[], Spectrum]) -> Spectrum:
        """That spectrum, kept or computed."""
        kept = self._cache.get(f"spectrum-{number}", lambda: _plain(compute()), _Kept)
        shutil.rmtree(self._folder / f"lanczos-{number}", ignore_errors=True)
        fields: dict[str, Any] = {
            name: np.array(value) if isinstance(value, list) else value for name, value in kept.items()
        }
        return Spectrum(**fields)


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
    """For JSON, which gives numbers back as they are."""
    return {
        name: value.tolist() if isinstance(value, ndarray) else value
        for name, value in dataclasses.asdict(found).items()
    }
