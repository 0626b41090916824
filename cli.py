"""The two commands, `irevnet` and `irevnet-analyze`. Imports of the library are inside the commands, so that help and
usage errors answer at once, without torch."""

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

    from analysis.results import Result
    from analysis.study import Study

WRONG_INPUT = (ValueError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
"""What the library raises for input that cannot work: exit code 2. Anything else is work that failed: exit code 1."""


class WrongInput(click.ClickException):
    """One line on standard error and exit code 2."""

    exit_code = 2


class Command(click.Command):
    """A command that answers errors with one line instead of a traceback, unless --debug is given."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.params.append(click.Option(["--debug"], is_flag=True, help="Show a traceback when something goes wrong."))

    def invoke(self, ctx: click.Context) -> Any:
        debug = ctx.params.pop("debug")
        try:
            _require_torch()
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if debug:
                raise
            if isinstance(error, WRONG_INPUT):
                raise WrongInput(_one_line(error)) from error
            kind = type(error).__name__
            raise click.ClickException(f"{kind}: {_one_line(error)} (--debug shows where)") from error


class Group(click.Group):
    command_class = Command


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:  # raised by the system rather than by this toolkit
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def _require_torch() -> None:
    """torch and torchvision are built as pairs; two that do not match fail when torchvision is imported."""
    try:
        import torchvision  # noqa: F401  (imports torch)
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise click.ClickException(
            f"torch {_installed('torch')} and torchvision {_installed('torchvision')} do not work together "
            f"({_one_line(error)[:120]}); install a matching pair: pip install --upgrade torch torchvision"
        ) from error


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


# Output: results go to standard output, everything else to standard error.


def _console() -> "Console":
    """Standard error, for progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def _track(loop: Iterable, description: str) -> Iterable:
    """A progress bar on standard error if that is a terminal, and nothing otherwise."""
    from rich.progress import track

    console = _console()
    return track(loop, description, console=console, transient=True, disable=not console.is_terminal)


def _print_json(content: dict[str, Any]) -> None:
    click.echo(json.dumps(content))


def _print_table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A table on standard output, numbers to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    cells = [list(row) for row in rows]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading, column in zip(headings, zip(*cells)):
        numeric = all(cell[:1].isdigit() for cell in column)
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    Console(highlight=False, width=200).print(table)  # a narrow terminal wraps lines: nothing is ever cut off


# Options that mean the same thing everywhere.

ckpt_option = click.option(
    "--ckpt",
    type=click.Path(path_type=Path),
    help="A checkpoint file or a run's folder (then its last.pt).  [default: the newest run under runs/]",
)
data_option = click.option("--data", help="A data set by name: digits.  [default: the one trained on]")
out_option = click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the results.  [default: in the run's folder]"
)
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
batch_size_option = click.option(
    "-b", "--batch-size", type=click.IntRange(min=1), default=256, show_default=True, help="Images a forward pass."
)
workers_option = click.option(
    "-j", "--workers", type=click.IntRange(min=0), default=0, show_default=True, help="Processes that load images."
)
seed_option = click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random.")
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object; all else goes to standard error."
)


class Depths(click.ParamType):
    """Depths such as 1,4,8-12."""

    name = "depths"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        depths: set[int] = set()
        for part in value.split(","):
            match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
            if match is None:
                self.fail(f"{value!r} is not a list of depths; expected numbers and ranges, such as 1,4,8-12")
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                self.fail(f"{part!r} names no depth; a range goes from the lower to the higher")
            depths.update(range(first, last + 1))
        return sorted(depths)


def _open(ckpt: Path | None, **options: Any) -> "Study":
    from analysis.study import Study

    study = Study.open(ckpt, track=_track, **options)
    if ckpt is None:
        click.echo(f"using {study.path}, the newest run", err=True)
    return study


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="irevnet-toolkit")
def main() -> None:
    """Train and evaluate invertible networks (i-RevNet, ICLR 2018) and the networks they are compared with.

    \b
    irevnet train                   a small net on handwritten digits, in seconds
    irevnet evaluate                its accuracy
    irevnet models                  every network by name
    irevnet-analyze --help          what the network keeps, and what it contracts
    """


@main.command()
@json_option
def models(as_json: bool) -> None:
    """List the networks that can be trained by name.

    Injective: distinct images have distinct features. Bijective: every feature is that of an image, so that the
    inverse takes any feature, not only those of images. Multiply-adds are of one image of the network's own size.
    """
    from irevnet import list_models

    infos = list_models()
    if as_json:
        _print_json({"models": [dataclasses.asdict(info) for info in infos]})
        return
    _print_table(
        ("name", "injective", "bijective", "blocks", "parameters", "multiply-adds", "input", "source"),
        (
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
        ),
    )


