"""Both ends of the spectrum of a Jacobian: ours, plenoptic, PRIMME, SciPy and matfree beside the dense matrix.

    OMP_NUM_THREADS=1 python benchmarks/both_ends.py    # writes results/both-ends.json, .csv

Of the reference network for CIFAR-10, at a crop of a photograph that comes with scikit-learn, and of the same weights
at a crop of 16 x 16 pixels: the largest singular value and the smallest, with their vectors, and the n/15 largest
values, from products in float32 and in float64. All methods have the same products, but for plenoptic, which
differentiates the network itself. Those that are given J^-1 show which part the inverse has in a result, and which the
method.

Errors are against the singular value decomposition of the dense float64 Jacobian: of values the largest relative one,
of vectors the sine of the angle to the true one, the larger of left and right. A relative residual of 1e-6 is asked for
where a method can be asked. A method may take 2.25 n products for a quantity, a little more than make a Krylov space
the whole space, where n give the matrix; plenoptic has the 1,000 iterations that are its default. Each runs in a
process of its own, which is ended after 400 seconds of the CPU. Ratios are of CPU time, of the least of up to three
runs if these are short. Finished rows stay in runs/both-ends until all are there, and the same command goes on from
them.

On products in float32 PROPACK and matfree compute in float32 too, ARPACK, LOBPCG and PRIMME in float64: in float64
PROPACK finds copies of values that are not there.

The others: `pip install plenoptic primme matfree jax`, best in an environment of its own. PRIMME is compiled, and needs
BLAS and LAPACK (`apt install libopenblas-dev`).
"""

import contextlib
import dataclasses
import io
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from exact import REFERENCE, photographs
from numpy import ndarray
from recording import environment, installed, save_results
from scipy.sparse.linalg import LinearOperator as SciPyOperator
from scipy.sparse.linalg import svds
from torch import Tensor, nn

from analysis.linalg.lanczos import GolubKahan
from analysis.linalg.largest_values import largest_singular_values
from analysis.linalg.linear_operator import LinearOperator
from analysis.linearisation import linearise
from irevnet import IRevNet, read_checkpoint
from irevnet.models.zoo import build_network
from irevnet.utils.untrusted import open_arrays

BUDGET = 2.25
"""Products that a method may take for a quantity, over the number of inputs."""

SECONDS = 400
"""Seconds of the CPU after which a process is ended."""

TOLERANCE = 1e-6

KEPT = Path("runs/both-ends")

MAX, MIN, MANY = "sigma_max", "sigma_min", "n/15 largest"

Truth = dict[str, ndarray]


class SpentError(Exception):
    """The budget of products is spent."""


