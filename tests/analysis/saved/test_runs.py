import json

import pytest

from analysis.results import DepthProbeResult, InversionResult
from analysis.saved.runs import read_run


def test_a_run_is_read_with_its_studies(run):
    saved = read_run(run)
    assert saved.name == "a run"
    assert list(saved.studies) == ["invert", "depth-probe"]  # in the order of the paper
    assert isinstance(saved.studies["depth-probe"].result, DepthProbeResult)
    assert saved.studies["depth-probe"].provenance["seed"] == 3
    assert saved.network["data"] == "digits"
    assert saved.invertible
    assert saved.opened_by == ["--ckpt", str(run)]


def test_results_are_read_without_a_run(tmp_path, record, inversion):
    inversion.save(tmp_path / "net-analysis" / "invert", record)
    saved = read_run(tmp_path / "net-analysis")
    assert saved.name == "net"
    assert isinstance(saved.studies["invert"].result, InversionResult)
    assert saved.opened_by == ["--ckpt", "some where/net.pt"]
    command = ["irevnet-analyze", "invert", "--ckpt", "torchvision:resnet18"]
    inversion.save(tmp_path / "x-analysis" / "invert", {**record, "checkpoint": None, "command": command})
    assert read_run(tmp_path / "x-analysis").opened_by == ["--ckpt", "torchvision:resnet18"]


OF_FEATURES = {"features": "x.npy", "features_sha256": "ab", "labels": "y.npy", "data": "x.npy", "classes": ["a", "b"]}


def test_results_of_features_are_read_without_a_network(tmp_path, probe, record):
    probe.save(tmp_path / "depth-probe", OF_FEATURES)
    saved = read_run(tmp_path)
    assert (saved.has_network, saved.invertible) == (False, False)
    assert saved.opened_by == ["--features", "x.npy", "--labels", "y.npy"]
    probe.save(tmp_path / "depth-probe", {**OF_FEATURES, "features": None, "labels": None})
    assert read_run(tmp_path).opened_by == []  # they were in memory
    probe.save(tmp_path / "depth-probe", record)
    assert read_run(tmp_path).has_network


def test_a_comparison_has_the_provenance_of_every_network(tmp_path, record, probes):
    probes.save(tmp_path / "depth-probe", {"networks": [record, {**record, "architecture": "ResNet"}]})
    study = read_run(tmp_path).studies["depth-probe"]
    assert [each["architecture"] for each in study.provenances] == ["IRevNet", "ResNet"]
    assert study.provenance["architecture"] == "IRevNet"


def test_an_unreadable_folder_or_file_is_named(tmp_path, run, record, inversion):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere; expected that of a run"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty holds neither a run nor results of one; train one"):
        read_run(tmp_path / "empty")
    (run / "analysis" / "invert" / "invert.json").unlink()  # as in a save that was killed
    assert list(read_run(run).studies) == ["depth-probe"]
    del record["architecture"]
    inversion.save(tmp_path / "x" / "invert", record)
    with pytest.raises(ValueError, match=r"x does not record the architecture of its network; train it"):
        read_run(tmp_path / "x")


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"classes": 3}, "its classes is 3"),
        ("config.json", {"transform": {"image_size": 8}}, "its transform is"),
        ("config.json", {"provenance": {"command": "irevnet train"}}, "its command is 'irevnet train'"),
        ("invert.json", {"provenance": {"versions": ["torch"]}}, r"its versions is"),
        ("invert.json", {"provenance": {"networks": [{"command": [3]}]}}, r"its command is \[3\]"),
    ],
)
def test_records_of_wrong_types_are_refused(run, file, change, message):
    (path,) = run.rglob(file)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=rf"{file} describes no run and no study: {message}"):
        read_run(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[" * 10**5, "is damaged: its lists and objects are nested deeper than 64"),
        ("[]", "describes no run and no study: expected an object, found list"),
    ],
)
def test_json_that_is_no_object_is_refused(run, text, message):
    (run / "config.json").write_text(text)
    with pytest.raises(ValueError, match=rf"config\.json {message}"):
        read_run(run)
