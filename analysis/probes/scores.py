"""What becomes of the scores of probes: accuracies with their intervals, as the fields of a `ProbeResult`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import t

from analysis.probes.network_features import NetworkFeatures
from analysis.probes.probing import ProbeOptions
from analysis.results.shares import wilson_interval


def tabulate(
    networks: Sequence[NetworkFeatures],
    rows: Sequence[tuple[int, str, Sequence[Mapping[str, Any]]]],
    options: ProbeOptions,
) -> dict[str, ndarray]:
    """The fields of a `ProbeResult`, from rows of network, layer and what the probes returned there for each training
    set."""
    num_test, num_sets = len(networks[0].test_labels), options.num_draws or 1
    own, restricted = (
        np.array([accuracy(network) for network in networks])
        for accuracy in (NetworkFeatures.accuracy, NetworkFeatures.restricted_accuracy)
    )
    # Numbers of test images classified right, (rows, sets, probes), NaN where that is unknown.
    correct = np.array([[_counts(one) for one in sets] for _, _, sets in rows], dtype=np.float64)
    accuracy, interval = correct.mean(axis=1) / num_test, _intervals(correct, num_test)
    costs = options.costs
    return {
        "networks": np.array([network.name for network in networks]),
        "network_accuracy": own,
        "network_interval": wilson(num_test * own, num_test),
        "restricted_accuracy": restricted,
        "restricted_interval": wilson(num_test * restricted, num_test),
        "network": np.array([number for number, _, _ in rows]),
        "layer": np.array([layer for _, layer, _ in rows]),
        "dims": np.array([sets[0]["dims"] for _, _, sets in rows]),
        "svm_accuracy": accuracy[:, 0],
        "svm_interval": interval[:, 0],
        "nn_accuracy": accuracy[:, 1],
        "nn_interval": interval[:, 1],
        **_selection("svm", [[one["svm"] for one in sets] for _, _, sets in rows], len(costs)),
        **_selection("logistic", [[one["logistic"] for one in sets] for _, _, sets in rows], len(costs)),
        "cost_grid": np.array(costs),
        "further": np.array(options.further, dtype=np.str_),
        "further_accuracy": accuracy[:, 2:],
        "further_interval": interval[:, 2:],
        "shots": np.array(options.shots or 0),
        "draws": np.array(options.num_draws),
        "draw_accuracy": correct.swapaxes(1, 2)[:, :, : num_sets if options.shots else 0] / num_test,
        "num_train": np.array(_num_train(networks[0], options)),
        "num_test": np.array(num_test),
    }


def _num_train(network: NetworkFeatures, options: ProbeOptions) -> int:
    """Number of images in a training set."""
    labels = network.train_labels
    return options.shots * len(np.unique(labels)) if options.shots else len(labels)


def _counts(one: Mapping[str, Any]) -> list[int | None]:
    """Number of test images that each probe classifies right."""
    logistic = [] if one["logistic"] is None else [one["logistic"]["correct"]]
    return [one["svm"]["correct"], one["nn_correct"], *logistic, *one["votes"]]


def _selection(probe: str, scores: Sequence[Sequence[Mapping[str, Any] | None]], num_costs: int) -> dict[str, ndarray]:
    """How C was chosen in each row: the median of the training sets, of two the lower, or whatever is said of any."""
    unknown = {"cost": None, "gap": None, "at_edge": False, "cv_accuracy": [None] * num_costs}
    unknown |= {"held_out_accuracy": [None] * num_costs}
    filled = [[one or unknown for one in sets] for sets in scores]

    def of(key: str) -> ndarray:
        return np.array([[one[key] for one in sets] for sets in filled], dtype=np.float64)

    middle = (len(filled[0]) - 1) // 2
    prefix = "" if probe == "svm" else f"{probe}_"
    return {
        f"{probe}_cost": np.sort(of("cost"), axis=1)[:, middle],
        f"{probe}_gap": of("gap").max(axis=1),
        f"{prefix}at_edge": of("at_edge").max(axis=1) > 0,
        f"{prefix}cv_accuracy": of("cv_accuracy").mean(axis=1),
        f"{prefix}held_out_accuracy": of("held_out_accuracy").mean(axis=1),
    }


def _intervals(correct: Float[ndarray, "rows sets probes"], total: int) -> Float[ndarray, "rows probes 2"]:
    """95% intervals of the mean accuracy of training sets: of one, Wilson's, for the choice of test images.

    Of several, drawn at random, that of the mean over all draws and all images such as these. The variances of the two
    choices add: the distance of each end from the mean is the root of the sum of the squares of Wilson's and of
    Student's t for the mean of the draws (Zou and Donner, 2008, section 2).
    """
    rows, sets, probes = correct.shape
    mean = correct.mean(axis=1)
    ends = wilson(mean.ravel(), total).reshape(rows, probes, 2)
    if sets == 1:
        return ends
    spread = float(t.ppf(0.975, sets - 1)) * correct.std(axis=1, ddof=1) / np.sqrt(sets) / total
    centre = np.rint(mean)[..., None] / total  # that of Wilson's, which is of whole images
    distance = np.sqrt((ends - centre) ** 2 + spread[..., None] ** 2)
    return np.clip(mean[..., None] / total + distance * np.array([-1, 1]), 0, 1)


def wilson(correct: ndarray, total: int) -> Float[ndarray, "n 2"]:
    """Lower and upper ends of the 95% Wilson intervals of correct / total; NaN where that is."""
    ends = np.full((len(correct), 2), np.nan)
    for row in np.flatnonzero(~np.isnan(correct)):
        ends[row] = wilson_interval(round(correct[row]), total)
    return ends
