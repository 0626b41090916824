"""The representation studies of the i-RevNet paper, on any checkpoint and data.

>>> from analysis import load_result

The names below are imported when they are first used, so that saved results are read without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.experiment import save_result as save_result
    from analysis.jacobian import differentiate as differentiate
    from analysis.jacobian import linearise as linearise
    from analysis.opening import DataOptions as DataOptions
    from analysis.opening import Overrides as Overrides
    from analysis.opening import open_experiment as open_experiment
    from analysis.probes.nearest_neighbour import nearest_neighbours as nearest_neighbours
    from analysis.probes.svm import fit_one_vs_rest as fit_one_vs_rest
    from analysis.results.register import load_result as load_result
    from analysis.studies.depth_probe import DepthProbeOptions as DepthProbeOptions
    from analysis.studies.depth_probe import depth_probe as depth_probe
    from analysis.studies.interpolation import InterpolationOptions as InterpolationOptions
    from analysis.studies.interpolation import interpolate as interpolate
    from analysis.studies.inversion import InversionOptions as InversionOptions
    from analysis.studies.inversion import invert as invert
    from analysis.studies.pca_sweep import PCASweepOptions as PCASweepOptions
    from analysis.studies.pca_sweep import pca_sweep as pca_sweep
    from analysis.studies.spectrum import SpectrumOptions as SpectrumOptions
    from analysis.studies.spectrum import spectrum as spectrum
    from analysis.studies.training_curves import TrainingCurvesOptions as TrainingCurvesOptions
    from analysis.studies.training_curves import open_runs as open_runs
    from analysis.studies.training_curves import training_curves as training_curves

_MODULES = {
    "DataOptions": "opening",
    "DepthProbeOptions": "studies.depth_probe",
    "InterpolationOptions": "studies.interpolation",
    "InversionOptions": "studies.inversion",
    "Overrides": "opening",
    "PCASweepOptions": "studies.pca_sweep",
    "SpectrumOptions": "studies.spectrum",
    "TrainingCurvesOptions": "studies.training_curves",
    "depth_probe": "studies.depth_probe",
    "differentiate": "jacobian",
    "fit_one_vs_rest": "probes.svm",
    "interpolate": "studies.interpolation",
    "invert": "studies.inversion",
    "linearise": "jacobian",
    "load_result": "results.register",
    "nearest_neighbours": "probes.nearest_neighbour",
    "open_experiment": "opening",
    "open_runs": "studies.training_curves",
    "pca_sweep": "studies.pca_sweep",
    "save_result": "experiment",
    "spectrum": "studies.spectrum",
    "training_curves": "studies.training_curves",
}

__all__ = list(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    return getattr(importlib.import_module(f"analysis.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
