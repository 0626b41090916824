"""Features as one file for other programs: arrays (`.npz`), or a table (`.csv`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.features.store import FeatureStore
from irevnet.utils.files import atomic_write

SPLITS = ("train", "test")
LABELS, IMAGES, CLASSES = "labels", "images", "classes"
"""Names of the arrays that are no features: the number of each image's class, the names of the images, and the names of
the classes."""


_Features = Mapping[str, Mapping[str, np.ndarray]]
"""Features by split and layer."""


def check_export(path: Path) -> None:
    """Raises `ValueError` for a file of a kind that is not written, `FileExistsError` for one that is there."""
    if path.suffix not in (".npz", ".csv"):
        raise ValueError(f"{path} is neither .npz nor .csv; name a file for the features that ends in one of these")
    if path.exists():
        raise FileExistsError(f"{path} already exists; name another file")


def export_features(store: FeatureStore, layers: Sequence[str], path: Path) -> None:
    """Writes the features of these layers on both splits to a new file.

    `.npz` has the arrays `SPLIT/LAYER`, `(images, dims)`; `SPLIT/labels`, `(images,)`, numbers of the names in
    `classes`; and `SPLIT/images`, the images' names: what `analysis.own_features.open_features` reads. `.csv` has the
    columns of `FeatureStore.to_pandas` behind one for the layer; cells beyond the features of a layer are empty.

    Raises:
        FileNotFoundError: features have not been extracted to the end.
        FileExistsError: there is such a file.
        ValueError: the file is of another kind, or a layer has the name of an array that is not of features.
    """
    check_export(path)
    if taken := {LABELS, IMAGES, CLASSES}.intersection(layers):
        raise ValueError(f"a file of features has no layer {min(taken)!r}, as that array is not of features")
    features = {split: {layer: store.features(split, layer) for layer in layers} for split in SPLITS}
    path.parent.mkdir(parents=True, exist_ok=True)
    write = _write_arrays if path.suffix == ".npz" else _write_table
    with atomic_write(path) as temporary:
        write(store, features, temporary)


def _write_arrays(store: FeatureStore, features: _Features, path: Path) -> None:
    arrays: dict[str, Any] = {}
    for split, layers in features.items():
        arrays |= {f"{split}/{layer}": array for layer, array in layers.items()}
        arrays |= {f"{split}/{LABELS}": store.labels(split), f"{split}/{IMAGES}": np.array(store.names(split))}
    arrays[CLASSES] = np.array(store.identity["classes"])
    np.savez(path, **arrays)


def _write_table(store: FeatureStore, features: _Features, path: Path) -> None:
    dims = max(array.shape[1] for array in features["train"].values())
    columns = ["layer", "image", "split", "label", *(f"f{number}" for number in range(dims))]
    # Names of files may be bytes that are no UTF-8, and are written as they are.
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        pd.DataFrame(columns=columns).to_csv(file, index=False)
        for layer in features["train"]:
            for split in SPLITS:
                table = store.to_pandas(split, layer).assign(layer=layer).reindex(columns=columns)
                table.to_csv(file, index=False, header=False)
