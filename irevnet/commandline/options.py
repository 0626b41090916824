"""Options that mean the same in every command, one by one and in groups."""

import dataclasses
from collections.abc import Callable
from typing import Literal, get_args, get_origin, get_type_hints

import click

from irevnet.commandline.terminal import Classes, ClassNames, File, Floats, Names, Numbers, deterministic
from irevnet.data.choices import VAL_FRACTION, Interpolation, OnError
from irevnet.training.config import TrainConfig

ckpt_option = click.option(
    "--ckpt",
    metavar="PATH",
    help="A checkpoint file, a run's folder for its last.pt, or a trained network by name, such as "
    "pretrained:cifar10-irevnet (see 'irevnet models').  [default: the newest run under runs/]",
)
data_option = click.option(
    "--data",
    metavar="NAME|PATH",
    help="digits, cifar10, cifar100, fashion-mnist; a folder of images, best with train/ and val/ and in each a folder "
    "per class; a CSV with the columns path, label and perhaps split; torchvision:NAME, or FILE.py:NAME and "
    "package.module:NAME of your own code.  [default: the data trained on; for training, digits]",
)
val_fraction_option = click.option(
    "--val-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of each class's images to test on, where the data have no split of their own. It is drawn by the names "
    f"of the images, the same in every run, and kept with a run.  [default: {VAL_FRACTION}]",
)
data_root_option = click.option(
    "--data-root",
    type=File(),
    default="data",
    show_default=True,
    envvar="IREVNET_DATA_ROOT",
    show_envvar=True,
    help="Folder that holds the files of a data set by name, also of torchvision.",
)
download_option = click.option("--download", is_flag=True, help="Download these files if they are missing.")
classes_option = click.option(
    "--classes",
    type=Classes(),
    help="Number of classes to draw at random, or a file of class names, one per line.  [default: all classes]",
)
on_error_option = click.option(
    "--on-error",
    type=click.Choice(get_args(OnError)),
    help="What to do about image files that cannot be read: stop at the first; or read all images beforehand, "
    "and skip those.  [default: stop; studies skip what their run skipped]",
)

SEED = click.IntRange(0, 2**32 - 1)
"""Seeds that the random generators of all libraries accept."""

class_seed_option = click.option("--class-seed", type=SEED, help="Seed of the draw of classes.  [default: 0]")
out_option = click.option("--out", type=File(), help="Folder for the results.  [default: in the run's folder]")
batch_size_option = click.option(
    "-b", "--batch-size", type=click.IntRange(min=1), default=256, show_default=True, help="Images per forward pass."
)
workers_option = click.option(
    "-j",
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Number of processes that load images.",
)
seed_option = click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of all random numbers.")
bits_option = click.option(
    "--bits",
    type=click.IntRange(8, 24),
    default=14,
    show_default=True,
    help="Exact arithmetic uses multiples of 2^-bits; fewer bits leave room for larger numbers.",
)
exact_option = click.option(
    "--exact", is_flag=True, help="Compute in exact arithmetic, in which the inverse is bit-exact."
)
json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the result as one JSON object; everything else goes to standard error.",
)


def depths_option_for(default: str) -> Callable:
    """The option for the blocks to study, a list of numbers; `default` describes the blocks without it."""
    return click.option(
        "--depths",
        "--depth",
        "depths",
        type=Numbers(),
        help=f"Blocks to study, such as 1,4,8-12.  [default: {default}]",
    )


depths_option = depths_option_for("every block")
depth_option = click.option(
    "--depth", "--depths", "depth", type=click.IntRange(min=0), help="Block to study.  [default: the last]"
)
"""The option of commands that study one block."""

layers_option = click.option(
    "--layers",
    "--layer",
    "layers",
    type=Names(),
    help="Modules to study in place of blocks, by names or patterns, such as layer1.0,layer4, layer*.0 or "
    "blocks.{0,5,11}; 'irevnet-analyze layers' lists them.",
)

over_training_option = click.option(
    "--over-training",
    is_flag=True,
    help="Study every checkpoint that the run has kept (irevnet train --keep-every), and draw the headline numbers "
    "against training steps. Steps whose results are up to date are not computed again.",
)

layer_option = click.option(
    "--layer", "--layers", "layer", help="Module to study in place of a block, by name, such as layer4."
)
"""The option of commands that study one module."""

solver_option = click.option(
    "--solver",
    type=click.Choice(["newton", "sklearn"]),
    default="newton",
    show_default=True,
    help="Solver of the SVM: Newton's method on all classes at once, with a certificate; or scikit-learn's LinearSVC.",
)


cost_option = click.option(
    "--C",
    "cost_grid",
    type=Floats("values of C", "1e-4,1e-3,1e-2"),
    help="C of the SVM and of logistic regression: one value, such as 0.1, or several to choose from by "
    "cross-validation.  [default: half decades from 1e-5 to 10]",
)

neighbours_option = click.option(
    "--k",
    "neighbours",
    type=Numbers(),
    default="1",
    show_default=True,
    help="Numbers of nearest neighbours that vote, such as 1,20; 1-NN in Euclidean distance is always there.",
)

metric_option = click.option(
    "--metric",
    type=click.Choice(["euclidean", "cosine"]),
    default="euclidean",
    show_default=True,
    help="Neighbours of --k in Euclidean distance, with a vote each; or in angle, with votes that weigh "
    "exp(cos / 0.07).",
)

logistic_option = click.option(
    "--logistic", is_flag=True, help="Fit a multinomial logistic regression, too, with a C of its own."
)

shots_option = click.option(
    "--shots",
    type=click.IntRange(min=1),
    help="Fit the probes to so many training images of each class, drawn by --seed.  [default: all]",
)

