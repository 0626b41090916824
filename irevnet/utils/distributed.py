"""Work shared by several processes, each on a GPU or on CPU cores of its own, as torchrun starts them.

Outside `process_group` there is one process, of rank 0. Inside, all processes have to call the same functions in the
same order.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def launched() -> bool:
    """Whether torchrun has started this process."""
    return dist.is_torchelastic_launched()


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Joins the processes that torchrun has started, within the block. It can be joined once.

    Does nothing in a process that torchrun has not started, or that has joined already.

    Args:
        device: device that this process computes on; GPUs communicate through NCCL, CPUs through Gloo.

    Raises `ConnectionError` if another process is lost meanwhile.
    """
    if not launched() or dist.is_initialized():
        yield
        return
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise ConnectionError("another process has ended, or cannot be reached; its own messages say why") from error
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Rank of this process, from 0 on."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def part() -> tuple[int, int]:
    """(k, n) for the k-th of n processes: this one's part of the work."""
    return rank() + 1, size()


def local_rank() -> int:
    """Rank of this process among those on the same machine, from 0 on."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def choose_device(name: str) -> str:
    """The device for `"cpu"`, `"cuda"`, or `"auto"`, which is CUDA if there is a GPU. Each process that torchrun has
    started on this machine gets a GPU of its own.

    Raises `ValueError` if CUDA is asked for and not available, or if there are more processes than GPUs.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch finds no CUDA device; set `device` to cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return "cpu"
    if not launched():
        return "cuda"
    number, count = local_rank(), torch.cuda.device_count()
    if number >= count:
        raise ValueError(
            f"torchrun has started more processes on this machine than its {count} GPUs; start no more than that, "
            "or compute on the cpu"
        )
    return f"cuda:{number}"


def from_first(make: Callable[[], T]) -> T:
    """Calls `make` in the first process; all processes return its result, or raise its error."""
    if size() == 1:
        return make()
    box: list[Any] = [None, None]
    if rank() == 0:
        try:
            box[0] = make()
        except Exception as error:
            box[1] = error
    dist.broadcast_object_list(box, src=0)
    value, error = box
    if error is not None:
        raise error
    return value


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Copies the values of tensors in the first process to the other processes."""
    if size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def total(*values: float | int) -> list[float]:
    """Sum of each number over the processes, in float64."""
    return _reduced(values, dist.ReduceOp.SUM)


def highest(value: float) -> float:
    """Highest of the numbers of all processes; infinity if one is NaN."""
    return _reduced([math.inf if math.isnan(value) else value], dist.ReduceOp.MAX)[0]


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    return highest(float(flag)) > 0


def _reduced(values: Sequence[float | int], operation: Any) -> list[float]:
    if size() == 1:
        return [float(value) for value in values]
    numbers = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(numbers, operation)
    return numbers.tolist()


def gather(value: T) -> list[T]:
    """The values of all processes, by rank."""
    gathered: list[Any] = [value]
    if size() > 1:
        gathered = [None] * size()
        dist.all_gather_object(gathered, value)
    return gathered
