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
    assert saved.checkpoint == str(run)


def test_results_are_read_without_a_run(tmp_path, record, inversion):
    inversion.save(tmp_path / "net-analysis" / "invert", record)
    saved = read_run(tmp_path / "net-analysis")
    assert saved.name == "net"
    assert isinstance(saved.studies["invert"].result, InversionResult)
    assert saved.checkpoint == "some where/net.pt"
    command = ["irevnet-analyze", "invert", "--ckpt", "torchvision:resnet18"]
    inversion.save(tmp_path / "x-analysis" / "invert", {**record, "checkpoint": None, "command": command})
    assert read_run(tmp_path / "x-analysis").checkpoint == "torchvision:resnet18"


def test_a_comparison_has_the_provenance_of_every_network(tmp_path, record, probes):
    probes.save(tmp_path / "x" / "depth-probe", {"networks": [record, {**record, "architecture": "ResNet"}]})
    study = read_run(tmp_path / "x").studies["depth-probe"]
    assert [each["architecture"] for each in study.provenances] == ["IRevNet", "ResNet"]
    assert study.provenance["architecture"] == "IRevNet"


def test_an_unreadable_folder_or_file_is_named(tmp_path, run):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere; expected that of a run"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty holds neither a run nor results of one; train one"):
        read_run(tmp_path / "empty")
    mark = run / "analysis" / "invert" / "invert.json"
    mark.write_text("{")
    with pytest.raises(ValueError, match=r"invert\.json is damaged"):
        read_run(run)
    mark.write_text("[]")
    with pytest.raises(ValueError, match=r"invert\.json describes no run and no study: expected an object, found list"):
        read_run(run)
    mark.unlink()  # as in a save that was killed
    assert list(read_run(run).studies) == ["depth-probe"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 3}, r"its classes is 3"),
        ({"transform": {"image_size": 8}}, r"its transform is"),
        ({"provenance": {"command": "irevnet train"}}, r"its command is 'irevnet train'"),
        ({"provenance": []}, r"its provenance is \[\]"),
    ],
)
def test_a_config_of_wrong_types_is_refused(run, change, message):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=rf"config\.json describes no run and no study: {message}"):
        read_run(run)


@pytest.mark.parametrize("change", [{"versions": ["torch"]}, {"networks": [{"command": [3]}]}, {"wall_seconds": "1"}])
def test_provenance_of_wrong_types_is_refused(run, change):
    mark = run / "analysis" / "invert" / "invert.json"
    content = json.loads(mark.read_text())
    mark.write_text(json.dumps(content | {"provenance": content["provenance"] | change}))
    with pytest.raises(ValueError, match=r"invert\.json describes no run and no study: its \w+ is"):
        read_run(run)


def test_deeply_nested_json_is_refused(run):
    (run / "config.json").write_text("[" * 10**5)
    with pytest.raises(ValueError, match=r"config\.json is damaged: its lists and objects are nested deeper than 64"):
        read_run(run)


def test_results_without_a_network_are_refused(tmp_path, record, inversion):
    del record["architecture"]
    inversion.save(tmp_path / "x" / "invert", record)
    with pytest.raises(ValueError, match=r"x does not record the architecture of its network; train it"):
        read_run(tmp_path / "x")
