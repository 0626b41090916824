import json
import subprocess
from importlib.metadata import PackageNotFoundError

from irevnet.utils import provenance as source
from irevnet.utils.provenance import provenance


def test_provenance_says_how_to_repeat_it():
    record = provenance(["/home/me/bin/irevnet-analyze", "invert", "--out", "/tmp/x"])
    assert record["command"] == ["irevnet-analyze", "invert", "--out", "/tmp/x"]
    assert provenance([])["command"] == []
    assert set(record["versions"]) >= {"torch", "numpy", "irevnet-toolkit"}
    json.dumps(record)


def test_source_that_is_not_installed_runs(monkeypatch):
    def absent(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(source, "version", absent)
    assert set(provenance([])["versions"].values()) == {"(not installed)"}


def test_the_commit_is_that_of_this_source_or_none(monkeypatch, tmp_path):
    (tmp_path / "module.py").touch()
    monkeypatch.setattr(source, "__file__", str(tmp_path / "module.py"))
    assert source._source_commit() is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert source._source_commit() is None  # in a repository, but no part of it
    subprocess.run([*git, "add", "module.py"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert source._source_commit() == head
    monkeypatch.setenv("PATH", "")
    assert source._source_commit() is None  # no git here
