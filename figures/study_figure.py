"""The figure and the table of any study's result."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from matplotlib.figure import Figure

from analysis.results import Result
from analysis.results.register import STUDIES
from figures.chart import Chart, draw
from figures.report.blocks import Block, Download
from figures.text_table import TextTable

R = TypeVar("R", bound=Result)


def _no_blocks(result: Any, downloads: Sequence[Download]) -> Sequence[Block]:
    return ()


def _no_files(result: Any, folder: Path) -> list[Path]:
    return []


@dataclass(frozen=True, kw_only=True)
class StudyFigure(Generic[R]):
    """How the results of a study are drawn and tabulated: functions of a result.

    Attributes:
        table: function that returns the table.
        chart: function that returns the chart, and may take options; `None` for pictures without curves.
        drawing: function that draws the figure on paper, where it is more than the chart.
        caption: sentence below the chart on a page.
        page_blocks: function that returns what a page shows before the chart; it takes the figure's files too.
        save_more: function that writes further files, such as an animation, to a folder, and returns their paths.
    """

    table: Callable[[R], TextTable]
    chart: Callable[..., Chart] | None = None
    drawing: Callable[..., Figure] | None = None
    caption: str = ""
    page_blocks: Callable[[R, Sequence[Download]], Sequence[Block]] = _no_blocks
    save_more: Callable[[R, Path], list[Path]] = _no_files

    def plot(self, result: R, **options: Any) -> Figure:
        """The figure on paper."""
        if self.drawing is not None:
            return self.drawing(result, **options)
        assert self.chart is not None
        return draw(self.chart(result, **options))


def figure_of(result: Result) -> StudyFigure[Any]:
    """The `FIGURE` of the result's study.

    Raises `ValueError` for a result of a study that is not in the register.
    """
    if result.STUDY not in STUDIES:
        raise ValueError(f"no figure is known for results of {result.STUDY!r}; expected one of {', '.join(STUDIES)}")
    return importlib.import_module(f"figures.studies.{STUDIES[result.STUDY].module}").FIGURE


def plot(result: Result, **options: Any) -> Figure:
    """Draws a result, with the options of its study's figure, such as `relative` of the depth probe."""
    return figure_of(result).plot(result, **options)


def table(result: Result) -> TextTable:
    """A result as a table of text."""
    return figure_of(result).table(result)
