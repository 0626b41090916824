"""The commands that make a report again, kept within it."""

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


class _Kept(TypedDict):
    """The JSON in a page."""

    made_by: str
    steps: list[_Step]


MARK = "irevnet-analyze report"
"""What says that the JSON of a page is that of a report."""


def reproduction(runs: Sequence[SavedRun], report: Path) -> dict[str, Any]:
    """What a report keeps: each command, in order, and what it was run with."""
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
    """Raises `FileExistsError` unless a report can be written there, in place of an earlier one at most."""
    for place in path.parents:
        if place.exists() and not place.is_dir():
            raise FileExistsError(f"{place} is a file, and holds no report; name another place with --out")
    if not path.exists():
        return
    try:
        read_reproduction(path)
    except (ValueError, OSError) as error:
        raise FileExistsError(f"{path} is there and is no report; name another file with --out") from error


def read_reproduction(report: Path) -> dict[str, Any]:
    """What a report keeps.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no report, or is damaged.
    """
    if not report.is_file():
        raise FileNotFoundError(f"there is no report {report}; make one with 'irevnet-analyze report'")
    text = report.read_text(encoding="utf-8", errors="replace")
    kept = re.search(r'<script type="application/json" id="reproduction">(.*?)</script>', text, re.DOTALL)
    try:
        content: Any = parse_json(kept[1]) if kept else None
    except ValueError:
        content = None
    if not fits(content, _Kept) or content["made_by"] != MARK:
        raise ValueError(f"{report} is no report of 'irevnet-analyze report', or is damaged")
    return content


def _training(run: SavedRun) -> list[dict[str, Any]]:
    if not run.config:
        return []
    recorded = run.config.get("provenance", {})
    command = list(recorded.get("command", []))
    if not command:
        return [{"command": [], "comment": f"how {run.folder} was trained is not recorded; see its config.json"}]
    if "--out" in command:  # wherever it was, the commands that follow look for it here
        at = command.index("--out")
        del command[at : at + 2]
    command += ["--out", str(run.folder)]
    return [{"command": command, "comment": _environment(recorded)}]


def _studies(run: SavedRun) -> list[dict[str, Any]]:
    steps = []
    for name, study in run.studies.items():
        command = [word for word in study.provenance.get("command", []) if word != "--resume"]  # nothing is left to
        if not command:
            continue
        if STUDIES[name].needs == "training record":
            compared = [each["run"] for each in study.provenance.get("runs", [])]
            command += [] if any(each in command for each in compared) else compared
        elif not any(word.partition("=")[0] == "--ckpt" for word in command):
            command += ["--ckpt", run.checkpoint]
        steps.append({"command": command, "comment": _environment(study.provenance)})
    return steps


def versions(provenance: Mapping[str, Any]) -> list[str]:
    """What a command was run with: packages and Python, with their versions."""
    packages = [f"{name} {version}" for name, version in provenance.get("versions", {}).items()]
    return [*packages, *([f"Python {provenance['python']}"] if provenance.get("python") else [])]


def _environment(provenance: Mapping[str, Any]) -> str:
    parts = versions(provenance)
    parts += [f"commit {provenance['commit'][:12]}"] if provenance.get("commit") else []
    parts += [f"on {provenance['device']}"] if provenance.get("device") else []
    return ", ".join(parts)
