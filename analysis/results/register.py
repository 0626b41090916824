"""The register of studies: what each is called, what the paper says of it, and which networks it is for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from analysis.results.base import Comparison, Result
from analysis.results.depth_probe import DepthProbeResult
from analysis.results.geometry import GeometryResult
from analysis.results.interpolation import InterpolationResult
from analysis.results.inversion import InversionResult
from analysis.results.metamers import MetamersResult
from analysis.results.over_training import DepthProbeOverTraining, GeometryOverTraining, SpectrumOverTraining
from analysis.results.pca_sweep import PCASweepResult
from analysis.results.spectrum import SpectrumResult
from analysis.results.training_curves import TrainingCurvesResult

Needs = Literal["features", "network", "inverse", "bijection", "training record", "kept checkpoints"]


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """A study of the paper.

    Attributes:
        result: class of its results.
        module: name of its module in `analysis.studies`, and of that with its figure in `figures.studies`.
        function: name of the study's function in its module in `analysis.studies`.
        title: heading of its section of a report.
        section: section and figure of the paper.
        paper: experiment of the paper, in a sentence or two.
        needs: what it needs: features, which may be without a network; a network; one with an inverse; one with as many
            features as inputs, and logits; the record of a network's training; or checkpoints that were kept of it.
    """

    result: type[Result]
    module: str
    function: str
    title: str
    section: str
    paper: str
    needs: Needs = "features"

    @property
    def name(self) -> str:
        """The name of its folder and files, and of its command unless it is one over training."""
        return self.result.STUDY

    @property
    def compares(self) -> bool:
        """Whether a result may be of several networks or runs."""
        return issubclass(self.result, Comparison)

    @property
    def optional(self) -> bool:
        """Whether it is only of runs that were made for it: it is run on request alone, and missed by no report."""
        return self.needs == "kept checkpoints"

    @property
    def splits(self) -> tuple[Literal["train", "test"], ...]:
        """The splits of the data whose images it looks at."""
        return self.result.SPLITS


STUDIES: dict[str, StudySpec] = {
    spec.name: spec
    for spec in (
        StudySpec(
            result=TrainingCurvesResult,
            module="training_curves",
            function="training_curves",
            title="Training",
            section="section 3.2, Fig. 3",
            paper="Section 3.2 and Fig. 3 compare the training losses of i-RevNet (b) and a ResNet, averaged over 100 "
            "iterations: to be invertible does not interfere with learning.",
            needs="training record",
        ),
        StudySpec(
            result=InversionResult,
            module="inversion",
            function="invert",
            title="Reconstruction",
            section="section 4.2",
            paper="Section 4.2 inverts the network: the relative error of an image is the norm of x - Φ⁻¹Φx over that "
            "of x. Rounding is all that is lost.",
            needs="inverse",
        ),
        StudySpec(
            result=InterpolationResult,
            module="interpolation",
            function="interpolate",
            title="Paths between images",
            section="section 4.2, Fig. 5",
            paper="Section 4.2 and Fig. 5 draw a straight line between the features of two images, and map every "
            "point of it back to an image. Here a straight line of pixel values stands beside each.",
            needs="inverse",
        ),
        StudySpec(
            result=SpectrumResult,
            module="spectrum",
            function="spectrum",
            title="What is contracted around an image",
            section="section 4.1, Fig. 4",
            paper="Section 4.1 and Fig. 4 show the singular values of the Jacobian of the features at one image: few "
            "of them hold most of the energy, the sum of their squares. E(d) is the share of the d largest.",
            needs="network",
        ),
        StudySpec(
            result=DepthProbeResult,
            module="depth_probe",
            function="depth_probe",
            title="Separation with depth",
            section="section 5.1, Fig. 6",
            paper="Section 5.1 and Fig. 6 probe the features of every block, averaged over space, with a linear SVM "
            "and the nearest neighbour: though nothing is discarded, classes become linearly separable and contracted "
            "step by step.",
        ),
        StudySpec(
            result=PCASweepResult,
            module="pca_sweep",
            function="pca_sweep",
            title="How few directions the classes need",
            section="section 5.2, Fig. 7",
            paper="Section 5.2 and Fig. 7 show the probes only the first d principal components of the last features.",
        ),
        StudySpec(
            result=GeometryResult,
            module="geometry",
            function="measure_geometry",
            title="The geometry of features with depth",
            section="section 5; Ansuini et al., 2019; Papyan et al., 2020",
            paper="Section 5 finds features contracted and few directions enough. Others measure this by the intrinsic "
            "dimension (arXiv:1905.12784), the spectrum of the covariance (arXiv:2202.05808) and neural collapse "
            "(arXiv:2008.08186), in networks that may discard what they like.",
        ),
        StudySpec(
            result=MetamersResult,
            module="metamers",
            function="metamers",
            title="What the network cannot tell apart",
            section="conclusion; Jacobsen et al., 2019",
            paper="The conclusion hopes to go back from a property of the features to the image. Here an image has the "
            "logits of one image, A, and otherwise the features of another, B (arXiv:1811.00401).",
            needs="bijection",
        ),
        StudySpec(
            result=GeometryOverTraining,
            module="over_training",
            function="geometry_over_training",
            title="The geometry of features over training",
            section="section 5; Papyan et al., 2020",
            paper="The paper looks at trained networks. Others follow neural collapse during training "
            "(arXiv:2008.08186), and compare the intrinsic dimension with that of untrained networks "
            "(arXiv:1905.12784).",
            needs="kept checkpoints",
        ),
        StudySpec(
            result=DepthProbeOverTraining,
            module="over_training",
            function="depth_probe_over_training",
            title="Separation over training",
            section="section 5.1",
            paper="Section 5.1 probes a trained network. Here the same probes follow its training.",
            needs="kept checkpoints",
        ),
        StudySpec(
            result=SpectrumOverTraining,
            module="over_training",
            function="spectrum_over_training",
            title="What is contracted around an image, over training",
            section="section 4.1",
            paper="Section 4.1 decomposes the Jacobian of a trained network. Here the same is done during training.",
            needs="kept checkpoints",
        ),
    )
}
"""Every study by its name, in the order in which the paper has them; last those over training."""


def load_result(folder: Path) -> Result:
    """Reads the result of whichever study was saved in a folder, such as `RUN/analysis/spectrum`.

    Raises:
        FileNotFoundError: the folder holds no complete result.
        ValueError: it holds results of several studies, or a damaged one.
    """
    found = [spec for spec in STUDIES.values() if (folder / f"{spec.name}.json").is_file()]
    if not found:
        raise FileNotFoundError(f"{folder} holds no result of a study; expected one of {', '.join(STUDIES)}")
    if len(found) > 1:
        names = ", ".join(spec.name for spec in found)
        raise ValueError(f"{folder} holds results of several studies ({names}); load each by its own class")
    return found[0].result.load(folder)
