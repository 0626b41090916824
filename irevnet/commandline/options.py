"""Options of the commands that mean the same thing everywhere, one by one and in groups. Only the commands use them."""

from collections.abc import Callable

import click

from irevnet.commandline.terminal import Classes, ClassNames, File, Floats, Names, Numbers, One, deterministic

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
    type=click.Choice(["stop", "skip"]),
    help="Of images in a folder that cannot be read: stop at the first; or read every image beforehand, and leave such "
    "out.  [default: stop; what a run left out, its studies leave out too]",
)

SEED = click.IntRange(0, 2**32 - 1)
"""What every library that draws takes."""

class_seed_option = click.option("--class-seed", type=SEED, help="Seed of that draw.  [default: 0]")
out_option = click.option("--out", type=File(), help="Folder for the results.  [default: in the run's folder]")
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
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


def depths_option(text: str = "Blocks to look at, such as 1,4,8-12.  [default: every block]") -> Callable:
    """`--depths`, with a help text of its own."""
    return click.option("--depths", "--depth", "depths", type=Numbers(), help=text)


depth_option = click.option(
    "--depths", "--depth", "depth", type=One(), help="The block whose features.  [default: the last]"
)
"""`--depths` of commands that look at one block."""

layer_option = click.option(
    "--layers", "--layer", "layer", help="A module to look at in place of a block, by name, such as layer4."
)
"""`--layers` of commands that look at one module."""

layers_option = click.option(
    "--layers",
    "--layer",
    "layers",
    type=Names(),
    help="Modules to look at in place of blocks, by name, such as layer1.0,layer4.",
)
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

config_options = _group(
    click.option("--epochs", type=int, help="Passes over the training set."),
    click.option("--steps", type=int, help="Steps in all, instead of epochs."),
    click.option("-b", "--batch-size", type=int, help="Images a step, of all processes together."),
    click.option("--lr", "learning_rate", type=float, help="The highest learning rate."),
    click.option("--schedule", type=click.Choice(["one-cycle", "step"]), help="How the learning rate changes."),
    click.option(
        "--decay-at",
        type=Floats("parts of the run", "0.3,0.6,0.8"),
        help="With --schedule step: when to lower the rate, as parts of the run.",
    ),
    click.option("--decay", type=float, help="What the rate is then multiplied by."),
    click.option("--momentum", type=float, help="Momentum of the gradient."),
    click.option("--weight-decay", type=float, help="L2 penalty on every parameter."),
    click.option(
        "--augmentation",
        type=click.Choice(["none", "cifar", "imagenet"]),
        help="Random changes of training images: none; shift and flip; or scale, crop, flip and colours.",
    ),
    click.option(
        "--normalise/--no-normalise",
        default=None,
        help="Normalise images by the data's mean and standard deviation, or leave them in [0, 1] as the paper does.",
    ),
    click.option(
        "--memory",
        type=click.Choice(["plain", "checkpoint", "reversible"]),
        help="Store activations for back-propagation; store those between blocks; or store none and rebuild them by "
        "the inverse.",
    ),
    click.option(
        "--check-reconstruction",
        type=int,
        metavar="N",
        help="With --memory reversible, compare what is rebuilt with the truth every N steps; 0 for never.",
    ),
    click.option(
        "--amp",
        type=click.Choice(["none", "bf16", "fp16"]),
        help="Mixed precision: convolutions in 16 bits, streams in 32.",
    ),
    click.option(
        "--channels-last/--no-channels-last", default=None, help="Keep tensors in the order many convolutions prefer."
    ),
    click.option("--compile/--no-compile", default=None, help="Compile the network with torch.compile."),
    click.option(
        "--sync-bn/--no-sync-bn",
        default=None,
        help="On several GPUs, normalise by the statistics of the whole batch instead of each GPU's own part.",
    ),
)
"""The settings of a training, each named like its field in `irevnet.training.config.TrainConfig`."""
