"""The two commands, `irevnet` and `irevnet-analyze`. Imports of the library are inside the commands, so that help and
usage errors answer at once, without torch."""

import dataclasses
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irevnet.commandline.options import (
    SEED,
    bits_option,
    ckpt_option,
    classifier_options,
    codec_options,
    compared_options,
    config_options,
    data_options,
    depth_option,
    depths_option,
    depths_option_for,
    device_option,
    exact_options,
    guess_options,
    image_size_option,
    json_option,
    layer_option,
    layers_option,
    network_options,
    out_option,
    over_training_option,
    pass_options,
    probe_options,
    seed_option,
    study_options,
    workers_option,
)
from irevnet.commandline.terminal import (
    File,
    Floats,
    Group,
    Numbers,
    Part,
    command_line,
    explain,
    given_options,
    print_json,
    standard_error,
    status_line,
    stop_on_signals,
    track,
    with_options,
)

if TYPE_CHECKING:
    from analysis.experiment import Experiment, StudyOptions
    from analysis.own_features import OwnFeatures
    from analysis.results import Result
    from analysis.run_all import Task
    from analysis.subjects import Subject
    from figures.text_table import TextTable
    from irevnet import Checkpoint, IRevNet
    from irevnet.data.images import DataSource
    from irevnet.data.transforms import InputTransform
    from irevnet.training.runs import Run
    from irevnet.training.settings import RunSettings


_OF_OTHERS = {"model", "image_size", "mean", "std", "interpolation", "class_names"}
"""Options that say what the file of a network from elsewhere does not."""

REPORT = "report.html"
"""The page's name in a run's folder."""


def _print_table(content: "TextTable") -> None:
    """A table on standard output, numbers to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading, column in zip(content.headings, zip(*content.rows)):
        numeric = all(cell[:1].isdigit() for cell in column)
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=True)
    for row in content.rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False, emoji=False, width=1000)  # a narrow terminal wraps longer lines
    console.print(table)
    for note in content.notes:
        click.echo(note)


def _open(
    ckpt: str | None = None,
    *,
    data: str | None = None,
    data_root: Path | str = "data",
    download: bool = False,
    on_error: Any = None,
    val_fraction: float | None = None,
    split_of: Path | None = None,
    classes: Any = None,
    class_seed: int | None = None,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: Any = None,
    class_names: Sequence[str] | None = None,
    exact: bool = False,
    bits: int = 14,
    **options: Any,
) -> "Experiment":
    """Opens a network and its data by the options of a command, and says what was chosen or guessed."""
    from analysis.opening import DataOptions, open_experiment
    from analysis.overrides import Overrides
    from irevnet.utils.progress import Progress

    experiment = open_experiment(
        ckpt,
        data=DataOptions(
            name=data,
            root=data_root,
            download=download,
            on_error=on_error or "stop",
            val_fraction=val_fraction,
            split_of=split_of,
            classes=classes,
            class_seed=class_seed or 0,
        ),
        overrides=Overrides(
            image_size=image_size, mean=mean, std=std, interpolation=interpolation, class_names=class_names
        ),
        bits=bits if exact else None,
        command=command_line(),
        progress=Progress(track=track),
        **options,
    )
    if ckpt is None and experiment.path is not None:
        _say_newest(experiment.path)
    _say_of_data(experiment.source)
    _say_guessed(experiment.name, experiment.checkpoint)
    return experiment


def _open_all(ckpt: tuple[str, ...], **options: Any) -> "list[Experiment]":
    """Opens the networks to compare, all of the same classes of the same data.

    What an option says of a network that this toolkit did not make is said of those alone, if there are any.
    """
    from analysis.experiment import check_comparable
    from analysis.opening import find_split, is_own

    said = any(options.get(name) is not None for name in _OF_OTHERS)
    own = [is_own(each) for each in ckpt] if said and len(ckpt) > 1 else []
    if len(ckpt) > 1 and options.get("model") is None:
        options["split_of"] = find_split(ckpt, options.get("data"))
    others = options if all(own) else {**options, **dict.fromkeys(_OF_OTHERS & options.keys())}
    experiments = [_open(each, **(others if known else options)) for each, known in zip_longest(ckpt or (None,), own)]
    check_comparable(experiments)
    return experiments


_OF_NETWORKS = _OF_OTHERS | {
    *("ckpt", "exact", "bits", "pool", "batch_size", "workers"),
    *("data", "data_root", "download", "on_error", "classes", "class_seed"),
}
"""Options that say nothing of features without a network."""


def _open_features(
    path: Path, labels: Path | None, *, out: Path | None, seed: int, device: str, **_: Any
) -> "OwnFeatures":
    """Opens a file of features by the options of a command, and says what was chosen for it."""
    from analysis.own_features import open_features
    from irevnet.utils.progress import Progress

    if others := given_options(*_OF_NETWORKS):
        raise ValueError(f"{path} is of features, which need no network and no images; leave {others[0]} out")
    progress = Progress(track=track)
    opened = open_features(path, labels, device=device, seed=seed, out=out, command=command_line(), progress=progress)
    if opened.content.held_out:
        click.echo(
            f"{path} has no test split; {len(opened.content.test_labels):,} of its images are held out for testing, a "
            f"fifth of each class, by --seed {seed}",
            err=True,
        )
    return opened


def _hold(folder: Path) -> None:
    """Has a folder for this process alone until the command ends."""
    from irevnet.utils.files import exclusive

    click.get_current_context().with_resource(exclusive(folder))


def _say_newest(path: Path) -> None:
    click.echo(f"using {path}, the newest run", err=True)


def _say_of_data(source: "DataSource") -> None:
    """What was chosen where the data do not say it, and which images were skipped."""
    for remark in source.remarks:
        click.echo(with_options(remark, click.get_current_context().command), err=True)
    if skipped := source.skipped:
        name, reason = next(iter(skipped.items()))
        count = "1 image is" if len(skipped) == 1 else f"{len(skipped):,} images are"
        click.echo(f"{count} skipped, the first of them {' '.join(name.split())}, which {reason}", err=True)


def _say_guessed(name: str, checkpoint: "Checkpoint") -> None:
    """What the network's file does not say."""
    from irevnet.checkpoints.checkpoint import (
        AVERAGED_OUTPUT,
        CLASS_NAMES,
        FRESH_CLASSIFIER,
        IMAGE_SIZE,
        NORMALISATION,
    )

    transform, guessed = checkpoint.transform, checkpoint.guessed
    said = {
        IMAGE_SIZE: f"images of {transform.image_size[0]} x {transform.image_size[1]} (--image-size)",
        NORMALISATION: f"mean {_listed(transform.mean)} and deviation {_listed(transform.std)} (--mean, --std), "
        f"{transform.interpolation} resizing (--interpolation)",
        CLASS_NAMES: "outputs in the order of ImageNet's folders (--class-names)",
        FRESH_CLASSIFIER: "a fresh classifier, whose weights are not there",
        AVERAGED_OUTPUT: "the average over space or tokens as its output, which is no logits",
    }
    if guessed:
        what = ", ".join(said[guess] for guess in guessed)
        click.echo(f"{name} does not say how it takes its images; guessed: {what}", err=True)


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _say_unknown(experiment: "Subject") -> None:
    """That a network's own accuracy is not known; of features without a network there is none."""
    from analysis.experiment import Experiment

    if isinstance(experiment, Experiment) and not experiment.knows_its_classes:
        reason = "its file does not name its outputs; give their names by --class-names"
        if experiment.checkpoint.classes:
            reason = "it does not know all the classes studied"
        elif not experiment.checkpoint.has_logits:
            reason = "its outputs are no logits that were trained"
        click.echo(f"the accuracy of {experiment.name} itself is unknown: {reason}", err=True)


