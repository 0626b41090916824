"""The sections of a report: for each study what the paper found, what the runs found, and the figures and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from analysis.results import (
    Comparison,
    InterpolationResult,
    InversionResult,
    PCASweepResult,
    ProbeResult,
    Result,
    TrainingCurvesResult,
)
from analysis.results.findings import Finding, find_accuracy
from analysis.saved.runs import INVERTIBLE, SavedRun, SavedStudy
from figures.network import plot_network
from figures.report.blocks import Download, Drawing, Gallery, PageChart, Table, Walks, figure_files, saved_figure
from figures.report.studies import COMPONENTS, DEPTH, INTERPOLATION, INVERSION, SPECTRUM, TRAINING, PageStudy
from figures.text_table import TextTable
from irevnet.utils.lookup import names_apart


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Why a run has no result of a study, and the command that makes one."""

    why: str
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class Column:
    """What stands together; several stand side by side."""

    title: str
    blocks: Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A study.

    Attributes:
        paper: what the paper did, in a sentence or two.
        groups: rows of columns.
    """

    anchor: str
    title: str
    paper: str
    findings: Sequence[Finding]
    missing: Sequence[Missing]
    groups: Sequence[Sequence[Column]]


def build_sections(runs: Sequence[SavedRun]) -> list[Section]:
    """All sections, whether their study has been run or not."""
    names = run_names(runs)
    return [
        _networks(runs, names),
        _compared(runs, names, TRAINING),
        _single(runs, names, INVERSION),
        _single(runs, names, INTERPOLATION),
        _compared(runs, names, SPECTRUM),
        _compared(runs, names, DEPTH),
        _compared(runs, names, COMPONENTS),
    ]


def run_names(runs: Sequence[SavedRun]) -> list[str]:
    """What each run is called on the page: by its model or, where two share it, by its folder."""
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
        network, invertible = run.network, run.invertible
        top1 = _test_accuracy(run)
        if top1 is not None:
            accuracy[invertible][name] = top1
        bijective = invertible and network["config"].get("channels") is None
        count = network.get("parameters")
        rows.append(
            (
                f"{name} ({network['data']})",
                "yes" if invertible else "no",
                "yes" if bijective else "no",
                "-" if top1 is None else f"{1 - top1:.1%}",
                "-" if count is None else f"{count / 1e6:.1f} M",
            )
        )
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


def _draw_network(run: SavedRun) -> Figure:
    try:
        return plot_network(run.network["architecture"], run.network["config"])
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the config that {run.folder} keeps describes no {run.network['architecture']}: {error}"
        ) from error


def _test_accuracy(run: SavedRun) -> float | None:
    """Top-1 on the test set when the checkpoint was saved; else as a probe of all its classes measured it."""
    kept = run.network.get("metrics", {}).get("test_top1")
    if kept is not None:
        return float(kept)
    for study in run.studies.values():
        if isinstance(study.result, ProbeResult) and len(study.result.networks) == 1:
            own = float(study.result.network_accuracy[0])
            if own == own and study.provenance.get("classes_studied") == study.provenance.get("classes"):
                return own
    return None


def _single(runs: Sequence[SavedRun], names: Sequence[str], shown: PageStudy) -> Section:
    """Of a study of one network: a column each."""
    columns, findings = [], []
    for run, name in zip(runs, names):
        study = run.studies.get(shown.kind.STUDY)
        if study is None:
            continue
        result: Any = study.result
        findings += shown.find(result, name)
        file = f"{run.name}-{result.STUDY}"
        downloads = _files(shown, result, [study], file)
        blocks: list[Any] = []
        if isinstance(result, InversionResult):
            blocks.append(Gallery.of(result))
        if isinstance(result, InterpolationResult):
            blocks.append(Walks.of(result, downloads))
        if shown.chart is not None:
            blocks.append(PageChart.of(shown.chart(result), shown.caption, downloads))
        blocks.append(Table.of(shown.tabulate(result), f"{shown.title}: {name}", file))
        columns.append(Column(title=name if len(runs) > 1 else "", blocks=blocks))
    return _section(shown, findings, _missing(runs, names, shown.kind), [columns] if columns else [])


def _compared(runs: Sequence[SavedRun], names: Sequence[str], shown: PageStudy) -> Section:
    """Of a study of several networks: those that looked at the same images in one figure, the others by themselves."""
    groups, findings = [], []
    for found, called in _alike(runs, names, shown.kind):
        studies = [each.studies[shown.kind.STUDY] for each in found]
        result = _join([study.result for study in studies], called, several=len(runs) > 1)
        records = [record for study in studies for record in study.provenances]
        findings += shown.find(result, **_context(result, records))
        file = result.STUDY if len(found) == len(runs) > 1 else f"{found[0].name}-{result.STUDY}"
        assert shown.chart is not None
        blocks = [
            PageChart.of(shown.chart(result), shown.caption, _files(shown, result, studies, file)),
            Table.of(shown.tabulate(result), f"{shown.title}: {', '.join(result.subjects)}", file),
        ]
        groups.append([Column(title="", blocks=blocks)])
    return _section(shown, findings, _missing(runs, names, shown.kind), groups)


def _files(shown: PageStudy, result: Any, studies: Sequence[SavedStudy], name: str) -> list[Download]:
    """The figure of a result as it lies beside the one study that it is of; else drawn."""
    drawn = saved_figure(studies[0], name) if len(studies) == 1 else []
    return drawn or figure_files(shown.plot(result), name)


def _context(result: Any, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a statement about several networks depends on beside the result."""
    if isinstance(result, TrainingCurvesResult):
        return {}
    pairs = zip(result.subjects, records)
    context: dict[str, Any] = {"irevnets": {name for name, each in pairs if each.get("architecture") == INVERTIBLE}}
    if isinstance(result, PCASweepResult):
        context["num_classes"] = max(1, len(records[0].get("classes_studied", ())))
    return context


