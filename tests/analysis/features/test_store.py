import errno
import json
import os
import threading

import numpy as np
import pytest

from analysis.features import store as module
from analysis.features.store import FeatureStore, Writer
from irevnet.utils import files

NAMES = [f"train/{'cat' if n % 2 == 0 else 'dog'}/{n}.png" for n in range(10)]
IDENTITY = {"weights_sha256": "abc", "transform": {"resize": 8, "mean": [0.0]}, "classes": ["cat", "dog"]}


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    store = FeatureStore(tmp_path / "features", IDENTITY, record={"command": ["irevnet-analyze"]})
    store.begin("train", np.arange(10) % 2, NAMES)
    return store


def test_rows_are_kept_under_the_index_of_their_image(store):
    features = np.arange(30, dtype=np.float32).reshape(10, 3)
    with store.writer("train", {"block-1": 3, "logits": 2}) as writer:
        for rows in (np.array([7, 2, 9]), np.array([0, 1, 3, 4, 5, 6, 8])):
            writer.write(rows, {"block-1": features[rows], "logits": features[rows, :2]})
    again = FeatureStore(store.folder, IDENTITY)
    np.testing.assert_array_equal(again.features("train", "block-1"), features)
    np.testing.assert_array_equal(again.features("train", "logits"), features[:, :2])
    np.testing.assert_array_equal(again.labels("train"), np.arange(10) % 2)
    with pytest.raises(ValueError, match="read-only"):
        again.features("train", "block-1")[0] = 1


def ones(*names):
    return {name: np.ones((2, 1), dtype=np.float32) for name in names}


def test_what_is_marked_has_been_flushed_before(store, monkeypatch):
    events = []
    flush, sync = np.memmap.flush, os.fsync
    writer = store.writer("train", {"a": 1, "b": 1})
    monkeypatch.setattr(np.memmap, "flush", lambda self: (events.append(self.dtype.kind), flush(self))[1])
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("sync"), sync(handle))[1])
    writer.write(np.arange(2), ones("a", "b"))
    writer.close()
    assert events == ["sync", "f", "sync", "f", "sync", "b", "sync", "b"]


def test_rows_are_written_while_earlier_ones_are_flushed(store, monkeypatch):
    disk, sync = threading.Event(), os.fsync
    writer = store.writer("train", {"a": 1})
    monkeypatch.setattr(os, "fsync", lambda handle: (disk.wait(timeout=60), sync(handle))[1])
    writer.write(np.arange(2), ones("a"))
    assert writer.unflushed == 8
    writer.flush()
    writer.write(np.arange(2, 4), ones("a"))
    assert not store.done("train", ["a"]).any()
    disk.set()
    writer.flush()
    assert writer.unflushed == 0
    assert store.done("train", ["a"])[:2].all()  # the earlier flush has ended
    writer.close()
    assert store.done("train", ["a"]).tolist() == [True] * 4 + [False] * 6
    assert not store.done("train", ["a", "b"]).any()
    with pytest.raises(FileNotFoundError, match="holds no complete features of a on the train images"):
        store.features("train", "a")


@pytest.mark.parametrize("end", [Writer.flush, Writer.close])
def test_a_disk_that_fails_is_no_success_and_marks_nothing(store, monkeypatch, end):
    def fail(handle):
        raise OSError(errno.EIO, "Input/output error")

    writer = store.writer("train", {"a": 1})
    writer.write(np.arange(2), ones("a"))
    monkeypatch.setattr(os, "fsync", fail)
    writer.flush()
    with pytest.raises(OSError, match="Input/output error"):
        end(writer)
    assert not store.done("train", ["a"]).any()


def test_an_array_that_another_process_made_meanwhile_is_used(store, monkeypatch):
    with store.writer("train", {"block-1": 3}) as writer:
        writer.write(np.arange(10), {"block-1": np.ones((10, 3), dtype=np.float32)})
    before = (store.folder / "train/block-1.npy").read_bytes()
    module._create(store.folder / "train/block-1.npy", (10, 3), np.float32)
    assert (store.folder / "train/block-1.npy").read_bytes() == before
    assert not list(store.folder.rglob("*.part*"))


