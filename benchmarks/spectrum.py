"""The n/15 largest singular values of a Jacobian: ours beside what else one might take; and the paper's own case.

    python benchmarks/spectrum.py                          # on the CPU: writes results/spectrum.json, .csv
    python benchmarks/spectrum.py --device cuda            # on a GPU: into results/spectrum-cuda.*
    python benchmarks/spectrum.py --paper                  # (b) at 224 x 224, 10^3 values: results/spectrum-paper.*
    python benchmarks/spectrum.py --paper --device cuda    # the same, 10^4 values: results/spectrum-paper-cuda.*

The network is the reference network for CIFAR-10, the image a crop of a photograph that comes with scikit-learn; every
method has the same products, but for those that say otherwise. Errors are against the float64 decomposition of the
dense matrix. Times are those of the quickest of several rounds, in which the methods take turns.

(b) has fresh weights and batch-norm statistics of photographs; the image is another crop.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from exact import REFERENCE, photographs, with_statistics_of
from numpy import ndarray
from recording import environment, save_results
from scipy.sparse.linalg import LinearOperator as SciPyOperator
from scipy.sparse.linalg import svds
from torch import Tensor
from torch.func import jvp, vjp

from analysis.jacobian import differentiate
from analysis.linalg.lanczos import GolubKahan
from analysis.linalg.largest_values import largest_singular_values
from analysis.linalg.linear_operator import LinearOperator
from analysis.linalg.singular_values import singular_values
from analysis.linearisation import linearise
from irevnet import IRevNet, read_checkpoint


@dataclass
class Found:
    """Singular values, and how many products they took."""

    values: ndarray
    products: int


def ours(operator: LinearOperator, k: int, width: int, tolerance: float) -> Found:
    process = GolubKahan(operator, width=width, generator=torch.Generator().manual_seed(0))
    found = largest_singular_values(process, num_values=k, tolerance=tolerance)
    return Found(found.values, 2 * process.columns)


def one_by_one(operator: LinearOperator, k: int, steps: int) -> Found:
    """Golub-Kahan as in the textbook, a vector at a time, with the same full reorthogonalisation in float64."""
    m, n = operator.shape
    kind = {"dtype": torch.float64, "device": operator.device}
    left, right = torch.zeros(steps, m, **kind), torch.zeros(steps + 1, n, **kind)
    diagonal, above = np.zeros(steps), np.zeros(steps)
    v = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(operator.device)
    right[0] = v / v.norm()
    for j in range(steps):
        u = operator.matvec(right[j : j + 1])[0].double()
        if j:
            u = u - above[j - 1] * left[j - 1]
        diagonal[j] = u.norm().item()
        left[j] = u / diagonal[j]
        v = operator.rmatvec(left[j : j + 1])[0].double() - diagonal[j] * right[j]
        for _ in range(2):
            v = v - right[: j + 1].T @ (right[: j + 1] @ v)
        above[j] = v.norm().item()
        right[j + 1] = v / above[j]
    small = np.diag(diagonal) + np.diag(above[:-1], 1)
    return Found(np.linalg.svd(small, compute_uv=False)[:k], 2 * steps)


def by_scipy(operator: LinearOperator, k: int, solver: str, tolerance: float, dtype: type) -> Found:
    counted = 0

    def product(of: Callable[[Tensor], Tensor]) -> Callable[[ndarray], ndarray]:
        def apply(vector: ndarray) -> ndarray:
            nonlocal counted
            counted += 1
            vectors = torch.from_numpy(np.ascontiguousarray(vector.reshape(1, -1))).to(operator.device)
            return of(vectors)[0].cpu().numpy().astype(dtype)

        return apply

    theirs = SciPyOperator(
        operator.shape, matvec=product(operator.matvec), rmatvec=product(operator.rmatvec), dtype=dtype
    )
    rng = np.random.default_rng(0)
    values = svds(theirs, k, solver=solver, tol=tolerance, return_singular_vectors=False, random_state=rng)
    return Found(np.sort(values)[::-1], counted)


def by_random_subspace(operator: LinearOperator, k: int, power: int) -> Found:
    """Randomised subspace iteration (Halko, Martinsson and Tropp, 2011), with half as many vectors again."""
    size = 3 * k // 2
    vectors = torch.randn(size, operator.shape[1], generator=torch.Generator().manual_seed(0))
    vectors = vectors.to(operator.device)

    def multiplied(product: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
        return torch.cat([product(part) for part in vectors.split(64)])

    for _ in range(power):
        left = torch.linalg.qr(multiplied(operator.matvec, vectors).T).Q.T
        vectors = torch.linalg.qr(multiplied(operator.rmatvec, left).T).Q.T
    left = torch.linalg.qr(multiplied(operator.matvec, vectors).T).Q.T
    values = torch.linalg.svdvals(multiplied(operator.rmatvec, left))
    return Found(values[:k].cpu().numpy(), 2 * (power + 1) * size)


def by_matrix(operator: LinearOperator, k: int) -> Found:
    return Found(torch.linalg.svdvals(operator.dense())[:k].cpu().numpy(), operator.shape[1])


def looped(function: Callable[[Tensor], Tensor], point: Tensor) -> LinearOperator:
    """jvp and vjp of torch.func, a vector at a time."""

    def matvec(vectors: Tensor) -> Tensor:
        return torch.stack([jvp(function, (point,), (v.reshape(point.shape),))[1].flatten() for v in vectors])

    def rmatvec(vectors: Tensor) -> Tensor:
        output, back = vjp(function, point)
        return torch.stack([back(u.reshape(output.shape))[0].flatten() for u in vectors])

    size = point.numel()
    return LinearOperator(shape=(size, size), matvec=matvec, rmatvec=rmatvec, dtype=point.dtype, device=point.device)


def compare(device: str, rounds: int, k: int | None) -> None:
    torch.manual_seed(0)
    checkpoint = read_checkpoint(REFERENCE)
    model = checkpoint.irevnet.to(device)
    x = checkpoint.transform.normalise(photographs(1, 32)[0]).to(device)
    jacobian = linearise(model, x)
    operator = jacobian.forward

    def features(image: Tensor) -> Tensor:
        return model.features(image[None])[0]

    model = model.double()
    truth = torch.linalg.svdvals(linearise(model, x.double()).forward.dense()).cpu().numpy()
    model = model.float()
    k = k or len(truth) // 15
    vmapped, one = differentiate(features, x), looped(features, x)
    methods: dict[str, Callable[[], Found]] = {
        f"ours, block of {width}": lambda width=width: ours(operator, k, width, 1e-3) for width in (4, 8, 16, 32, 64)
    }
    methods |= {
        "ours, block of 16, vmapped torch.func": lambda: ours(vmapped, k, 16, 1e-3),
        "a vector at a time": lambda: one_by_one(operator, k, 2 * k),
        "scipy propack": lambda: by_scipy(operator, k, "propack", 0, np.float32),
        "scipy propack, tolerance 1e-4": lambda: by_scipy(operator, k, "propack", 1e-4, np.float32),
        "scipy arpack": lambda: by_scipy(operator, k, "arpack", 0, np.float64),
        "scipy arpack, tolerance 1e-4": lambda: by_scipy(operator, k, "arpack", 1e-4, np.float64),
        "random subspace, 2 powers": lambda: by_random_subspace(operator, k, 2),
    }
    slow = {
        "a vector at a time, looped torch.func": lambda: one_by_one(one, k, 2 * k),
        "dense float32": lambda: by_matrix(operator, k),
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*methods, *slow)}
    found: dict[str, Found] = {}
    for number in range(rounds):
        for name, method in (methods | slow if number == 0 else methods).items():
            print(number, name, file=sys.stderr)
            start = time.perf_counter()
            found[name] = method()
            seconds[name].append(time.perf_counter() - start)
    rows = []
    for name, result in found.items():
        rows.append(
            {
                "method": name,
                "products": result.products,
                "worst_relative_error": float(np.abs(result.values / truth[:k] - 1).max()),
                "energy_error": float(abs((result.values**2).sum() - (truth[:k] ** 2).sum()) / (truth**2).sum()),
                "seconds": seconds[name],
            }
        )
    best = min(seconds["ours, block of 16"])
    rows += whole_spectrum(jacobian.forward, jacobian.inverse, truth, k)
    table = pd.DataFrame([{**row, "seconds": None, "time": min(row["seconds"]) / best} for row in rows])
    table = table.drop(columns="seconds")
    facts = {
        "inputs": len(truth),
        "values": k,
        "condition": float(truth[0] / truth[-1]),
        "energy_of_values": float((truth[:k] ** 2).sum() / (truth**2).sum()),
    }
    name = "spectrum" if device == "cpu" else f"spectrum-{device}"
    save_results(name, table, rows, environment(device, "scipy", "numpy", **facts))


def whole_spectrum(forward: LinearOperator, inverse: LinearOperator, truth: ndarray, k: int) -> list[dict]:
    """Both ends, the sum of squares and the density, of ten seeds; what is wrong of E(k), and of the smallest."""
    rows = []
    for seed in range(10):
        start = time.perf_counter()
        found = singular_values(
            forward, inverse, generator=torch.Generator().manual_seed(seed), num_values=k, method="lanczos"
        )
        elapsed = time.perf_counter() - start
        energy, low, high = found.energy(np.array([k]))[0]
        exact = (truth[:k] ** 2).sum() / (truth**2).sum()
        rows.append(
            {
                "method": f"ours, the whole spectrum, seed {seed}",
                "products": found.num_products,
                "worst_relative_error": float(np.abs(found.largest / truth[:k] - 1).max()),
                "energy_error": float(abs(energy - exact)),
                "within_interval": bool(low <= exact <= high),
                "interval": [float(low), float(high)],
                "smallest_worst_relative_error": float(np.abs(found.smallest / truth[::-1][:16] - 1).max()),
                "log_volume": found.log_volume.tolist(),
                "log_volume_error": found.log_volume_error,
                "seconds": [elapsed],
            }
        )
    return rows


def paper(device: str, k: int) -> None:
    """The k largest singular values of (b) at 224 x 224, the density of the others, and what a product costs."""
    torch.manual_seed(0)
    model = with_statistics_of([photographs(16, 224) for _ in range(4)], average=True).to(device)
    x = photographs(1, 224)[0].to(device)
    jacobian = linearise(model, x)
    rows = [{"width": width, "product_over_forward": _cost(model, jacobian.forward, width)} for width in (1, 16, 64)]
    start = time.perf_counter()

    def report(line: str) -> None:
        print(f"{time.perf_counter() - start:.0f} s: {line}", file=sys.stderr)

    found = singular_values(
        jacobian.forward,
        jacobian.inverse,
        generator=torch.Generator().manual_seed(0),
        num_values=k,
        width=64 if device == "cuda" else 16,
        report=report,
    )
    seconds = time.perf_counter() - start
    facts = {
        "inputs": x.numel(),
        "values": k,
        "products": found.num_products,
        "converged": found.num_converged,
        "worst_residual": float((found.largest_residuals / found.largest).max()),
        "loss_of_orthogonality": found.loss_of_orthogonality,
        "squared_norm_error": found.squared_norm_error / found.squared_norm,
        "energy": {str(d): found.energy(np.array([d]))[0].tolist() for d in (100, 1_000, 10_000)},
        "dims": {str(share): found.dims_holding(share) for share in (0.8, 0.97)},
        "condition": found.condition,
        "log_volume": found.log_volume.tolist(),
        "log_volume_error": found.log_volume_error,
        "largest": found.largest.tolist(),
        "smallest": found.smallest.tolist(),
    }
    if device == "cuda":
        facts["seconds"] = seconds
        facts["gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
    name = "spectrum-paper" if device == "cpu" else f"spectrum-paper-{device}"
    save_results(name, pd.DataFrame(rows), rows, environment(device, **facts))


def _cost(model: IRevNet, operator: LinearOperator, width: int) -> float:
    """The time of a product with so many vectors over that of a forward pass of as many images; the least of five."""
    side = round((operator.shape[1] / 3) ** 0.5)
    vectors = torch.randn(width, operator.shape[1], device=operator.device)
    images = vectors.reshape(width, 3, side, side)
    least = {}
    with torch.no_grad():
        for _ in range(5):
            for name, call in {
                "product": lambda: operator.matvec(vectors),
                "transposed": lambda: operator.rmatvec(vectors),
                "forward": lambda: model.features(images),
            }.items():
                start = time.perf_counter()
                call()
                if operator.device.type == "cuda":
                    torch.cuda.synchronize()
                least[name] = min(least.get(name, float("inf")), time.perf_counter() - start)
    return (least["product"] + least["transposed"]) / 2 / least["forward"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-values", type=int, help="k")
    parser.add_argument("--paper", action="store_true")
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)
    if options.paper:
        paper(options.device, options.num_values or (1_000 if options.device == "cpu" else 10_000))
    else:
        compare(options.device, options.rounds, options.num_values)
