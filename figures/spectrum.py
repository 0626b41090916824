"""The Jacobian's singular values, and the share of the energy that the largest hold: Fig. 4 of the paper."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from analysis.results import Spectrum, SpectrumResult
from analysis.results.spectra import PAPER_COUNTS, SHARES
from figures.style import CYCLE, PAGE, new_figure, shade, style
from figures.table import TextTable

FLOOR = 1e-8
"""Smaller values, relative to the largest, are not drawn: of a map that has no inverse they are rounding."""

PAPER = {count / 150_528: share for count, share in zip(PAPER_COUNTS, SHARES)}
"""Shares of the energy that the paper says certain shares of the singular values hold."""


def plot_spectrum(result: SpectrumResult) -> Figure:
    """Sorted singular values over the largest, against their rank over their number, and the energy E(d) of the d
    largest: medians over the images, with the range of all of them and of their intervals. Crosses are the paper's.

    Of several depths of a network, a row of panels a network: the values themselves by depth, and how many of them
    hold 80% and 97% of the energy.
    """
    groups = result.groups()
    by_network = [[rows for rows in groups if result.network[rows[0]] == n] for n in range(len(result.networks))]
    with style():
        if max(map(len, by_network)) == 1:
            figure = new_figure(PAGE, 2.6)
            left, right = figure.subplots(1, 2)
            for number, (rows,) in enumerate(by_network):
                spectra = [result.spectrum(row) for row in rows.tolist()]
                _draw_values(left, spectra, number, str(result.networks[number]))
                _draw_energy(right, spectra, number, str(result.networks[number]))
            _finish(left, right)
            return figure
        figure = new_figure(PAGE, 2.6 * len(by_network))
        panels = figure.subplots(len(by_network), 2, squeeze=False)
        for number, (left, right) in enumerate(panels):
            spectra = [[result.spectrum(row) for row in rows.tolist()] for rows in by_network[number]]
            depths = [int(result.depth[rows[0]]) for rows in by_network[number]]
            _draw_by_depth(figure, left, spectra, depths)
            _draw_dims(right, spectra, depths)
            if len(by_network) > 1:
                left.set_title(str(result.networks[number]), loc="left")
    return figure


def _curves(spectra: Sequence[Spectrum], ranks: ndarray) -> ndarray:
    """Singular values at these ranks, a row each, by straight lines on a logarithmic axis; NaN where not known."""
    rows = []
    for spectrum in spectra:
        known, values = spectrum.curve()
        logarithms = np.log(np.maximum(values, FLOOR * values[0]))
        rows.append(np.exp(np.interp(ranks, known, logarithms, right=np.nan)))
    return np.array(rows)


def _draw_values(axes: Axes, spectra: Sequence[Spectrum], number: int, name: str) -> None:
    colour, line, _ = CYCLE[number % len(CYCLE)]
    count = spectra[0].count
    ranks = np.unique(np.concatenate((np.arange(1, len(spectra[0].largest) + 1), np.linspace(1, count, 500))))
    curves = _curves(spectra, ranks)
    curves /= curves[:, :1]
    axes.plot(ranks / count, np.median(curves, axis=0), color=colour, linestyle=line, label=name)
    shade(axes, ranks / count, curves.min(axis=0), curves.max(axis=0), colour)


def _draw_energy(axes: Axes, spectra: Sequence[Spectrum], number: int, name: str) -> None:
    colour, line, _ = CYCLE[number % len(CYCLE)]
    count = spectra[0].count
    dims = np.unique(np.geomspace(1, count, 200).round())
    energy = np.array([spectrum.energy(dims) for spectrum in spectra])
    axes.plot(dims / count, 100 * np.median(energy[:, :, 0], axis=0), color=colour, linestyle=line, label=name)
    low, high = energy[:, :, 1].min(axis=0), energy[:, :, 2].max(axis=0)
    shade(axes, dims / count, 100 * low, 100 * high, colour)


def _finish(left: Axes, right: Axes) -> None:
    left.set_yscale("log")
    left.set_ylabel("singular value / largest")
    left.set_xlabel("rank / number of singular values")
    right.set_xscale("log")
    right.set_ylim(0, 102)
    right.set_ylabel("energy held (%)")
    right.set_xlabel("rank / number of singular values")
    shares = np.array(list(PAPER.items())).T
    right.plot(shares[0], 100 * shares[1], "x", color="black", label="the paper's two", zorder=3)
    right.legend(loc="lower right")


def _draw_by_depth(figure: Figure, axes: Axes, spectra: Sequence[Sequence[Spectrum]], depths: Sequence[int]) -> None:
    colours = matplotlib.colormaps["viridis_r"]
    scale = Normalize(min(depths), max(depths))
    for depth, images in zip(depths, spectra):
        count = images[0].count
        ranks = np.linspace(1, count, 500)
        values = np.median(_curves(images, ranks), axis=0)
        axes.plot(ranks / count, values, color=colours(scale(depth)), linewidth=0.8)
    axes.set_xlim(-0.03, 1.03)
    axes.set_yscale("log")
    axes.set_ylabel("singular value")
    axes.set_xlabel("rank / number of singular values")
    mapped = ScalarMappable(scale, colours)
    figure.colorbar(mapped, ax=axes, label="depth (block)", pad=0.02)


def _draw_dims(axes: Axes, spectra: Sequence[Sequence[Spectrum]], depths: Sequence[int]) -> None:
    for (colour, line, marker), share in zip(CYCLE, SHARES):
        held = np.array([[each.dims_holding(share)[0] / each.count for each in images] for images in spectra])
        axes.plot(depths, 100 * np.median(held, axis=1), line, color=colour, marker=marker, label=f"{share:.0%}")
        shade(axes, np.array(depths), 100 * held.min(axis=1), 100 * held.max(axis=1), colour)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("singular values (%) that\nhold a share of the energy")
    axes.set_xlabel("depth (block)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(title="share")


def tabulate_spectrum(result: SpectrumResult) -> TextTable:
    """A row for each network and layer: medians over the images and, of several, the 10% and 90% quantiles."""
    layers = result.summary()["layers"]
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
    return TextTable(headings, rows, notes)


def _spread(quantiles: Mapping[str, float | None], form: str, *, several: bool) -> str:
    median, low, high = ("-" if quantiles[key] is None else form.format(quantiles[key]) for key in _KEYS)
    return f"{median} ({low} to {high})" if several and median != "-" else median


_KEYS = ("median", "q10", "q90")


def _notes(network: str, layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """How far the numbers of a network are to be trusted."""
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
        notes.append(f"{network}: log |det J| = {low:.2g} to {high:.2g}, each to within {error:.1g}; it should be 0")
    elif sampled:
        notes.append(f"{network}: has no inverse; its smallest singular values are not known")
    return notes
