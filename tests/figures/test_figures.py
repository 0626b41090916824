import dataclasses
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from analysis.results import InversionResult, SpectrumResult, TrainingCurvesResult
from figures.studies.depth_probe import plot_depth_probe, tabulate_depth_probe
from figures.studies.interpolation import plot_interpolation, save_animation, tabulate_interpolation
from figures.studies.inversion import plot_inversion, tabulate_inversion
from figures.studies.pca_sweep import plot_pca_sweep, tabulate_pca_sweep
from figures.studies.spectrum import plot_spectrum, tabulate_spectrum
from figures.studies.training_curves import plot_training_curves, tabulate_training_curves
from figures.style import save_figure


@pytest.fixture(params=[1, 3], ids=["grey", "coloured"])
def inversion(inversion, request) -> InversionResult:
    pictures = {name: getattr(inversion, name)[:, : request.param] for name in ("originals", "reconstructions")}
    return dataclasses.replace(inversion, **pictures)


@pytest.fixture
def curves() -> TrainingCurvesResult:
    """One run that has ended an epoch, and one that has not."""
    return TrainingCurvesResult(
        names=np.array(["irevnet-b", "resnet-50"]),
        curve_run=np.array([0, 0, 0, 1, 1]),
        iteration=np.array([3, 4, 5, 3, 4]),
        loss=np.array([2.0, 1.0, 0.5, 2.0, 1.5]),
        epoch_run=np.array([0]),
        epoch_iteration=np.array([4]),
        test_accuracy=np.array([0.25]),
        window=np.array(3),
    )


def texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_training_curves_show_losses_and_accuracies_of_each_run(curves):
    figure = plot_training_curves(curves)
    losses, accuracies = figure.axes
    assert [line.get_label() for line in losses.lines] == ["irevnet-b", "resnet-50"]
    assert len({(line.get_color(), line.get_linestyle()) for line in losses.lines}) == 2
    np.testing.assert_array_equal(losses.lines[0].get_data(), [[3, 4, 5], [2, 1, 0.5]])
    np.testing.assert_array_equal(losses.lines[1].get_data(), [[3, 4], [2, 1.5]])
    np.testing.assert_array_equal(accuracies.lines[0].get_data(), [[4], [25]])
    assert losses.get_yscale() == "log"
    assert losses.get_ylabel() == "training loss (nats), mean of 3"


def test_the_depth_probe_figure_shows_both_probes_in_percent_and_the_contraction_against_depth(probe):
    above, below = plot_depth_probe(probe).axes
    lines = {line.get_label(): line for line in above.lines}
    np.testing.assert_array_equal(lines["linear SVM"].get_xdata(), [1, 2, 5])
    np.testing.assert_allclose(lines["linear SVM"].get_ydata(), [50, 75, 90])
    np.testing.assert_allclose(lines["1-NN"].get_ydata(), [40, 65, 80])
    np.testing.assert_allclose(lines["the network itself"].get_ydata(), [77, 77])
    np.testing.assert_array_equal(below.lines[0].get_data(), [[1, 2, 5], [0.9, 0.8, 0.5]])
    assert [text.get_text() for text in above.texts] == ["4 ch.", "16"]
    assert below.get_xlabel() == "depth $j$ (block)"
    low, high = (
        above.collections[0].get_paths()[0].vertices[:, 1].min(),
        above.collections[0].get_paths()[0].vertices[:, 1].max(),
    )
    np.testing.assert_allclose([low, high], [40, 95])  # the band of the intervals


def test_networks_are_compared_against_relative_depth_where_they_differ_in_blocks(probes):
    figure = plot_depth_probe(probes)
    above, below = figure.axes
    np.testing.assert_allclose(above.lines[0].get_xdata(), [0.2, 0.4, 1])
    assert below.get_xlabel() == "depth (block over number of blocks)"
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["irevnet-b", "resnet-50", "linear SVM", "1-NN", "the network itself"]
    assert len({line.get_color() for line in above.lines}) == 2
    by_block = plot_depth_probe(probes, relative=False).axes[0]
    np.testing.assert_array_equal(by_block.lines[0].get_xdata(), [1, 2, 5])


