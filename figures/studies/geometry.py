"""Dimension, spectrum, neural collapse and similarity of layers, over depth."""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from analysis.results.geometry import MEASURES, GeometryResult
from figures.chart import GUIDE, Chart, Curve, Key, Panel, Rule, draw_panels
from figures.report.blocks import Block, Download, Drawing
from figures.saving import save_figure
from figures.study_figure import StudyFigure
from figures.style import LINES, PAGE, Look, literal, look, new_figure, some_of, style
from figures.text_table import TextTable, percent

MOST_SPECTRA = 5
"""Number of layers of a single network whose spectra are drawn."""

FLOOR = 1e-8
"""Smallest eigenvalue drawn, relative to the largest: below are rounding errors of float32."""


def chart(result: GeometryResult) -> Chart:
    """Dimensions, power laws and neural collapse over depth, with 95% intervals; the spectra with the fitted power
    laws, and the intrinsic dimension among fewer images, of a single network at several depths, of several at the last.
    """
    x = _depth(result)
    shown = _shown(result)
    panels = [
        _over_depth(result, x, ["two_nn"], "intrinsic dimension", low_y=0.0),
        _halving(result, shown),
        _over_depth(result, x, ["effective_rank", "participation_ratio"], "linear dimension", log_y=True),
        _over_depth(result, x, ["dims_99", "dims_90"], "$d$ holding the variance", log_y=True),
        _spectra(result, shown),
        _over_depth(result, x, ["alpha"], "power law's $\\alpha$", rules=[Rule(y=1.0, look=GUIDE)]),
        _over_depth(result, x, ["nc1"], "NC1", log_y=True),
        _over_depth(result, x, ["nc2_norms", "nc2_cosines", "nc2_angles"], "NC2", low_y=0.0),
        _over_depth(result, x, ["nc3_svm", "nc3"], "NC3", low_y=0.0),
        _over_depth(result, x, ["nc4"], "NC4 (%)", scale=100.0, low_y=0.0),
        _tunnel(result, x),
    ]
    panels = [panel for panel in panels if panel.curves]
    return Chart(panels=panels, keys=_keys(result), height=2.1 * -(-len(panels) // 2))


def _keys(result: GeometryResult) -> list[Key]:
    """A legend for all panels, where networks are compared: axes say which of their lines is which."""
    if len(result.networks) == 1:
        return []
    return [
        *(Key(name=literal(name), look=look(number, line="-")) for number, name in enumerate(result.networks)),
        Key(name="power law", look=POWER_LAW),
    ]


POWER_LAW = Look("#000000", ":", "")


def _depth(result: GeometryResult) -> tuple[ndarray, dict[str, Any]]:
    """What layers are drawn against: blocks, or blocks over their number where networks differ in that."""
    last = [round(float((result.depth[rows] / result.relative_depth[rows]).max())) for _, rows in _by_network(result)]
    if len(set(last)) > 1:
        return result.relative_depth, {"x_label": "depth (block over number of blocks)"}
    return result.depth.astype(np.float64), {"x_label": "depth $j$ (block)", "whole_x": True}


def _by_network(result: GeometryResult) -> Iterator[tuple[int, ndarray]]:
    return ((number, np.flatnonzero(result.network == number)) for number in range(len(result.networks)))


SHORT = {
    "participation_ratio": "participation ratio",
    "effective_rank": "effective rank",
    "dims_90": "90%",
    "dims_99": "99%",
    "nc2_norms": "norms",
    "nc2_cosines": "cosines",
    "nc2_angles": "angles",
    "nc3": "own classifier",
    "nc3_svm": "SVM",
}
"""Names of measures in legends."""


def _over_depth(
    result: GeometryResult,
    x: tuple[ndarray, dict[str, Any]],
    codes: Sequence[str],
    label: str,
    *,
    scale: float = 1.0,
    **options: Any,
) -> Panel:
    """Measures over depth: a colour for each network or, of a single one, for each measure; a line for each measure."""
    many = len(result.networks) > 1
    curves = []
    for number, rows in _by_network(result):
        for place, code in enumerate(codes):
            value, interval = (scale * each[rows] for each in result.of(code))
            if np.isnan(value).all():
                continue
            names = [literal(result.networks[number])] * many + [SHORT.get(code, code)] * (len(codes) > 1)
            changed = {"line": LINES[place]} if many or len(codes) > 1 else {}
            low, high = interval.T
            if options.get("log_y"):
                low = np.maximum(low, value / 10)  # which a logarithmic axis can show
            curves.append(
                Curve(
                    name=", ".join(names),
                    x=x[0][rows],
                    y=value,
                    low=low,
                    high=high,
                    look=look(number if many else place, **changed),
                )
            )
    if many and len(codes) > 1:
        label += ":\n" + ",\n".join(f"{SHORT[code]} ({line})" for code, line in zip(codes, LINE_NAMES))
    return Panel(y_label=label, curves=curves, **x[1], **options)


def _tunnel(result: GeometryResult, x: tuple[ndarray, dict[str, Any]]) -> Panel:
    """The accuracy of linear probes on each of the data, and a thin line where the tunnel of each network starts."""
    many = len(result.networks) > 1
    curves, rules = [], []
    for number, rows in _by_network(result):
        for at, data in enumerate(result.probe_data):
            low, high = 100 * result.probe_interval[rows, at].T
            looks = look(number, line=LINES[at % len(LINES)]) if many else look(at)
            name = ", ".join([literal(result.networks[number])] * many + [literal(data)])
            y = 100 * result.probe_accuracy[rows, at]
            curves.append(Curve(name=name, x=x[0][rows], y=y, low=low, high=high, look=looks))
        if np.isfinite(result.tunnel_start[number, 0]):
            at = float(x[0][rows][result.depth[rows] == result.tunnel_start[number, 0]][0])
            rules.append(Rule(x=at, look=look(number, line=":", marker="") if many else GUIDE))
    label = "linear SVM (%)"
    if many and len(result.probe_data):
        named = zip(map(literal, result.probe_data), LINE_NAMES)
        label += ":\n" + ",\n".join(f"{data} ({line})" for data, line in named)
    return Panel(y_label=label, curves=curves, rules=rules, **x[1])


LINE_NAMES = ("solid", "dashed", "dash-dot")
"""What `LINES` are called."""


def _shown(result: GeometryResult) -> list[tuple[int, str, Look]]:
    """Rows whose curves are drawn, with their names and looks: some depths of one network, or the last of each."""
    if len(result.networks) > 1:
        return [
            (int(rows[-1]), literal(result.networks[number]), look(number, line="-", marker=""))
            for number, rows in _by_network(result)
        ]
    some = some_of(len(result.layer), MOST_SPECTRA, marker="")
    return [(row, f"block {result.depth[row]}", drawn) for row, drawn in some]


def _spectra(result: GeometryResult, shown: Sequence[tuple[int, str, Look]]) -> Panel:
    """Eigenvalues over the largest, against their rank, and over the ranks fitted the power law in grey."""
    curves = []
    for row, name, drawn in shown:
        variance = result.variance(row)
        kept = variance[variance > FLOOR * variance[0]]
        ranks = np.arange(1, len(kept) + 1)
        curves.append(Curve(name=name, x=ranks, y=kept / kept[0], look=drawn))
        if result.fit_ranks[row, 0]:
            alpha, at = result.of("alpha")[0][row], result.fit_ranks[row].astype(np.float64)
            fitted = result.fit_scale[row] * at**-alpha / variance[0]
            curves.append(Curve(name="power law", x=at, y=fitted, look=POWER_LAW))
    many = len(result.networks) > 1
    return Panel(
        x_label="rank",
        y_label="eigenvalue / largest" + ("\n(last layer)" if many else ""),
        curves=curves,
        log_x=True,
        log_y=True,
    )


def _halving(result: GeometryResult, shown: Sequence[tuple[int, str, Look]]) -> Panel:
    """The intrinsic dimension against the number of images among which neighbours are found."""
    curves = []
    for row, name, drawn in shown:
        low, high = result.part_interval[row].T
        curves.append(
            Curve(
                name=name,
                x=result.part_images[row],
                y=result.part_dimension[row],
                low=low,
                high=high,
                look=drawn._replace(marker="o"),
            )
        )
    many = len(result.networks) > 1
    return Panel(
        x_label="images among which neighbours are found",
        y_label="intrinsic dimension" + ("\n(last layer)" if many else ""),
        curves=curves if result.part_dimension.shape[1] > 1 else [],
        log_x=True,
        low_y=0.0,
    )


def similarity(result: GeometryResult) -> Figure:
    """CKA of any two layers, with a white line between networks; and that of each layer with the next."""
    matrix, count = result.similarity(), len(result.layer)
    with style():
        figure = new_figure(PAGE, 3.1)
        halves: Any = figure.subfigures(1, 2, width_ratios=(1.15, 1))
        left, right = halves
        axes: Axes = left.subplots()
        image = axes.imshow(matrix, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
        left.colorbar(image, ax=axes, label="debiased linear CKA", shrink=0.8)
        starts = [int(rows[0]) for _, rows in _by_network(result)]
        for start in starts[1:]:
            axes.axhline(start - 0.5, color="white", linewidth=1.5)
            axes.axvline(start - 0.5, color="white", linewidth=1.5)
        step = -(-count // 14)
        ticks = []
        for start, end in zip(starts, [*starts[1:], count + step]):  # none that the next network's first would touch
            ticks += [row for row in range(start, min(end, count), step) if row == start or end - row > step / 2]
        axes.set_xticks(ticks, [str(result.depth[row]) for row in ticks], fontsize=5.5)
        axes.set_yticks(ticks, [str(result.depth[row]) for row in ticks], fontsize=5.5)
        names = ", ".join(literal(name) for name in result.networks)
        axes.set_xlabel("block" + (f"\n{textwrap.fill(names, 40)}" if len(starts) > 1 else ""))
        axes.set_ylabel("block")
        draw_panels(right, Chart(panels=[_neighbours(result)], stacked=True))
    return figure


def _neighbours(result: GeometryResult) -> Panel:
    x, axis = _depth(result)
    pairs = {pair: at for at, pair in enumerate(zip(result.first.tolist(), result.second.tolist()))}
    curves = []
    for number, rows in _by_network(result):
        at = [pairs[pair] for pair in zip(rows[:-1].tolist(), rows[1:].tolist())]
        low, high = result.cka_interval[at].T
        name = literal(result.networks[number])
        curves.append(Curve(name=name, x=x[rows[1:]], y=result.cka[at], low=low, high=high, look=look(number)))
    return Panel(y_label="CKA with the layer before", curves=curves, **axis)


def table(result: GeometryResult) -> TextTable:
    """A row a layer."""
    many = len(result.networks) > 1
    named = any(layer != f"block-{depth}" for layer, depth in zip(result.layer, result.depth))
    shown = [code for code in MEASURES if code not in ("dims_95", "nc2_cosines")]
    shown = [code for code in shown if not np.isnan(result.of(code)[0]).all()]
    rows = []
    for row, number in enumerate(result.network):
        cells = [str(result.networks[number])] * many + [str(result.layer[row])] * named
        cells += [f"{result.depth[row]}", f"{result.dims[row]}"]
        for code in shown:
            value, interval = (each[row] for each in result.of(code))
            cells.append(_cell(float(value), interval))
        probes = zip(result.probe_accuracy[row].tolist(), result.probe_interval[row])
        rows.append([*cells, *(percent(accuracy, interval) for accuracy, interval in probes)])
    first = ["network"] * many + ["layer"] * named + ["depth", "dims"]
    probed = [f"SVM, {data}" for data in result.probe_data]
    return TextTable([*first, *(HEADINGS[code] for code in shown), *probed], rows, _notes(result))


HEADINGS = {
    "two_nn": "TwoNN",
    "participation_ratio": "part. ratio",
    "effective_rank": "eff. rank",
    "dims_90": "d 90%",
    "dims_99": "d 99%",
    "alpha": "alpha",
    "nc1": "NC1",
    "nc2_norms": "NC2 norms",
    "nc2_angles": "NC2 angles",
    "nc3": "NC3",
    "nc3_svm": "NC3 SVM",
    "nc4": "NC4",
}


def _cell(value: float, interval: ndarray) -> str:
    if np.isnan(value):
        return "unknown"
    ends = "" if np.isnan(interval).any() else f" ({interval[0]:.3g} to {interval[1]:.3g})"
    return f"{value:.3g}{ends}"


def _notes(result: GeometryResult) -> list[str]:
    """What intervals are, where there are none and why, and what is not known."""
    notes = [
        f"of {int(result.num_train):,} training images, TwoNN of {int(result.num_images):,} of them; NC4 of "
        f"{int(result.num_test):,} test images; in brackets 95% intervals over the images"
    ]
    if np.isnan(result.of("effective_rank")[1]).any():
        notes.append(
            "no interval: a class has one training image, or there are too many features to keep their covariance for "
            "parts of the images"
        )
    for code, why in (
        ("alpha", "alpha is unknown where fewer than 10 ranks from 3 to half of all can be fitted"),
        ("nc1", "NC1 is unknown, as every class has one training image"),
        ("nc3", "NC3 is that of the network's last linear layer where the averaged features are all that it sees"),
        ("nc4", "NC4 is unknown, as no outputs of the network are known to be these classes"),
    ):
        if np.isnan(result.of(code)[0]).any():
            notes.append(why)
    for number, name in enumerate(result.networks.tolist() if len(result.probe_data) else []):
        start, low, high = result.tunnel_start[number]
        notes.append(f"{name}: the tunnel starts at depth {start:g} ({low:g} to {high:g})")
        for at, data in enumerate(result.probe_data[1:]):
            change, *ends = (f"{100 * each:+.1f}" for each in result.other_change[number, at])
            notes.append(
                f"{name}: in it the linear SVM's accuracy on {data} changes by {change} points ({' to '.join(ends)})"
            )
    if result.copies.any():
        most = int(result.copies.max())
        notes.append(f"up to {most:,} images have the features of others, and no neighbours in TwoNN")
    if len(result.first) < len(result.layer) * (len(result.layer) + 1) // 2:
        notes.append("layers of networks that were not studied together are not compared")
    return notes


def page_blocks(result: GeometryResult, downloads: Sequence[Download]) -> list[Block]:
    """The similarity of layers, which is no chart of curves."""
    caption = "Debiased linear CKA of any two layers on the test images, and of each layer with the one before."
    return [Drawing.of(similarity(result), caption, f"{result.STUDY}-similarity")]


def save_more(result: GeometryResult, folder: Path) -> list[Path]:
    """The similarity of layers as a figure of its own."""
    return save_figure(similarity(result), folder, f"{result.STUDY}-similarity")


FIGURE = StudyFigure(
    table=table,
    chart=chart,
    caption="Dimension, spectrum of the covariance and neural collapse of the features of each block, with 95% "
    "intervals. With other data, also the accuracy of linear probes, and where the tunnel starts.",
    page_blocks=page_blocks,
    save_more=save_more,
)
