"""What the two commands share with a terminal: errors in one line, kinds of parameters, progress, Ctrl-C.

Results go to standard output, everything else to standard error.
"""

import errno
import json
import math
import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irevnet.commandline.interruption import allow_saving, end_when_stuck

if TYPE_CHECKING:
    from rich.console import Console

WRONG_INPUT = (ValueError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
"""What the library raises for input that cannot work: exit code 2. Anything else is work that failed: exit code 1."""


_GIVEN = "irevnet.commandline.terminal.given"
"""Where a context keeps the words that followed the command."""


class WrongInput(click.ClickException):
    """One line on standard error and exit code 2."""

    exit_code = 2


class Command(click.Command):
    """A command that answers errors with one line instead of a traceback, unless --debug is given.

    One that is `distributed` may be run by torchrun, in several processes that share its work, and has a device.
    """

    def __init__(self, *args: Any, distributed: bool = False, **options: Any):
        super().__init__(*args, **options)
        self.distributed = distributed
        self.params.append(click.Option(["--debug"], is_flag=True, help="Show a traceback when something goes wrong."))

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        given = tuple(args)  # which parsing empties
        context = super().make_context(info_name, args, parent, **extra)
        context.meta[_GIVEN] = given
        return context

    def invoke(self, ctx: click.Context) -> Any:
        debug = ctx.meta["debug"] = ctx.params.pop("debug")
        try:
            with end_when_stuck():
                _require_torch()
                with _among_processes(self, ctx):
                    return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # the last is a reader that has seen enough, such as head, which click ends on without a word
        except Exception as error:
            if debug:
                raise
            raise explain(error) from error


@contextmanager
def _among_processes(command: Command, ctx: click.Context) -> Iterator[None]:
    """Joins the processes that torchrun has started, of which the first alone speaks."""
    from irevnet.utils import distributed

    if not distributed.launched():
        yield
        return
    if not command.distributed:
        raise ValueError(f"'{ctx.command_path}' is the work of one process; run it without torchrun")
    with distributed.process_group(distributed.choose_device(ctx.params["device"])), ExitStack() as stack:
        if distributed.rank() > 0:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        yield


class Group(click.Group):
    command_class = Command


def explain(error: Exception) -> click.ClickException:
    """An error in one line: of wrong input, with exit code 2, or of work that failed."""
    if isinstance(error, click.ClickException):
        return error
    context = click.get_current_context()
    if isinstance(error, WRONG_INPUT) or getattr(error, "errno", None) == errno.ENAMETOOLONG:
        return WrongInput(_one_line(error, context.command))
    kind = type(error).__name__
    if kind == "OutOfMemoryError":  # of torch, on a GPU
        return click.ClickException(_out_of_memory(context))
    return click.ClickException(f"{kind}: {_one_line(error, context.command)} (--debug shows where)")


def command_line() -> list[str]:
    """The command that is being run, word by word, as provenance keeps it."""
    context = click.get_current_context()
    return [*context.command_path.split(), *context.meta[_GIVEN]]


def given_options(*names: str) -> list[str]:
    """The words that gave these options to the command that is being run; none for those that were not given."""
    context = click.get_current_context()
    parsed, _, _ = context.command.make_parser(context).parse_args(list(context.meta[_GIVEN]))
    words = []
    for parameter in context.command.params:
        if parameter.name in names and parameter.name in parsed:
            flag = isinstance(parameter, click.Option) and parameter.is_flag
            words += [max(parameter.opts, key=len), *([] if flag else [str(parsed[parameter.name])])]
    return words


def _one_line(error: Exception, command: click.Command | None = None) -> str:
    """What an error says, for who typed a command: its options in place of parameters in backticks."""
    if isinstance(error, OSError) and error.strerror:  # raised by the system rather than by this toolkit
        wanted = ", and is no folder; name another" if isinstance(error, FileExistsError) else ""
        return f"{error.filename}: {error.strerror}{wanted}" if error.filename else error.strerror
    text = str(error)
    if "Original Traceback" in text:  # of a process that loads images: it ends with the error itself
        text = re.split(r"^[\w.]+: ", text, flags=re.MULTILINE)[-1]
    options = [each for each in (command.params if command else ()) if isinstance(each, click.Option)]
    names = {each.name: max(each.opts, key=len) for each in options}
    return re.sub(r"`(\w+)`", lambda match: names.get(match[1], match[0]), " ".join(text.split()))


def _out_of_memory(ctx: click.Context) -> str:
    for option in ("--batch-size", "--block-width"):
        if size := ctx.params.get(option.removeprefix("--").replace("-", "_")):
            return f"the GPU has not enough memory for {option} {size}; lower it, or compute with --device cpu"
    return "the GPU has not enough memory; compute with --device cpu"


@contextmanager
def deterministic() -> Iterator[None]:
    """Has torch compute in ways that give the same bits each time, or not at all."""
    import torch

    earlier = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        os.environ.get(_CUBLAS),
    )
    os.environ[_CUBLAS] = ":4096:8"
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        enabled, warn_only, torch.backends.cudnn.benchmark, workspace = earlier
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        del os.environ[_CUBLAS]
        if workspace is not None:
            os.environ[_CUBLAS] = workspace


