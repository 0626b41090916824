"""The page of a report: what networks learned, beside what the paper found, from saved results alone."""

import functools
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from analysis.results.findings import Finding, caveats
from analysis.saved.reproduction import reproduction, script, versions
from analysis.saved.runs import SavedRun
from figures.report.blocks import Table
from figures.report.sections import build_sections, run_names
from figures.text_table import TextTable
from figures.vega import VEGA_LITE
from irevnet.utils.provenance import installed_version

VERDICTS = {"agrees": "agrees", "differs": "differs", "open": "undecided"}
"""The words for the verdicts on a page."""


def build_report(runs: Sequence[SavedRun], path: Path) -> str:
    """The page of these runs as HTML, to be written to that path.

    It needs nothing from elsewhere: it holds all pictures and files, and Vega-Lite, which draws its charts.
    """
    environment = Environment(
        loader=PackageLoader("figures.report", ""),
        autoescape=select_autoescape(["jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    sections = build_sections(runs)
    names = run_names(runs)
    findings = [(section.title, each) for section in sections for each in section.findings]
    commands = reproduction(runs, path)
    return environment.get_template("page.html.jinja").render(
        title=f"What {_and(names)} learned",
        subtitle=_subtitle(runs),
        version=installed_version("irevnet-toolkit"),
        style=Markup(_resource("page.css")),
        script=Markup(_script()),
        sections=sections,
        several=len(runs) > 1,
        verdicts=VERDICTS,
        caveats=caveats([run.network for run in runs]),
        tally=_tally([finding for _, finding in findings]),
        summary=_summary(findings, several=len(runs) > 1),
        commands=script(commands),
        reproduction=commands,
        provenance=[_provenance(run) for run in runs],
    )


@functools.cache
def _script() -> str:
    """Vega-Embed, Vega-Lite and Vega with the page's own few lines, as one script that can be put into a page."""
    bundle = vl_convert.javascript_bundle(_resource("page.js"), vl_version=VEGA_LITE)
    return bundle.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def _resource(name: str) -> str:
    return files("figures.report").joinpath(name).read_text(encoding="utf-8")


def _subtitle(runs: Sequence[SavedRun]) -> str:
    data = dict.fromkeys(f"{len(run.network['classes']) or 1000} classes of {run.network['data']}" for run in runs)
    return (
        f"Representation studies of the paper 'i-RevNet: Deep Invertible Networks' (ICLR 2018), on {_and(list(data))}"
    )


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _tally(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.verdict for finding in findings)
    papers = "paper" if all(finding.source == Finding.source for finding in findings) else "papers"
    return (
        f"Of {len(findings)} statements, {counts['agrees']} agree with the {papers}, {counts['differs']} differ, and "
        f"{counts['open']} are undecided by these results. The condition for agreement stands beside each below."
    )


def _summary(findings: Sequence[tuple[str, Finding]], *, several: bool) -> Table:
    rows = [
        (title, *[each.network] * several, _stated(each), each.here, VERDICTS[each.verdict]) for title, each in findings
    ]
    headings = ("study", *["network"] * several, "in the paper", "here", "verdict")
    return Table.of(TextTable(headings, rows), "What the paper found, and what was found here", "findings")


def _stated(finding: Finding) -> str:
    """What the paper found, or another that is named."""
    return finding.paper if finding.source == Finding.source else f"{finding.paper} ({finding.source})"


def _provenance(run: SavedRun) -> Table:
    """The provenance of a run and of each of its studies."""
    rows = []
    records: list[tuple[str, dict[str, Any]]] = [("train", dict(run.config.get("provenance", {})))]
    records += [(name, dict(study.provenance)) for name, study in run.studies.items()]
    for name, record in records:
        if record:
            rows.append(
                (
                    name,
                    " ".join(record.get("command", [])),
                    str(record.get("seed", run.config.get("seed", ""))),
                    str(record.get("time", "")),
                    f"{record['wall_seconds']:,.0f} s" if "wall_seconds" in record else "",
                    str(record.get("device", "")),
                    str(record.get("commit") or "")[:12],
                    (record.get("weights_sha256") or "")[:12],
                )
            )
    network = run.network
    headings = ("what", "command", "seed", "when", "took", "device", "commit", "weights")
    classes = ", ".join(network["classes"])
    notes = [
        f"data: {network['data']}; classes: {classes if len(classes) < 2000 else classes[:2000] + ' ...'}",
        *_origin(run),
        *_versions([record for _, record in records]),
    ]
    return Table.of(TextTable(headings, rows, notes), f"Provenance of {run.name}", f"{run.name}-provenance")


def _origin(run: SavedRun) -> list[str]:
    """The files that a network, or features, are from."""
    network = run.network
    if run.has_network:
        checkpoint = f"checkpoint: {network.get('checkpoint', '')}, SHA-256 {network.get('checkpoint_sha256', '')}"
        return [f"input: {network['transform']}", checkpoint]
    files = [
        (name, network.get(name), network[f"{name}_sha256"])
        for name in ("features", "labels")
        if f"{name}_sha256" in network
    ]
    drawn = ["test images: a fifth of each class, drawn by the seed"] if network.get("held_out") else []
    return [*(f"{name}: {file or 'arrays in memory'}, SHA-256 {digest}" for name, file, digest in files), *drawn]


def _versions(records: Sequence[dict[str, Any]]) -> list[str]:
    lines = [", ".join([*versions(each), *([each["platform"]] if "platform" in each else [])]) for each in records]
    return list(dict.fromkeys(line for line in lines if line))
