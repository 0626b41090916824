"""How far gradients drift when the streams are rebuilt rather than stored: writes results/drift.csv, .json.

    python benchmarks/drift.py

Fresh networks in train mode, random images; the truth is the gradient in float64 on the plain path. Errors are norms of
the difference over the norm, all parameters together. The plain path's own error in an arithmetic is the floor:
float32, or float32 with convolutions in bfloat16 or float16.
"""

import copy
import dataclasses
import itertools

import pandas as pd
import torch
from recording import environment, save_results
from torch import nn

from irevnet import IRevNet
from irevnet.models.zoo import build_network, preset_config
from irevnet.utils.precision import mixed_precision

CASES = (("irevnet-cifar-bijective", 32, 32), ("irevnet-cifar", 32, 32), ("irevnet-b", 64, 16), ("irevnet-b", 64, 64))


ARITHMETICS = ("float32", "bf16", "fp16", "float64")


def gradient(model: IRevNet, images: torch.Tensor, memory: str, arithmetic: str) -> tuple[torch.Tensor, float | None]:
    """All gradients end to end, in float64, and the error of the rebuilt stream if there is one."""
    dtype = torch.float64 if arithmetic == "float64" else torch.float32
    model = copy.deepcopy(model).to(dtype)
    model.memory = memory
    labels = torch.arange(len(images)) % model.config.num_classes
    with mixed_precision(arithmetic, "cpu"):
        loss = nn.functional.cross_entropy(model(images.to(dtype)), labels)
    loss.backward()
    error = model.reconstruction_error
    flat = torch.cat([parameter.grad.double().flatten() for parameter in model.parameters()])
    return flat, None if error is None else error.item()


def measure(name: str, size: int, batch_size: int) -> dict[str, object]:
    torch.manual_seed(0)
    # Without dropout: its masks differ between float32 and float64.
    model = build_network(dataclasses.replace(preset_config(name, num_classes=10, image_size=size), dropout=0.0))
    images = torch.rand(batch_size, 3, size, size)
    truth, _ = gradient(model, images, "plain", "float64")
    row: dict[str, object] = {"network": name, "blocks": model.config.num_blocks, "size": size, "batch": batch_size}
    for arithmetic, memory in itertools.product(ARITHMETICS, ("plain", "reversible")):
        if (arithmetic, memory) == ("float64", "plain"):
            continue
        found, stream = gradient(model, images, memory, arithmetic)
        label = f"{memory}_{arithmetic}"
        row[f"gradient_error_{label}"] = ((found - truth).norm() / truth.norm()).item()
        if stream is not None:
            row[f"stream_error_{label}"] = stream
    return row


def main() -> None:
    rows = [measure(*case) for case in CASES]
    save_results("drift", pd.DataFrame(rows), rows, environment())


if __name__ == "__main__":
    main()
