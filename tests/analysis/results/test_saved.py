import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from analysis.results import DepthProbeResult, InversionResult, TrainingCurvesResult
from analysis.results.reproduction import check_page, read_reproduction, reproduction, script
from analysis.results.saved import STUDIES, read_run

NETWORK = {
    "architecture": "IRevNet",
    "config": {"channels": None},
    "data": "digits",
    "classes": ["0", "1"],
    "transform": {"image_size": [8, 8]},
}
RECORD = {
    **NETWORK,
    "command": ["irevnet-analyze", "depth-probe"],
    "versions": {"torch": "2.11"},
    "python": "3.12.1",
    "commit": "0123456789abcdef",
    "device": "cpu",
    "checkpoint": "some where/net.pt",
}


@pytest.fixture
def run(tmp_path, probe, inversion) -> Path:
    """A run with two studies, in a folder whose name a shell would take apart."""
    folder = tmp_path / "a run"
    folder.mkdir()
    config = {
        **NETWORK,
        "model": "irevnet-b",
        "provenance": {"command": ["irevnet", "train", "--out", "elsewhere", "--epochs", "2"]},
    }
    (folder / "config.json").write_text(json.dumps(config))
    probe.save(folder / "analysis" / "depth-probe", {**RECORD, "seed": 3})
    command = ["irevnet-analyze", "invert", "--ckpt=other", "--resume"]
    inversion.save(folder / "analysis" / "invert", {**RECORD, "command": command})
    return folder


def test_a_run_is_read_with_its_studies(run):
    saved = read_run(run)
    assert saved.name == "a run"
    assert list(saved.studies) == ["invert", "depth-probe"]  # in the order of the paper
    assert isinstance(saved.studies["depth-probe"].result, DepthProbeResult)
    assert saved.studies["depth-probe"].provenance["seed"] == 3
    assert saved.network["data"] == "digits"
    assert saved.invertible
    assert saved.checkpoint == str(run)


def test_results_of_a_checkpoint_are_read_without_a_run(tmp_path, inversion):
    inversion.save(tmp_path / "net-analysis" / "invert", RECORD)
    saved = read_run(tmp_path / "net-analysis")
    assert saved.name == "net"
    assert isinstance(saved.studies["invert"].result, InversionResult)
    assert saved.checkpoint == "some where/net.pt"
    command = ["irevnet-analyze", "invert", "--ckpt", "torchvision:resnet18"]
    inversion.save(tmp_path / "x-analysis" / "invert", {**RECORD, "checkpoint": None, "command": command})
    assert read_run(tmp_path / "x-analysis").checkpoint == "torchvision:resnet18"


def test_of_a_comparison_every_network_is_kept(tmp_path, probes):
    records = [RECORD, {**RECORD, "architecture": "ResNet"}]
    probes.save(tmp_path / "x" / "depth-probe", {"networks": records})
    study = read_run(tmp_path / "x").studies["depth-probe"]
    assert [each["architecture"] for each in study.provenances] == ["IRevNet", "ResNet"]
    assert study.provenance["architecture"] == "IRevNet"


def test_what_cannot_be_read_is_named(tmp_path, run):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere; give that of a run"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty holds neither a run nor results of one; train one"):
        read_run(tmp_path / "empty")
    mark = run / "analysis" / "invert" / "invert.json"
    mark.write_text("{")
    with pytest.raises(ValueError, match=r"invert\.json is damaged"):
        read_run(run)
    mark.write_text("[]")
    with pytest.raises(ValueError, match=r"invert\.json is of no run and no study: expected an object, found list"):
        read_run(run)
    mark.unlink()  # as in a save that was killed
    assert list(read_run(run).studies) == ["depth-probe"]


def test_every_study_is_known_by_the_name_of_its_command():
    assert list(STUDIES) == ["training-curves", "invert", "interpolate", "spectrum", "depth-probe", "pca"]


def test_reading_runs_needs_no_torch():
    modules = "analysis.results.saved, analysis.findings, analysis.results.reproduction"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def page(folder: Path, content: str) -> Path:
    path = folder / "page.html"
    path.write_text(f'<p>x</p><script type="application/json" id="reproduction">{content}</script>')
    return path