def _join(results: Sequence[Any], names: Sequence[str], *, several: bool) -> Any:
    """One result of all; of one run it stays as it is, with the names that it has."""
    return type(results[0]).join(results, names) if several and len(results[0].subjects) == 1 else results[0]


def _alike(
    runs: Sequence[SavedRun], names: Sequence[str], kind: type[Result]
) -> list[tuple[list[SavedRun], list[str]]]:
    """Runs whose results of a study can be joined, and their names."""
    groups: dict[Any, tuple[list[SavedRun], list[str]]] = {}
    for run, name in zip(runs, names):
        study = run.studies.get(kind.STUDY)
        if study is None:
            continue
        result: Any = study.result
        assert isinstance(result, Comparison)
        if len(result.subjects) > 1:  # a comparison that was asked for stands for itself
            key = run.folder
        else:
            shared = [getattr(result, field).tolist() for field in kind.SHARED]  # type: ignore[attr-defined]
            data = run.network["data"], tuple(study.provenance.get("classes_studied", run.network["classes"]))
            key = repr((data, shared))
        found, called = groups.setdefault(key, ([], []))
        found.append(run)
        called.append(name)
    return list(groups.values())


def _missing(runs: Sequence[SavedRun], names: Sequence[str], kind: type[Result]) -> list[Missing]:
    notes = []
    for run, name in zip(runs, names):
        if kind.STUDY in run.studies:
            continue
        if kind in (InversionResult, InterpolationResult) and not run.invertible:
            notes.append(Missing(why=f"{name} has no inverse."))
        elif kind is TrainingCurvesResult and not run.config:
            notes.append(Missing(why=f"Of {name} there is a checkpoint, and no record of its training."))
        else:
            where = str(run.folder) if kind is TrainingCurvesResult else f"--ckpt {run.checkpoint}"
            command = f"irevnet-analyze {kind.STUDY} {where}"
            notes.append(Missing(why=f"This study of {name} has not been run.", command=command))
    return notes


def _section(
    shown: PageStudy, findings: Sequence[Finding], missing: Sequence[Missing], groups: Sequence[Sequence[Column]]
) -> Section:
    return Section(
        anchor=shown.kind.STUDY,
        title=shown.title,
        paper=shown.paper,
        findings=findings,
        missing=missing,
        groups=groups,
    )