@click.group("irevnet", cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="irevnet-toolkit")
def main() -> None:
    """Train and evaluate invertible networks (i-RevNet, ICLR 2018) and the networks they are compared with.

    \b
    irevnet train                   a small net on handwritten digits, in seconds
    irevnet evaluate                its accuracy
    irevnet encode, irevnet decode  images to features, and back to identical images
    irevnet models                  every network by name
    irevnet-analyze --help          what the network keeps, and what it contracts
    """


@main.command()
@json_option
def models(as_json: bool) -> None:
    """List the networks that can be trained by name, and the trained ones that come with this package.

    Injective: distinct images have distinct features. Bijective: every feature is that of an image, so that the
    inverse takes any feature, not only those of images. Multiply-adds are of one image of the network's own size.

    A trained network is named where a checkpoint is, as in 'irevnet-analyze invert --ckpt pretrained:cifar10-irevnet'.
    """
    from figures.text_table import TextTable
    from irevnet import list_models
    from irevnet.checkpoints.trained import list_trained

    infos, trained = list_models(), list_trained()
    if as_json:
        print_json(
            {
                "models": [dataclasses.asdict(info) for info in infos],
                "pretrained": list(map(dataclasses.asdict, trained)),
            }
        )
        return
    headings = ("name", "injective", "bijective", "blocks", "parameters", "multiply-adds", "input", "source")
    _print_table(
        TextTable(
            headings,
            [
                (
                    info.name,
                    "yes" if info.injective else "no",
                    "yes" if info.bijective else "no",
                    f"{info.blocks}",
                    f"{info.parameters:,}",
                    f"{info.multiply_adds:,}",
                    "x".join(map(str, info.input_shape)),
                    info.source,
                )
                for info in infos
            ],
        )
    )
    _print_table(
        TextTable(
            ("trained network", "bijective", "blocks", "parameters", "data", "test accuracy", "licence"),
            [
                (
                    info.name,
                    "yes" if info.bijective else "no",
                    f"{info.blocks}",
                    f"{info.parameters:,}",
                    info.data,
                    f"{info.test_top1:.2%}",
                    info.licence,
                )
                for info in trained
            ],
        )
    )


