"""Probes of a network's layers that were fitted before, applied to other images."""

import json
import re
from collections.abc import Sequence

import numpy as np

from analysis.experiment import Experiment
from analysis.features.layers import Layer
from analysis.probes.saved_probes import SavedProbes
from analysis.probes.scores import wilson
from analysis.results.applied_probes import AppliedProbesResult
from irevnet.utils.precision import true_float32


@true_float32()
def apply_probes(experiment: Experiment, probes: SavedProbes) -> AppliedProbesResult:
    """Accuracy of saved probes on the test images of an experiment, whose classes may be some of those of the probes.

    An image is classified right if its class is the first of all classes that the probes tell apart.

    Args:
        experiment: the network that the probes were fitted to, and images.
        probes: the probes, as `load_probes` reads them.

    Raises `ValueError` for another network, and for classes that the probes do not know.
    """
    _check_fits(experiment, probes)
    store, layers = experiment.store(), _layers(experiment, list(probes.layers))
    experiment.extract(store, layers, splits=("test",))
    truth = np.array(experiment.classes)[store.labels("test")]
    rows = [(layer.name, code) for layer in layers for code in probes.codes]
    correct = [
        np.count_nonzero(probes.predict(layer, store.features("test", layer), probe=code) == truth)
        for layer, code in rows
    ]
    return AppliedProbesResult(
        network=np.array(experiment.name),
        layer=np.array([layer for layer, _ in rows]),
        probe=np.array([code for _, code in rows]),
        accuracy=np.array(correct) / len(truth),
        interval=wilson(np.array(correct, dtype=np.float64), len(truth)),
        num_test=np.array(len(truth)),
    )


def _check_fits(experiment: Experiment, probes: SavedProbes) -> None:
    """Raises `ValueError` unless this is the network of the probes, on classes that they tell apart."""
    here = json.loads(json.dumps(experiment.network_identity()))
    differing = [key for key in {**here, **probes.network} if here.get(key) != probes.network.get(key)]
    if differing:
        names = ", ".join(key.removesuffix("_sha256") for key in differing)
        raise ValueError(
            f"the probes were fitted to {probes.name}, from which {experiment.name} differs in its {names}; open the "
            "network that they were fitted to, as it was then"
        )
    unknown = next((name for name in experiment.classes if name not in probes.classes), None)
    if unknown is not None:
        raise ValueError(
            f"class {unknown!r} of {experiment.source.name} is none of the {len(probes.classes)} classes that the "
            "probes tell apart; choose others by `classes`"
        )


def _layers(experiment: Experiment, names: Sequence[str]) -> list[Layer]:
    """The layers of these names: blocks by their number, or modules."""
    blocks = [re.fullmatch(r"block-(\d{1,6})", name) for name in names]
    depths = [int(match[1]) for match in blocks if match]
    return experiment.layers(depths=depths) if len(depths) == len(names) else experiment.layers(names=names)
