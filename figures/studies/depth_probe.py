"""Accuracy and contraction against depth: Fig. 6 of the paper."""

from typing import Any

import numpy as np

from analysis.results import DepthProbeResult
from figures.chart import GUIDE, Chart, Rule
from figures.studies.probes import (
    accuracies,
    accuracy_cells,
    accuracy_headings,
    by_network,
    chart_probes,
    network_notes,
    rows_by_network,
)
from figures.study_figure import StudyFigure
from figures.text_table import TextTable


def chart(result: DepthProbeResult, *, relative: bool | None = None) -> Chart:
    """Accuracy of the probes at each block, with 95% intervals, the networks' own accuracy as dotted lines, and below
    them how far apart images of one class are, beside those of different classes.

    Of a single network, grey lines separate the stages; above each stands the number of features, its `dims`.

    Args:
        result: accuracies and distances to draw.
        relative: whether to draw against depth over the number of blocks; by default if networks differ in that number.
    """
    if relative is None:
        last = [result.depth[rows].max() / result.relative_depth[rows].max() for _, rows in rows_by_network(result)]
        relative = not np.allclose(last, last[0])
    x = result.relative_depth if relative else result.depth
    stages, notes = ([], []) if len(result.networks) > 1 else _stages(x, result.dims)
    axis: dict[str, Any] = {
        "x_label": "depth (block over number of blocks)" if relative else "depth $j$ (block)",
        "whole_x": not relative,
    }
    return chart_probes(
        result,
        accuracies(result, x, rules=stages, notes=notes, **axis),
        by_network(result, x, result.distance_ratio, y_label="within / between\nclass distance", rules=stages, **axis),
    )


def _stages(x: np.ndarray, dims: np.ndarray) -> tuple[list[Rule], list[tuple[float, str]]]:
    """Lines between stages, and the number of features of each; the longest stage has room to say what they are."""
    starts = np.flatnonzero(np.diff(dims, prepend=0)).tolist()
    rules = [Rule(x=float(x[start - 1] + x[start]) / 2, look=GUIDE) for start in starts[1:]]
    longest = starts[int(np.argmax(np.diff([*starts, len(x)])))]
    notes = [(float(x[start]), f"{dims[start]} dims" if start == longest else f"{dims[start]}") for start in starts]
    return rules, notes


def table(result: DepthProbeResult) -> TextTable:
    """A row a block."""
    many = len(result.networks) > 1
    named = any(layer != f"block-{depth}" for layer, depth in zip(result.layer, result.depth))
    rows, names = [], []
    for row, (number, layer, depth) in enumerate(zip(result.network, result.layer, result.depth)):
        network = [str(result.networks[number])] * many  # of one network its name says nothing
        rows.append(
            (
                *network,
                *[str(layer)] * named,
                f"{depth}",
                f"{result.dims[row]}",
                *accuracy_cells(result, row),
                "undefined" if np.isnan(result.distance_ratio[row]) else f"{result.distance_ratio[row]:.3f}",
            )
        )
        names.append(" ".join([*network, str(layer)]))
    first = (*["network"] * many, *["layer"] * named, "depth", "dims")
    headings = (*first, *accuracy_headings(result), "within/between")
    return TextTable(headings, rows, network_notes(result, names))


FIGURE = StudyFigure(
    table=table,
    chart=chart,
    caption="Test accuracy of linear probes and nearest neighbours at each block, with 95% intervals, and the "
    "distances within classes over those between them (Fig. 6).",
)
