"""The work of two processes, run by torchrun from test_distributed.py, which checks the results.

Each process writes its results to RANK.pt in the given folder.
"""

import json
import os
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

import cli
from irevnet import IRevNet, IRevNetConfig
from irevnet.data.datasets import load_dataset
from irevnet.training.config import TrainConfig
from irevnet.training.trainer import Training, _check_reconstruction, evaluate
from irevnet.utils import distributed
from irevnet.utils.progress import Interrupted

MEMORIES = ("plain", "checkpoint", "reversible")
CONFIG = IRevNetConfig(input_shape=(3, 8, 8), num_classes=5, blocks=(2, 2), strides=(1, 2))
RECIPE = TrainConfig(epochs=2, batch_size=6, learning_rate=0.05)


def images() -> TensorDataset:
    """Twenty images, of which an epoch drops two."""
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(20, 3, 8, 8, dtype=torch.float64, generator=generator),
        torch.randint(0, 5, (20,), generator=generator),
    )


def some(data: TensorDataset, count: int) -> TensorDataset:
    return TensorDataset(*(tensor[:count] for tensor in data.tensors))


def network() -> IRevNet:
    torch.manual_seed(0)
    return IRevNet(CONFIG).double()


def linear() -> nn.Module:
    """A network whose gradients do not depend on how a batch is divided."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).double()


def training(model: nn.Module, **changes: Any) -> Training:
    data = images()
    config = TrainConfig(**{**RECIPE.__dict__, **changes})
    return Training(model, data, some(data, 7), config, seed=3)


def of_training(memory: str) -> dict[str, Any]:
    model = network()
    each = training(model, memory=memory)
    epochs = [metrics for metrics in each.steps() if metrics]
    return {"weights": model.state_dict(), "losses": each.losses, "top1": [epoch.test_top1 for epoch in epochs]}


def of_a_beginning() -> dict[str, Any]:
    """The first half of a run, as it would be saved."""
    model = linear()
    begun = training(model)
    steps = begun.steps()
    for _ in range(4):
        next(steps)
    return {"weights": model.state_dict(), "state": begun.state()}


def of_an_end(beginning: dict[str, Any]) -> dict[str, Any]:
    """The second half of a run that one process started."""
    model = linear()
    rest = training(model)
    model.load_state_dict(beginning["weights"])
    rest.restore(beginning["state"])
    list(rest.steps())
    return {"weights": model.state_dict(), "losses": rest.losses}


def of_generators() -> dict[str, Any]:
    dropping = nn.Sequential(nn.Dropout(0.5), linear())
    torch.manual_seed(distributed.rank())
    begun = training(dropping)
    next(begun.steps())
    state = begun.state()
    expected = torch.rand(3)
    torch.manual_seed(99)
    begun.restore(state)
    again = torch.rand(3)
    torch.manual_seed(99)
    begun.restore({**state, "generators": state["generators"][:1]})  # saved by one process
    return {"drawn": expected, "again": again, "of_one": torch.rand(3)}


def torn_folder(folder: Path) -> None:
    """Twelve images, two of which cannot be read."""
    for index in range(12):
        path = folder / ("train", "val")[index % 2] / "ab"[index // 2 % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), index).save(path)
        if index in (5, 8):
            path.write_bytes(path.read_bytes()[:50])


def skipped(folder: Path) -> dict[str, Any]:
    """The images skipped in that folder, and the number of images that this process read to find them."""
    distributed.from_first(lambda: torn_folder(folder))
    read = []

    def track(loop: Any, description: str) -> Any:
        for batch in loop:
            read.extend(batch)
            yield batch

    return {"which": load_dataset(str(folder), on_error="skip", track=track).skipped, "read": len(read)}


def error_of(work: Any) -> str:
    try:
        work()
    except (ValueError, FloatingPointError, Interrupted) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def of_errors() -> dict[str, str]:
    def refuse() -> None:
        raise ValueError(f"process {distributed.rank()} refuses")

    def diverge() -> None:
        broken = training(linear())
        broken._forward = lambda batch: linear()(batch * (1 if distributed.rank() else torch.nan))
        list(broken.steps())

    def drift() -> None:
        model = network()
        model.reconstruction_error = torch.tensor(1e-9 if distributed.rank() else float("nan"))
        _check_reconstruction(model, 8)

    answers = iter((False, True))

    def halt() -> None:
        stop = (lambda: next(answers)) if distributed.rank() else (lambda: False)
        evaluate(network(), some(images(), 13), batch_size=3, stop=stop)  # batches of 3, 3 and 3, 3, 1

    return {
        "refused": error_of(lambda: distributed.from_first(refuse)),
        "not finite": error_of(diverge),
        "drifted": error_of(drift),
        "stopped": error_of(halt),
        "odd batch": error_of(lambda: training(linear(), batch_size=7)),
        "small batch": error_of(lambda: training(linear(), batch_size=2)),
    }


def run(*arguments: str) -> Any:
    """The JSON that a command prints, which only the first process does; or an error's text and exit code."""
    distributed.any_of(False)  # waits for the files of the last command
    group = cli.analyze if arguments[0] in cli.analyze.commands else cli.main
    printed = StringIO()
    try:
        with redirect_stdout(printed):
            group.main([*arguments], standalone_mode=False)
    except click.ClickException as error:
        return error.format_message(), error.exit_code
    return json.loads(printed.getvalue()) if printed.getvalue() else None


def main() -> None:
    folder, beginning = Path(sys.argv[1]), torch.load(sys.argv[2])
    with distributed.process_group("cpu"):
        data, model = images(), network().eval()
        found: dict[str, Any] = {
            "training": {memory: of_training(memory) for memory in MEMORIES},
            "evaluation": {count: evaluate(model, some(data, count), batch_size=3) for count in (1, 7, 20)},
            "beginning": of_a_beginning(),
            "end": of_an_end(beginning),
            "generators": of_generators(),
            "errors": of_errors(),
            "made by the first": distributed.from_first(lambda: ("made", distributed.rank())),
            "gathered": distributed.gather(f"of {distributed.rank()}"),
            "skipped": skipped(folder / "torn"),
        }
        run_folder, store = str(folder / "run"), str(folder / "features")
        found["trained"] = run("train", "--epochs", "1", "--out", run_folder, "--json")
        found["evaluated"] = run("evaluate", "--ckpt", run_folder, "--json")
        found["extracted"] = run(
            "features", "--ckpt", run_folder, "--depths", "1,12", "-b", "100", "--features", store, "--json"
        )
        found["refused"] = run("invert", "--ckpt", run_folder)
    torch.save(found, folder / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main()
