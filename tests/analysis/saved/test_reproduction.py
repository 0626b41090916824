import json
from pathlib import Path

import pytest

from analysis.saved.reproduction import check_page, read_reproduction, reproduction, script
from analysis.saved.runs import read_run


def page(folder: Path, content: str) -> Path:
    path = folder / "page.html"
    path.write_text(f'<p>x</p><script type="application/json" id="reproduction">{content}</script>')
    return path


def test_commands_are_kept_with_what_they_ran_on(run, tmp_path):
    content = reproduction([read_run(run)], tmp_path / "page.html")
    read = read_reproduction(page(tmp_path, json.dumps(content)))
    assert read == content
    assert script(read).splitlines() == [
        f"irevnet train --epochs 2 --out '{run}'",
        "# torch 2.11, Python 3.12.1, commit 0123456789ab, on cpu",  # of both studies
        "irevnet-analyze invert --ckpt=other",
        f"irevnet-analyze depth-probe --ckpt '{run}'",
        f"irevnet-analyze report '{run}' --out {tmp_path / 'page.html'}",
    ]


@pytest.mark.parametrize("asked", [[], ["here"]])
def test_training_curves_of_the_newest_run_name_it(run, curves, asked):
    record = {"command": ["irevnet-analyze", "training-curves", *asked], "runs": [{"run": "here"}]}
    curves(1.0).save(run / "analysis" / "training-curves", record)
    lines = script(reproduction([read_run(run)], run / "page.html")).splitlines()
    assert "irevnet-analyze training-curves here" in lines


def test_a_run_without_its_command_says_so(run):
    config = json.loads((run / "config.json").read_text())
    del config["provenance"]
    (run / "config.json").write_text(json.dumps(config))
    lines = script(reproduction([read_run(run)], run / "page.html")).splitlines()
    assert lines[0] == f"# how {run} was trained is not recorded; see its config.json"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"made_by": "irevnet-analyze report", "steps": [1]}'])
def test_other_pages_are_no_report(tmp_path, content):
    with pytest.raises(ValueError, match=r"page\.html is no report of 'irevnet-analyze report', or is damaged"):
        read_reproduction(page(tmp_path, content))
    with pytest.raises(FileExistsError, match=r"page\.html exists, and is no report; choose another path"):
        check_page(tmp_path / "page.html")


def test_a_report_replaces_nothing_but_a_report(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no report .*none\.html; make one with"):
        read_reproduction(tmp_path / "none.html")
    check_page(tmp_path / "none.html")
    check_page(page(tmp_path, json.dumps(reproduction([read_run(run)], tmp_path / "page.html"))))
