"""Figures as files: PNG for the screen, PDF for print."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from analysis.results import Result
from figures.study_figure import figure_of
from figures.style import style
from irevnet.utils.files import atomic_write


def save_figures(result: Result, folder: Path, **options: Any) -> list[Path]:
    """Draws a result, with the options of `figures.plot`, and writes STUDY.png, STUDY.pdf and what else its study has,
    such as an animation, to a folder; returns their paths."""
    figure = figure_of(result)
    return [*save_figure(figure.plot(result, **options), folder, result.STUDY), *figure.save_more(result, folder)]


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes a figure as NAME.png and NAME.pdf, atomically, and returns both paths."""
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    for path in paths:
        with atomic_write(path) as temporary, style():
            figure.savefig(temporary)
        figure.set_layout_engine("none")  # it is laid out, for both alike; that takes as long as drawing it
    return paths
