"""The commands that make a report again, which the report itself holds."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from analysis.results.register import STUDIES
from analysis.saved.runs import SavedRun
from irevnet.utils.untrusted import fits, parse_json


class _Step(TypedDict):
    command: list[str]
    comment: str


class _Content(TypedDict):
    """The JSON in a page."""

    made_by: str
    steps: list[_Step]


MARK = "irevnet-analyze report"
"""Entry that marks the JSON of a page as that of a report."""


def reproduction(runs: Sequence[SavedRun], report: Path) -> dict[str, Any]:
    """The content for a report: each command, in order, with the versions and the device that it was run with."""
    steps = [step for run in runs for step in [*_training(run), *_studies(run)]]
    command = ["irevnet-analyze", "report", *(str(run.folder) for run in runs), "--out", str(report)]
    return {"made_by": MARK, "steps": [*steps, {"command": command, "comment": ""}]}


def script(content: Mapping[str, Any]) -> str:
    """The commands as lines for a shell."""
    lines, earlier = [], ""
    for step in content["steps"]:
        if step["comment"] not in ("", earlier):
            lines.append(f"# {step['comment']}")
            earlier = step["comment"]
        if step["command"]:
            lines.append(shlex.join(step["command"]))
    return "\n".join(lines)


def check_page(path: Path) -> None:
    """Raises `FileExistsError` if a report cannot be written to that path, or would replace a file that is none."""
    for folder in path.parents:
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"{folder} is a file, not a folder; choose another path")
    if not path.exists():
        return
    try:
        read_reproduction(path)
    except (ValueError, OSError) as error:
        raise FileExistsError(f"{path} exists, and is no report; choose another path") from error


def read_reproduction(report: Path) -> dict[str, Any]:
    """Reads the commands that a report holds, and what they were run with.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no report, or is damaged.
    """
    if not report.is_file():
        raise FileNotFoundError(f"there is no report {report}; make one with 'irevnet-analyze report'")
    text = report.read_text(encoding="utf-8", errors="replace")
    found = re.search(r'<script type="application/json" id="reproduction">(.*?)</script>', text, re.DOTALL)
    try:
        content: Any = parse_json(found[1]) if found else None
    except ValueError:
        content = None
    if not fits(content, _Content) or content["made_by"] != MARK:
        raise ValueError(f"{report} is no report of 'irevnet-analyze report', or is damaged")
    return content


def _training(run: SavedRun) -> list[dict[str, Any]]:
    if not run.config:
        return []
    recorded = run.config.get("provenance", {})
    command = list(recorded.get("command", []))
    if not command:
        return [{"command": [], "comment": f"how {run.folder} was trained is not recorded; see its config.json"}]
    if "--out" in command:  # the commands that follow look for the run where it is now
        at = command.index("--out")
        del command[at : at + 2]
    command += ["--out", str(run.folder)]
    return [{"command": command, "comment": _environment(recorded)}]


def _studies(run: SavedRun) -> list[dict[str, Any]]:
    steps = []
    for name, study in run.studies.items():
        command = [word for word in study.provenance.get("command", []) if word != "--resume"]
        if not command:
            continue
        if STUDIES[name].needs == "training record":
            compared = [each["run"] for each in study.provenance.get("runs", [])]
            command += [] if any(each in command for each in compared) else compared
        elif not any(word.partition("=")[0] in run.opened_by[:1] for word in command):
            command += run.opened_by
        steps.append({"command": command, "comment": _environment(study.provenance)})
    return steps


def versions(provenance: Mapping[str, Any]) -> list[str]:
    """Packages and Python, with the versions that a command was run with."""
    packages = [f"{name} {version}" for name, version in provenance.get("versions", {}).items()]
    return [*packages, *([f"Python {provenance['python']}"] if provenance.get("python") else [])]


def _environment(provenance: Mapping[str, Any]) -> str:
    parts = versions(provenance)
    parts += [f"commit {provenance['commit'][:12]}"] if provenance.get("commit") else []
    parts += [f"on {provenance['device']}"] if provenance.get("device") else []
    return ", ".join(parts)
