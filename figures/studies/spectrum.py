"""The Jacobian's singular values, and the share of the energy that the largest hold: Fig. 4 of the paper."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from numpy import ndarray

from analysis.results import Spectrum, SpectrumResult
from analysis.results.spectrum_summary import PAPER_COUNTS, SHARES
from figures import depth_trends, directions
from figures.chart import Chart, Curve, Panel, draw
from figures.depth_trends import trends_chart
from figures.directions import draw_directions, has_directions
from figures.report.blocks import Block, Download, Drawing, PageChart, figure_files
from figures.saving import save_figure
from figures.study_figure import StudyFigure
from figures.style import INK, Look, literal, look
from figures.text_table import TextTable

FLOOR = 1e-8
"""Smallest value drawn, relative to the largest: below, those of a map without an inverse are rounding errors."""

PAPER = {count / 150_528: share for count, share in zip(PAPER_COUNTS, SHARES)}
"""Shares of the energy that shares of the singular values hold in the paper, by the latter."""


def chart(result: SpectrumResult) -> Chart:
    """Sorted singular values over the largest, against their rank over their number, and the energy E(d) of the d
    largest: medians over the images, with the range of all of them and of their intervals. Crosses are the paper's.

    Of several depths of a network, a row of panels a network: the values themselves by depth, and how many of them
    hold 80% and 97% of the energy.
    """
    groups = result.groups()
    by_network = [[rows for rows in groups if result.network[rows[0]] == n] for n in range(len(result.networks))]
    if max(map(len, by_network)) == 1:
        each = [
            (number, literal(result.networks[number]), [result.spectrum(row) for row in rows.tolist()])
            for number, (rows,) in enumerate(by_network)
        ]
        rank: dict[str, Any] = {"x_label": "rank / number of singular values"}
        values = [_values(spectra, number, name) for number, name, spectra in each]
        energy = [_energy(spectra, number, name) for number, name, spectra in each]
        shares = np.array(list(PAPER.items())).T
        paper = Curve(name="the paper's two", x=shares[0], y=100 * shares[1], look=Look(INK, "none", "x"))
        return Chart(
            panels=[
                Panel(y_label="singular value / largest", curves=values, log_y=True, **rank),
                Panel(
                    y_label="energy held (%)",
                    curves=[*energy, paper],
                    log_x=True,
                    low_y=0.0,
                    high_y=102.0,
                    **rank,
                ),
            ]
        )
    panels = []
    for number, groups in enumerate(by_network):
        spectra = [[result.spectrum(row) for row in rows.tolist()] for rows in groups]
        depths = [int(result.depth[rows[0]]) for rows in groups]
        title = literal(result.networks[number]) if len(by_network) > 1 else ""
        panels += [_by_depth(spectra, depths, title), _dims(spectra, depths)]
    return Chart(panels=panels, height=2.6 * len(by_network))


def _curves(spectra: Sequence[Spectrum], ranks: ndarray) -> ndarray:
    """Singular values at these ranks, a row each, by straight lines on a logarithmic axis; NaN where not known."""
    rows = []
    for spectrum in spectra:
        known, values = spectrum.curve()
        logarithms = np.log(np.maximum(values, FLOOR * values[0]))
        rows.append(np.exp(np.interp(ranks, known, logarithms, right=np.nan)))
    return np.array(rows)


def _values(spectra: Sequence[Spectrum], number: int, name: str) -> Curve:
    count = spectra[0].count
    ranks = np.unique(np.concatenate((np.arange(1, len(spectra[0].largest) + 1), np.linspace(1, count, 500))))
    curves = _curves(spectra, ranks)
    curves /= curves[:, :1]
    return Curve(
        name=name,
        x=ranks / count,
        y=np.median(curves, axis=0),
        low=curves.min(axis=0),
        high=curves.max(axis=0),
        look=look(number, marker=""),
    )


def _energy(spectra: Sequence[Spectrum], number: int, name: str) -> Curve:
    count = spectra[0].count
    dims = np.unique(np.geomspace(1, count, 200).round())
    energy = 100 * np.array([spectrum.energy(dims) for spectrum in spectra])
    return Curve(
        name=name,
        x=dims / count,
        y=np.median(energy[:, :, 0], axis=0),
        low=energy[:, :, 1].min(axis=0),
        high=energy[:, :, 2].max(axis=0),
        look=look(number, marker=""),
    )


def _by_depth(spectra: Sequence[Sequence[Spectrum]], depths: Sequence[int], title: str) -> Panel:
    """Colours go from light to dark with depth; the legend has a few."""
    colours = matplotlib.colormaps["viridis_r"](np.linspace(0, 1, len(depths)))
    listed = set(np.linspace(0, len(depths) - 1, min(len(depths), 6)).round().astype(int).tolist())
    curves = []
    for number, (depth, images) in enumerate(zip(depths, spectra)):
        count = images[0].count
        ranks = np.linspace(1, count, 500)
        values = np.median(_curves(images, ranks), axis=0)
        drawn = Look(to_hex(colours[number]), "-", "")
        curves.append(Curve(name=f"block {depth}", x=ranks / count, y=values, look=drawn, listed=number in listed))
    label = "rank / number of singular values"
    return Panel(x_label=label, y_label="singular value", curves=curves, log_y=True, title=title)


def _dims(spectra: Sequence[Sequence[Spectrum]], depths: Sequence[int]) -> Panel:
    curves = []
    for number, share in enumerate(SHARES):
        held = 100 * np.array([[each.dims_holding(share)[0] / each.count for each in images] for images in spectra])
        curves.append(
            Curve(
                name=f"{share:.0%} of the energy",
                x=np.array(depths),
                y=np.median(held, axis=1),
                low=held.min(axis=1),
                high=held.max(axis=1),
                look=look(number),
            )
        )
    label = "singular values (%) that\nhold a share of the energy"
    return Panel(x_label="depth (block)", y_label=label, curves=curves, whole_x=True, low_y=0.0)


def table(result: SpectrumResult) -> TextTable:
    """A row for each network and layer: medians over the images and, of several, the 10% and 90% quantiles."""
    summary = result.summary()
    layers = summary["layers"]
    counts = {name: f"E({name})" for layer in layers for name in layer["energy"]}
    many = len(result.networks) > 1
    rows = []
    for layer in layers:
        several = layer["images"] > 1
        rows.append(
            (
                *[layer["network"]] * many,
                layer["layer"],
                f"{min(layer['inputs'], layer['outputs']):,}",
                _spread(layer["largest"], "{:.3g}", several=several),
                _spread(layer["condition"], "{:.2g}", several=several),
                *(_spread(layer["dims"][f"{share:.0%}"], "{:,.0f}", several=several) for share in SHARES),
                *(
                    _spread(layer["energy"][name], "{:.1%}", several=several) if name in layer["energy"] else "-"
                    for name in counts
                ),
            )
        )
    shares = [f"d of {share:.0%}" for share in SHARES]
    headings = (*["network"] * many, "layer", "singular values", "largest", "condition", *shares, *counts.values())
    notes = [
        note
        for network in result.networks.tolist()
        for note in _notes(network, [layer for layer in layers if layer["network"] == network])
    ]
    return TextTable(headings, rows, notes + [_note_of_trend(trend) for trend in summary.get("depth_trends", ())])


def _spread(quantiles: Mapping[str, float | None], form: str, *, several: bool) -> str:
    median, low, high = ("-" if quantiles[key] is None else form.format(quantiles[key]) for key in _KEYS)
    return f"{median} ({low} to {high})" if several and median != "-" else median


_KEYS = ("median", "q10", "q90")


def _notes(network: str, layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the numbers of a network were found, and how exact they are."""
    found = [image for layer in layers for image in layer["each"]]
    notes = []
    if any(layer["method"] == "dense" for layer in layers):
        notes.append(f"{network}: all singular values, of the matrix")
    sampled = [image for layer in layers if layer["method"] == "lanczos" for image in layer["each"]]
    if sampled:
        values = sum(image["num_values"] for image in sampled)
        converged = sum(image["num_converged"] for image in sampled)
        products = sum(image["num_products"] for image in sampled) / len(sampled)
        error = max(image["squared_norm_error"] / image["squared_norm"] for image in sampled)
        loss = max(image["loss_of_orthogonality"] for image in sampled)
        notes.append(
            f"{network}: by {products:,.0f} products a spectrum; {converged:,} of the {values:,} largest converged, "
            f"sum of squares to {error:.1e} (95%), Lanczos vectors orthogonal to {loss:.0e}"
        )
    volumes = [image for image in found if image["log_volume"][0] is not None]
    if volumes:
        low = min(image["log_volume"][1] for image in volumes)
        high = max(image["log_volume"][0] for image in volumes)
        error = max(image["log_volume_error"] for image in volumes)
        notes.append(
            f"{network}: log |det J| = {low:.2g} to {high:.2g}, each to within {error:.1g}; that of an i-RevNet is 0"
        )
    elif sampled:
        notes.append(f"{network}: has no inverse; its smallest singular values are not known")
    last = [layer for layer in layers if "directions" in layer][-1:]
    return notes + [_note_of_directions(layer, end) for layer in last for end in layer["directions"]]