def test_all_of_an_array_is_on_the_disk_from_the_start(store):
    store.writer("train", {"block-1": 100_000})
    status = os.stat(store.folder / "train/block-1.npy")
    assert status.st_blocks * 512 >= status.st_size >= 4_000_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transform": {"resize": 16, "mean": [0.0]}}, "its transform.resize is 8, not 16; remove it, or choose"),
        ({"classes": ["c" * 50]}, r'its classes is \["cat", "dog"\], not \["c{35}\.\.\.; remove it'),
        ({"extra": 1}, "its extra is null, not 1"),
    ],
)
def test_features_of_something_else_are_refused_by_what_differs(store, change, message):
    before = json.loads((store.folder / "manifest.json").read_text())
    assert before["identity"] == {"format": 2, "dtype": "float32", **IDENTITY}
    assert before["record"] == {"command": ["irevnet-analyze"]}
    with pytest.raises(ValueError, match=message):
        FeatureStore(store.folder, {**IDENTITY, **change})
    FeatureStore(store.folder, IDENTITY, record={"command": ["another"]})  # how they came to be may differ
    assert json.loads((store.folder / "manifest.json").read_text()) == before


def test_folders_that_hold_something_else_are_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    for path in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(FileExistsError, match="holds other files; name a folder for features that is new or"):
            FeatureStore(path, IDENTITY)


def test_a_damaged_manifest_is_named(store):
    (store.folder / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is damaged: .*; remove that folder, and its features are"):
        FeatureStore(store.folder, IDENTITY)


def test_names_are_kept_and_made_up_for(store):
    """As of stores of earlier versions, which have none, and of images that were moved within their data."""
    assert store.names("train") == NAMES
    path = store.folder / "train" / "names.json"
    path.unlink()
    moved = ["\udcff\n", *NAMES[1:]]  # the byte 255, and a line break
    for names in (NAMES, moved):
        store.begin("train", store.labels("train"), names)
        assert store.names("train") == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"names\.json is damaged: .*; extract its features again, which mends it"),
        ('["a", 1]', r"is damaged: found \['a', 1\] where names are expected"),
        ('["a"]', "is damaged: it has 1 names of 10 images"),
    ],
)
def test_damaged_names_are_refused(store, content, message):
    (store.folder / "train" / "names.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        store.names("train")


def test_features_become_a_table(store):
    features = np.arange(20, dtype=np.float32).reshape(10, 2)
    with store.writer("train", {"a": 2}) as writer:
        writer.write(np.arange(10), {"a": features})
    table = store.to_pandas("train", "a")
    assert table.columns.tolist() == ["image", "split", "label", "f0", "f1"]
    assert table["image"].tolist() == NAMES
    assert table["label"].tolist() == ["cat", "dog"] * 5
    assert set(table["split"]) == {"train"}
    np.testing.assert_array_equal(table[["f0", "f1"]], features)


def test_a_disk_without_room_is_named_before_anything_is_written(store):
    with pytest.raises(OSError, match=r"the features of 10 images take \d+\.\d GB, .* has room for .* by `features_"):
        store.writer("train", {"block-1": 10**14})
    assert sorted(path.name for path in (store.folder / "train").iterdir()) == ["labels.npy", "names.json"]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("labels", np.zeros(10), r"labels\.npy is damaged: it is float64 of the shape \(10,\); remove"),
        ("labels", np.zeros((5, 2), dtype=np.int64), r"labels\.npy is damaged: it is int64 of the shape \(5, 2\)"),
        ("a.done", np.ones(9, dtype=bool), r"a\.done\.npy is damaged: it is of 9 images, and there are 10; remove"),
        ("a", np.zeros((9, 1), dtype=np.float32), r"a\.npy is damaged: it is of 9 images, and there are 10"),
    ],
)
def test_arrays_of_another_kind_are_named(store, name, array, message):
    with store.writer("train", {"a": 1}) as writer:
        writer.write(np.arange(10), {"a": np.ones((10, 1), dtype=np.float32)})
    np.save(store.folder / "train" / f"{name}.npy", array)
    with pytest.raises(ValueError, match=message):
        store.features("train", "a")


def test_what_a_killed_process_left_is_swept_away(store):
    labels = store.labels("train")
    left = store.folder / "train" / f".{'0' * 32}.part.npy"
    left.touch()
    files._swept.clear()  # as in another process
    store.begin("train", labels, NAMES)
    assert not left.exists()