def test_the_networks_line_is_left_out_where_it_has_other_classes(probe, probes):
    axes = plot_depth_probe(dataclasses.replace(probe, network_accuracy=np.array([np.nan]))).axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["linear SVM", "1-NN"]
    many = plot_depth_probe(dataclasses.replace(probes, network_accuracy=np.array([np.nan, np.nan])))
    assert "the network itself" not in {text.get_text() for text in many.legends[0].get_texts()}


def test_the_sweep_figure_shows_accuracy_and_variance_against_components_and_the_knee(sweep, sweeps):
    above, below = plot_pca_sweep(sweep).axes
    lines = {line.get_label(): line for line in above.lines}
    np.testing.assert_array_equal(lines["linear SVM"].get_data(), [[1, 10, 64], [50, 89.5, 90]])
    np.testing.assert_array_equal(lines["knee, $d = 10$"].get_xdata(), [10, 10])
    np.testing.assert_array_equal(below.lines[0].get_data(), [[1, 10, 64], [30, 80, 100]])
    assert below.get_xscale() == "log"
    assert len(plot_pca_sweep(sweeps).axes[1].lines) == 2


def test_tables_say_what_the_figures_show(probe, probes, sweep, sweeps):
    table = tabulate_depth_probe(probe)
    accuracies = ("75.0% (65.0% to 80.0%)", "65.0% (55.0% to 75.0%)", "1")
    assert table.rows[1] == ("2", "16", *accuracies, "0.800")
    assert table.headings[:2] == ("depth", "channels")
    assert table.notes == [
        "irevnet-b itself: 77.0% (70.0% to 80.0%); among the classes studied alone 85.0% (80.0% to 90.0%)",
        "C was chosen at the edge of its grid (0.01 to 1) at block-2: a wider grid may do better there",
    ]
    both = tabulate_depth_probe(probes)
    assert both.rows[4] == ("resnet-50", "2", "16", *accuracies, "0.800")
    assert both.notes[0] == "irevnet-b itself: 77.0% (70.0% to 80.0%)"
    assert both.notes[1] == "resnet-50 itself: unknown, as its outputs are not known to be these classes"
    assert "at irevnet-b block-2, resnet-50 block-2:" in both.notes[2]
    named = tabulate_depth_probe(dataclasses.replace(probe, layer=np.array(["layer1.0", "layer2.0", "fc"])))
    assert named.rows[2][:2] == ("fc", "5")
    swept = tabulate_pca_sweep(sweep)
    assert swept.rows[0][:3] == ("1", "30.0%", "50.0% (40.0% to 55.0%)")
    assert swept.notes[0] == (
        "irevnet-b, block-5: within one point of all 64 components from 10 on (linear SVM), 10 on (1-NN)"
    )
    assert swept.notes[2].split(") at ")[1] == "d = 10: a wider grid may do better there"
    assert [row[0] for row in tabulate_pca_sweep(sweeps).rows] == ["irevnet-b"] * 3 + ["resnet-50"] * 3


def test_the_table_of_training_curves(curves):
    assert tabulate_training_curves(curves).rows == [
        ("irevnet-b", "5", "2.0000", "1.0000", "1.0000", "0.5000", "25.00%"),
        ("resnet-50", "4", "2.0000", "2.0000", "1.5000", "1.5000", ""),
    ]


def test_the_inversion_figure_shows_each_image_its_reconstruction_and_their_difference(inversion):
    figure = plot_inversion(inversion)
    pictures = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(pictures) == 15
    np.testing.assert_allclose(pictures[2].squeeze(), inversion.originals[2].transpose(1, 2, 0).squeeze())
    np.testing.assert_allclose(pictures[10], np.full((4, 6), 1e-6), rtol=1e-6)
    tiny = "$2\\times10^{-7}$"
    titles = ["the worst test images", "the worst of uniform noise"]
    assert texts(figure) == [*titles, "$4\\times10^{-7}$", tiny, "undefined", tiny, tiny]
    assert [axes.texts[0].get_text() for axes in (figure.axes[0], figure.axes[3])] == titles