def test_the_commands_of_a_report_name_what_they_are_of(run, tmp_path):
    content = reproduction([read_run(run)], tmp_path / "page.html")
    read = read_reproduction(page(tmp_path, json.dumps(content)))
    assert read == content
    lines = script(read).splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        f"irevnet train --epochs 2 --out '{run}'",
        "irevnet-analyze invert --ckpt=other",
        f"irevnet-analyze depth-probe --ckpt '{run}'",
        f"irevnet-analyze report '{run}' --out {tmp_path / 'page.html'}",
    ]
    assert [line for line in lines if line.startswith("#")] == [
        "# torch 2.11, Python 3.12.1, commit 0123456789ab, on cpu"  # once for both
    ]


@pytest.mark.parametrize(
    ("asked", "printed"),
    [([], "irevnet-analyze training-curves here"), (["here"], "irevnet-analyze training-curves here")],
)
def test_training_curves_of_the_newest_run_name_it(run, asked, printed):
    result = TrainingCurvesResult(
        names=np.array(["x"]),
        curve_run=np.array([0]),
        iteration=np.array([1]),
        loss=np.array([1.0]),
        epoch_run=np.array([0]),
        epoch_iteration=np.array([1]),
        test_accuracy=np.array([0.5]),
        window=np.array(1),
    )
    record = {"command": ["irevnet-analyze", "training-curves", *asked], "runs": [{"run": "here"}]}
    result.save(run / "analysis" / "training-curves", record)
    assert printed in script(reproduction([read_run(run)], run / "page.html")).splitlines()


def test_a_run_without_a_record_of_its_command_says_so(run):
    (run / "config.json").write_text(json.dumps(NETWORK))
    lines = script(reproduction([read_run(run)], run / "page.html")).splitlines()
    assert lines[0] == f"# how {run} was trained is not recorded; see its config.json"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"made_by": "irevnet-analyze report", "steps": [1]}'])
def test_other_pages_are_no_report(tmp_path, content):
    with pytest.raises(ValueError, match=r"page\.html is no report of 'irevnet-analyze report', or is damaged"):
        read_reproduction(page(tmp_path, content))
    with pytest.raises(FileExistsError, match=r"page\.html is there and is no report; name another file with --out"):
        check_page(tmp_path / "page.html")


def test_a_report_may_be_written_where_nothing_or_a_report_is(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no report .*none\.html; make one with"):
        read_reproduction(tmp_path / "none.html")
    check_page(tmp_path / "none.html")
    check_page(page(tmp_path, json.dumps(reproduction([read_run(run)], tmp_path / "page.html"))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 3}, r"its classes is 3"),
        ({"transform": {"image_size": 8}}, r"its transform is"),
        ({"provenance": {"command": "irevnet train"}}, r"its command is 'irevnet train'"),
        ({"provenance": []}, r"its provenance is \[\]"),
    ],
)
def test_a_config_of_other_kinds_is_named(run, change, message):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=rf"config\.json is of no run and no study: {message}"):
        read_run(run)


@pytest.mark.parametrize("change", [{"versions": ["torch"]}, {"networks": [{"command": [3]}]}, {"wall_seconds": "1"}])
def test_provenance_of_other_kinds_is_named(run, change):
    mark = run / "analysis" / "invert" / "invert.json"
    content = json.loads(mark.read_text())
    mark.write_text(json.dumps(content | {"provenance": content["provenance"] | change}))
    with pytest.raises(ValueError, match=r"invert\.json is of no run and no study: its \w+ is"):
        read_run(run)


def test_json_without_an_end_is_named(run):
    (run / "config.json").write_text("[" * 10**5)
    with pytest.raises(ValueError, match=r"config\.json is damaged: its lists and objects are nested deeper than 64"):
        read_run(run)


def test_a_folder_that_does_not_say_which_network_it_is_of_is_named(tmp_path, inversion):
    inversion.save(tmp_path / "x" / "invert", {key: value for key, value in RECORD.items() if key != "architecture"})
    with pytest.raises(ValueError, match=r"nothing in .*x tells the architecture of its network; train it"):
        read_run(tmp_path / "x")
