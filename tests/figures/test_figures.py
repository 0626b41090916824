import dataclasses
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest

from analysis.results import DepthProbeResult, InversionResult, TrainingCurvesResult
from figures.depth_probe import plot_depth_probe
from figures.inversion import plot_inversion
from figures.style import save_figure
from figures.training_curves import plot_training_curves


@pytest.fixture
def probe() -> DepthProbeResult:
    depths = np.array([1, 2, 5])
    return DepthProbeResult(
        depths=depths,
        svm_accuracy=np.array([0.5, 0.7, 0.9]),
        svm_interval=np.array([[0.4, 0.6], [0.6, 0.8], [0.85, 0.95]]),
        nn_accuracy=np.array([0.4, 0.6, 0.8]),
        nn_interval=np.array([[0.3, 0.5], [0.5, 0.7], [0.7, 0.9]]),
        svm_cost=np.ones(3),
        svm_gap=np.full(3, 1e-5),
        cost_grid=np.ones(1),
        cv_accuracy=np.ones((3, 1)),
        channels=np.array([4, 16, 16]),
        network_accuracy=np.array(0.95),
        num_train=np.array(100),
        num_test=np.array(50),
    )


@pytest.fixture(params=[1, 3], ids=["grey", "coloured"])
def inversion(request) -> InversionResult:
    originals = np.random.default_rng(0).uniform(size=(5, request.param, 4, 6))
    return InversionResult(
        image_errors=np.full(9, 1e-7),
        noise_errors=np.full(9, 2e-7),
        originals=originals,
        reconstructions=originals + 1e-6,
        shown_errors=np.array([1e-7, np.nan, 0.0, 2e-7, 2.3e-12]),
        num_image_shown=np.array(3),
        depth=np.array(12),
    )


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


def test_the_depth_probe_figure_shows_both_probes_in_percent_against_depth(probe):
    axes = plot_depth_probe(probe).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_array_equal(lines["linear SVM"].get_xdata(), [1, 2, 5])
    np.testing.assert_allclose(lines["linear SVM"].get_ydata(), [50, 70, 90])
    np.testing.assert_allclose(lines["1-nearest neighbour"].get_ydata(), [40, 60, 80])
    np.testing.assert_allclose(lines["the network itself"].get_ydata(), [95, 95])
    assert [text.get_text() for text in axes.texts] == ["4 channels", "16"]
    assert axes.get_xlabel() == "depth $j$ (block)"


def test_the_networks_line_is_left_out_where_it_has_other_classes(probe):
    axes = plot_depth_probe(dataclasses.replace(probe, network_accuracy=np.array(np.nan))).axes[0]
    assert "the network itself" not in {line.get_label() for line in axes.lines}


def test_the_inversion_figure_shows_each_image_its_reconstruction_and_their_difference(inversion):
    figure = plot_inversion(inversion)
    pictures = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(pictures) == 15
    np.testing.assert_allclose(pictures[2].squeeze(), inversion.originals[2].transpose(1, 2, 0).squeeze())
    np.testing.assert_allclose(pictures[10], np.full((4, 6), 1e-6), rtol=1e-6)
    assert texts(figure) == ["$1\\times10^{-7}$", "undefined", "0", "$2\\times10^{-7}$", "$2\\times10^{-12}$"]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [titles[0], titles[3]] == ["test images", "uniform noise"]


def test_a_perfect_reconstruction_is_drawn(inversion):
    figure = plot_inversion(dataclasses.replace(inversion, reconstructions=inversion.originals))
    assert any("white: 0" in axes.get_ylabel() for axes in figure.axes)


def test_figures_are_saved_for_the_screen_and_for_print(tmp_path, probe):
    png, pdf = save_figure(plot_depth_probe(probe), tmp_path, "depth-probe")
    height, width = matplotlib.image.imread(png).shape[:2]
    assert (width, height) == (990, 720)  # 3.3 x 2.4 inches at 300 dots
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content  # TrueType fonts, embedded
    assert b"/Type3" not in content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth-probe.pdf", "depth-probe.png"]


def test_figures_are_drawn_without_torch():
    code = "import sys, figures.depth_probe, figures.inversion; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
