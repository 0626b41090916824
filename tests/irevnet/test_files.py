import os

import pytest

from irevnet.files import atomic_write, write_json


def test_a_file_appears_whole_under_its_name(tmp_path):
    path = tmp_path / "notes.txt"
    with atomic_write(path) as temporary:
        assert temporary.suffix == ".txt"
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_earlier_file_and_no_litter(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("earlier")

    def fail():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("no space")

    with pytest.raises(RuntimeError, match="no space"):
        fail()
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_flushed_before_it_is_renamed_and_the_folder_after(tmp_path, monkeypatch):
    steps = []
    rename, flush = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda *paths: (steps.append("rename"), rename(*paths)))
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("flush"), flush(handle)))
    write_json(tmp_path / "x.json", {"a": 1})
    assert steps == ["flush", "rename", "flush"]
