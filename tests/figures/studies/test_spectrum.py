import numpy as np
import pytest

from analysis.results import SpectrumResult
from figures import plot, table


def test_values_and_energy_of_each_network_are_drawn(spectrum_result):
    values, energy = plot(spectrum_result).axes
    irevnet, resnet = values.lines
    assert irevnet.get_label() == "irevnet-b"
    shares, heights = irevnet.get_data()
    assert (shares[0], shares[-1]) == (1 / 150, 1)
    ranks = 150 * shares
    expected = [10 ** (power * (ranks - 1) / 149) for power in (-2, -3)]  # of both images
    np.testing.assert_allclose(heights, np.median(expected, axis=0), rtol=0.02)
    assert np.isnan(resnet.get_ydata()[resnet.get_xdata() > 148 / 150]).all()  # its smallest are not known
    assert not np.isnan(resnet.get_ydata()[:130]).any()
    line = energy.lines[0]
    truth = np.cumsum(np.geomspace(10, 0.1, 150) ** 2), np.cumsum(np.geomspace(10, 0.01, 150) ** 2)
    np.testing.assert_allclose(line.get_ydata()[0], 100 * np.mean([each[0] / each[-1] for each in truth]))
    np.testing.assert_allclose(line.get_ydata()[-1], 100)
    assert energy.lines[-1].get_label() == "the paper's two"
    np.testing.assert_allclose(energy.lines[-1].get_data(), [[1e3 / 150_528, 1e4 / 150_528], [80, 97]])


def test_spectra_of_several_depths_are_drawn_by_depth(spectra_by_depth):
    values, dims = plot(spectra_by_depth).axes
    assert [line.get_ydata()[-1] for line in values.lines] == pytest.approx([5, 1, 0.1])
    blocks = ["block 1", "block 2", "block 5"]
    assert [text.get_text() for text in values.get_legend().get_texts()] == blocks
    assert [line.get_label() for line in dims.lines] == ["80% of the energy", "97% of the energy"]
    energies = [np.cumsum(np.geomspace(10, last, 150) ** 2) for last in (5, 1, 0.1)]
    held = [100 / 150 * (np.searchsorted(energy / energy[-1], 0.8) + 1) for energy in energies]
    np.testing.assert_allclose(dims.lines[0].get_data(), [[1, 2, 5], held])
    two = SpectrumResult.join([spectra_by_depth, spectra_by_depth], ["one", "other"])
    titles = [axes.get_legend().get_title().get_text() for axes in plot(two).axes]
    assert titles == ["one", "", "other", ""]  # panels of its own for each network


def test_the_table_has_medians_quantiles_and_errors(spectrum_result, spectra_by_depth):
    made = table(spectrum_result)
    numbers = ("singular values", "largest", "condition", "d of 80%", "d of 97%", "E(n/150)", "E(n/15)")
    assert made.headings == ("network", "layer", *numbers)
    irevnet, resnet = made.rows
    assert irevnet[:5] == ("irevnet-b", "block-100", "150", "10 (10 to 10)", "5.5e+02 (1.9e+02 to 9.1e+02)")
    assert resnet[4] == "-"
    squares = [np.geomspace(10, last, 150) ** 2 for last in (0.1, 0.01)]
    assert irevnet[-1].startswith(f"{np.mean([each[:10].sum() / each.sum() for each in squares]):.1%} (")
    found = (
        "by 100 products a spectrum; 20 of the 20 largest converged, sum of squares to 1.0e-02 (95%), Lanczos vectors "
        "orthogonal to 1e-07"
    )
    assert made.notes == [
        f"irevnet-b: {found}",
        "irevnet-b: log |det J| = -1.7e+02 to 0.5, each to within 2; that of an i-RevNet is 0",
        f"resnet-50: {found}",
        "resnet-50: has no inverse; its smallest singular values are not known",
    ]
    single = table(spectra_by_depth)
    assert single.headings[0] == "layer"
    assert single.rows[2][:4] == ("block-5", "150", "10", "1e+02")
    assert single.notes[0] == "irevnet-b: all singular values, of the matrix"
