"""A study that only the register knows: everything else finds it there."""

import html
import shutil
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from numpy import ndarray

from analysis.results import Result
from analysis.results.findings import Finding, FindingContext, verdict
from analysis.results.register import STUDIES, StudySpec, load_result
from analysis.saved.reproduction import reproduction, script
from analysis.saved.runs import read_run
from figures import build_report, plot, save_figures, table
from figures.chart import Chart, Curve, Panel
from figures.study_figure import StudyFigure
from figures.style import look
from figures.text_table import TextTable


@dataclass(frozen=True, eq=False)
class NormsResult(Result):
    """Norms of features.

    Attributes:
        depth: block index of each row, `(rows,)`.
        norm: mean of ||phi_j|| / ||x|| over the images, `(rows,)`.
    """

    STUDY: ClassVar[str] = "norms"

    depth: Int[ndarray, " rows"]
    norm: Float[ndarray, " rows"]

    def table(self) -> pd.DataFrame:
        return pd.DataFrame({"depth": self.depth, "norm": self.norm})

    def summary(self) -> dict[str, Any]:
        return {"last": float(self.norm[-1])}

    def findings(self, context: FindingContext) -> list[Finding]:
        here = f"the last norm is {self.norm[-1]:g}"
        agrees = verdict(bool(self.norm[-1] > 1), applies=context.network in context.invertible)
        return [Finding(network=context.network, paper="norms grow", here=here, verdict=agrees, rule="above 1")]


def chart(result: NormsResult) -> Chart:
    curve = Curve(name="norm", x=result.depth, y=result.norm, look=look(0))
    return Chart(panels=[Panel(x_label="depth", y_label="norm", curves=[curve])])


def tabulate(result: NormsResult) -> TextTable:
    return TextTable(("depth", "norm"), [(f"{j}", f"{norm:g}") for j, norm in zip(result.depth, result.norm)])


@pytest.fixture
def norms(monkeypatch) -> NormsResult:
    spec = StudySpec(
        result=NormsResult,
        module="norms",
        function="norms",
        title="Norms of the features",
        section="section 9",
        paper="Section 9 measures norms.",
    )
    monkeypatch.setitem(STUDIES, spec.name, spec)
    module: Any = ModuleType("figures.studies.norms")
    module.FIGURE = StudyFigure(table=tabulate, chart=chart, caption="Norms against depth.")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return NormsResult(depth=np.array([1, 2]), norm=np.array([1.0, 1.5]))


def test_a_new_study_is_drawn_and_reported_by_its_entry(norms, two_runs, plain_pages):
    for run in two_runs:
        shutil.rmtree(run / "analysis")  # to be quick
    folder = two_runs[0] / "analysis" / "norms"
    norms.save(folder, {"architecture": "IRevNet", "command": ["irevnet-analyze", "norms"]})
    again = load_result(folder)
    assert isinstance(again, NormsResult)
    assert isinstance(plot(again), Figure)
    assert table(again).rows == [("1", "1"), ("2", "1.5")]
    assert [file.name for file in save_figures(again, folder)] == ["norms.png", "norms.pdf"]
    runs, page = [read_run(run) for run in two_runs], two_runs[0] / "report.html"
    assert f"irevnet-analyze norms --ckpt {two_runs[0]}" in script(reproduction(runs, page)).splitlines()
    text = html.unescape(build_report(runs, page))
    *_, section = text.split("<section ")[:-1]
    for part in (
        '<h2 id="norms">Norms of the features</h2>',
        "Section 9 measures norms.",
        "Norms against depth.",
        "the last norm is 1.5",
        '<span class="verdict agrees">',
        'download="irevnet-norms.p',
        f"This study of resnet-small has not been run. Run <code>irevnet-analyze norms --ckpt {two_runs[1]}",
    ):
        assert part in section
