import dataclasses
import subprocess
import sys

import pytest

from analysis.results import DepthProbeResult
from figures import plot


@dataclasses.dataclass(frozen=True, eq=False)
class Unknown(DepthProbeResult):
    """A result of a study that is not in the register."""

    STUDY = "unknown"


def test_a_result_of_an_unknown_study_has_no_figure(probe):
    fields = {field.name: getattr(probe, field.name) for field in dataclasses.fields(probe)}
    with pytest.raises(ValueError, match="no figure is known for results of 'unknown'; expected one of training-curve"):
        plot(Unknown(**fields))


def test_results_are_read_and_drawn_without_torch():
    code = """
import importlib, pkgutil, sys
import figures
assert 'matplotlib' not in sys.modules
import analysis.results, analysis.saved
for package in (analysis.results, analysis.saved, figures):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):
        importlib.import_module(module.name)
assert 'figures.report.page' in sys.modules and 'analysis.results.register' in sys.modules
assert 'torch' not in sys.modules
assert {name.split('.')[1] for name in sys.modules if name.startswith('analysis.')} == {'results', 'saved'}
"""
    subprocess.run([sys.executable, "-c", code], check=True)
