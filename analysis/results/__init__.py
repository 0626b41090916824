"""Results of the studies, in memory and on disk: arrays (`.npz`), a tidy table (`.csv`) and provenance (`.json`)."""

from analysis.results.base import Comparison, Result, check_folder
from analysis.results.depth_probe import DepthProbeResult
from analysis.results.geometry import GeometryResult
from analysis.results.interpolation import PATHS, InterpolationResult
from analysis.results.inversion import InversionResult
from analysis.results.metamers import MetamersResult
from analysis.results.over_training import (
    DepthProbeOverTraining,
    GeometryOverTraining,
    OverTrainingResult,
    SpectrumOverTraining,
)
from analysis.results.pca_sweep import PCASweepResult
from analysis.results.probes import ProbeAccuracy, ProbeResult, probe_name
from analysis.results.singular_values import Spectrum
from analysis.results.spectrum import SpectrumResult
from analysis.results.training_curves import TrainingCurvesResult

__all__ = [
    "PATHS",
    "Comparison",
    "DepthProbeOverTraining",
    "DepthProbeResult",
    "GeometryOverTraining",
    "GeometryResult",
    "InterpolationResult",
    "InversionResult",
    "MetamersResult",
    "OverTrainingResult",
    "PCASweepResult",
    "ProbeAccuracy",
    "ProbeResult",
    "Result",
    "Spectrum",
    "SpectrumOverTraining",
    "SpectrumResult",
    "TrainingCurvesResult",
    "check_folder",
    "probe_name",
]
