"""Metamers beside the images whose logits, or averaged features, and whose other features they have."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from analysis.results.metamers import MetamersResult
from figures.report.blocks import Block, Download, Frame, Line, PathViewer, Strip, image_uri
from figures.study_figure import StudyFigure
from figures.style import PAGE, literal, new_figure, show_image, style
from figures.text_table import TextTable, percent

MOST_DRAWN, MOST_SHOWN = 5, 8
"""Number of pairs in the figure, and on a page."""

STEPS = 9
"""Number of images between B and a metamer on a page."""


def drawing(result: MetamersResult) -> Figure:
    """A row for each of the first pairs: A, B and the metamer of each kind, with what the network makes of them, the
    distance from B, and what others make of them."""
    pairs, kinds = _num_kept(result, MOST_DRAWN), len(result.kinds)
    columns = 2 + kinds * (2 if len(result.bounded) else 1)
    with style():
        cell = min(1.3, PAGE / columns)
        figure = new_figure(columns * cell, pairs * (cell + 0.12 * (1 + len(result.judges))) + 0.3)
        grid = figure.subplots(pairs, columns, squeeze=False)
        for pair in range(pairs):
            for axes, (title, pixels, lines) in zip(grid[pair], _cells(result, pair), strict=True):
                show_image(axes, pixels)
                axes.set_xlabel("\n".join(map(literal, lines)), fontsize=5.5, labelpad=1)
                if pair == 0:
                    axes.set_title(title, fontsize=6.5)
    return figure


def _num_kept(result: MetamersResult, most: int) -> int:
    return min(most, len(result.metamer) // len(result.kinds))


def _cells(result: MetamersResult, pair: int) -> list[tuple[str, ndarray, list[str]]]:
    """Title, pixel values and lines of text of the images of a pair."""
    rows = [pair * len(result.kinds) + kind for kind in range(len(result.kinds))]
    first, shares = rows[0], "logits" if result.keep == "logits" else "averages"
    cells = []
    for title, inputs, logits, judged in (
        (f"A, whose {shares}", result.source, result.source_logits, result.judged_source),
        ("B, whose features", result.target, result.target_logits, result.judged_target),
    ):
        lines = [result.answer(logits, first), *_judged(result, judged, first)]
        cells.append((title, result.pixels(inputs[first : first + 1])[0], lines))
    for kind, row in enumerate(rows):
        lines = [
            f"{result.answer(result.metamer_logits, row)}, {result.target_distance[row]:.2g} from B",
            *_judged(result, result.judged_metamer, row),
        ]
        cells.append((str(result.kinds[kind]), result.pixels(result.metamer[row : row + 1])[0], lines))
        if len(result.bounded):
            lines = [f"{result.bounded_distance[row]:.2g} from B, off by {result.bounded_difference[row]:.0e}"]
            cells.append(("within [0, 1]", result.pixels(result.bounded[row : row + 1])[0], lines))
    return cells


def _judged(result: MetamersResult, answers: ndarray, row: int) -> list[str]:
    several = len(result.judges) > 1
    return [f"judge{f' {judge + 1}' if several else ''}: {given}" for judge, given in enumerate(answers[:, row])]


def table(result: MetamersResult) -> TextTable:
    """A row for each kind."""
    bounded = bool(np.isfinite(result.bounded_difference).any())
    exactly = "to the last bit" if result.exact else "within 1e-5"
    headings = ["kind", exactly, "largest difference", "from B", "from A", "A from B", "pixels", "outside [0, 1]"]
    headings += ["if clipped"] + (["within [0, 1], from B", "difference"] if bounded else [])
    headings += [f"{name} says {of}" for name in result.judges for of in ("A", "B")]
    rows = []
    for kind, name in enumerate(result.kinds):
        chosen = result.rows_of(kind)
        medians = [
            f"{np.median(getattr(result, f'{field}_distance')[chosen]):.3g}" for field in ("target", "source", "pair")
        ]
        cells = [
            str(name),
            f"{result.certified(chosen):,} of {len(chosen):,}",
            f"{result.difference[chosen].max():.1e}",
        ]
        cells += [*medians, f"{result.lowest[chosen].min():.2f} to {result.highest[chosen].max():.2f}"]
        cells += [percent(result.outside[chosen].mean()), f"{np.median(result.clipped_difference[chosen]):.2g}"]
        if bounded:
            cells += [f"{np.median(result.bounded_distance[chosen]):.3g}"]
            cells += [f"{result.bounded_difference[chosen].max():.1e}"]
        for judge in range(len(result.judges)):
            cells += [_share(result, judge, kind, of) for of in ("A", "B")]
        rows.append(cells)
    kept = "logits" if result.keep == "logits" else f"averaged features of depth {result.depth}"
    notes = [
        f"an image has the {kept} of A, computed anew from it, if the relative difference is that small; distances are "
        "root mean squares of differences of pixel values, and medians over the pairs",
        "if clipped: relative difference, median, of the image with its pixel values clipped to [0, 1]",
    ]
    if len(result.judges):
        notes.append(
            "judges: the share of images to which the other network gives the class that it gives A, or B, over the "
            "pairs that it tells apart; it is shown the clipped image, and by chance gives the class of another pair"
        )
    return TextTable(headings, rows, notes)


def _share(result: MetamersResult, judge: int, kind: int, of: str) -> str:
    share = result.judged_as(judge, kind)[of]
    return f"{percent(share.value, share.interval)}; by chance {share.chance:.0%}" if share.total else "-"


def page_blocks(result: MetamersResult, downloads: Sequence[Download]) -> list[Block]:
    """The first pairs, with a slider from B to each metamer, along straight lines of pixel values."""
    kinds = len(result.kinds)

    def frames(row: int) -> list[Frame]:
        b, metamer = result.pixels(np.stack((result.target[row], result.metamer[row])))
        titles = [f"B: {result.answer(result.target_logits, row)}"]
        titles += [f"{step / (STEPS - 1):.0%} of the way" for step in range(1, STEPS - 1)]
        titles.append(f"metamer: {result.answer(result.metamer_logits, row)}, as A")
        steps = np.linspace(0, 1, STEPS)
        return [Frame(uri=image_uri(b + t * (metamer - b)), title=title) for t, title in zip(steps, titles)]

    lines = [
        Line(
            name=str(result.names[pair]),
            strips=[
                Strip(name=str(name), frames=frames(pair * kinds + kind)) for kind, name in enumerate(result.kinds)
            ],
        )
        for pair in range(_num_kept(result, MOST_SHOWN))
    ]
    return [PathViewer(lines=lines, downloads=downloads)]


FIGURE = StudyFigure(table=table, drawing=drawing, page_blocks=page_blocks)