_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
"""Of which cuBLAS wants to know before its first product: by default several streams may share a work space."""


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


def standard_error() -> "Console":
    """Standard error, for progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def track(loop: Iterable, description: str) -> Iterable:
    """A progress bar on standard error if that is a terminal, and nothing otherwise."""
    from rich.progress import track as rich_track

    console = standard_error()
    if not console.is_terminal:  # where rich, told to show nothing, ends with an empty line up to version 14.2
        return loop
    return rich_track(loop, description, console=console, transient=True)


@contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """A line on standard error that each call replaces, if that is a terminal, and nothing otherwise."""
    console = standard_error()
    if not console.is_terminal:
        yield lambda line: None
        return
    with console.status("") as status:
        yield status.update


def print_json(content: dict[str, Any]) -> None:
    click.echo(json.dumps(content))


class Numbers(click.ParamType):
    """Numbers such as 1,4,8-12."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        numbers: set[int] = set()
        for part in value.split(","):
            match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)  # a million would fill the memory
            if match is None:
                self.fail(f"{value!r} is not a list of numbers; expected numbers and ranges, such as 1,4,8-12")
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                self.fail(f"{part!r} names no number; a range goes from the lower to the higher")
            numbers.update(range(first, last + 1))
        return sorted(numbers)


class Names(click.ParamType):
    """Names such as layer1.0,layer4."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        names = [name.strip() for name in value.split(",") if name.strip()]
        if not names:
            self.fail(f"{value!r} names nothing; expected names such as layer1.0,layer4")
        return names


class Floats(click.ParamType):
    """Numbers such as 0.3,0.6; `example` is such a list, and `what` they are."""

    name = "numbers"

    def __init__(self, what: str, example: str):
        self.what = what
        self.example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            numbers = tuple(float(part) for part in value.split(",") if part.strip())
        except ValueError:
            numbers = (math.nan,)
        if not all(map(math.isfinite, numbers)):
            self.fail(f"{value!r} is not a list of {self.what}; expected numbers such as {self.example}")
        return numbers


class Part(click.ParamType):
    """One of several equal parts, such as 2/4."""

    name = "k/n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", value)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            self.fail(f"{value!r} is no part; expected such as 2/4, the second of four")
        return int(match[1]), int(match[2])


class File(click.Path):
    """A file or a folder. An empty word, such as a variable of the shell that is not set gives, is none."""

    def __init__(self):
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty; expected the path of a file or a folder")
        return super().convert(value, param, ctx)


class Classes(click.ParamType):
    """A number of classes, or a file with their names."""

    name = "n|file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | tuple[str, ...]:
        if re.fullmatch(r"\d{1,9}", value):
            return int(value)
        return _read_names(self, value, "neither a number nor a file")


class ClassNames(click.ParamType):
    """A file with the names of classes."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return _read_names(self, value, "no file")


def _read_names(kind: click.ParamType, file: str, otherwise: str) -> tuple[str, ...]:
    """The lines of a file; fails, saying what it is otherwise, if there is none."""
    try:
        if not Path(file).is_file():
            kind.fail(f"{file!r} is {otherwise}; expected one with a class name a line")
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        kind.fail(f"{file} cannot be read: {error}; expected a text with a class name a line")
    return tuple(line.strip() for line in lines if line.strip())


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM has come, to be asked after each step; a second one ends the program at once."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        click.echo("finishing this step, then saving; once more ends at once, without saving", err=True)

    def stopped() -> bool:
        if received:
            allow_saving()
        return bool(received)

    earlier = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
