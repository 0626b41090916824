"""What is exported is what the store holds, as arrays and as a table."""

import numpy as np
import pandas as pd
import pytest

from analysis.features.export import check_export, export_features
from analysis.features.store import FeatureStore

LABELS = {"train": np.array([1, 0, 1]), "test": np.array([0, 1])}


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    """Two layers of 3 and 1 features, of images whose names are no plain text."""
    rng = np.random.default_rng(0)
    store = FeatureStore(tmp_path / "features", {"classes": ["cat, grey", "dog"]})
    for split, labels in LABELS.items():
        store.begin(split, labels, [f'{split}/{n} "a,b"\udcff\n.png' for n in range(len(labels))])
        with store.writer(split, {"early.0": 3, "late": 1}) as writer:
            values = {"early.0": rng.normal(size=(len(labels), 3)), "late": rng.normal(size=(len(labels), 1))}
            writer.write(np.arange(len(labels)), {name: array.astype(np.float32) for name, array in values.items()})
    return store


def test_arrays_are_named_by_split_and_layer(store, tmp_path):
    export_features(store, ["late", "early.0"], tmp_path / "new" / "x.npz")
    with np.load(tmp_path / "new" / "x.npz", allow_pickle=False) as arrays:
        expected = [f"{split}/{name}" for split in LABELS for name in ("late", "early.0", "labels", "images")]
        assert list(arrays) == [*expected, "classes"]
        assert arrays["classes"].tolist() == ["cat, grey", "dog"]
        for split, labels in LABELS.items():
            np.testing.assert_array_equal(arrays[f"{split}/labels"], labels)
            assert arrays[f"{split}/images"].tolist() == store.names(split)
            for layer in ("early.0", "late"):
                np.testing.assert_array_equal(arrays[f"{split}/{layer}"], store.features(split, layer))


def test_table_has_a_line_an_image_and_layer(store, tmp_path):
    export_features(store, ["early.0", "late"], tmp_path / "x.csv")
    table = pd.read_csv(tmp_path / "x.csv", encoding_errors="surrogateescape")
    assert table.columns.tolist() == ["layer", "image", "split", "label", "f0", "f1", "f2"]
    assert len(table) == 2 * 5
    for (layer, split), rows in table.groupby(["layer", "split"]):
        expected = store.features(split, layer)
        found = rows[[f"f{n}" for n in range(expected.shape[1])]].to_numpy(np.float32)
        np.testing.assert_array_equal(found, expected)  # float32 to the last bit
        assert rows["image"].tolist() == store.names(split)
        assert rows["label"].tolist() == [["cat, grey", "dog"][label] for label in LABELS[split]]
    assert table.loc[table["layer"] == "late", ["f1", "f2"]].isna().all(axis=None)


def test_what_cannot_be_exported_is_refused(store, tmp_path):
    with pytest.raises(ValueError, match=r"x\.parquet is neither \.npz nor \.csv; name a file for the features that"):
        check_export(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="has no layer 'images', as that array is not of features"):
        export_features(store, ["late", "images"], tmp_path / "x.npz")
    with pytest.raises(FileNotFoundError, match="holds no complete features of other on the train images"):
        export_features(store, ["other"], tmp_path / "x.npz")
    (tmp_path / "x.csv").touch()
    with pytest.raises(FileExistsError, match=r"x\.csv already exists; name another file"):
        export_features(store, ["late"], tmp_path / "x.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"features", "x.csv"}