def test_the_inversion_figure_shows_errors_and_amplification_against_depth(inversion):
    errors, amplification = plot_inversion(inversion).axes[-2:]
    float32, float16, exact = errors.lines
    np.testing.assert_allclose(float32.get_data(), [[1, 12], [1e-7, 3e-7]])
    np.testing.assert_allclose(float16.get_data(), [[1, 12], [1e-3, np.nan]])  # it has overflowed
    assert exact.get_label() == "exact: 0 at every depth"
    largest, random, _ = amplification.lines
    np.testing.assert_allclose(largest.get_data(), [[1, 12], [30, 60]])
    np.testing.assert_allclose(random.get_data(), [[1, 12], [3, 6]])


def test_a_perfect_reconstruction_is_drawn(inversion):
    figure = plot_inversion(dataclasses.replace(inversion, reconstructions=inversion.originals))
    assert any("white: 0" in axes.get_ylabel() for axes in figure.axes)


def test_the_inversion_table_says_what_is_found_at_the_last_depth(inversion):
    table = tabulate_inversion(inversion)
    assert table.rows[0] == ("test images", "8", "1.38e-07", "1.00e-07", "3.86e-07", "4.00e-07")
    assert table.notes[:2] == [
        "in float32, from block 12",
        "mean over 4 test images, from block 12: float32 3.00e-07, float16 not finite, exact 0.00e+00",
    ]
    assert "comes back 6 times as large, relatively, in a random direction, and up to 60 times" in table.notes[2]


def test_the_spectrum_figure_shows_values_and_energy_of_each_network(spectrum_result):
    values, energy = plot_spectrum(spectrum_result).axes
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


def test_spectra_at_several_depths_show_how_they_form(spectra_by_depth):
    values, dims = plot_spectrum(spectra_by_depth).axes
    assert [line.get_ydata()[-1] for line in values.lines] == pytest.approx([5, 1, 0.1])
    blocks = ["block 1", "block 2", "block 5"]
    assert [text.get_text() for text in values.get_legend().get_texts()] == blocks
    assert [line.get_label() for line in dims.lines] == ["80% of the energy", "97% of the energy"]
    held = [
        100 / 150 * (np.searchsorted(np.cumsum(v**2) / (v**2).sum(), 0.8) + 1)
        for v in (np.geomspace(10, last, 150) for last in (5, 1, 0.1))
    ]
    np.testing.assert_allclose(dims.lines[0].get_data(), [[1, 2, 5], held])


def test_of_several_networks_at_several_depths_each_has_its_panels(spectra_by_depth):
    fields = {field.name: getattr(spectra_by_depth, field.name) for field in dataclasses.fields(spectra_by_depth)}
    fields = {name: np.concatenate((value, value)) for name, value in fields.items()}
    fields |= {"networks": np.array(["one", "other"]), "images": spectra_by_depth.images}
    figure = plot_spectrum(SpectrumResult(**{**fields, "network": np.repeat([0, 1], 3)}))
    titles = [axes.get_legend().get_title().get_text() for axes in figure.axes]
    assert titles == ["one", "", "other", ""]


def test_the_spectrum_table_has_medians_quantiles_and_what_they_are_worth(spectrum_result, spectra_by_depth):
    table = tabulate_spectrum(spectrum_result)
    assert table.headings == (
        *("network", "layer", "singular values", "largest", "condition", "d of 80%", "d of 97%", "E(n/150)", "E(n/15)"),
    )
    irevnet, resnet = table.rows
    assert irevnet[:5] == ("irevnet-b", "block-100", "150", "10 (10 to 10)", "5.5e+02 (1.9e+02 to 9.1e+02)")
    assert resnet[4] == "-"
    values = (np.geomspace(10, last, 150) ** 2 for last in (0.1, 0.01))
    shares = [squares[:10].sum() / squares.sum() for squares in values]
    assert irevnet[-1].startswith(f"{np.mean(shares):.1%} (")
    assert table.notes == [
        "irevnet-b: by 100 products a spectrum; 20 of the 20 largest converged, sum of squares to 1.0e-02 (95%), "
        "Lanczos vectors orthogonal to 1e-07",
        "irevnet-b: log |det J| = -1.7e+02 to 0.5, each to within 2; it should be 0",
        "resnet-50: by 100 products a spectrum; 20 of the 20 largest converged, sum of squares to 1.0e-02 (95%), "
        "Lanczos vectors orthogonal to 1e-07",
        "resnet-50: has no inverse; its smallest singular values are not known",
    ]
    single = tabulate_spectrum(spectra_by_depth)
    assert single.headings[0] == "layer"
    assert single.rows[2][:4] == ("block-5", "150", "10", "1e+02")
    assert single.notes[0] == "irevnet-b: all singular values, of the matrix"


