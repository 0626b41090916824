import numpy as np
import pytest

from analysis.results import SpectrumResult
from analysis.results.depth_trends import depth_trend
from analysis.results.directions import Directions
from figures import plot, table
from figures.chart import draw
from figures.depth_trends import trends_chart
from figures.directions import draw_directions
from figures.report.blocks import Download
from figures.studies.spectrum import FIGURE


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


def test_directions_are_drawn_with_the_moved_images(spectra_with_directions):
    figure = draw_directions(spectra_with_directions)
    cat, dog = figure.subfigs
    assert cat.get_suptitle() == "irevnet-b, block-5: cat"
    assert dog.get_suptitle() == "irevnet-b, block-5: dog"
    grid = np.array(cat.axes).reshape(3, 7)  # the image, a gap, two of the most, a gap, two of the least magnified
    labels = [axes.get_xlabel() for axes in grid[0]]
    assert labels[2:4] == ["$\\sigma_{1}$ = 10", f"$\\sigma_{{2}}$ = {10 / 32 ** (1 / 149):.3g}"]
    assert labels[5:] == ["$\\sigma_{n}$ = 0.312", f"$\\sigma_{{n-1}}$ = {10 / 32 ** (148 / 149):.3g}"]
    assert {axes.get_xlabel() for axes in grid[1:, [2, 3, 5, 6]].flat} == {"0.049"}  # 3 * 0.2 / sqrt(150)
    assert [float(grid[0, 2].images[0].get_array().max()), grid[0, 0].images[0].get_array().max()] == [1.0, 0.5]
    moved = grid[1, 2].images[0].get_array().transpose(2, 0, 1)
    np.testing.assert_allclose(moved, spectra_with_directions.directions(6).moved(0, 0, 1).clip(0, 1))
    figure.draw_without_rendering()


def test_directions_without_an_inverse_or_of_other_channels_are_drawn(spectra_with_directions):
    one = spectra_with_directions.directions(0)
    fields = {name: value.copy() for name, value in vars(one).items()}
    for name in ("vector_values", "right_vectors", "left_vectors", "vector_residuals", "steps", "feature_changes"):
        fields[name][1] = np.nan
    fields["steps"][0, 1] = np.nan  # where no step changes the features by as much
    fields["right_vectors"] = fields["right_vectors"].reshape(2, 2, 6, 5, 5)
    fields |= {"pixels": fields["pixels"].reshape(6, 5, 5), "pixel_scale": np.ones(6)}
    result = SpectrumResult.of(
        [spectra_with_directions.spectrum(0)],
        networks=["net"],
        images=["cat"],
        network=[0],
        layer=["block-1"],
        depth=[1],
        image=[0],
        directions=[Directions(**fields)],
    )
    (part,) = draw_directions(result).subfigs
    labels = [axes.get_xlabel() for axes in part.axes]
    assert len(labels) == 3 * 4
    assert labels[7] == labels[11] == "not reached"
    assert table(result).notes[-1].count("magnified direction") == 1


def test_trends_over_depth_are_drawn(spectra_with_directions):
    values, slopes, fits, overlaps = draw(trends_chart(spectra_with_directions.depth_trends())).axes
    points, line = values.lines[-3:-1]  # of the last rank, before the straight line at 1
    np.testing.assert_allclose(points.get_data(), [[1, 2, 3, 5], [5, 2.5, 1.25, 0.3125]])
    np.testing.assert_allclose(points.get_data(), line.get_data())
    np.testing.assert_allclose(slopes.lines[0].get_data(), [np.arange(1, 151), 0.5 ** (np.arange(150) / 149)])
    np.testing.assert_allclose(fits.lines[0].get_ydata()[1:], 1)
    for drawn, height in zip(overlaps.lines, (0.5, 1)):
        np.testing.assert_allclose(drawn.get_data(), [[1.5, 2.5, 4], [height] * 3])


def test_trends_of_both_ends_at_one_image_are_drawn(geometric):
    trend = depth_trend("net", [1, 2, 3, 4], [[geometric(1 / 2**depth)] for depth in range(4)], [[None]] * 4)
    _, slopes, _ = draw(trends_chart([trend])).axes  # without vectors there are no overlaps
    assert [line.get_label() for line in slopes.lines[:2]] == ["largest values", "smallest values"]
    np.testing.assert_allclose(slopes.lines[1].get_data(), [[1, 2, 3], 0.5 ** (np.arange(149, 146, -1) / 149)])
    assert not slopes.collections  # no band


@pytest.mark.usefixtures("plain_pages")
def test_more_is_saved_and_reported_of_directions_and_depths(spectra_with_directions, spectrum_result, tmp_path):
    names = [
        "spectrum-depth-trends.pdf",
        "spectrum-depth-trends.png",
        "spectrum-directions.pdf",
        "spectrum-directions.png",
    ]
    assert sorted(path.name for path in FIGURE.save_more(spectra_with_directions, tmp_path)) == names
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    files = [Download(name="net-spectrum.png", uri="")]
    drawing, chart = FIGURE.page_blocks(spectra_with_directions, files)
    assert [each.name for each in drawing.downloads] == ["net-spectrum-directions.png", "net-spectrum-directions.pdf"]
    assert len(chart.panels) == 4
    assert FIGURE.page_blocks(spectrum_result, files) == FIGURE.save_more(spectrum_result, tmp_path) == []


def test_the_table_says_what_directions_and_depths_show(spectra_with_directions):
    *_, most, least, trend = table(spectra_with_directions).notes
    assert most == (
        "irevnet-b: block-5, the most magnified direction: singular value 10 (10 to 10), residuals up to 1e-06; for an "
        "equal change of the features pixel values change by 0.049 (0.049 to 0.049) (root mean square), and the "
        "Jacobian predicts 5 (5 to 5) times that change of the features"
    )
    assert "the least magnified direction: singular value 0.312 (" in least
    assert "residuals of the inverse up to 1e-06" in least
    assert trend == (
        "irevnet-b, 4 depths: log of the singular values against depth, R^2 1.00 (median of the largest 150), slope of "
        "the first 0.00 (0.00 to 0.00); the 2 most magnified directions of neighbouring depths overlap by 0.5 to 0.5, "
        "by chance 0.013"
    )
