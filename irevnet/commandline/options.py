"""Options of the commands that mean the same thing everywhere, one by one and in groups. Only the commands use them."""

import dataclasses
from collections.abc import Callable
from typing import Literal, get_args, get_origin, get_type_hints

import click

from irevnet.commandline.terminal import Classes, ClassNames, File, Floats, Names, Numbers, deterministic
from irevnet.data.choices import OnError
from irevnet.training.config import TrainConfig

ckpt_option = click.option(
    "--ckpt",
    metavar="PATH",
    help="A checkpoint file or a run's folder (then its last.pt).  [default: the newest run under runs/]",
)
data_option = click.option(
    "--data",
    metavar="NAME|FOLDER",
    help="digits, cifar10, cifar100, fashion-mnist, or a folder with train/ and val/, each with a folder of images a "
    "class.  [default: the data trained on; to train, digits]",
)
data_root_option = click.option(
    "--data-root",
    type=File(),
    default="data",
    show_default=True,
    envvar="IREVNET_DATA_ROOT",
    show_envvar=True,
    help="Where the files of a data set by name are.",
)
download_option = click.option("--download", is_flag=True, help="Fetch them if they are not there.")
classes_option = click.option(
    "--classes",
    type=Classes(),
    help="Some of the classes: a number of them drawn at random, or a file of names, one a line.  [default: all]",
)
on_error_option = click.option(
    "--on-error",
    type=click.Choice(get_args(OnError)),
    help="Of images in a folder that cannot be read: stop at the first; or read every image beforehand, and leave such "
    "out.  [default: stop; what a run left out, its studies leave out too]",
)

SEED = click.IntRange(0, 2**32 - 1)
"""What every library that draws takes."""

class_seed_option = click.option("--class-seed", type=SEED, help="Seed of that draw.  [default: 0]")
out_option = click.option("--out", type=File(), help="Folder for the results.  [default: in the run's folder]")
batch_size_option = click.option(
    "-b", "--batch-size", type=click.IntRange(min=1), default=256, show_default=True, help="Images a forward pass."
)
workers_option = click.option(
    "-j", "--workers", type=click.IntRange(min=0), default=0, show_default=True, help="Processes that load images."
)
seed_option = click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of everything random.")
bits_option = click.option(
    "--bits",
    type=click.IntRange(8, 24),
    default=14,
    show_default=True,
    help="In exact arithmetic, numbers are multiples of 2^-bits; fewer bits leave room for larger numbers.",
)
exact_option = click.option(
    "--exact", is_flag=True, help="Compute in exact arithmetic, in which the inverse is right to the last bit."
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object; all else goes to standard error."
)


def depths_option_for(default: str) -> Callable:
    """The option for the blocks to look at, a list of numbers; the help names those that it stands for by default."""
    return click.option(
        "--depths",
        "--depth",
        "depths",
        type=Numbers(),
        help=f"Blocks to look at, such as 1,4,8-12.  [default: {default}]",
    )


depths_option = depths_option_for("every block")
depth_option = click.option(
    "--depth", "--depths", "depth", type=click.IntRange(min=0), help="Block to look at.  [default: the last]"
)
"""In place of `depths_option` where a command looks at one block."""

layer_option = click.option(
    "--layers", "--layer", "layer", help="Module to look at in place of a block, by name, such as layer4."
)
"""In place of `layers_option` where a command looks at one module."""

layers_option = click.option(
    "--layers",
    "--layer",
    "layers",
    type=Names(),
    help="Modules to look at in place of blocks, by name, such as layer1.0,layer4.",
)
layer_option = click.option(
    "--layer", "--layers", "layer", help="Module to look at in place of a block, by name, such as layer4."
)
"""In place of `layers_option` where a command looks at one module."""
solver_option = click.option(
    "--solver",
    type=click.Choice(["newton", "sklearn"]),
    default="newton",
    show_default=True,
    help="Of the SVM's problem: all classes at once, with a certificate; or scikit-learn's LinearSVC.",
)


def _group(*options: Callable) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Options, or groups of them, as one decorator; --help lists them in this order."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


image_size_option = click.option(
    "--image-size",
    type=click.IntRange(min=1),
    help="Images are N x N, for a network that does not say so: one of torchvision, or of the authors' release.",
)
guess_options = _group(
    click.option(
        "--mean",
        type=Floats("means", "0.49,0.48,0.45"),
        help="With --std: what is subtracted from each channel, in units of [0, 1], where the network does not say it.",
    ),
    click.option("--std", type=Floats("deviations", "0.2,0.2,0.2"), help="What then divides each channel."),
    click.option(
        "--class-names",
        type=ClassNames(),
        metavar="FILE",
        help="A file of class names, one a line, in the order of the network's outputs, where it does not say them.",
    ),
)
"""What the files of others do not say of a network: guessed or unknown, unless it is given."""


def _be_deterministic(ctx: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        ctx.with_resource(deterministic())  # until the command is done


device_option = _group(
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where to compute.",
    ),
    click.option(
        "--deterministic",
        is_flag=True,
        expose_value=False,
        callback=_be_deterministic,
        help="The same seed gives the same results to the last digit on this machine, on a GPU too; slower there.",
    ),
)
"""Where and how to compute."""

data_options = _group(
    data_option, data_root_option, download_option, on_error_option, classes_option, class_seed_option
)
"""Which images."""

exact_options = _group(exact_option, bits_option)
"""In which arithmetic."""

pass_options = _group(device_option, batch_size_option, workers_option, json_option)
"""How images go through a network, and how the result is printed."""

codec_options = _group(ckpt_option, device_option, json_option)
"""Of what turns images into features, or back."""

study_options = _group(ckpt_option, guess_options, data_options, out_option, seed_option, pass_options)
"""Of the studies of one network."""

compared_options = _group(
    click.option(
        "--ckpt",
        metavar="PATH|torchvision:NAME",
        multiple=True,
        help="A checkpoint file, a run's folder, or a network of torchvision with fresh weights "
        "(torchvision:resnet50) or pretrained ones (torchvision:resnet50/DEFAULT); may be given several times, to "
        "compare.  [default: the newest run under runs/]",
    ),
    click.option("--model", metavar="torchvision:NAME", help="The network of torchvision whose weights --ckpt has."),
    image_size_option,
    guess_options,
)
"""Which networks, for the studies of several."""

network_options = _group(
    compared_options,
    exact_options,
    click.option(
        "--features",
        "features_root",
        type=File(),
        help="Where features are kept, and found again.  [default: features/ in the run's folder]",
    ),
    data_options,
    pass_options,
)
"""Which networks, and what their features are of, for the probes."""


def _config_option(field: dataclasses.Field) -> Callable:
    """The option for a setting of training, by the field's name, type and metadata; `None` unless it is given."""
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
"""The settings of a training, each named like its field in `irevnet.training.config.TrainConfig`."""
