"""Straight lines through feature space between images or along directions, seen as images (section 4.2, Fig. 5)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from analysis.experiment import Experiment, StudyOptions, only
from analysis.paths.directions import BetweenClasses, Direction, PrincipalComponent, find_direction, parse_direction
from analysis.paths.endpoints import Endpoints, at_size, draw_images, draw_pairs, read_files, read_pairs
from analysis.paths.lines import Lines, along, between, follow, grid
from analysis.results import InterpolationResult
from irevnet.data.transforms import InputTransform
from irevnet.utils.lookup import check_depth
from irevnet.utils.modules import as_input
from irevnet.utils.precision import true_float32


@dataclass(frozen=True, kw_only=True)
class InterpolationOptions(StudyOptions):
    """Options of `interpolate`.

    Attributes:
        files: two images, or the four corners of a grid; with a direction, any number of images.
        pairs: a table of pairs in place of files, see `analysis.paths.endpoints.read_pairs`.
        num_pairs: without either, number of pairs, or of images, drawn from the test set.
        direction: a direction to move along, see `analysis.paths.directions.parse_direction`; `None` moves from image
            to image.
        depth: depth of the features; the last by default.
        steps: number of images on a line.
        t: positions on the lines, in place of `steps`.
        even: whether positions are chosen such that neighbouring images are equally far apart.
        image_size: height and width of the images shown to the network; its own by default.
    """

    files: Sequence[Path] = ()
    pairs: Path | None = None
    num_pairs: int = 5
    direction: str | None = None
    depth: int | None = None
    steps: int = 9
    t: Sequence[float] | None = None
    even: bool = False
    image_size: int | None = None


@true_float32()
def interpolate(
    experiments: Sequence[Experiment], options: InterpolationOptions = InterpolationOptions()
) -> InterpolationResult:
    """Images along straight lines in the features of a network, from image to image or along a direction.

    x^t = Phi^-1(t Phi x^0 + (1 - t) Phi x^1) for pairs of images (section 4.2, Fig. 5).

    Args:
        experiments: one network with an inverse, and the data that images and directions are drawn from.
        options: lines to follow, and positions on them.

    Raises:
        FileNotFoundError: an image or the table is missing.
        ValueError: what was asked for does not exist or does not fit together.
    """
    experiment = only(experiments, InterpolationResult.STUDY)
    model = experiment.checkpoint.invertible
    transform = at_size(experiment.checkpoint.transform, options.image_size)
    last = model.num_blocks
    depth = last if options.depth is None else check_depth(options.depth, last)
    direction = None if options.direction is None else parse_direction(options.direction, experiment.classes)
    positions = _positions(options, direction)
    ends = _endpoints(experiment, options, transform, direction)
    is_grid = ends.inputs.shape[1] == 4
    names = [f"row {row + 1}" for row in range(len(positions))] if is_grid else ends.names
    return follow(
        model,
        transform,
        _lines(experiment, transform, direction, ends, len(positions)),
        depth=depth,
        t=positions,
        names=names,
        classes=experiment.output_names if experiment.checkpoint.has_logits else None,
        even=options.even,
        middle=ends.middle,
        rows_of_grid=is_grid,
        batch_size=experiment.batch_size,
        track=experiment.progress.track,
    )


def _positions(options: InterpolationOptions, direction: Direction | None) -> list[float]:
    """Positions t on the lines: those asked for, or evenly spaced ones that suit the kind of line."""
    if options.t is not None:
        if len(options.t) < 2:
            raise ValueError(f"`t` has {len(options.t)} position; give two or more, such as 1,0.5,0")
        return list(options.t)
    match direction:
        case None:
            ends = 1, 0
        case PrincipalComponent():
            ends = -3, 3
        case BetweenClasses():
            ends = 0, 2
    return np.linspace(*ends, options.steps).tolist()


def _endpoints(
    experiment: Experiment, options: InterpolationOptions, transform: InputTransform, direction: Direction | None
) -> Endpoints:
    files, resize = options.files, options.image_size is not None
    if options.pairs is not None and (files or direction is not None):
        raise ValueError("`pairs` was given with images or a direction; give one of them")
    if options.pairs is not None:
        return read_pairs(options.pairs, transform, resize=resize)
    if files and direction is not None:
        each = [read_files([file], transform) for file in files]
        return Endpoints(names=tuple(file.stem for file in files), inputs=torch.cat([one.inputs for one in each]))
    if files:
        if len(files) not in (2, 4):
            raise ValueError(f"{len(files)} images were given; give two for a path or four for a grid")
        return read_files(files, transform, resize=resize)
    test = experiment.images("test", transform)
    generator = torch.Generator().manual_seed(experiment.seed)
    if direction is None:
        return draw_pairs(test, options.num_pairs, generator)
    first = direction.first if isinstance(direction, BetweenClasses) else None
    return draw_images(test, options.num_pairs, generator, of=first)


def _lines(
    experiment: Experiment, transform: InputTransform, direction: Direction | None, ends: Endpoints, rows: int
) -> Callable[[int], Lines]:
    """A function of a depth, which returns the lines in the features of that depth."""
    model = experiment.checkpoint.invertible
    inputs = as_input(ends.inputs, model)
    if direction is None and inputs.shape[1] == 4:
        return lambda depth: grid(model, inputs[0], rows, depth)
    if direction is None:
        return lambda depth: between(model, inputs[:, 0], inputs[:, 1], depth)
    train = experiment.images("train", transform)

    def move(depth: int) -> Lines:
        step = find_direction(
            direction,
            model,
            train,
            depth=depth,
            generator=torch.Generator().manual_seed(experiment.seed),  # the same images at every depth
            batch_size=experiment.batch_size,
            workers=experiment.workers,
            track=experiment.progress.track,
        )
        return along(model, inputs[:, 0], step, depth)

    return move