def _note_of_directions(layer: Mapping[str, Any], end: str) -> str:
    """What it takes to change the features along the most extreme direction of an end, and how far that is linear."""
    found = layer["directions"][end]
    value, change, first_order = (
        _spread(found[name], "{:.3g}", several=layer["images"] > 1)
        for name in ("singular_value", "pixel_change", "first_order")
    )
    of = "" if end == "most" else " of the inverse"
    worst = "unknown" if found["worst_residual"] is None else f"up to {found['worst_residual']:.0e}"
    return (
        f"{layer['network']}: {layer['layer']}, the {end} magnified direction: singular value {value}, residuals{of} "
        f"{worst}; for an equal change of the features pixel values change by {change} "
        f"(root mean square), and the Jacobian predicts {first_order} times that change of the features"
    )


def _note_of_trend(trend: Mapping[str, Any]) -> str:
    """How straight log s is over depth, and how far the most magnified directions of neighbours agree."""
    first, depths = trend["ranks"][0], trend["depths"]
    text = (
        f"{trend['network']}, {len(depths)} depths: log of the singular values against depth, R^2 "
        f"{_number(trend['r_squared_of_largest'])} (median of the largest {trend['ranks_from_the_largest']:,}), slope "
        f"of the first {_interval(first['slope'])}"
    )
    overlaps = [each["mean"] for each in trend["overlaps"].get("most", ())]
    if overlaps:
        text += (
            f"; the {trend['vectors']} most magnified directions of neighbouring depths overlap by {min(overlaps):.2g} "
            f"to {max(overlaps):.2g}, by chance {trend['overlap_by_chance']:.2g}"
        )
    return text


