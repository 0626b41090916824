"""Two processes under torchrun, compared with one that does the same by hand; two_processes.py is what they run."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.utils.data import TensorDataset

import cli
from irevnet import read_checkpoint
from irevnet.data.datasets import load_dataset
from irevnet.data.loaders import batches, training_batches
from irevnet.training.trainer import evaluate
from irevnet.utils.distributed import choose_device

SCRIPT = Path(__file__).with_name("two_processes.py")
ROOT = SCRIPT.parents[3]


def _load_script() -> Any:
    spec = importlib.util.spec_from_file_location("two_processes", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


two = _load_script()


def torchrun(*arguments: object, folder: Path, until: Callable[[], bool] | None = None) -> tuple[int, str]:
    """Exit code and standard error of two processes on one core each, which get SIGTERM once `until` returns true. A
    standalone torchrun communicates over the loopback interface."""
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while until is not None and process.poll() is None:
            if until():
                process.send_signal(signal.SIGTERM)
                break
            time.sleep(0.05)
        _, errors = process.communicate(timeout=500)
    finally:
        if process.poll() is None:
            process.terminate()  # ends both
            process.communicate()
    return process.returncode, errors


def alone(*arguments: str) -> Any:
    """The JSON that a command prints in one process."""
    group = cli.analyze if arguments[0] in cli.analyze.commands else cli.main
    done = CliRunner().invoke(group, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def folder(made_once) -> Path:
    """Folder of the files that the two processes wrote."""

    def make(folder: Path) -> None:
        torch.save(two.of_a_beginning(), folder / "beginning.pt")
        code, errors = torchrun(SCRIPT, folder, folder / "beginning.pt", folder=folder)
        assert code == 0, errors

    return made_once("two", make)


@pytest.fixture(scope="module")
def found(folder) -> list[dict[str, Any]]:
    """Results of each of the two processes."""
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


def by_hand(memory: str) -> tuple[nn.Module, list[float]]:
    """Training in one process that adds up the gradients of the two halves of each batch before it takes a step.

    Batch normalisation keeps the running statistics of the first half alone.
    """
    model = two.network().train()
    model.memory = memory
    data, config = two.images(), two.RECIPE
    optimiser = torch.optim.SGD(model.parameters(), momentum=config.momentum, weight_decay=config.weight_decay)
    losses = []
    for step in range(6):
        epoch, done = divmod(step, 3)
        rows = np.random.default_rng([3, epoch + 1]).permutation(20)[6 * done : 6 * done + 6]
        optimiser.zero_grad()
        loss_of_step = 0.0
        for half in (rows[:3], rows[3:]):
            inputs, labels = (tensor[torch.as_tensor(half)] for tensor in data.tensors)
            loss = nn.functional.cross_entropy(model(inputs), labels) / 2
            loss.backward()
            loss_of_step += loss.item()
            if half[0] == rows[0]:
                statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
        for name, buffer in model.named_buffers():
            buffer.copy_(statistics[name])
        optimiser.param_groups[0]["lr"] = config.rate(step, 6)
        optimiser.step()
        losses.append(loss_of_step)
    return model.eval(), losses


@pytest.mark.parametrize("memory", two.MEMORIES)
def test_two_processes_train_as_one_does_on_the_same_halves(found, memory):
    model, losses = by_hand(memory)
    for each in found:
        result = each["training"][memory]
        np.testing.assert_allclose(result["losses"], losses, rtol=1e-10)
        for name, expected in model.state_dict().items():
            torch.testing.assert_close(result["weights"][name], expected, rtol=1e-10, atol=1e-10)
        assert result["top1"][-1] == evaluate(model, two.some(two.images(), 7)).top1
    assert len(losses) == 6
    assert abs(losses[-1] - losses[0]) > 1e-2  # weights have changed
    whole = two.training(two.network())
    next(whole.steps())
    assert abs(whole.losses[0] - losses[0]) > 1e-6  # batch normalisation tells halves from the whole


def test_each_image_is_evaluated_once(found):
    for each in found:
        for count, result in each["evaluation"].items():
            expected = evaluate(two.network().eval(), two.some(two.images(), count), batch_size=3)
            assert (result.top1, result.top5, result.num_images) == (expected.top1, expected.top5, count)
            assert result.loss == pytest.approx(expected.loss, rel=1e-12)


def test_run_resumes_in_another_number_of_processes(found):
    model = two.linear()
    whole = two.training(model)
    list(whole.steps())
    expected = model.state_dict()
    resumed = two.of_an_end(found[0]["beginning"])  # begun by two, ended by one
    for result in (resumed, found[0]["end"], found[1]["end"]):
        np.testing.assert_allclose(result["losses"], whole.losses, rtol=1e-10)
        for name, tensor in expected.items():
            torch.testing.assert_close(result["weights"][name], tensor, rtol=1e-10, atol=1e-10)


def test_each_process_resumes_its_own_random_draws(found):
    drawn = [each["generators"]["drawn"] for each in found]
    assert not torch.equal(*drawn)
    for each in found:
        assert torch.equal(each["generators"]["again"], each["generators"]["drawn"])
    torch.manual_seed(99)
    assert torch.equal(found[0]["generators"]["of_one"], drawn[0])
    assert torch.equal(found[1]["generators"]["of_one"], torch.rand(3))


def test_what_goes_wrong_in_one_process_stops_all(found):
    for each in found:
        errors = each["errors"]
        assert errors["refused"] == "ValueError: process 0 refuses"
        assert errors["not finite"].startswith("FloatingPointError: the loss is nan at step 1")
        assert errors["drifted"].startswith(
            "FloatingPointError: at step 8 reversible back-propagation rebuilt its input with a relative error of inf"
        )
        assert errors["stopped"] == "Interrupted: the evaluation was stopped"
        for kind, count in (("odd batch", 7), ("small batch", 2)):
            assert errors[kind] == (
                f"ValueError: a batch of {count} images cannot be shared by 2 processes; choose a multiple of 2 that "
                "has at least 2 images for each"
            )


def test_each_image_is_looked_at_by_one_process(found, tmp_path):
    two.torn_folder(tmp_path)
    source = load_dataset(str(tmp_path), on_error="skip")
    for each in found:
        assert each["made by the first"] == ("made", 0)
        assert each["gathered"] == ["of 0", "of 1"]
        assert each["skipped"]["which"] == source.skipped
    assert sorted(each["skipped"]["read"] for each in found) == [6, 6]


def test_commands_share_work_and_first_process_prints(found, folder):
    first, second = found
    for message, code in (first["refused"], second["refused"]):
        assert message.endswith("invert' runs in one process; run it without torchrun")
        assert code == 2
    assert all(second[name] is None for name in ("trained", "evaluated", "extracted"))
    trained, evaluated, extracted = (first[name] for name in ("trained", "evaluated", "extracted"))
    assert trained["finished"]
    assert trained["step"] == 22
    run = folder / "run"
    assert json.loads((run / "config.json").read_text())["provenance"]["processes"] == 2
    assert len(pd.read_csv(run / "losses.csv")) == 22
    assert read_checkpoint(run / "last.pt").metrics["test_top1"] == trained["test_top1"] > 0.5
    expected = alone("evaluate", "--ckpt", str(run))
    assert evaluated["top1"] == expected["top1"] == trained["test_top1"]
    assert evaluated["num_images"] == expected["num_images"] == 360
    assert evaluated["loss"] == pytest.approx(expected["loss"], rel=1e-6)

    (store,) = extracted["stores"]
    assert store["extracted"] == 1797
    options = ("--ckpt", str(run), "--depths", "1,12", "-b", "100", "--features", str(folder / "other"))
    (other,) = alone("features", *options)["stores"]
    files = sorted(path.relative_to(store["folder"]) for path in Path(store["folder"]).rglob("*.npy"))
    assert len(files) == 14
    for file in files:
        np.testing.assert_array_equal(np.load(Path(store["folder"], file)), np.load(Path(other["folder"], file)))


@pytest.mark.slow
def test_stopped_torchrun_leaves_a_run_to_resume(tmp_path):
    """As a user starts it, with augmentation: the resumed run equals one that was never stopped."""
    program = Path(sys.executable).with_name("irevnet")
    options = (program, "train", "--epochs", "500", "--batch-size", "400", "--augmentation", "cifar", "--out")
    code, errors = torchrun(*options, "parts", folder=tmp_path, until=(tmp_path / "parts" / "metrics.csv").exists)
    assert code != 0
    (step,) = re.findall(r"stopped after step (\d+) of 1,500; go on with 'irevnet train --resume parts'", errors)

    for arguments in (
        (program, "train", "--resume", "parts", "--max-steps", 2),
        (*options, "whole", "--max-steps", int(step) + 2),
    ):
        code, errors = torchrun(*arguments, folder=tmp_path)
        assert code == 0, errors
        assert f"stopped after step {int(step) + 2} of 1,500" in errors
    ours, theirs = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("parts", "whole"))
    for name, tensor in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], tensor), name
    assert torch.equal(ours["training"]["losses"], theirs["training"]["losses"])


def test_each_process_on_a_machine_has_a_gpu_of_its_own(monkeypatch):
    assert choose_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(ValueError, match="torch finds no CUDA device; set `device` to cpu"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == choose_device("cuda") == "cuda"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    for rank in (0, 1):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert choose_device("auto") == choose_device("cuda") == f"cuda:{rank}"
        assert choose_device("cpu") == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="more processes on this machine than its 2 GPUs; start no more than that"):
        choose_device("auto")


@pytest.mark.parametrize("parts", [1, 3, 4])
def test_parts_of_batches_and_of_images_are_all_of_them_once(parts):
    numbers = [(k + 1, parts) for k in range(parts)]
    data = TensorDataset(torch.arange(30), torch.arange(30))
    (whole,) = (rows.tolist() for rows, _ in training_batches(data, 12, seed=1, epoch=2, start=1))
    shares = [rows for part in numbers for rows, _ in training_batches(data, 12, seed=1, epoch=2, start=1, part=part)]
    assert torch.cat(shares).tolist() == whole
    for count in (1, 3, 10):
        images = TensorDataset(torch.arange(count), torch.arange(count))
        found = torch.cat([rows for part in numbers for rows, _ in batches(images, 2, part=part)])
        assert found.tolist() == list(range(count))
