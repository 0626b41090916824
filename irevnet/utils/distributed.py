"""Several processes that work as one, each on a GPU or on CPU cores of its own, as torchrun starts them.

Outside of `process_group` there is one process, of rank 0, and nothing here waits for another. Inside, all have to call
what is called, in the same order.
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
    """Joins the processes that torchrun has started, for the length of the block, unless there is a group already; once
    left, it cannot be joined again. Where torchrun has started none, there is nothing to join.

    Args:
        device: that this process computes on; GPUs talk to each other through NCCL, CPUs through Gloo.

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
        raise ConnectionError("another process has ended, or cannot be reached; what it said tells why") from error
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0 on."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def part() -> tuple[int, int]:
    """(k, n) for the k-th of n processes: the part of the work that is for this one."""
    return rank() + 1, size()


def local_rank() -> int:
    """The number of this process among those on the same machine, from 0 on."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def choose_device(name: str) -> str:
    """`"cpu"`, `"cuda"` or, for `"auto"`, the latter where there is one; of several GPUs, each of the processes that
    torchrun has started on this machine has its own.

    Raises `ValueError` if CUDA is asked for in vain, or by more processes than there are GPUs.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch finds no CUDA device here; compute on the cpu instead")
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
    """What the first process makes, for all of them; the error that it raises, by all of them."""
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
    """Gives tensors the values that they have in the first process."""
    if size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def total(*values: float | int) -> list[float]:
    """The sum of each number over the processes, in float64."""
    return _reduced(values, dist.ReduceOp.SUM)


def highest(value: float) -> float:
    """The highest of the numbers of all processes; infinity if one is not a number."""
    return _reduced([math.inf if math.isnan(value) else value], dist.ReduceOp.MAX)[0]


def any_of(flag: bool) -> bool:
    """Whether it holds in any of the processes."""
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
