"""The sections of a report: for each study what the paper found, what the runs found, and the figures and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.figure import Figure

from analysis.results import Comparison, Result
from analysis.results.findings import Finding, FindingContext, find_accuracy
from analysis.results.register import STUDIES, StudySpec
from analysis.saved.runs import INVERTIBLE, SavedRun, SavedStudy
from figures.network import plot_network
from figures.report.blocks import Block, Drawing, PageChart, Table, figure_files, saved_figure
from figures.study_figure import figure_of
from figures.text_table import TextTable
from irevnet.utils.lookup import names_apart


@dataclass(frozen=True, kw_only=True)
class Missing:
    """The reason for which a run has no result of a study, and the command that makes one."""

    why: str
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class Column:
    """Blocks one below the other; several columns stand side by side."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class Section:
    """The networks, or a study.

    Attributes:
        anchor: name of the section within links.
        title: its heading.
        paper: what the paper did, in a sentence or two.
        findings: statements of the paper, and what became of them here.
        missing: runs that have no result of the study.
        groups: rows of columns.
    """

    anchor: str
    title: str
    paper: str
    findings: Sequence[Finding]
    missing: Sequence[Missing]
    groups: Sequence[Sequence[Column]]


def build_sections(runs: Sequence[SavedRun]) -> list[Section]:
    """A section for the networks, and one for every study of the register, whether it has been run or not; optional
    studies only if they have been."""
    names = run_names(runs)
    shown = [spec for spec in STUDIES.values() if not spec.optional or any(spec.name in run.studies for run in runs)]
    return [_networks(runs, names), *(_study(runs, names, spec) for spec in shown)]


def run_names(runs: Sequence[SavedRun]) -> list[str]:
    """The names of the runs on the page: the model's or, where two runs share it, the folder's."""
    return names_apart([str(run.config.get("model", run.name)) for run in runs], [run.name for run in runs])


_PAPERS_TABLE = (
    ("ResNet-50 (paper, ImageNet)", "no", "no", "24.7%", "26 M"),
    ("RevNet-56 (paper, ImageNet)", "no", "no", "25.2%", "28 M"),
    ("i-RevNet (a) (paper, ImageNet)", "yes", "no", "24.7%", "181 M"),
    ("i-RevNet (b) (paper, ImageNet)", "yes", "yes", "26.7%", "29 M"),
)


def _networks(runs: Sequence[SavedRun], names: Sequence[str]) -> Section:
    rows, columns = [], []
    accuracy: dict[bool, dict[str, float]] = {True: {}, False: {}}
    for run, name in zip(runs, names):
        network, top1 = run.network, _test_accuracy(run)
        if top1 is not None:
            accuracy[run.invertible][name] = top1
        count = network.get("parameters")
        rows.append(
            (
                f"{name} ({network['data']})",
                *_properties(run),
                "-" if top1 is None else f"{1 - top1:.1%}",
                "-" if count is None else f"{count / 1e6:.1f} M",
            )
        )
        if not run.has_network:
            continue
        figure = _draw_network(run)
        caption = f"{name}, drawn from its config as in Figs. 1 and 2."
        drawing = Drawing.of(figure, caption, f"{run.name}-network")
        columns.append(Column(title=name if len(runs) > 1 else "", blocks=[drawing]))
    headings = ("architecture", "injective", "bijective", "top-1 error", "parameters")
    table = Table.of(
        TextTable(headings, [*rows, *_PAPERS_TABLE]), "Table 1, and the networks of this report", "table-1"
    )
    return Section(
        anchor="networks",
        title="The networks" if len(runs) > 1 else "The network",
        paper="Table 1 compares an injective i-RevNet (a) and a bijective one (b) with a RevNet and a ResNet: what is "
        "invertible classifies about as well.",
        findings=find_accuracy(accuracy[True], accuracy[False]),
        missing=[],
        groups=[[column] for column in columns] + [[Column(title="", blocks=[table])]],
    )


def _properties(run: SavedRun) -> tuple[str, str]:
    """Whether a network is injective, and bijective; of networks of others the second is not known."""
    if not run.has_network:
        return "-", "-"
    if not run.invertible:
        return "no", "no"
    padded = run.network["config"].get("channels") is not None
    return "yes", "-" if run.network["architecture"] != INVERTIBLE else "no" if padded else "yes"


