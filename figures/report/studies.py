"""What each study is on a page: what the paper did, how its figure is drawn, and how its findings are told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from analysis.results import (
    DepthProbeResult,
    InterpolationResult,
    InversionResult,
    PCASweepResult,
    Result,
    SpectrumResult,
    TrainingCurvesResult,
)
from analysis.results.findings import (
    Finding,
    find_components,
    find_depth,
    find_interpolation,
    find_inversion,
    find_spectrum,
    find_training,
)
from figures.chart import Chart
from figures.studies.depth_probe import chart_depth_probe, plot_depth_probe, tabulate_depth_probe
from figures.studies.interpolation import plot_interpolation, tabulate_interpolation
from figures.studies.inversion import chart_inversion, plot_inversion, tabulate_inversion
from figures.studies.pca_sweep import chart_pca_sweep, plot_pca_sweep, tabulate_pca_sweep
from figures.studies.spectrum import chart_spectrum, plot_spectrum, tabulate_spectrum
from figures.studies.training_curves import chart_training_curves, plot_training_curves, tabulate_training_curves
from figures.text_table import TextTable


@dataclass(frozen=True, kw_only=True)
class PageStudy:
    """A study as a page shows it; `find` takes the result and, for a study of one network, its name."""

    kind: type[Result]
    title: str
    paper: str
    caption: str
    find: Callable[..., list[Finding]]
    tabulate: Callable[[Any], TextTable]
    plot: Callable[[Any], Figure]
    chart: Callable[[Any], Chart] | None = None


TRAINING = PageStudy(
    kind=TrainingCurvesResult,
    title="Training",
    paper="Section 3.2 and Fig. 3 compare the training losses of i-RevNet (b) and a ResNet, averaged over 100 "
    "iterations: to be invertible does not interfere with learning.",
    caption="Training loss, a moving average, and test accuracy after each epoch (Fig. 3).",
    find=find_training,
    tabulate=tabulate_training_curves,
    plot=plot_training_curves,
    chart=chart_training_curves,
)
INVERSION = PageStudy(
    kind=InversionResult,
    title="Reconstruction",
    paper="Section 4.2 inverts the network: the relative error of an image is the norm of x - Φ⁻¹Φx over that "
    "of x. Rounding is all that is lost.",
    caption="Mean error from each depth in each arithmetic, and how many times larger, relatively, a small change of "
    "the features comes back.",
    find=find_inversion,
    tabulate=tabulate_inversion,
    plot=plot_inversion,
    chart=chart_inversion,
)
INTERPOLATION = PageStudy(
    kind=InterpolationResult,
    title="Paths between images",
    paper="Section 4.2 and Fig. 5 walk in a straight line between the features of two images, and map every point of "
    "it back to an image. Here a straight line of pixel values stands beside each.",
    caption="Lines of features and of pixels.",
    find=find_interpolation,
    tabulate=tabulate_interpolation,
    plot=plot_interpolation,
)
SPECTRUM = PageStudy(
    kind=SpectrumResult,
    title="What is contracted around an image",
    paper="Section 4.1 and Fig. 4 show the singular values of the Jacobian of the features at one image: few of them "
    "hold most of the energy, the sum of their squares. E(d) is the share of the d largest.",
    caption="Singular values, sorted, and the energy that the largest hold: medians over the images, with the range of "
    "all of them and of their 95% intervals (Fig. 4).",
    find=find_spectrum,
    tabulate=tabulate_spectrum,
    plot=plot_spectrum,
    chart=chart_spectrum,
)
DEPTH = PageStudy(
    kind=DepthProbeResult,
    title="Separation with depth",
    paper="Section 5.1 and Fig. 6 probe the features of every block, averaged over space, with a linear SVM and the "
    "nearest neighbour: though nothing is discarded, classes become linearly separable and contracted step by step.",
    caption="Test accuracy of a linear SVM and of 1-NN at each block, with 95% intervals, and the distances within "
    "classes over those between them (Fig. 6).",
    find=find_depth,
    tabulate=tabulate_depth_probe,
    plot=plot_depth_probe,
    chart=chart_depth_probe,
)
COMPONENTS = PageStudy(
    kind=PCASweepResult,
    title="How few directions the classes need",
    paper="Section 5.2 and Fig. 7 show the probes only the first d principal components of the last features.",
    caption="Test accuracy of a linear SVM and of 1-NN on the first d principal components, and the share of the "
    "variance that these hold (Fig. 7).",
    find=find_components,
    tabulate=tabulate_pca_sweep,
    plot=plot_pca_sweep,
    chart=chart_pca_sweep,
)
