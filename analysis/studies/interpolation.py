"""What `irevnet-analyze interpolate` is asked for, made into lines through feature space and followed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from analysis.experiment import Experiment
from analysis.paths.directions import BetweenClasses, Direction, PrincipalComponent, find_direction, parse_direction
from analysis.paths.endpoints import Endpoints, draw_images, draw_pairs, read_files, read_pairs
from analysis.paths.lines import Lines, along, between, follow, grid
from analysis.results import InterpolationResult
from irevnet.data.transforms import InputTransform
from irevnet.utils.modules import as_input


def interpolate(
    study: Experiment,
    *,
    files: Sequence[Path] = (),
    pairs: Path | None = None,
    num_pairs: int = 5,
    direction: str | None = None,
    depth: int | None = None,
    steps: int = 9,
    t: Sequence[float] | None = None,
    even: bool = False,
    image_size: int | None = None,
) -> InterpolationResult:
    """Follows straight lines in the features of a network, from image to image or along a direction.

    Args:
        study: the network, and the data that images and directions are drawn from.
        files: two images, or the four corners of a grid; with a direction, any number of images.
        pairs: a table of pairs in place of files, see `analysis.paths.endpoints.read_pairs`.
        num_pairs: without either, how many pairs, or images, are drawn from the test set.
        direction: along which to move, see `analysis.paths.directions.parse_direction`; `None` goes from image to
            image.
        depth: of the features; the last layer by default.
        steps: images a line.
        t: places on the lines, in place of steps.
        even: images are to be equally far apart.
        image_size: height and width of the images shown to the network; its own by default.

    Raises:
        FileNotFoundError: an image or the table is missing.
        ValueError: what was asked for does not exist or does not fit together.
    """
    model, transform = study.checkpoint.irevnet, study.checkpoint.transform
    if image_size is not None:
        transform = replace(transform, image_size=(image_size, image_size), resize=image_size)
    depth = model.check_depth(depth)
    goal = None if direction is None else parse_direction(direction, study.classes)
    places = _places(goal, steps, t)
    generator = torch.Generator().manual_seed(study.seed)
    ends = _endpoints(study, transform, goal, files, pairs, num_pairs, generator, resize=image_size is not None)
    is_grid = ends.inputs.shape[1] == 4
    names = [f"row {row + 1}" for row in range(len(places))] if is_grid else ends.names
    return follow(
        model,
        transform,
        _lines(study, transform, goal, ends, len(places)),
        depth=depth,
        t=places,
        names=names,
        classes=study.answers(),
        even=even,
        middle=ends.middle,
        rows_of_grid=is_grid,
        batch_size=study.batch_size,
        track=study.track,
    )


def _places(goal: Direction | None, steps: int, t: Sequence[float] | None) -> list[float]:
    if t is not None:
        if len(t) < 2:
            raise ValueError(f"{len(t)} place on a path was given; give two or more, such as 1,0.5,0")
        return list(t)
    match goal:
        case None:
            ends = 1, 0
        case PrincipalComponent():
            ends = -3, 3
        case BetweenClasses():
            ends = 0, 2
    return np.linspace(*ends, steps).tolist()


def _endpoints(
    study: Experiment,
    transform: InputTransform,
    goal: Direction | None,
    files: Sequence[Path],
    pairs: Path | None,
    count: int,
    generator: torch.Generator,
    *,
    resize: bool,
) -> Endpoints:
    if pairs is not None and (files or goal is not None):
        raise ValueError("--pairs was given with images or a direction; give one of them")
    if pairs is not None:
        return read_pairs(pairs, transform, resize=resize)
    if files and goal is not None:
        each = [read_files([file], transform) for file in files]
        return Endpoints(names=tuple(file.stem for file in files), inputs=torch.cat([one.inputs for one in each]))
    if files:
        if len(files) not in (2, 4):
            raise ValueError(f"{len(files)} images were given; give two for a path or four for a grid")
        return read_files(files, transform, resize=resize)
    test = study.images("test", transform)
    if goal is None:
        return draw_pairs(test, count, generator)
    return draw_images(test, count, generator, of=goal.first if isinstance(goal, BetweenClasses) else None)


def _lines(
    study: Experiment, transform: InputTransform, goal: Direction | None, ends: Endpoints, rows: int
) -> Callable[[int], Lines]:
    """The lines at a depth."""
    model = study.checkpoint.irevnet
    inputs = as_input(ends.inputs, model)
    if goal is None and inputs.shape[1] == 4:
        return lambda depth: grid(model, inputs[0], rows, depth)
    if goal is None:
        return lambda depth: between(model, inputs[:, 0], inputs[:, 1], depth)
    train = study.images("train", transform)

    def move(depth: int) -> Lines:
        generator = torch.Generator().manual_seed(study.seed)  # the same images at every depth
        step = find_direction(goal, model, train, depth=depth, generator=generator, **study.passes())
        return along(model, inputs[:, 0], step, depth)

    return move