def test_the_interpolation_figure_shows_both_paths_and_marks_where_the_answer_changes(interpolation):
    figure = plot_interpolation(interpolation)
    assert [part.get_suptitle() for part in figure.subfigs] == ["cat to dog", "dog to cow"]
    axes = figure.axes
    assert len(axes) == 12
    assert [axes[0].get_ylabel(), axes[3].get_ylabel()] == ["features", "pixels"]
    assert axes[1].get_xlabel() == "dog 75%\n$t$ = 0.5"
    colours = [each.xaxis.label.get_color() for each in axes[:6]]
    assert [colour != "black" for colour in colours] == [False, True, False, False, False, True]
    np.testing.assert_allclose(
        axes[4].images[0].get_array(), np.clip(interpolation.images[1, 0, 1].transpose(1, 2, 0), 0, 1)
    )


def test_a_grid_is_drawn_as_one(interpolation):
    figure = plot_interpolation(dataclasses.replace(interpolation, rows_of_grid=np.array(True)))
    assert [half.get_suptitle() for half in figure.subfigs] == [
        "straight lines of features",
        "straight lines of pixels",
    ]
    assert len(figure.axes) == 12
    np.testing.assert_allclose(
        figure.axes[5].images[0].get_array(), np.clip(interpolation.images[0, 1, 2].transpose(1, 2, 0), 0, 1)
    )


def test_the_animation_walks_there_and_back(interpolation, tmp_path):
    path = save_animation(interpolation, tmp_path)
    with Image.open(path) as animation:
        assert animation.n_frames == 4
        assert animation.size == (2 * 6 * 22, 2 * 4 * 22)  # each pixel 22 wide, at least 128 an image
    grey = dataclasses.replace(interpolation, images=interpolation.images[:, :, :, :1])
    with Image.open(save_animation(grey, tmp_path)) as animation:
        assert animation.n_frames == 4


def test_the_interpolation_table_has_only_columns_that_say_something(interpolation):
    table = tabulate_interpolation(interpolation)
    assert table.headings[2:] == [
        "length",
        "outside [0, 1]",
        "off the range",
        "from the middle",
        "in features",
        "answers",
    ]
    assert table.rows[0] == [
        "cat to dog",
        "features",
        "3.000",
        "50.0%",
        "2.0e-01",
        "0.100",
        "0.400",
        "cat, dog from t = 0.5",
    ]
    assert table.rows[2][-3:-1] == ["unknown", "unknown"]
    assert table.notes[1] == (
        "nearer to the true middle than the mean of the pixels is: 1 of 1 lines; in features, in units of the distance "
        "of both ends, 0 of 1"
    )
    unknown = dataclasses.replace(interpolation, bijective=np.array(True), middle_distance=np.full((2, 2), np.nan))
    table = tabulate_interpolation(unknown)
    assert table.headings[2:] == ["length", "outside [0, 1]", "answers"]
    assert table.rows[3] == ["dog to cow", "pixels", "3.000", "50.0%", "dog, cow from t = 0.5"]
    assert len(table.notes) == 1


def test_figures_are_saved_for_the_screen_and_for_print(tmp_path, probe):
    png, pdf = save_figure(plot_depth_probe(probe), tmp_path, "depth-probe")
    height, width = matplotlib.image.imread(png).shape[:2]
    assert (width, height) == (990, 1020)  # 3.3 x 3.4 inches at 300 dots
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content  # TrueType fonts, embedded
    assert b"/Type3" not in content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth-probe.pdf", "depth-probe.png"]


def test_figures_are_drawn_without_torch():
    modules = "figures.studies.depth_probe, figures.studies.inversion, figures.studies.pca_sweep"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