@main.command(distributed=True)
@click.option("--model", help="A network by name; see 'irevnet models'.  [default: irevnet-small]")
@data_options
@click.option("--image-size", type=click.IntRange(min=1), help="Resize the images to N x N.  [default: their own size]")
@click.option(
    "--recipe",
    type=click.Choice(["digits", "fast", "cifar", "imagenet"]),
    help="Where the settings below come from.  [default: digits for the digits, else fast]",
)
@config_options
@click.option("--seed", type=SEED, help="Seed of everything random.  [default: 0]")
@click.option(
    "--keep-every",
    type=click.IntRange(min=1),
    help="Keep the weights in RUN/kept/ after every so many steps, before the first and after the last, for studies "
    "with --over-training.  [default: none]",
)
@click.option("--out", type=File(), help="The run's folder.  [default: runs/DATA-MODEL-TIME]")
@click.option("--resume", type=File(), help="Go on with the run of this folder.")
@click.option("--max-steps", type=click.IntRange(min=1), help="Do no more than so many steps now.")
@click.option("--dry-run", is_flag=True, help="Print what the run will take, check the data, and train nothing.")
@device_option
@workers_option
@json_option
def train(
    resume: Path | None,
    out: Path | None,
    recipe: str | None,
    max_steps: int | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a network, into a run folder with its config, metrics and checkpoints.

    Without options: irevnet-small on scikit-learn's handwritten digits, which need no download. Recipes:

    \b
    digits     20 epochs of 64 images, one-cycle rate up to 0.1, weight decay 0.01
    fast       30 epochs of 128, Muon, linear rate up to 0.05, labels smoothed by 0.1, shift and flip, normalised
    cifar      the authors' for CIFAR: 200 epochs of 128, rate 0.1 x 0.2 at epochs 60, 120 and 160
    imagenet   the paper's: 600,000 steps of 256, rate 0.1 x 0.1 every 160,000, --memory reversible

    Ctrl-C finishes the step, saves, and says how to go on; on one CPU, --resume ends with the very network that an
    uninterrupted run ends with. On several GPUs: torchrun --nproc-per-node 4 $(which irevnet) train ...

    \b
    RUN/config.json   what was asked for           RUN/last.pt   the newest checkpoint (used by default)
    RUN/metrics.csv   a line an epoch              RUN/best.pt   of the highest test accuracy
    RUN/losses.csv    a line a step                RUN/kept/     weights, with --keep-every
    """
    import torch

    from irevnet.training.runs import default_folder, new_run, resume_run
    from irevnet.training.settings import check_unchanged, choose_settings, read_settings
    from irevnet.utils import distributed

    places = {name: options.pop(name) for name in ("data_root", "download", "on_error", "device", "workers")}
    places["on_error"] = places["on_error"] or "stop"
    given = {name: value for name, value in options.items() if value is not None}
    if resume is None:
        settings = choose_settings(given, recipe_name=recipe)
    elif out or recipe:
        raise ValueError(f"--resume {resume} goes on in that folder, by its own recipe; leave --out and --recipe out")
    else:
        check_unchanged(resume, given)
        settings = read_settings(resume)
    click.get_current_context().params["batch_size"] = settings.training.batch_size  # for who asks what was tried
    torch.manual_seed(settings.seed + distributed.rank())  # the initial weights, which are the first's, and dropout
    if dry_run:
        _show_plan(settings, places, as_json=as_json)
        return
    folder = resume or out or default_folder(settings)
    distributed.from_first(lambda: _hold(folder))
    if resume is None:
        run = new_run(folder, settings, command=command_line(), **places, track=track)
    else:
        run = resume_run(folder, settings, **places, track=track)
    _say_of_data(run.source)
    console = standard_error()
    with stop_on_signals() as stopped:
        for metrics in run.epochs(max_steps=max_steps, stop=stopped):
            if console.is_terminal:
                console.print(
                    f"epoch {metrics.epoch:3d}  train loss {metrics.train_loss:.4f}  test loss {metrics.test_loss:.4f}"
                    f"  test accuracy {metrics.test_top1:.2%}  {metrics.seconds:.1f} s"
                )
        interrupted = stopped()
    _report_run(run, interrupted, as_json=as_json)


def _report_run(run: "Run", interrupted: bool, *, as_json: bool) -> None:
    """Prints what came of a run, and how to go on where it was stopped."""
    training = run.training
    last = training.history[-1] if training.history else None
    if as_json:
        progress = {"run": str(run.folder), "finished": run.finished, "step": training.step}
        print_json({**(dataclasses.asdict(last) if last else {}), **progress})
    else:
        if last:
            click.echo(f"test accuracy: top-1 {last.test_top1:.2%}, top-5 {last.test_top5:.2%}")
        click.echo(run.folder)
    if not run.finished:
        click.echo(
            f"stopped after step {training.step:,} of {training.num_steps:,}; go on with "
            f"'irevnet train --resume {run.folder}'",
            err=True,
        )
        if interrupted:
            raise click.exceptions.Exit(1)


def _show_plan(settings: "RunSettings", places: dict[str, Any], *, as_json: bool) -> None:
    """What a run will take, once its images have been looked at."""
    from irevnet.training.dry_run import plan
    from irevnet.training.runs import prepare

    training, _, source = prepare(settings, **places)
    _say_of_data(source)
    content = plan(training, keep_every=settings.keep_every, track=track)
    if as_json:
        print_json(dataclasses.asdict(content))
        return
    for name, text in {"network": settings.model, **content.lines()}.items():
        click.echo(f"{name:20s}{text}")


@main.command(distributed=True)
@ckpt_option
@image_size_option
@guess_options
@data_options
@click.option("--split", type=click.Choice(["train", "test"]), default="test", show_default=True, help="Which images.")
@exact_options
@pass_options
def evaluate(split: Any, as_json: bool, **options: Any) -> None:
    """Print the top-1 and top-5 accuracy of a trained network."""
    from irevnet.training.trainer import evaluate as evaluate_network

    experiment = _open(**options)
    checkpoint, source = experiment.checkpoint, experiment.source
    source.check_labelled("accuracy is the share of right ones")
    images = experiment.with_network_labels(experiment.images(split))
    if images is None and not checkpoint.has_logits:
        raise ValueError(
            f"the outputs of {experiment.name} are no logits that were trained; there is no accuracy of it"
        )
    if images is None and not checkpoint.classes:
        raise ValueError(
            f"{experiment.path or experiment.name} does not name its {checkpoint.config.num_classes} outputs; list the "
            "class names in the order of the outputs in a file, and give it by --class-names"
        )
    if images is None:
        raise ValueError(
            f"{experiment.path or experiment.name} has {checkpoint.config.num_classes} classes, {source.name} has "
            f"{len(experiment.classes)}, and they are not the same; evaluate it on its own classes"
        )
    result = evaluate_network(
        checkpoint.model, images, batch_size=experiment.batch_size, workers=experiment.workers, track=track
    )
    if as_json:
        skipped = {"left_out": source.skipped or {}}
        print_json({"checkpoint": str(experiment.path), "split": split, **dataclasses.asdict(result), **skipped})
    else:
        click.echo(
            f"{split} accuracy: top-1 {result.top1:.2%}, top-5 {result.top5:.2%} "
            f"({result.num_images} images, loss {result.loss:.4f})"
        )


@main.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=File())
@click.option("-o", "--out", required=True, type=File(), help="The file to write, such as phi.npz.")
@depth_option
@bits_option
@codec_options
def encode(images: tuple[Path, ...], out: Path, depth: int | None, bits: int, as_json: bool, **options: Any) -> None:
    """Turn images into their features, from which decode makes identical images.

    In exact arithmetic: decode may run on any machine. An image keeps its size. The file is a NumPy archive: phi_0,
    phi_1, ... are the features of each image, (channels, height, width), whole multiples of 2^-bits.
    """
    from irevnet.codec import encode as write

    model, transform = _open_exact(bits=bits, **options)
    header = write(model, transform, images, out, depth=depth, track=track)
    if as_json:
        print_json({"file": str(out), **dataclasses.asdict(header)})
    else:
        click.echo(out)


@main.command()
@click.argument("file", type=File())
@click.option("-o", "--out", required=True, type=File(), help="Folder for the images.")
@codec_options
def decode(file: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Turn features that encode wrote back into images, as PNG.

    With the checkpoint that they were encoded with; features of another network are refused.
    """
    from irevnet.codec import decode as write
    from irevnet.codec import read_header

    model, transform = _open_exact(bits=read_header(file).bits, **options)
    paths = write(model, transform, file, out, track=track)
    if as_json:
        print_json({"files": list(map(str, paths))})
    else:
        for path in paths:
            click.echo(path)


def _open_exact(ckpt: str | None, *, device: str, bits: int) -> "tuple[IRevNet, InputTransform]":
    """A network in exact arithmetic, and the transform of its images."""
    from irevnet import read_checkpoint
    from irevnet.training.runs import find_checkpoint
    from irevnet.utils.distributed import choose_device

    path = find_checkpoint(None if ckpt is None else Path(ckpt))
    if ckpt is None:
        _say_newest(path)
    checkpoint = read_checkpoint(path)
    _say_guessed(path.name, checkpoint)
    return checkpoint.irevnet.exact(bits=bits).to(choose_device(device)), checkpoint.transform


def _study(
    study: str,
    *,
    ckpt: str | tuple[str, ...] | None,
    as_json: bool,
    drawn: Mapping[str, Any] | None = None,
    labels: Path | None = None,
    over_training: bool = False,
    further: "Callable[[Sequence[Experiment], dict[str, Any]], Sequence[Experiment]] | None" = None,
    **options: Any,
) -> "Sequence[Subject]":
    """Opens the networks of a command, or a file of features in their place, and runs a study of them by those of its
    options that are the study's own, or that study over their training. `further` opens what the study needs beside
    these, with the same options. Returns what was opened first."""
    from analysis.own_features import is_of_features
    from analysis.results.over_training import OVER_TRAINING
    from analysis.results.register import STUDIES

    study += OVER_TRAINING if over_training else ""
    from analysis.run_all import default_options

    default = default_options(STUDIES[study])
    own = {field.name for field in dataclasses.fields(default)} & options.keys()
    given = {name: options.pop(name) for name in own}
    asked = dataclasses.replace(default, **{name: value for name, value in given.items() if value is not None})
    features = options.get("features_root")
    if features is not None and is_of_features(features):
        if over_training:
            raise ValueError(
                f"{features} is of features, whose network's training is not known; leave `features_root` out, and "
                "give the folder of a run of 'irevnet train --keep-every N' by --ckpt"
            )
        opened: Sequence[Subject] = [_open_features(features, labels, **options)]
        _run(study, opened, asked, as_json=as_json, **(drawn or {}))
        return opened
    if labels is not None:
        raise ValueError("`labels` are those of a file of features; give that by `features_root`")
    options["ckpt"] = (ckpt,) if isinstance(ckpt, str) else ckpt or ()
    opened = _open_all(**options)
    added = further(opened, options) if further is not None else ()
    _run(study, [*opened, *added], asked, as_json=as_json, **(drawn or {}))
    return opened


def _run(study: str, subjects: "Sequence[Subject]", options: "StudyOptions", *, as_json: bool, **drawn: Any) -> None:
    """Runs a study, saves its result and figures, and prints it; `drawn` are options of the figure."""
    from figures import table

    result, files = _compute(study, subjects, options, **drawn)
    if as_json:
        print_json({**result.summary(), "files": list(map(str, files))})
    else:
        _print_table(table(result))
        for file in files:
            click.echo(file)


def _compute(
    study: str, subjects: "Sequence[Subject]", options: "StudyOptions", **drawn: Any
) -> "tuple[Result, list[Path]]":
    """Runs a study, and saves its result and figures, in a folder that no other process writes to meanwhile."""
    from analysis.results.register import STUDIES, load_result
    from analysis.run_all import run_study
    from figures import save_figures
    from irevnet.utils.progress import Interrupted, Progress

    folder = subjects[0].results_folder(study)
    _hold(folder)
    if options.STOPS:
        with stop_on_signals() as stopped, status_line() as report:
            progress = Progress(track=track, report=report, stop=stopped)
            subjects = [dataclasses.replace(each, progress=progress) for each in subjects]  # type: ignore[type-var]
            try:
                _, files = run_study(STUDIES[study], subjects, options)
            except Interrupted:
                click.echo(f"stopped; the same command goes on (its work is in {folder})", err=True)
                raise click.exceptions.Exit(1) from None
    else:
        _, files = run_study(STUDIES[study], subjects, options)
    result = load_result(folder)  # figures are of what is on the disk
    return result, files + save_figures(result, folder, **drawn)


@click.group("irevnet-analyze", cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="irevnet-toolkit")
def analyze() -> None:
    """What does an invertible network keep, and what does it contract? The studies of the i-RevNet paper.

    Each takes the newest run under runs/ unless --ckpt names another, and writes arrays (.npz), a table (.csv),
    provenance (.json) and a figure (.png, .pdf) into the run's folder. One that was interrupted goes on where it was.

    \b
    irevnet-analyze all               every study below, then the report
    irevnet-analyze report            one page of what was found, beside what the paper found
    irevnet-analyze reproduce         the commands that make a report again
    irevnet-analyze invert            how exactly images come back from their features (section 4.2)
    irevnet-analyze interpolate       what lies between two images in feature space (Fig. 5)
    irevnet-analyze metamers          images that the network cannot tell from others
    irevnet-analyze depth-probe       what a linear SVM and 1-NN make of each block's features (Fig. 6)
    irevnet-analyze apply-probes      what saved probes of depth-probe make of other images
    irevnet-analyze pca               how few principal components of them the classes need (Fig. 7)
    irevnet-analyze geometry          dimension, spectrum, neural collapse and similarity of each block's features
    irevnet-analyze features          those features alone, on disk, once for all studies
    irevnet-analyze layers            the names of a network's modules, for all of these
    irevnet-analyze spectrum          what the features contract around an image (Fig. 4)
    irevnet-analyze training-curves   how fast networks learn, side by side (Fig. 3)
    """


@analyze.command()
@click.option(
    "--num-noise", type=click.IntRange(min=1), default=10_000, show_default=True, help="Number of images of noise."
)
@depths_option_for("up to 16; both sets are inverted from the last")
@click.option(
    "--num-images", type=click.IntRange(min=1), default=32, show_default=True, help="Number of these few images."
)
@image_size_option
@exact_options
@study_options
def invert(**options: Any) -> None:
    """Measure how exactly images are rebuilt from their features.

    The relative error ||x - Phi^-1 Phi x|| / ||x|| of the network's input x, on the test set and on uniform noise
    (section 4.2; there 3e-6 and 5e-6 on ImageNet), with the images whose errors are the largest. Then, of a few test
    images, the error from every depth in every arithmetic, and how much the inverse amplifies small changes of the
    features: in random directions, and in the one that it amplifies most.
    """
    _study("invert", **options)


@analyze.command()
@click.argument("files", metavar="[IMAGE]...", nargs=-1, type=File())
@click.option(
    "--pairs",
    type=File(),
    help="A CSV of pairs: columns a and b name image files, middle one that is truly between them, kind what they are.",
)
@click.option(
    "--num-pairs",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Without images and --pairs, pairs (or, with --direction, images) drawn from the test set.",
)
@click.option("--direction", help="Move along pc:NUMBER, svm:CLASS-CLASS or mean:CLASS-CLASS from each image.")
@depth_option
@click.option("--steps", type=click.IntRange(min=2), default=9, show_default=True, help="Number of images on a path.")
@click.option(
    "--t",
    type=Floats("positions on a path", "1,0.5,0"),
    help="Positions on a path, in place of --steps: 1 is the first image, 0 the second; on a direction 0 is the image.",
)
@click.option("--even", is_flag=True, help="Choose positions such that neighbouring images are equally far apart.")
@click.option("--image-size", type=click.IntRange(min=1), help="Show the network images of N x N.  [default: its own]")
@exact_options
@study_options
def interpolate(**options: Any) -> None:
    """Follow straight lines through feature space, and see the images on them (section 4.2, Fig. 5).

    x^t = Phi^-1(t Phi x^0 + (1 - t) Phi x^1) for two IMAGEs, for the --pairs of a CSV, or for pairs of the test set;
    four IMAGEs are the corners of a grid. With --direction, IMAGEs or those drawn are moved by t steps: standard
    deviations along a principal component, or distances from the mean of a class to that of another. Beside each path
    stands the straight line of pixel values.
    """
    _study("interpolate", **options)


@analyze.command()
@click.argument("files", metavar="[IMAGE]...", nargs=-1, type=File())
@click.option("--pairs", type=File(), help="A CSV of pairs: columns a and b name image files, A and B.")
@click.option(
    "--num-pairs",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Without images and --pairs, pairs of different classes (or, with --towards or --direction, images) drawn "
    "from the test set.",
)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(["nearest-features", "nearest-image", "rearranged", "reversed"]),
    multiple=True,
    help="What the image has beside A's logits: of all features with these the nearest to B's; an image near B's; A's "
    "values within each channel in the order of B's; or in the order farthest from A's own. May be given several "
    "times.  [default: the first two; of --exact, averages or over 100 classes, the first]",
)
@depth_option
@click.option(
    "--keep",
    type=click.Choice(["logits", "averages"]),
    help="What the image shares with A: logits, or the features averaged over space, as probes see them.  [default: "
    "logits; with --depth below the last, averages]",
)
@click.option(
    "--towards",
    help="In place of A's logits, with A's own features: CLASS:CONFIDENCE such as cat:0.99, or a .npy of logits, one "
    "row or a row an image.",
)
@click.option("--direction", help="B is A moved along pc:NUMBER, svm:CLASS-CLASS or mean:CLASS-CLASS.")
@click.option(
    "--distance",
    type=float,
    help="How far, in steps of the direction.  [default: 3 standard deviations, or 1 distance of the classes]",
)
@click.option("--bounded", is_flag=True, help="Find near each an image with pixel values in [0, 1] as well.")
@click.option(
    "--judge",
    multiple=True,
    metavar="PATH|NETWORK",
    help="Another network, asked whose class it sees: A's or B's. May be given several times.",
)
@click.option("--num-kept", type=click.IntRange(min=1), help="Number of pairs whose images are kept.  [default: all]")
@click.option("--image-size", type=click.IntRange(min=1), help="Show the network images of N x N.  [default: its own]")
@exact_options
@study_options
def metamers(judge: tuple[str, ...], **options: Any) -> None:
    """Find images that the network cannot tell from others: with A's logits, and otherwise B's features.

    For two IMAGEs A and B, for the --pairs of a CSV, or for pairs of the test set. Every image is certified: its logits
    are computed anew from it, and are A's to 1e-5 or, with --exact, to the last bit. The arrays source, target and
    metamer are network inputs, source_logits and metamer_logits their logits.
    """

    def judges(_: "Sequence[Experiment]", options: dict[str, Any]) -> "Sequence[Experiment]":
        return _open_all(**{**options, "ckpt": judge, "exact": False, **dict.fromkeys(_OF_OTHERS & options.keys())})

    _study("metamers", further=judges if judge else None, **options)