class Products:
    """The number of products with vectors so far, and how many there may be."""

    def __init__(self, budget: int):
        self.budget = budget
        self.count = 0

    def add(self, count: int) -> None:
        self.count += count
        if self.count > self.budget:
            raise SpentError

    def counted(self, operator: LinearOperator) -> LinearOperator:
        def product(of: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            def apply(vectors: Tensor) -> Tensor:
                self.add(len(vectors))
                return of(vectors)

            return apply

        kind: dict[str, Any] = {"dtype": operator.dtype, "device": operator.device}
        matvec, rmatvec = product(operator.matvec), product(operator.rmatvec)
        return LinearOperator(shape=operator.shape, matvec=matvec, rmatvec=rmatvec, **kind)


@dataclass
class Found:
    """Singular values in decreasing order; of a single one its vectors too, and what there is to say."""

    values: ndarray
    left: ndarray | None = None
    right: ndarray | None = None
    note: str = ""


class Problem:
    """A network at an image, and products with its Jacobian J and with J^-1, which are counted."""

    def __init__(self, name: str, model: IRevNet, image: Tensor):
        self.name = name
        self.model = model
        self.image = image
        self.precision = str(image.dtype).removeprefix("torch.")
        self.k = round(image.numel() / 15)
        self.products = Products(round(BUDGET * image.numel()))
        jacobian = linearise(model, image)
        self.forward = self.products.counted(jacobian.forward)
        self.inverse = self.products.counted(jacobian.inverse)

    def number_of(self, quantity: str) -> int:
        return self.k if quantity == MANY else 1


class Method(NamedTuple):
    """A method: the package that it needs, the quantities of each of its calls, and what prepares a call.

    The call for a group is prepared by its first quantity, and returns what it found of each.
    """

    package: str
    groups: tuple[tuple[str, ...], ...]
    prepare: Callable[[Problem, str], Callable[[], Sequence[Found]]]


def ours(problem: Problem, quantity: str, width: int) -> Callable[[], Sequence[Found]]:
    # The right singular vectors of J^-T are those of J, its values the reciprocals.
    operator = problem.inverse.transposed if quantity == MIN else problem.forward

    def find() -> Sequence[Found]:
        process = GolubKahan(operator, width=width, generator=torch.Generator().manual_seed(0))
        found = largest_singular_values(process, num_values=problem.number_of(quantity), tolerance=TOLERANCE)
        if quantity == MANY:
            return [Found(found.values)]
        pair = found.pairs(1)
        values = 1 / found.values if quantity == MIN else found.values
        return [Found(values, pair.left[0].numpy(), pair.right[0].numpy())]

    return find


def plenoptic(problem: Problem, quantity: str) -> Callable[[], Sequence[Found]]:
    """Eigendistortions, of J^T J: both ends by power iteration, its default; many by a randomised decomposition."""
    import plenoptic as po
    from plenoptic._synthesize import autodiff, eigendistortion

    product = autodiff._fisher_info_matrix_vector_product
    problem.products.budget = sys.maxsize

    def counted(y: Tensor, x: Tensor, v: Tensor, dummy: Tensor) -> Tensor:
        problem.products.add(2 * v.shape[1])
        return product(y, x, v, dummy)

    for module in (autodiff, eigendistortion):
        vars(module)[product.__name__] = counted

    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = problem.model

        def forward(self, image: Tensor) -> Tensor:
            return self.network.features(image)

    def find() -> Sequence[Found]:
        torch.manual_seed(0)
        torch.set_default_dtype(problem.image.dtype)  # of its random vectors
        model = Features().eval()
        po.remove_grad(model)
        eigen = po.Eigendistortion(problem.image[None], model)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if quantity == MANY:
                eigen.synthesize(method="randomized_svd", k=problem.k)
            else:
                eigen.synthesize()
        values = eigen.eigenvalues.sqrt().numpy().astype(float)
        if quantity == MANY:
            return [Found(values, note="randomised, with its default powers")]
        # It has no left vectors.
        vectors = eigen.eigendistortions.flatten(1).numpy()
        return [Found(values[[end]], None, vectors[end], "one call for both ends") for end in (0, 1)]

    return find


def in_float64(operator: LinearOperator) -> SciPyOperator:
    """The operator for SciPy, its products rounded as they are, for solvers that compute in float64."""
    products: dict[str, Any] = {
        "matvec": lambda vectors: operator.matvec(vectors).double(),
        "rmatvec": lambda vectors: operator.rmatvec(vectors).double(),
    }
    double = LinearOperator(shape=operator.shape, **products, dtype=torch.float64, device=operator.device)
    return double.to_scipy()


def in_order(left: ndarray, values: ndarray, right: ndarray) -> Found:
    order = np.argsort(values)[::-1]
    return Found(values[order].astype(float), left[:, order[0]], right[order[0]])


def of_inverse(found: Found) -> Found:
    """What was found of J^-1 = V S^-1 U^T as that of J = U S V^T."""
    return dataclasses.replace(found, values=1 / found.values, left=found.right, right=found.left)


def scipy(problem: Problem, quantity: str, solver: str) -> Callable[[], Sequence[Found]]:
    k, n = problem.number_of(quantity), problem.image.numel()
    operator = problem.forward.to_scipy() if solver == "propack" else in_float64(problem.forward)
    options: dict[str, Any] = {"which": "SM" if quantity == MIN else "LM", "tol": TOLERANCE}
    if solver == "lobpcg":
        # Its tolerance is absolute, and the squares are some 1e-4 or some thousands, those of the many between. At the
        # last iteration it returns what it has.
        tolerance = {MAX: 1e-2, MIN: 1e-9, MANY: 1e-3}[quantity]
        options |= {"tol": tolerance, "maxiter": problem.products.budget // (2 * k) - 4}
    elif solver == "propack":  # the size of the subspace, which is ten vectors a value by default
        options["maxiter"] = n if quantity == MIN else min(n, max(100, 10 * k))
    else:
        options["maxiter"] = problem.products.budget

    def find() -> Sequence[Found]:
        found = in_order(*svds(operator, k, solver=solver, random_state=np.random.default_rng(0), **options))
        if solver == "lobpcg" and problem.products.count > 0.9 * problem.products.budget:
            found.note = f"{unconverged(problem)}; its last iteration"
        return [found]

    return find


def scipy_on_inverse(problem: Problem, quantity: str) -> Callable[[], Sequence[Found]]:
    operator = in_float64(problem.inverse)
    return lambda: [of_inverse(in_order(*svds(operator, 1, tol=TOLERANCE, random_state=np.random.default_rng(0))))]


def primme(problem: Problem, quantity: str, given: str = "") -> Callable[[], Sequence[Found]]:
    from primme import svds

    k, budget = problem.number_of(quantity), problem.products.budget
    smallest = quantity == MIN and given != "inverse"
    # Its tolerance is relative to the norm, and that of the smallest value so has to be smaller by the condition, which
    # rounding in float32 does not allow.
    tolerance = 1e-10 if smallest and problem.precision == "float64" else TOLERANCE
    options: dict[str, Any] = {"maxiter": 2 * budget - 16}  # it counts a product with J and one with J^T as one
    if given == "preconditioner":
        inverse = in_float64(problem.inverse)
        options = {"maxiter": budget, "precAHA": inverse @ inverse.H}  # (J^T J)^-1
    options |= {"return_stats": True, "return_history": True, "raise_for_unconverged": False}
    operator = in_float64(problem.inverse if given == "inverse" else problem.forward)

    def find() -> Sequence[Found]:
        *found, stats = svds(operator, k, which="SM" if smallest else "LM", tol=tolerance, **options)
        if len(found[1]) < k:
            return [Found(np.array(stats["hist"]["sval"][-1:]), note=f"{unconverged(problem)}; its last estimate")]
        return [of_inverse(in_order(*found)) if given == "inverse" else in_order(*found)]

    return find


def matfree(problem: Problem, quantity: str, *, inverse: bool = False) -> Callable[[], Sequence[Found]]:
    """Golub-Kahan of as many steps as it is told, which give all values; compiled beforehand."""
    import jax
    from matfree.decomp import bidiag
    from matfree.eig import svd_partial

    jax.config.update("jax_enable_x64", problem.precision == "float64")
    operator = problem.inverse if inverse else problem.forward
    size = jax.ShapeDtypeStruct(operator.shape[:1], problem.precision)

    def called(of: Callable[[Tensor], Tensor]) -> Callable[[Any], Any]:
        def apply(vector: Any) -> ndarray:
            return of(torch.tensor(np.asarray(vector))[None])[0].numpy()

        return lambda vector: jax.pure_callback(apply, size, vector)

    product, transposed = jax.custom_vjp(called(operator.matvec)), called(operator.rmatvec)
    product.defvjp(lambda v: (product(v), None), lambda _, u: (transposed(u),))
    steps = 20 if inverse else 2 * problem.k
    start = jax.random.normal(jax.random.PRNGKey(0), operator.shape[1:], problem.precision)
    decompose = jax.jit(lambda v: svd_partial(bidiag(steps))(product, v)).lower(start).compile()
    note = f"{steps} steps, as it has to be told"

    def find() -> Sequence[Found]:
        left, values, right = (np.asarray(each) for each in decompose(start))
        first, last = (Found(values[[i]].astype(float), left[i], right[i], note) for i in (0, -1))
        many = Found(values[: problem.k].astype(float), note=note)
        return [of_inverse(first)] if inverse else [first, last, many]

    return find


def dense(problem: Problem, quantity: str) -> Callable[[], Sequence[Found]]:
    def find() -> Sequence[Found]:
        left, values, right = (each.numpy() for each in torch.linalg.svd(problem.forward.dense()))
        first, last = (Found(values[[i]].astype(float), left[:, i], right[i]) for i in (0, -1))
        return [first, last, Found(values[: problem.k].astype(float))]

    return find


ONE_BY_ONE = (MAX,), (MIN,), (MANY,)
AT_ONCE = ((MAX, MIN, MANY),)
SMALLEST = ((MIN,),)

METHODS = {
    "dense matrix": Method("torch", AT_ONCE, dense),
    "ours": Method("torch", ONE_BY_ONE, partial(ours, width=16)),
    "ours, a vector at a time": Method("torch", ONE_BY_ONE, partial(ours, width=1)),
    "plenoptic": Method("plenoptic", ((MAX, MIN), (MANY,)), plenoptic),
    "PRIMME": Method("primme", ONE_BY_ONE, primme),
    "SciPy ARPACK": Method("scipy", ONE_BY_ONE, partial(scipy, solver="arpack")),
    "SciPy PROPACK": Method("scipy", ONE_BY_ONE, partial(scipy, solver="propack")),
    "SciPy LOBPCG": Method("scipy", ONE_BY_ONE, partial(scipy, solver="lobpcg")),
    "matfree": Method("matfree", AT_ONCE, matfree),
    "PRIMME, J^-1 as preconditioner": Method("primme", SMALLEST, partial(primme, given="preconditioner")),
    "PRIMME, given J^-1": Method("primme", SMALLEST, partial(primme, given="inverse")),
    "SciPy ARPACK, given J^-1": Method("scipy", SMALLEST, scipy_on_inverse),
    "matfree, given J^-1": Method("matfree", SMALLEST, partial(matfree, inverse=True)),
}


def unconverged(problem: Problem) -> str:
    return f"not converged in {problem.products.budget:,} products"


def sine(found: ndarray, true: ndarray) -> float:
    found = found.astype(float) / np.linalg.norm(found.astype(float))
    return float(np.linalg.norm(found - (found @ true) * true))


def errors(quantity: str, found: Found, truth: Truth) -> dict[str, Any]:
    end = -1 if quantity == MIN else 0
    true = truth["values"][-1:] if quantity == MIN else truth["values"][: len(found.values)]
    pairs = (found.left, truth["left"][end]), (found.right, truth["right"][end])
    sines = [sine(each, true) for each, true in pairs if each is not None and quantity != MANY]
    return {
        "quantity": quantity,
        "value_error": float(np.abs(found.values / true - 1).max()),
        "vector_error": max(sines, default=None),
        "note": found.note,
    }


def run(problem: Problem, method: Method, quantities: Sequence[str], truth: Truth) -> list[dict]:
    """The rows of one call."""
    seconds: list[float] = []
    start = time.process_time()
    try:
        call = method.prepare(problem, quantities[0])
        while len(seconds) < 3 and sum(seconds) < 2:
            problem.products.count = 0
            start = time.process_time()
            found = call()
            seconds.append(time.process_time() - start)
        rows = [errors(*each, truth) for each in zip(quantities, found)]
    except Exception as error:  # each has errors of its own
        seconds.append(time.process_time() - start)
        spent = problem.products.count > problem.products.budget
        note = unconverged(problem) if spent else f"{type(error).__name__}: {str(error).strip()[:100]}"
        rows = [{"quantity": quantity, "note": note} for quantity in quantities]
    return [row | {"products": problem.products.count, "cpu_seconds": seconds} for row in rows]


def in_a_process(work: Callable[[], list[dict]]) -> list[dict] | str:
    """The rows that the work returns, or why there are none."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sender.send(work())

    process = context.Process(target=child)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        ended = process.exitcode == -signal.SIGXCPU
        return f"ended after {SECONDS} CPU-seconds" if ended else f"ended with exit code {process.exitcode}"
    finally:
        process.join()


def measure(problem: Problem, name: str, quantities: Sequence[str], truth: Truth) -> list[dict]:
    method = METHODS[name]
    if not installed(method.package):
        rows = [{"quantity": quantity, "note": "not installed"} for quantity in quantities]
    elif name == "dense matrix" and problem.precision == "float64":
        known = {"products": problem.image.numel(), "cpu_seconds": [float(truth["seconds"])], "note": "the truth"}
        rows = [{"quantity": quantity} | known for quantity in quantities]
    else:
        found = in_a_process(lambda: run(problem, method, quantities, truth))
        rows = [{"quantity": q, "note": found} for q in quantities] if isinstance(found, str) else found
    return [{"network": problem.name, "precision": problem.precision, "method": name} | row for row in rows]


def networks() -> Iterator[tuple[str, IRevNet, Tensor]]:
    checkpoint = read_checkpoint(REFERENCE)
    reference = checkpoint.irevnet
    small = build_network(dataclasses.replace(reference.config, input_shape=(3, 16, 16)))
    assert isinstance(small, IRevNet)
    small.load_state_dict(reference.state_dict())
    for model, size in ((small.eval(), 16), (reference, 32)):
        torch.manual_seed(0)
        yield f"{size} x {size}", model, checkpoint.transform.normalise(photographs(1, size)[0])


def true_decomposition(path: Path, model: IRevNet, image: Tensor) -> Truth:
    """All values, the left and right vectors of the first and of the last, and the CPU's seconds that it took."""
    if not path.exists():
        start = time.process_time()
        left, values, right = torch.linalg.svd(linearise(model.double(), image.double()).forward.dense())
        seconds = time.process_time() - start
        np.savez(path, values=values, left=left.T[[0, -1]], right=right[[0, -1]], seconds=seconds)
    with open_arrays(path) as arrays:
        return {name: arrays[name] for name in arrays.names}


def main() -> None:
    torch.set_num_threads(1)
    os.environ["JAX_PLATFORMS"] = "cpu"
    KEPT.mkdir(parents=True, exist_ok=True)
    kept = KEPT / "rows.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    done = {(row["network"], row["precision"], row["method"], row["quantity"]) for row in rows}
    conditions: dict[str, float] = {}
    for name, model, image in networks():
        truth = true_decomposition(KEPT / f"truth of {name}.npz", model, image)
        conditions[name] = float(truth["values"][0] / truth["values"][-1])
        for dtype in (torch.float32, torch.float64):
            problem = Problem(name, model.to(dtype), image.to(dtype))
            for method, (_, groups, _) in METHODS.items():
                for quantities in groups:
                    if (name, problem.precision, method, quantities[0]) in done:
                        continue
                    found = measure(problem, method, quantities, truth)
                    with open(kept, "a") as file:
                        file.writelines(json.dumps(row) + "\n" for row in found)
                    rows += found
                    print(f"{name}, {problem.precision}: {method}, {', '.join(quantities)}", file=sys.stderr)
    packages = ("numpy", "scipy", "plenoptic", "primme", "matfree", "jax")
    save_results("both-ends", in_ratios(rows), rows, environment("cpu", *packages, conditions=conditions))
    shutil.rmtree(KEPT)


def in_ratios(rows: list[dict]) -> pd.DataFrame:
    """The rows, with CPU time over that of ours for the same quantity."""
    keys = ["network", "precision", "quantity"]
    table = pd.DataFrame(rows)
    table["cpu_time"] = table["cpu_seconds"].map(lambda each: min(each) if isinstance(each, list) else float("nan"))
    base = table.loc[table["method"] == "ours", [*keys, "cpu_time"]]
    table = table.merge(base, on=keys, suffixes=("", "_of_ours"))
    table["cpu_time_ratio"] = table["cpu_time"] / table["cpu_time_of_ours"]
    return table[[*keys, "method", "value_error", "vector_error", "products", "cpu_time_ratio", "note"]]


if __name__ == "__main__":
    main()