@main.command()
@click.option("--model", default="irevnet-small", show_default=True, help="A network by name; see 'irevnet models'.")
@click.option("--data", default="digits", show_default=True, help="A data set by name: digits.")
@click.option("--image-size", type=click.IntRange(min=1), help="Resize the images to N x N.  [default: their own size]")
@click.option("--epochs", type=int, help="Passes over the training set.  [default: 20]")
@click.option("-b", "--batch-size", type=int, help="Images a step.  [default: 64]")
@click.option("--lr", "learning_rate", type=float, help="Peak of the learning rate.  [default: 0.1]")
@click.option("--momentum", type=float, help="Momentum of the gradient.  [default: 0.9]")
@click.option("--weight-decay", type=float, help="L2 penalty on every parameter.  [default: 0.01]")
@click.option(
    "--memory",
    type=click.Choice(["plain", "checkpoint", "reversible"]),
    help="Store activations for back-propagation; store those between blocks; or store none and rebuild them by the "
    "inverse.  [default: plain]",
)
@click.option(
    "--check-reconstruction",
    type=int,
    metavar="N",
    help="With --memory reversible, compare what is rebuilt with the truth every N steps; 0 for never.  [default: 0]",
)
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.  [default: runs/DATA-MODEL-TIME]")
@seed_option
@device_option
@workers_option
@json_option
def train(
    model: str,
    data: str,
    image_size: int | None,
    out: Path | None,
    seed: int,
    device: str,
    workers: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a network, into a run folder with its config, metrics and checkpoints.

    Stochastic gradient descent with momentum under a one-cycle learning rate. Without options: irevnet-small on
    scikit-learn's handwritten digits, which need no download.

    \b
    RUN/config.json   what was asked for           RUN/last.pt   after the last epoch (used by default)
    RUN/metrics.csv   a line an epoch              RUN/best.pt   of the highest test accuracy
    """
    import torch

    from irevnet.runs import train_run
    from irevnet.train import TrainConfig

    torch.manual_seed(seed)  # the initial weights and dropout
    options = {key: value for key, value in options.items() if value is not None}
    console = _console()
    run, epochs = train_run(
        out,
        model=model,
        data=data,
        config=TrainConfig(**options),
        image_size=image_size,
        seed=seed,
        device=device,
        workers=workers,
        track=_track,
    )
    history = []
    for metrics in epochs:
        history.append(metrics)
        if console.is_terminal:
            console.print(
                f"epoch {metrics.epoch:3d}  train loss {metrics.train_loss:.4f}  test loss {metrics.test_loss:.4f}  "
                f"test accuracy {metrics.test_top1:.2%}  {metrics.seconds:.1f} s"
            )
    if as_json:
        _print_json({"run": str(run), **dataclasses.asdict(history[-1])})
    else:
        click.echo(f"test accuracy: top-1 {history[-1].test_top1:.2%}, top-5 {history[-1].test_top5:.2%}")
        click.echo(run)


@main.command()
@ckpt_option
@data_option
@click.option("--split", type=click.Choice(["train", "test"]), default="test", show_default=True, help="Which images.")
@device_option
@batch_size_option
@workers_option
@json_option
def evaluate(split: Any, as_json: bool, **options: Any) -> None:
    """Print the top-1 and top-5 accuracy of a trained network."""
    from irevnet.train import evaluate as evaluate_network

    study = _open(**options)
    images = study.images(split)
    known = study.checkpoint.model.config.num_classes
    if len(images.classes) != known:
        raise ValueError(
            f"{study.path} tells {known} classes apart, {study.data} has {len(images.classes)}; "
            "evaluate it on its own classes"
        )
    result = evaluate_network(study.checkpoint.model, images, **study.passes())
    if as_json:
        _print_json({"checkpoint": str(study.path), "split": split, **dataclasses.asdict(result)})
    else:
        click.echo(
            f"{split} accuracy: top-1 {result.top1:.2%}, top-5 {result.top5:.2%} "
            f"({result.num_images} images, loss {result.loss:.4f})"
        )


def study_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that all studies have."""
    shared = (ckpt_option, data_option, out_option, seed_option, device_option, batch_size_option, workers_option)
    for option in reversed((*shared, json_option)):
        command = option(command)
    return command


def _finish(
    study: "Study", result: "Result", plot: Callable[[Any], "Figure"], show: Callable[[], None], *, as_json: bool
) -> None:
    """Saves the result, draws it from what was saved, and prints it."""
    from figures.style import save_figure

    files = study.save(result, sys.argv)
    folder = files[0].parent
    files += save_figure(plot(type(result).load(folder)), folder, result.STUDY)
    if as_json:
        _print_json({"checkpoint": str(study.path), **result.summary(), "files": list(map(str, files))})
    else:
        show()
        for file in files:
            click.echo(file)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="irevnet-toolkit")