def _interval(found: Mapping[str, float | None]) -> str:
    text = _number(found["mean"])
    return text if found["low"] is None else f"{text} ({_number(found['low'])} to {_number(found['high'])})"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def page_blocks(result: SpectrumResult, downloads: Sequence[Download]) -> list[Block]:
    """The directions as images, and the trends over depth, where there are such."""
    stem = Path(downloads[0].name).stem
    blocks: list[Block] = []
    if has_directions(result):
        blocks.append(Drawing.of(draw_directions(result), directions.CAPTION, f"{stem}-directions"))
    if trends := result.depth_trends():
        chart = trends_chart(trends)
        files = figure_files(draw(chart), f"{stem}-depth-trends")
        blocks.append(PageChart.of(chart, depth_trends.CAPTION, files))
    return blocks


def save_more(result: SpectrumResult, folder: Path) -> list[Path]:
    """Writes the figures of the directions and of the trends over depth, where there are such."""
    files = []
    if has_directions(result):
        files += save_figure(draw_directions(result), folder, f"{result.STUDY}-directions")
    if trends := result.depth_trends():
        files += save_figure(draw(trends_chart(trends)), folder, f"{result.STUDY}-depth-trends")
    return files


FIGURE = StudyFigure(
    table=table,
    chart=chart,
    caption="Singular values, sorted, and the energy that the largest hold: medians over the images, with the range of "
    "all of them and of their 95% intervals (Fig. 4).",
    page_blocks=page_blocks,
    save_more=save_more,
)
