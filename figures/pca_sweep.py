"""Accuracy against the number of principal components: Fig. 7 of the paper."""

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from analysis.results import PCASweepResult
from figures.probes import (
    ACCURACY_HEADINGS,
    accuracy_cells,
    add_legend,
    draw_accuracies,
    network_notes,
    rows_by_network,
)
from figures.style import COLUMN, CYCLE, new_figure, style
from figures.table import TextTable, percent


def plot_pca_sweep(result: PCASweepResult) -> Figure:
    """Linear SVM and 1-NN accuracy on the first d principal components, with 95% intervals, and below them the share
    of the variance that these hold. A thin line marks the SVM's knee: from there on it is within one point."""
    many = len(result.networks) > 1
    with style():
        figure = new_figure(1.5 * COLUMN if many else COLUMN, 3.8 if many else 3.4)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
        draw_accuracies(above, result, result.dims)
        for number, rows in rows_by_network(result):
            colour, _, marker = CYCLE[number % len(CYCLE)]
            below.plot(result.dims[rows], 100 * result.explained[rows], color=colour, marker=marker)
            knee = result.knee(number, "svm")
            label = f"knee, $d = {knee}$" if not many else None
            above.axvline(knee, color=colour, linewidth=0.5, alpha=0.8, zorder=0, label=label)
        below.set_xscale("log")
        ticks = [d for power in range(5) for d in (10**power, 3 * 10**power) if d <= result.dims.max()]
        below.set_xticks(ticks)
        below.xaxis.set_major_formatter(ScalarFormatter())
        below.xaxis.set_minor_locator(NullLocator())
        below.set_ylim(0, 103)
        below.set_xlabel("principal components $d$")
        below.set_ylabel("variance\nheld (%)")
        add_legend(figure, above, result)
    return figure


def tabulate_pca_sweep(result: PCASweepResult) -> TextTable:
    """A row for each d of each network, and where accuracy begins to fall."""
    many = len(result.networks) > 1
    rows, places, notes = [], [], []
    for number, of_network in rows_by_network(result):
        name = str(result.networks[number])
        for row in of_network.tolist():
            explained = percent(float(result.explained[row]))
            rows.append((*[name] * many, f"{result.dims[row]}", explained, *accuracy_cells(result, row)))
            places.append(" ".join([*[name] * many, f"d = {result.dims[row]}"]))
        notes.append(
            f"{name}, {result.layer[of_network[0]]}: within one point of all {result.dims[of_network[-1]]} components "
            f"from {result.knee(number, 'svm')} on (linear SVM), {result.knee(number, 'nn')} on (1-NN)"
        )
    headings = (*["network"] * many, "components", "variance", *ACCURACY_HEADINGS)
    return TextTable(headings, rows, [*notes, *network_notes(result, places)])