def _draw_network(run: SavedRun) -> Figure:
    try:
        return plot_network(run.network["architecture"], run.network["config"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"the config in {run.folder} describes no {run.network['architecture']}: {error}") from error


def _test_accuracy(run: SavedRun) -> float | None:
    """Top-1 on the test set when the checkpoint was saved; else as a study of all its classes measured it."""
    saved = run.network.get("metrics", {}).get("test_top1")
    if saved is not None:
        return float(saved)
    for study in run.studies.values():
        own = study.result.own_accuracy
        if own is not None and study.provenance.get("classes_studied") == study.provenance.get("classes"):
            return own
    return None


def _study(runs: Sequence[SavedRun], names: Sequence[str], spec: StudySpec) -> Section:
    if spec.compares:
        parts = _comparisons(runs, names, spec)
        groups = [[part.column] for part in parts]
    else:
        parts = _side_by_side(runs, names, spec)
        groups = [[part.column for part in parts]] if parts else []
    return Section(
        anchor=spec.name,
        title=spec.title,
        paper=spec.paper,
        findings=[finding for part in parts for finding in part.findings],
        missing=_missing(runs, names, spec),
        groups=groups,
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A result on the page."""

    findings: Sequence[Finding]
    column: Column


def _side_by_side(runs: Sequence[SavedRun], names: Sequence[str], spec: StudySpec) -> list[_Part]:
    """The results of a study of one network each."""
    parts = []
    for run, name in zip(runs, names):
        if (study := run.studies.get(spec.name)) is None:
            continue
        context = _context([name], study.provenances)
        blocks = _blocks(spec, study.result, [study], name, f"{run.name}-{spec.name}")
        column = Column(title=name if len(runs) > 1 else "", blocks=blocks)
        parts.append(_Part(findings=study.result.findings(context), column=column))
    return parts


def _comparisons(runs: Sequence[SavedRun], names: Sequence[str], spec: StudySpec) -> list[_Part]:
    """The results of a study of several networks: those of the same images joined, the others by themselves."""
    parts = []
    for group, group_names in _joinable(runs, names, spec):
        studies = [run.studies[spec.name] for run in group]
        result = _join([study.result for study in studies], group_names, several=len(runs) > 1)
        context = _context(result.subjects, [record for study in studies for record in study.provenances])
        file = spec.name if len(group) == len(runs) > 1 else f"{group[0].name}-{spec.name}"
        blocks = _blocks(spec, result, studies, ", ".join(result.subjects), file)
        parts.append(_Part(findings=result.findings(context), column=Column(title="", blocks=blocks)))
    return parts


def _blocks(spec: StudySpec, result: Result, studies: Sequence[SavedStudy], subject: str, file: str) -> Sequence[Block]:
    """What a page shows of a result, whose figure it takes from beside the result if that is of one study."""
    shown = figure_of(result)
    drawn = saved_figure(studies[0], file) if len(studies) == 1 else []
    downloads = drawn or figure_files(shown.plot(result), file)
    blocks = [*shown.page_blocks(result, downloads)]
    if shown.chart is not None:
        blocks.append(PageChart.of(shown.chart(result), shown.caption, downloads))
    table = shown.table(result)
    pooled = dict.fromkeys(each["pool"] for study in studies for each in study.provenances if "pool" in each)
    notes = [*table.notes, *(f"Features are pooled by --pool {pool}, where the paper averages." for pool in pooled)]
    return [*blocks, Table.of(replace(table, notes=notes), f"{spec.title}: {subject}", file)]


def _context(names: Sequence[str], records: Sequence[Mapping[str, Any]]) -> FindingContext:
    """What findings about networks of these names depend on, by the provenance of each."""
    irevnets = [name for name, each in zip(names, records) if each.get("architecture") == INVERTIBLE]
    num_classes = max(1, len(records[0].get("classes_studied", ())))
    return FindingContext(network=names[0], invertible=frozenset(irevnets), num_classes=num_classes)


def _join(results: Sequence[Any], names: Sequence[str], *, several: bool) -> Comparison:
    """One result of all; of one run it stays as it is, with the names that it has."""
    return type(results[0]).join(results, names) if several and len(results[0].subjects) == 1 else results[0]


def _joinable(
    runs: Sequence[SavedRun], names: Sequence[str], spec: StudySpec
) -> list[tuple[list[SavedRun], list[str]]]:
    """Groups of runs whose results of a study can be joined, of the same images and pooled alike, with the names of the
    runs."""
    groups: dict[Any, tuple[list[SavedRun], list[str]]] = {}
    for run, name in zip(runs, names):
        if (study := run.studies.get(spec.name)) is None:
            continue
        result: Any = study.result
        if len(result.subjects) > 1:  # a comparison that was asked for stands by itself
            key = run.folder
        else:
            shared = [getattr(result, field).tolist() for field in result.SHARED]
            data = run.network["data"], tuple(study.provenance.get("classes_studied", run.network["classes"]))
            key = repr((data, study.provenance.get("pool"), shared))
        group, group_names = groups.setdefault(key, ([], []))
        group.append(run)
        group_names.append(name)
    return list(groups.values())


def _missing(runs: Sequence[SavedRun], names: Sequence[str], spec: StudySpec) -> list[Missing]:
    notes = []
    for run, name in zip(runs, names):
        if spec.name in run.studies or spec.optional:
            continue
        if spec.needs != "features" and not run.has_network:
            notes.append(Missing(why=f"Of {name} there are features, and no network."))
        elif spec.needs in ("inverse", "bijection") and not run.invertible:
            notes.append(Missing(why=f"{name} has no inverse."))
        elif spec.needs == "training record" and not run.config:
            notes.append(Missing(why=f"Of {name} there is a checkpoint, and no record of its training."))
        else:
            words = [str(run.folder)] if spec.needs == "training record" else run.opened_by
            command = " ".join(["irevnet-analyze", spec.name, *words]) if words else ""  # features were in memory
            notes.append(Missing(why=f"This study of {name} has not been run.", command=command))
    return notes
