"""The terminal side of the two commands: errors in one line, parameter types, progress, Ctrl-C.

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irevnet.commandline.interruption import allow_saving, end_when_stuck
from irevnet.utils.provenance import installed_version

if TYPE_CHECKING:
    from rich.console import Console

WRONG_INPUT = (ValueError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
"""Errors of the library about its input: exit code 2. All others are failures of the work: exit code 1."""


_GIVEN = "irevnet.commandline.terminal.given"
"""Key under which a context keeps the arguments of the command."""


class WrongInput(click.ClickException):
    """One line on standard error and exit code 2."""

    exit_code = 2


class Command(click.Command):
    """A command that prints errors as one line instead of a traceback, unless --debug is given.

    One that is `distributed` has an option for the device, and may be run by torchrun, in processes that share work.
    """

    def __init__(self, *args: Any, distributed: bool = False, **options: Any):
        super().__init__(*args, **options)
        self.distributed = distributed
        self.params.append(click.Option(["--debug"], is_flag=True, help="Show a traceback when something goes wrong."))

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        given = tuple(args)  # parsing empties the list
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
            raise  # the last is a reader that has stopped, such as head, on which click ends silently
        except Exception as error:
            if debug:
                raise
            raise explain(error) from error


@contextmanager
def _among_processes(command: Command, ctx: click.Context) -> Iterator[None]:
    """Joins the processes that torchrun has started, of which only the first prints."""
    from irevnet.utils import distributed

    if not distributed.launched():
        yield
        return
    if not command.distributed:
        raise ValueError(f"'{ctx.command_path}' runs in one process; run it without torchrun")
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
    """The arguments of the running command, as provenance records them."""
    context = click.get_current_context()
    return [*context.command_path.split(), *context.meta[_GIVEN]]


def given_options(*names: str) -> list[str]:
    """The arguments by which the running command was given these options; none for options that were not given."""
    context = click.get_current_context()
    parsed, _, _ = context.command.make_parser(context).parse_args(list(context.meta[_GIVEN]))
    words = []
    for parameter in context.command.params:
        if parameter.name in names and parameter.name in parsed:
            flag = isinstance(parameter, click.Option) and parameter.is_flag
            words += [_flag(parameter), *([] if flag else [str(parsed[parameter.name])])]
    return words


def _flag(option: click.Parameter) -> str:
    """The first of an option's long names."""
    return next((flag for flag in option.opts if flag.startswith("--")), option.opts[0])


def _one_line(error: Exception, command: click.Command | None = None) -> str:
    """The message of an error in one line, with the command's options in place of parameters in backticks."""
    if isinstance(error, OSError) and error.strerror:  # raised by the system rather than by this toolkit
        wanted = ", and is no folder; name another" if isinstance(error, FileExistsError) else ""
        return f"{error.filename}: {error.strerror}{wanted}" if error.filename else error.strerror
    text = str(error)
    if "Original Traceback" in text:  # of a process that loads images; it ends with the error itself
        text = re.split(r"^[\w.]+: ", text, flags=re.MULTILINE)[-1]
    return with_options(text, command)


def with_options(text: str, command: click.Command | None) -> str:
    """A text in one line, with the command's options in place of parameters in backticks."""
    options = [each for each in (command.params if command else ()) if isinstance(each, click.Option)]
    names = {each.name: _flag(each) for each in options}
    return re.sub(r"`(\w+)`", lambda match: names.get(match[1], match[0]), " ".join(text.split()))


def _out_of_memory(ctx: click.Context) -> str:
    for option in ("--batch-size", "--block-width"):
        if size := ctx.params.get(option.removeprefix("--").replace("-", "_")):
            return f"the GPU has not enough memory for {option} {size}; lower it, or compute with --device cpu"
    return "the GPU has not enough memory; compute with --device cpu"


@contextmanager
def deterministic() -> Iterator[None]:
    """Restricts torch to deterministic algorithms; operations without one fail."""
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
"""Setting that cuBLAS reads before its first product; by default several streams may share a workspace."""


def _require_torch() -> None:
    """Checks torch and torchvision, which are built as pairs; a mismatch fails when torchvision is imported."""
    try:
        import torchvision  # noqa: F401  (imports torch)
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        found = " and ".join(f"{name} {installed_version(name)}" for name in ("torch", "torchvision"))
        raise click.ClickException(
            f"{found} do not work together ({_one_line(error)[:120]}); install a matching pair: pip install --upgrade "
            "torch torchvision"
        ) from error


def standard_error() -> "Console":
    """Standard error as a console, for progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def track(loop: Iterable, description: str) -> Iterable:
    """A loop with a progress bar on standard error if that is a terminal."""
    from rich.progress import track as rich_track

    console = standard_error()
    if not console.is_terminal:  # here rich prints an empty line up to version 14.2
        return loop
    return rich_track(loop, description, console=console, transient=True)


@contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """A line on standard error, if that is a terminal, that each call of the function replaces."""
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
                self.fail(f"{part!r} is an empty range; expected the lower number first")
            numbers.update(range(first, last + 1))
        return sorted(numbers)


class Names(click.ParamType):
    """Names such as layer1.0,layer4, in which braces may hold commas: blocks.{0,5}."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        names = [name.strip() for name in re.findall(r"(?:[^,{]|\{[^}]*\}|\{)+", value) if name.strip()]
        if not names:
            self.fail(f"{value!r} names nothing; expected names such as layer1.0,layer4")
        return names


class Floats(click.ParamType):
    """Numbers such as 0.3,0.6; errors say `what` they are, with an `example`."""

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
            self.fail(f"{value!r} is no part; expected k/n, such as 2/4 for the second of four")
        return int(match[1]), int(match[2])


class File(click.Path):
    """A file or a folder, but no empty word, such as an unset variable of the shell gives."""

    def __init__(self):
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty; expected the path of a file or a folder")
        return super().convert(value, param, ctx)


class Classes(click.ParamType):
    """A number of classes, or a file with class names."""

    name = "n|file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | tuple[str, ...]:
        if re.fullmatch(r"\d{1,9}", value):
            return int(value)
        return _read_names(self, value, "neither a number nor a file")


class ClassNames(click.ParamType):
    """A file with class names."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return _read_names(self, value, "no file")


def _read_names(kind: click.ParamType, file: str, otherwise: str) -> tuple[str, ...]:
    """The lines of a file; if there is none, fails with `otherwise`."""
    try:
        if not Path(file).is_file():
            kind.fail(f"{file!r} is {otherwise}; expected a file with one class name per line")
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        kind.fail(f"{file} cannot be read: {error}; expected a text file with one class name per line")
    return tuple(line.strip() for line in lines if line.strip())


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """A function that returns whether Ctrl-C or SIGTERM was received; a second one ends the program at once."""
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