def analyze() -> None:
    """What does an invertible network keep, and what does it contract? The studies of the i-RevNet paper.

    Each takes the newest run under runs/ unless --ckpt names another, and writes arrays (.npz), a table (.csv),
    provenance (.json) and a figure (.png, .pdf) into the run's folder.

    \b
    irevnet-analyze invert          how exactly images come back from their features (section 4.2)
    irevnet-analyze depth-probe     what a linear SVM and 1-NN make of each block's features (Fig. 6)
    """


@analyze.command()
@click.option(
    "--num-noise", type=click.IntRange(min=1), default=10_000, show_default=True, help="Images of uniform noise."
)
@click.option("--depth", type=click.IntRange(min=0), help="Invert from this block's features.  [default: the last]")
@study_options
def invert(num_noise: int, depth: int | None, as_json: bool, **options: Any) -> None:
    """Measure how exactly images are rebuilt from their features.

    The relative error ||x - Phi^-1 Phi x|| / ||x|| of the network's input x, on the test set and on uniform noise
    (section 4.2; there 3e-6 and 5e-6 on ImageNet), with a picture of originals beside reconstructions.
    """
    import torch

    from analysis.inversion import reconstruction_error
    from analysis.results import InversionResult
    from figures.inversion import plot_inversion
    from irevnet import IRevNet

    study = _open(**options)
    model = study.checkpoint.model
    if not isinstance(model, IRevNet):
        raise ValueError(f"{study.path} holds a {type(model).__name__}, which has no inverse; give an i-RevNet's")
    study.folder(InversionResult)
    result = reconstruction_error(
        model,
        study.images("test"),
        study.checkpoint.transform,
        generator=torch.Generator().manual_seed(study.seed),
        num_noise=num_noise,
        depth=depth,
        **study.passes(),
    )
    sets = {f"{study.data} test": result.summary()["images"], "uniform noise": result.summary()["noise"]}
    rows = (
        (name, f"{s['count']}", *(f"{s[key]:.2e}" for key in ("mean", "median", "max"))) for name, s in sets.items()
    )
    headings = ("relative error", "images", "mean", "median", "max")
    _finish(study, result, plot_inversion, lambda: _print_table(headings, rows), as_json=as_json)


@analyze.command("depth-probe")
@click.option("--depths", type=Depths(), help="Blocks to probe, such as 1,4,8-12.  [default: every block]")
@study_options
def depth_probe(depths: list[int] | None, as_json: bool, **options: Any) -> None:
    """Probe each block's features with a linear SVM and 1-NN (section 5.1, Fig. 6).

    Features are averaged over space and standardised on the training set; the SVM's C is cross-validated at each
    depth on at most 2,000 training images. Accuracies are of the test set, with 95% Wilson intervals.
    """
    from analysis.depth_probe import depth_probe as probe
    from analysis.features import averaged_features
    from analysis.results import DepthProbeResult
    from figures.depth_probe import plot_depth_probe
    from irevnet.train import evaluate

    study = _open(**options)
    model = study.checkpoint.model
    last = model.config.num_blocks
    depths = depths or list(range(1, last + 1))
    if not 1 <= depths[0] <= depths[-1] <= last:
        raise ValueError(f"--depths goes from {depths[0]} to {depths[-1]}; {study.path} has blocks 1 to {last}")
    study.folder(DepthProbeResult)
    train, test = study.images("train"), study.images("test")
    knows = len(test.classes) == model.config.num_classes
    result = probe(
        *averaged_features(model, train, depths, **study.passes()),
        *averaged_features(model, test, depths, **study.passes()),
        depths=depths,
        network_accuracy=evaluate(model, test, **study.passes()).top1 if knows else None,
        seed=study.seed,
        track=study.track,
    )

    summary = result.summary()

    def show() -> None:
        rows = (
            (
                f"{row['depth']}",
                f"{row['channels']}",
                *(
                    f"{row[name]:.1%} ({row[f'{name}_low']:.1%} to {row[f'{name}_high']:.1%})"
                    for name in ("svm_accuracy", "nn_accuracy")
                ),
                f"{row['svm_cost']:g}",
            )
            for row in summary["by_depth"]
        )
        _print_table(("depth", "channels", "linear SVM (95% interval)", "1-NN (95% interval)", "C"), rows)
        if knows:
            click.echo(f"the network itself: {float(result.network_accuracy):.1%}")
        if edge := summary["depths_at_edge_of_cost_grid"]:
            grid = summary["cost_grid"]
            click.echo(
                f"C was chosen at the edge of its grid ({grid[0]:g} to {grid[-1]:g}) at depth "
                f"{', '.join(map(str, edge))}: a wider grid may do better there"
            )

    _finish(study, result, plot_depth_probe, show, as_json=as_json)