draws_option = click.option(
    "--draws",
    type=click.IntRange(min=2),
    help="Number of draws of --shots, over which accuracies are averaged; their spread is part of the intervals.  "
    "[default: 5]",
)


def _group(*options: Callable) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """One decorator for options or groups of them, which --help lists in this order."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


image_size_option = click.option(
    "--image-size",
    type=click.IntRange(min=1),
    help="Show the network images of N x N, if its file has no size: for networks that this toolkit did not make, and "
    "the authors' release.",
)
guess_options = _group(
    click.option(
        "--mean",
        type=Floats("means", "0.49,0.48,0.45"),
        help="Mean to subtract from each channel, in units of [0, 1], if the network's file has none; with --std.",
    ),
    click.option(
        "--std",
        type=Floats("deviations", "0.2,0.2,0.2"),
        help="Standard deviation to divide each channel by after that.",
    ),
    click.option(
        "--interpolation",
        type=click.Choice(get_args(Interpolation)),
        help="How images are resized, if the network's file does not say.  [default: as its package says, or bilinear]",
    ),
    click.option(
        "--class-names",
        type=ClassNames(),
        metavar="FILE",
        help="File of class names, one per line, in the order of the network's outputs, if its file has none.",
    ),
)
"""Properties of a network that checkpoints from other sources lack."""


def _be_deterministic(ctx: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        ctx.with_resource(deterministic())  # until the command ends


device_option = _group(
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Device to compute on.",
    ),
    click.option(
        "--deterministic",
        is_flag=True,
        expose_value=False,
        callback=_be_deterministic,
        help="Same results to the last digit for the same seed on this machine, also on a GPU, where it is slower.",
    ),
)
"""Device, and how to compute on it."""

data_options = _group(
    data_option,
    data_root_option,
    download_option,
    on_error_option,
    val_fraction_option,
    classes_option,
    class_seed_option,
)
"""Images to use."""

exact_options = _group(exact_option, bits_option)
"""Arithmetic to compute in."""

pass_options = _group(device_option, batch_size_option, workers_option, json_option)
"""Forward passes, and output of the result."""

codec_options = _group(ckpt_option, device_option, json_option)
"""Options of encoding and decoding."""

study_options = _group(ckpt_option, guess_options, data_options, out_option, seed_option, pass_options)
"""Options of studies of one network."""

compared_options = _group(
    click.option(
        "--ckpt",
        metavar="PATH|NETWORK",
        multiple=True,
        help="A checkpoint file, a run's folder, a trained network such as pretrained:cifar10-irevnet (see 'irevnet "
        "models'), or a network as in --model; may be given several times, to compare.  [default: the newest run under "
        "runs/]",
    ),
    click.option(
        "--model",
        metavar="NETWORK",
        help="A network of another package or of your own code, with fresh weights or those in --ckpt: "
        "torchvision:resnet50, timm:vit_small_patch16_224, FILE.py:NAME or package.module:NAME; with a set of "
        "pretrained weights as torchvision:resnet50/DEFAULT.",
    ),
    image_size_option,
    guess_options,
)
"""Networks to compare."""

pool_option = click.option(
    "--pool",
    type=click.Choice(["mean", "max", "cls", "patches", "flatten"]),
    default="mean",
    show_default=True,
    help="What of a layer's output is studied: the mean or the maximum over space or all tokens; of vision "
    "transformers the CLS token, or the mean of the tokens of patches, without CLS and register tokens; or all of "
    "it, as one vector.",
)


def _features_of(*own: Callable) -> Callable:
    """The options of features of networks, among them these."""
    return _group(compared_options, exact_options, pool_option, *own, data_options, pass_options)


network_options = _features_of(
    click.option(
        "--features",
        "features_root",
        type=File(),
        help="Folder in which features are kept for reuse.  [default: features/ in the run's folder]",
    )
)
"""Networks and images to extract features of."""

probe_options = _features_of(
    click.option(
        "--features",
        "features_root",
        metavar="FOLDER|FILE",
        type=File(),
        help="Folder in which features are kept for reuse; or a file of features of your own in place of a network: "
        ".npz of arrays train/LAYER, train/labels, test/LAYER, test/labels, or LAYER and labels; or .npy, with "
        "--labels.  [default: features/ in the run's folder]",
    ),
    click.option(
        "--labels",
        type=File(),
        help="The class of each row of a file of features that has none, by number or name, as .npy.",
    ),
)
"""Networks and images, or features, of the probes."""

classifier_options = _group(
    solver_option, cost_option, logistic_option, neighbours_option, metric_option, shots_option, draws_option
)
"""Probes, and what they are fitted to."""


def _config_option(field: dataclasses.Field) -> Callable:
    """The option for a setting of training, by the name, type and metadata of its field; `None` without it."""
    hint, metadata = get_type_hints(TrainConfig)[field.name], field.metadata
    flags = metadata.get("flags", (f"--{field.name.replace('_', '-')}",))
    if hint is bool:
        flags = [f"{flag}/--no-{flag.removeprefix('--')}" for flag in flags]
        return click.option(*flags, field.name, default=None, help=metadata["help"])
    match get_origin(hint):
        case origin if origin is Literal:
            kind = click.Choice(get_args(hint))
        case origin if origin is tuple:
            kind = Floats(metadata["values"], metadata["example"])
        case _:
            kind = next(each for each in (int, float) if each in (hint, *get_args(hint)))
    return click.option(*flags, field.name, type=kind, metavar=metadata.get("metavar"), help=metadata["help"])


config_options = _group(*map(_config_option, dataclasses.fields(TrainConfig)))
"""Settings of training, each named like its field in `irevnet.training.config.TrainConfig`."""