@analyze.command(distributed=True)
@depths_option
@layers_option
@click.option(
    "--part",
    type=Part(),
    help="Extract one of several equal parts of the images, for processes that are started one by one.  [default: all, "
    "which the processes of torchrun share]",
)
@click.option(
    "--export",
    type=File(),
    help="A new file for these features once all are there: FILE.npz, an array a layer and split, with labels, classes "
    "and the names of the images; or FILE.csv, a line an image and layer.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of fresh weights.")
@network_options
def features(
    depths: list[int] | None,
    layers: list[str] | None,
    part: tuple[int, int] | None,
    export: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Extract the features of each block, averaged over space unless --pool says otherwise, into memory maps on disk.

    The studies do this by themselves. Features that are there are not made again, so that an extraction that was killed
    goes on where it was.

    \b
    FOLDER/manifest.json       what the features are of: weights, transform, classes, images
    FOLDER/SPLIT/block-3.npy   float32, a row an image, in the order of the data set
    FOLDER/SPLIT/logits.npy    the network's outputs
    FOLDER/SPLIT/labels.npy    the class of each image
    FOLDER/SPLIT/names.json    the name of each image: its path in the data's folder or, without files, its number

    --export writes them as one file for other programs, which --features of depth-probe, pca and geometry reads again.
    """
    from analysis.experiment import only
    from analysis.features.export import check_export, export_features
    from irevnet.utils import distributed

    if export is not None:
        check_export(export)
    experiments = _open_all(**options)
    if export is not None:
        only(experiments, "`export`")
    chosen = [each.layers(depths, layers) for each in experiments]
    stores = [each.store() for each in experiments]
    share = part or distributed.part()
    counts = [each.extract(store, at, part=share) for each, at, store in zip(experiments, chosen, stores, strict=True)]
    extracted = list(zip([str(store.folder) for store in stores], map(int, distributed.total(*counts))))
    if export is not None and distributed.rank() == 0:
        export_features(stores[0], [layer.name for layer in chosen[0]], export)
    if as_json:
        folders = {"stores": [{"folder": folder, "extracted": count} for folder, count in extracted]}
        print_json({**folders, **({"export": str(export)} if export else {})})
        return
    for folder, count in extracted:
        click.echo(f"{count:,} images extracted, the others were there", err=True)
        click.echo(folder)
    if export is not None:
        click.echo(export)


@analyze.command()
@compared_options
@data_options
@device_option
@json_option
def layers(as_json: bool, **options: Any) -> None:
    """List a network's modules by the names that --layers takes.

    With the number of the block that each is, for --depths, the shape of its output for one image of the network's
    size, its parameters, and how often a forward pass runs it: what is run twice, or never, cannot be studied.
    """
    from analysis.features.layers import list_layers
    from figures.text_table import TextTable

    found = {}
    for experiment in _open_all(**options):
        transform = experiment.checkpoint.transform
        found[experiment.name] = list_layers(experiment.checkpoint.model, transform.channels, transform.image_size)
    if as_json:
        print_json(
            {
                "networks": [
                    {"name": name, "layers": list(map(dataclasses.asdict, rows))} for name, rows in found.items()
                ]
            }
        )
        return
    for name, infos in found.items():
        rows = [
            (
                info.name,
                info.kind,
                f"{info.depth or ''}",
                " x ".join(map(str, info.shape or ())),
                f"{info.parameters:,}",
                f"{info.calls}",
            )
            for info in infos
        ]
        _print_table(TextTable((name, "type", "block", "output", "parameters", "runs"), rows))


@analyze.command("depth-probe")
@depths_option
@layers_option
@classifier_options
@click.option(
    "--relative/--by-block",
    default=None,
    help="Draw against depth over the number of blocks, or against blocks.  [default: --relative if networks differ]",
)
@click.option("--save-probes", is_flag=True, help="Save the fitted linear probes beside the result, for apply-probes.")
@over_training_option
@out_option
@seed_option
@probe_options
def depth_probe(relative: bool | None, save_probes: bool, over_training: bool, **options: Any) -> None:
    """Probe each block's features with a linear SVM and 1-NN (section 5.1, Fig. 6).

    Features are averaged over space, or pooled as --pool says, and standardised on the training set. The SVM's C is
    cross-validated at each depth on about 2,000 training images and checked, one step around, on all of them.
    Accuracies are of the test set, with 95% Wilson intervals. Below them: the root mean square distance of two images
    of a class over that of two of different classes, the contraction itself. --logistic and --k add other probes;
    --shots fits all of them to few training images.
    """
    if over_training and relative is not None:
        raise ValueError("`relative` is how depth is drawn, and `over_training` draws steps; leave one of them out")
    drawn = {} if over_training else {"relative": relative}
    experiments = _study("depth-probe", drawn=drawn, save_probes=save_probes, over_training=over_training, **options)
    for each in experiments:
        _say_unknown(each)
    if save_probes and not over_training:  # otherwise they are beside the result of each step
        from analysis.studies.depth_probe import probes_files

        for file in probes_files(experiments[0].results_folder("depth-probe"), len(experiments)):
            click.echo(f"{file} has the probes, for 'irevnet-analyze apply-probes'", err=True)


@analyze.command("apply-probes")
@click.argument("file", type=File())
@out_option
@seed_option
@network_options
def apply_probes(file: Path, as_json: bool, **options: Any) -> None:
    """Apply the linear probes in FILE, which depth-probe --save-probes wrote, to other images of the same network.

    The network is the one that they were fitted to, with the same weights and input. The classes of the data are
    theirs, or some of them, by name; a probe chooses among all of its own. Accuracies are of the test images, with 95%
    Wilson intervals.
    """
    from analysis.experiment import only
    from analysis.probes.saved_probes import load_probes
    from analysis.results import probe_name
    from analysis.studies.apply_probes import apply_probes as apply
    from analysis.subjects import save_result
    from figures.text_table import TextTable, percent

    probes = load_probes(file)
    experiment = only(_open_all(**options), "apply-probes")
    _hold(experiment.results_folder("apply-probes"))
    result = apply(experiment, probes)
    files = save_result([experiment], result)
    if as_json:
        print_json({**result.summary(), "files": list(map(str, files))})
        return
    parts = zip(result.layer.tolist(), result.probe.tolist(), result.accuracy.tolist(), result.interval)
    rows = [(layer, probe_name(code), percent(accuracy, interval)) for layer, code, accuracy, interval in parts]
    _print_table(TextTable(("layer", "probe", "accuracy (95% interval)"), rows, [f"{result.num_test:,} images"]))
    for each in files:
        click.echo(each)


@analyze.command("pca")
@depth_option
@layer_option
@click.option(
    "--dims", type=Numbers(), help="Numbers of components, such as 1,2,5,10-20.  [default: 1 to all, by sqrt 2]"
)
@classifier_options
@out_option
@seed_option
@probe_options
def pca(**options: Any) -> None:
    """Find how few principal components of the features the classes need (section 5.2, Fig. 7).

    Features of the last block, averaged over space or pooled as --pool says, are standardised on the training set,
    rotated to their principal components, and never standardised again. A linear SVM and 1-NN are shown the first d of
    them. The SVM's C is chosen anew for every d, as depth-probe chooses it. The knee is the smallest d from which on
    accuracy stays within one point of that of all components; in the paper it is about 200.
    """
    for each in _study("pca", **options):
        _say_unknown(each)


@analyze.command("geometry")
@depths_option
@layers_option
@click.option(
    "--num-images",
    type=click.IntRange(min=3),
    default=10_000,
    show_default=True,
    help="Number of training images, drawn at random, among which neighbours are found for the intrinsic dimension.",
)
@click.option(
    "--ood",
    metavar="NAME|PATH",
    multiple=True,
    help="Other data, as --data names them: linear probes of all layers on both show where accuracy on the network's "
    "own saturates, and what becomes of that on the other from there on, the tunnel. May be given several times.",
)
@over_training_option
@out_option
@seed_option
@probe_options
def geometry(ood: tuple[str, ...], **options: Any) -> None:
    """Measure the geometry of each block's features: how many dimensions, and how far classes have collapsed.

    Of features that are averaged over space, or pooled as --pool says, and not standardised: the intrinsic dimension by
    two nearest neighbours (TwoNN), the participation ratio, the effective rank and the d that hold 90, 95 and 99% of
    the variance; the exponent of a power law through the eigenvalues of the covariance; neural collapse, NC1 to NC4;
    how alike any two layers of all networks are, by debiased linear CKA; and with --ood the tunnel. With 95% intervals
    over the images.
    """
    from analysis.own_features import is_of_features

    features = options["features_root"]
    if ood and features is not None and is_of_features(features):
        raise ValueError(f"`ood` needs a network that is shown other data, and {features} is a file of features")
    if ood and options["over_training"]:
        raise ValueError("`ood` and `over_training` were both given; give one of them")

    def with_other_data(opened: "Sequence[Experiment]", options: dict[str, Any]) -> "Sequence[Experiment]":
        found: list[Experiment] = []
        for name in ood:
            found += _open_all(**{**options, "data": name, "classes": None})
            if found[-1].data_name == opened[0].data_name:
                raise ValueError(f"`ood` is {name!r}, the data that are studied; name other data")
        return found

    for each in _study("geometry", further=with_other_data if ood else None, **options):
        _say_unknown(each)


@analyze.command()
@click.argument("files", metavar="[IMAGE]...", nargs=-1, type=File())
@click.option(
    "--num-images",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Without IMAGEs, number of images drawn from the test set.",
)
@depths_option_for("the last")
@layers_option
@click.option(
    "--num-values",
    type=click.IntRange(min=1),
    help="Number of singular values to find one by one, from the largest on.  [default: a fifteenth of them]",
)
@click.option(
    "--method",
    type=click.Choice(["auto", "dense", "lanczos"]),
    default="auto",
    show_default=True,
    help="Decompose the matrix, or find them from products with vectors; auto takes the matrix up to 1,000 inputs.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "float64"]),
    help="Precision of the products.  [default: float64 for the matrix, else float32]",
)
@click.option(
    "--block-width",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Number of vectors multiplied at once.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=1e-3,
    show_default=True,
    help="A value s has converged if ||J^T u - s v|| is below so many s; its relative error is about the square.",
)
@click.option(
    "--vectors",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Number of the most and, with an inverse, of the least magnified directions to keep as images (singular "
    "vectors), with the image moved along each by equal distances in features.",
)
@click.option(
    "--pixel-change",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.1,
    show_default=True,
    help="With --vectors, root-mean-square change of pixel values, of 0 to 1, by the move along the least magnified "
    "direction; moves along the others change the features by as much.",
)
@click.option("--resume", is_flag=True, hidden=True, expose_value=False)  # it goes on by itself, as all studies do
@over_training_option
@compared_options
@data_options
@out_option
@seed_option
@device_option
@json_option
def spectrum(**options: Any) -> None:
    """Find what the network contracts around an image: the singular values of its Jacobian (section 4.1, Fig. 4).

    J is the derivative of the features with respect to the network's input. Of a small network the matrix is
    decomposed. Otherwise the largest singular values come from products with J and its transpose and, of a bijective
    i-RevNet, the smallest from products with the inverse; all others as a density. E(d) is the share of the d largest
    in the sum of all squares, with a 95% interval; in the paper E(1,000) = 80% and E(10,000) = 97% of 150,528.
    """
    _study("spectrum", **options)


@analyze.command("training-curves")
@click.argument("runs", metavar="[RUN]...", nargs=-1, type=File())
@click.option(
    "--window", type=click.IntRange(min=1), default=100, show_default=True, help="Iterations of the moving average."
)
@click.option("--out", type=File(), help="Folder for the results.  [default: in the first run's folder]")
@json_option
def training_curves(runs: tuple[Path, ...], window: int, out: Path | None, as_json: bool) -> None:
    """Compare the training losses of runs on the same data (section 3.2, Fig. 3).

    RUN is a run's folder, finished or not; by default the newest one. In the paper the losses of the i-RevNet and of
    the ResNet decrease alike. Test accuracies after each epoch are drawn beside them.
    """
    from analysis.studies.training_curves import TrainingCurvesOptions, open_runs
    from irevnet.training.runs import find_checkpoint

    opened = open_runs(list(runs) or [find_checkpoint(None).parent], out=out, command=command_line())
    _run("training-curves", opened, TrainingCurvesOptions(window=window), as_json=as_json)


@analyze.command("all")
@compared_options
@data_options
@seed_option
@click.option("--out", type=File(), help="The page.  [default: report.html in the first run's folder]")
@click.option("--dry-run", is_flag=True, help="Print the commands and what is up to date, and run nothing.")
@pass_options
def everything(ckpt: tuple[str, ...], out: Path | None, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Run every study of a network, or of several, and put them on one page.

    What is there and up to date stays: it is of the same weights, data, classes and seed. A study that fails is named
    in the end, and the others are run all the same. Sized to the network and the data: as much noise as there are test
    images, up to 10,000; at most 1,000 singular values one by one; 100 classes for the probes where there are more; few
    metamers of large images, or with many classes.
    """
    from analysis.run_all import plan_studies
    from analysis.saved.reproduction import check_page

    experiments = _open_all(ckpt, **options)
    own = {"ckpt", "model", "image_size", "out", "dry_run", "as_json"}
    given = {
        name: given_options(*({parameter.name for parameter in command.params} - own))  # not every study has each
        for name, command in analyze.commands.items()
    }
    tasks = []
    for experiment, named in zip(experiments, ckpt or (None,)):
        network = ["--ckpt", named or str(experiment.folder), *given_options("model", "image_size")]
        words = {name: [*network, *more] for name, more in given.items()}
        words["training-curves"] = [str(experiment.folder)]
        tasks += [
            (experiment.folder, task)
            for task in plan_studies(experiment, words=words, class_seed=options["class_seed"] or 0)
        ]
    folders = [experiment.folder for experiment in experiments]
    page = out or folders[0] / REPORT
    check_page(page)
    rows = [_describe(folder, task) for folder, task in tasks]
    if not dry_run:
        for number, (row, (_, task)) in enumerate(zip(rows, tasks), start=1):
            click.echo(f"[{number}/{len(rows)}] {row['command']}: {row['state']}", err=True)
            row |= _carry_out(task)
    if not as_json:
        _print_plan(rows, several=len(folders) > 1)
    if not dry_run:
        click.echo("writing the report", err=True)
        _write_report(folders, page)
    if as_json:
        print_json({"studies": rows, "report": None if dry_run else str(page)})
    elif not dry_run:
        click.echo(page)
    if any(row["state"] == "failed" for row in rows):
        raise click.exceptions.Exit(1)


def _describe(folder: Path, task: "Task") -> dict[str, Any]:
    command = shlex.join(task.command)
    return {"run": str(folder), "study": task.spec.name, "state": task.state, "reason": task.reason, "command": command}


def _carry_out(task: "Task") -> dict[str, Any]:
    """Runs a study that is due, and returns its new state."""
    if task.state != "due":
        return {}
    started, study = time.perf_counter(), task.spec.name
    try:
        _compute(study, task.subjects, task.options)
    except click.exceptions.Exit:
        raise  # it was stopped, and has said how to go on
    except Exception as error:
        if click.get_current_context().meta["debug"]:
            raise
        message = explain(error).format_message()
        click.echo(f"{study} failed: {message}", err=True)
        return {"state": "failed", "reason": message}
    return {"state": "done", "seconds": round(time.perf_counter() - started, 1)}


def _print_plan(rows: Sequence[dict[str, Any]], *, several: bool) -> None:
    from figures.text_table import TextTable

    headings = (*["run"] * several, "study", "state", "")
    cells = [(*[row["run"]] * several, row["study"], row["state"], row["reason"] or row["command"]) for row in rows]
    _print_table(TextTable(headings, cells))


def _write_report(folders: "Sequence[Path]", page: Path) -> None:
    from analysis.saved.runs import read_run
    from figures import build_report
    from irevnet.utils.files import write_text

    runs = [read_run(folder) for folder in folders]
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, build_report(runs, page))


