"""Images that a network cannot tell from others: with the logits, or the averaged features, of another image."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from analysis.cache import Cache
from analysis.experiment import Experiment, StudyOptions
from analysis.invariances.find import Kept, MetamerFinder, check_bijective
from analysis.invariances.record import judge, record_metamers
from analysis.invariances.wanted import parse_wanted
from analysis.paths.directions import BetweenClasses, PrincipalComponent, find_direction, parse_direction
from analysis.paths.endpoints import Endpoints, at_size, draw_images, draw_pairs, read_files, read_pairs
from analysis.results.metamers import KINDS, MetamersResult
from irevnet.checkpoints.checkpoint import weights_sha256
from irevnet.data.transforms import InputTransform
from irevnet.utils.lookup import check_depth, find, names_apart
from irevnet.utils.modules import as_input
from irevnet.utils.precision import true_float32

MOST_CLASSES = 100
"""Number of classes up to which `nearest-image` is found by default: each step takes a product for each class."""

MANY_CLASSES = 20
"""Number of classes beyond which `MetamerOptions.sized` makes fewer metamers, for these products."""

PART, ROWS_BYTES = 16, 2**28
"""Most pairs at once, after which they are kept, and most memory for the gradients of all their logits."""

LARGE = 3 * 64 * 64
"""Number of inputs beyond which `MetamerOptions.sized` makes few metamers."""


@dataclass(frozen=True, kw_only=True)
class MetamerOptions(StudyOptions):
    """Options of `metamers`.

    Attributes:
        files: image A and image B; with `towards` or `direction`, any number of images A.
        pairs: a table of pairs in place of files, see `analysis.paths.endpoints.read_pairs`.
        num_pairs: without either, number of pairs of different classes drawn from the test set.
        kinds: what of B is kept beside what is kept of A. `"nearest-features"`: of all features with what is kept of A,
            those nearest to B's. `"nearest-image"`: an image near B's. `"rearranged"`: A's values within each channel
            in the order of B's. `"reversed"`: A's values within each channel in the order farthest from A's own. By
            default the first two or, in exact arithmetic, of averages, or of more than 100 classes, the first.
        depth: depth of the features; the last by default.
        keep: `"logits"`, by default at the last depth, or `"averages"`, the features averaged over space.
        towards: in place of A's logits, a class and its confidence such as `cat:0.99`, the other classes keeping their
            odds; or a `.npy` file of logits, one row or a row for each image. B is then A.
        direction: in place of another image B, features of A moved along a direction, see
            `analysis.paths.directions.parse_direction`.
        distance: length of that move, in steps of the direction; by default 3 standard deviations or one distance of
            the classes.
        bounded: whether to find, near each metamer, an image with pixel values in [0, 1] as well.
        num_kept: number of pairs whose images are kept in the result; all by default.
        image_size: height and width of the images shown to the network; its own by default.
    """

    files: Sequence[Path] = ()
    pairs: Path | None = None
    num_pairs: int = 100
    kinds: Sequence[str] = ()
    depth: int | None = None
    keep: str | None = None
    towards: str | None = None
    direction: str | None = None
    distance: float | None = None
    bounded: bool = False
    num_kept: int | None = None
    image_size: int | None = None

    @classmethod
    def sized(cls, experiment: Experiment):
        """Eight pairs of large images, sixteen of images of many classes."""
        transform = experiment.checkpoint.transform
        if transform.channels * math.prod(transform.image_size) > LARGE:
            return cls(num_pairs=8)
        return cls(num_pairs=16) if len(experiment.output_names) > MANY_CLASSES else cls()


@true_float32()
def metamers(experiments: Sequence[Experiment], options: MetamerOptions = MetamerOptions()) -> MetamersResult:
    """Images with the logits, or the averaged features, of one image, and otherwise the features of another.

    Of a call that was stopped or killed, finished parts are in the folder `metamers.state` among the results; the same
    call goes on from there.

    Args:
        experiments: a bijective network, and others that judge its metamers.
        options: which images, which kinds of metamers, and what they share.

    Raises:
        FileNotFoundError: an image or a table is missing.
        ValueError: the network is not bijective, what was asked for does not exist or does not fit together, or no
            image has it.
    """
    experiment, judges = experiments[0], experiments[1:]
    transform = at_size(experiment.checkpoint.transform, options.image_size)
    finder = _finder(experiment, options)
    kinds = _kinds(options, finder, len(experiment.output_names))
    ends = _endpoints(experiment, options, finder, transform)
    wanted = parse_wanted(options.towards, experiment.output_names, len(ends.names))
    check_bijective(finder, as_input(ends.inputs[:2, 0], finder.model))
    folder = experiment.results_folder(MetamersResult.STUDY) / f"{MetamersResult.STUDY}.state"
    settings = {
        "weights": [weights_sha256(each.checkpoint.model) for each in experiments],
        "bits": None if finder.lattice is None else finder.lattice.bits,
        "options": [finder.depth, finder.keep, kinds, options.bounded],
    }
    parts = []
    size = _batch_size(experiment, kinds, options, ends.inputs[0, 0].numel())
    for start in experiment.progress.track(range(0, len(ends.names), size), "metamers"):
        a, b = (as_input(ends.inputs[start : start + size, end], finder.model) for end in (0, 1))
        with torch.no_grad():
            asked = wanted(finder.kept(a), slice(start, start + size))

        def compute(a: Tensor = a, b: Tensor = b, asked: Tensor = asked) -> dict[str, ndarray]:
            found = record_metamers(finder, transform, a, b, asked, kinds=kinds, bounded=options.bounded)
            return found | _judged(found, transform, judges)

        digest = hashlib.sha256(b"".join(each.double().cpu().numpy().tobytes() for each in (a, b, asked))).hexdigest()
        parts.append(Cache(folder).get(f"part-{start}", compute, arrays=_RECORDED, images_sha256=digest, **settings))
    joined = {name: np.concatenate([part[name] for part in parts], axis=_axis(name)) for name in parts[0]}
    kept = len(kinds) * min(options.num_kept or len(ends.names), len(ends.names))
    if not options.bounded:
        joined["bounded"] = np.empty((0, *joined["metamer"].shape[1:]), dtype=joined["metamer"].dtype)
    joined |= {name: joined[name][:kept] for name in ("source", "target", "metamer", "bounded")}
    result = MetamersResult(
        depth=np.array(finder.depth),
        keep=np.array(finder.keep),
        exact=np.array(finder.lattice is not None),
        kinds=np.array(kinds),
        kind=np.tile(np.arange(len(kinds)), len(ends.names)),
        names=np.array(ends.names),
        pair=np.repeat(np.arange(len(ends.names)), len(kinds)),
        classes=np.array(experiment.output_names),
        pixel_mean=_per_channel(transform.mean, transform.channels),
        pixel_std=_per_channel(transform.std, transform.channels),
        judges=np.array([each.name for each in judges], dtype=np.str_),
        **joined,
    )
    for kind, name in enumerate(kinds):
        rows = result.rows_of(kind)
        if not result.certified(rows):
            raise ValueError(
                f"no {name} image has the {finder.keep} asked for: the nearest differ from them by "
                f"{result.difference[rows].min():.1e}, relative to their norm; ask for others, or compute with `exact`"
            )
    return result


def _finder(experiment: Experiment, options: MetamerOptions) -> MetamerFinder:
    model = experiment.checkpoint.invertible
    depth = model.num_blocks if options.depth is None else check_depth(options.depth, model.num_blocks)
    default = "logits" if depth == model.num_blocks else "averages"
    keep = find("`keep`", options.keep or default, _KEPT)
    if keep == "logits" and not experiment.checkpoint.has_logits:
        raise ValueError("the outputs of this network are no logits of trained classes; keep the averages")
    return MetamerFinder(model, depth=depth, keep=keep)


_OF_ALL = ("depth", "keep", "exact", "kinds", "kind", "names", "pair", "classes", "pixel_mean", "pixel_std", "judges")
_RECORDED = [field.name for field in fields(MetamersResult) if field.name not in _OF_ALL]
"""Fields that are computed pair by pair."""

_KEPT: Mapping[str, Kept] = {"logits": "logits", "averages": "averages"}


def _judged(
    found: Mapping[str, ndarray], transform: InputTransform, judges: Sequence[Experiment]
) -> dict[str, ndarray]:
    """The class that each judge gives each image, `(judges, rows)`."""
    answers = {}
    for what in ("source", "target", "metamer"):
        pixels = transform.to_pixels(torch.from_numpy(found[what]).float())
        given = [
            judge(
                each.checkpoint.model,
                each.checkpoint.transform,
                each.output_names,
                pixels.to(each.device),
                batch_size=each.batch_size,
            )
            for each in judges
        ]
        answers[f"judged_{what}"] = np.array(given, dtype=np.str_).reshape(len(judges), len(pixels))
    return answers


def _per_channel(values: Sequence[float], channels: int) -> ndarray:
    return np.broadcast_to(np.array(values, dtype=np.float64), channels).copy()


def _axis(name: str) -> int:
    """The axis of rows."""
    return 1 if name.startswith("judged") else 0


def _kinds(options: MetamerOptions, finder: MetamerFinder, num_classes: int) -> list[str]:
    by_steps = finder.lattice is None and finder.keep == "logits"
    kinds = list(options.kinds) or list(KINDS[:2] if by_steps and num_classes <= MOST_CLASSES else KINDS[:1])
    for kind in kinds:
        find("kind", kind, dict.fromkeys(KINDS))
    if len({*kinds}) < len(kinds):
        raise ValueError(f"`kinds` names {', '.join(kinds)}; expected each but once")
    if finder.lattice is not None and (options.bounded or "nearest-image" in kinds):
        raise ValueError("nearest-image and `bounded` need derivatives, which exact arithmetic has not; leave them out")
    if finder.keep == "averages" and (options.bounded or "nearest-image" in kinds):
        raise ValueError("nearest-image and `bounded` are for logits; of averages, leave them out")
    if finder.keep == "averages" and options.towards is not None:
        raise ValueError("`towards` names logits, and averages are kept; give one of them")
    if options.towards is not None and {"rearranged", "reversed"} & {*kinds}:
        raise ValueError("rearranged features keep the logits of A, so that there are none to go `towards`")
    return kinds


def _endpoints(
    experiment: Experiment, options: MetamerOptions, finder: MetamerFinder, transform: InputTransform
) -> Endpoints:
    """Images A and B of each pair, `(pairs, 2, c, h, w)`."""
    files, resize = options.files, options.image_size is not None
    alone = options.towards is not None or options.direction is not None
    if options.pairs is not None and (files or alone):
        raise ValueError("`pairs` was given with images, `towards` or `direction`; give one of them")
    if options.towards is not None and options.direction is not None:
        raise ValueError("`towards` and `direction` were given; give one of them")
    if options.distance is not None and options.direction is None:
        raise ValueError("`distance` was given without `direction`, along which to go; give both")
    if options.pairs is not None:
        return read_pairs(options.pairs, transform, resize=resize)
    if files and not alone:
        if len(files) != 2:
            raise ValueError(f"{len(files)} images were given; give two, A and B, or a table of pairs")
        return read_files(files, transform, resize=resize)
    generator = torch.Generator().manual_seed(experiment.seed)
    if not alone:
        return draw_pairs(experiment.images("test", transform), options.num_pairs, generator)
    if files:
        names = names_apart([path.stem for path in files], [str(path) for path in files])
        inputs = torch.cat([read_files([path], transform).inputs for path in files])
    else:
        drawn = draw_images(experiment.images("test", transform), options.num_pairs, generator)
        names, inputs = drawn.names, drawn.inputs
    if options.direction is None:
        names = tuple(f"{each} to {options.towards}" for each in names)
        return Endpoints(names=names, inputs=inputs.expand(-1, 2, -1, -1, -1))
    return _along(experiment, options, finder, transform, tuple(names), inputs)


@torch.no_grad()
def _along(
    experiment: Experiment,
    options: MetamerOptions,
    finder: MetamerFinder,
    transform: InputTransform,
    names: tuple[str, ...],
    inputs: Tensor,
) -> Endpoints:
    """Pairs of which B are the images of A's features, moved along a direction."""
    assert options.direction is not None
    direction = parse_direction(options.direction, experiment.classes)
    match direction:
        case PrincipalComponent():
            distance = 3.0
        case BetweenClasses():
            distance = 1.0
    distance = distance if options.distance is None else options.distance
    step = distance * find_direction(
        direction,
        finder.model,
        experiment.images("train", transform),
        depth=finder.depth,
        generator=torch.Generator().manual_seed(experiment.seed),
        batch_size=experiment.batch_size,
        workers=experiment.workers,
        track=experiment.progress.track,
    )
    moved = [
        finder.model.inverse(finder.features(as_input(part[:, 0], finder.model)) + step, finder.depth).to(part).cpu()
        for part in inputs.split(experiment.batch_size)
    ]
    return Endpoints(
        names=tuple(f"{each} along {options.direction}" for each in names),
        inputs=torch.stack((inputs[:, 0], torch.cat(moved)), dim=1),
    )


def _batch_size(experiment: Experiment, kinds: Sequence[str], options: MetamerOptions, inputs: int) -> int:
    """Number of pairs at once."""
    by_steps = options.bounded or "nearest-image" in kinds
    most = ROWS_BYTES // (8 * inputs * len(experiment.output_names)) if by_steps else PART
    return max(1, min(PART, experiment.batch_size // 2, most))