@analyze.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1, type=File())
@click.option("--out", type=File(), help="The page.  [default: report.html in the first run's folder]")
@json_option
def report(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Put what was found of a run, or of several side by side, on one page, beside what the paper found.

    RUN is a run's folder, a checkpoint file or the folder of its results; by default the newest run. The page is one
    file, which opens in any browser without a network, and holds every figure and table to be saved. Nothing is
    computed again: a study that has not been run is named, with its command.
    """
    from analysis.saved.reproduction import check_page
    from irevnet.training.runs import find_checkpoint, results_folder

    folders = [run if run.is_dir() else results_folder(find_checkpoint(run)) for run in runs]
    if not runs:
        newest = find_checkpoint(None)
        _say_newest(newest)
        folders = [newest.parent]
    page = out or folders[0] / REPORT
    check_page(page)
    _write_report(folders, page)
    if as_json:
        print_json({"runs": list(map(str, folders)), "report": str(page)})
    else:
        click.echo(page)


@analyze.command()
@click.argument("report", type=File())
@json_option
def reproduce(report: Path, as_json: bool) -> None:
    """Print the commands that make a REPORT again: training, studies, and the page itself.

    As lines for a shell, to be run where the paths in them lead to the data; versions stand above them as comments.
    """
    from analysis.saved.reproduction import read_reproduction, script

    content = read_reproduction(report)
    if as_json:
        print_json(content)
    else:
        click.echo(script(content))
