"""What the paper found beside what a result says, and whether the two agree; computed from saved results alone.

Where the paper states no number, agreement needs a threshold; it is said with every finding, as `rule`.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy import ndarray
from scipy.stats import spearmanr

from analysis.results import (
    PATHS,
    DepthProbeResult,
    InterpolationResult,
    InversionResult,
    PCASweepResult,
    SpectrumResult,
    TrainingCurvesResult,
)
from analysis.results.spectrum import PAPER_DIVISORS, SHARES

Verdict = Literal["agrees", "differs", "open"]

PAPER_ERRORS = {"images": 3e-6, "noise": 5e-6}
"""Mean relative reconstruction errors of section 4.2."""

RISES, WITHIN, NEAR, ALIKE = 0.9, 2.0, 0.05, 1.1
"""Spearman coefficient from which on accuracy rises with depth; points of accuracy between an i-RevNet and another
network (section 3.2: 1.5 to 2.0); difference of a share of the energy; ratio of two training losses."""

PAPER_COMPONENTS = 200 / 3072
"""Of the principal components, those below which accuracy falls (Fig. 7)."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One statement of the paper, and what became of it here.

    Attributes:
        network: of which this is.
        paper: what the paper found.
        here: what this result says.
        verdict: whether they agree; `"open"` where this result cannot tell.
        rule: when they are said to agree.
    """

    network: str
    paper: str
    here: str
    verdict: Verdict
    rule: str


def _verdict(agrees: bool, *, applies: bool = True) -> Verdict:
    if not applies:
        return "open"
    return "agrees" if agrees else "differs"


def find_accuracy(invertible: Mapping[str, float], others: Mapping[str, float]) -> list[Finding]:
    """How the top-1 accuracy of each invertible network, by name, compares with the best of the others (Table 1)."""
    findings = []
    for name, accuracy in invertible.items():
        here, verdict = f"top-1 error {1 - accuracy:.1%}; there is no other network here to compare it with", "open"
        if others:
            best = max(others, key=lambda other: others[other])
            points = 100 * (others[best] - accuracy)
            here = f"top-1 error {1 - accuracy:.1%}, that of {best} {1 - others[best]:.1%}: {points:.1f} points"
            verdict = _verdict(points <= WITHIN)
        findings.append(
            Finding(
                network=name,
                paper="the bijective i-RevNet has a top-1 error of 26.7%, a ResNet of its size 24.7%",
                here=here,
                verdict=verdict,
                rule=f"at most {WITHIN:g} points above the best network that is not an i-RevNet",
            )
        )
    return findings


def find_training(result: TrainingCurvesResult) -> list[Finding]:
    """Whether training losses decrease alike (section 3.2, Fig. 3)."""
    paper = "the training losses of i-RevNet and ResNet decrease alike"
    rule = f"at each quarter of the run the losses differ by a factor of at most {ALIKE:g}"
    runs = result.summary()["runs"]
    if len(runs) == 1:
        loss = runs[0]["loss_at_quarters"][-1]
        here = f"the loss ends at {loss:.3g}; there is no other run here to compare it with"
        return [Finding(network=runs[0]["name"], paper=paper, here=here, verdict="open", rule=rule)]
    findings, first = [], runs[0]
    for run in runs[1:]:
        tiny = np.finfo(np.float64).tiny  # losses may be zero, where there is nothing to tell apart
        ratios = np.array(first["loss_at_quarters"]).clip(tiny) / np.array(run["loss_at_quarters"]).clip(tiny)
        factors = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        here = f"at the quarters of the run its loss is {factors} times that of {run['name']}"
        agrees = bool((np.maximum(ratios, 1 / ratios) <= ALIKE).all())
        findings.append(Finding(network=first["name"], paper=paper, here=here, verdict=_verdict(agrees), rule=rule))
    return findings


def find_inversion(result: InversionResult, network: str) -> list[Finding]:
    """How exactly images come back from their features (section 4.2)."""
    summary = result.summary()
    means = {name: summary[name].get("mean") for name in PAPER_ERRORS}
    texts = {name: "not finite" if mean is None else f"{mean:.1e}" for name, mean in means.items()}
    counts = {name: f"{summary[name]['count']:,}" for name in PAPER_ERRORS}
    agrees = all(mean is not None and mean <= PAPER_ERRORS[name] for name, mean in means.items())
    defined = summary["images"]["count"] > 0
    if not defined:  # black throughout
        texts["images"] = "undefined"
    return [
        Finding(
            network=network,
            paper="the mean relative error is 3e-6 on the validation set and 5e-6 on uniform noise",
            here=f"{texts['images']} on {counts['images']} test images and {texts['noise']} on {counts['noise']} of "
            f"uniform noise, in {summary['arithmetic']}",
            verdict=_verdict(agrees) if defined else "open",
            rule="neither is above the paper's",
        )
    ]


def find_interpolation(result: InterpolationResult, network: str) -> list[Finding]:
    """What the images between two images are like (section 4.2, Fig. 5)."""
    lines = len(result.names)
    outside = result.outside.max(axis=2).mean(axis=1)
    lengths = result.travelled[:, :, -1].mean(axis=1)
    way = f"is {lengths[0] / lengths[1]:.1f} times as long" if lengths[1] > 0 else "has no length: they are the same"
    here = (
        f"over {lines} lines, {outside[0]:.0%} of the pixel values leave [0, 1] where that is worst (on lines of "
        f"pixels {outside[1]:.0%}), and the way from image to image {way}"
    )
    findings = [
        Finding(
            network=network,
            paper="intermediary images are noisy, and mostly remain recognizable",
            here=here,
            verdict="open",
            rule="left to the eye",
        )
    ]
    known = np.isfinite(result.middle_distance).all(axis=0)
    if known.any():
        nearer = result.middle_feature_distance[0, known] < result.middle_feature_distance[1, known]
        findings.append(
            Finding(
                network=network,
                paper="some geometric transformations seem to have been linearized",
                here=f"the middle of a line of {PATHS[0]} is nearer, in features, to what is truly in the middle than "
                f"that of a line of {PATHS[1]} in {nearer.sum()} of {len(nearer)} cases",
                verdict=_verdict(bool(2 * nearer.sum() > len(nearer))),
                rule="in more than half of the cases",
            )
        )
    return findings


def find_spectrum(result: SpectrumResult, irevnets: Container[str]) -> list[Finding]:
    """How fast the singular values decay, at each network's last layer (section 4.1, Fig. 4).

    The paper says it of an i-RevNet; `irevnets` are the names of those.
    """
    layers = result.summary()["layers"]
    last = {layer["network"]: layer for layer in layers}
    findings = []
    for name, layer in last.items():
        energies = [layer["energy"][f"n/{divisor}"] for divisor in PAPER_DIVISORS]
        spreads = [
            f"E({each['d']:,}) = {each['median']:.2f}"
            + (f" ({each['q10']:.2f} to {each['q90']:.2f})" if layer["images"] > 1 else "")
            for each in energies
        ]
        near = all(abs(each["median"] - share) <= NEAR for each, share in zip(energies, SHARES))
        count = min(layer["inputs"], layer["outputs"])
        findings.append(
            Finding(
                network=name,
                paper="those of the i-RevNet decay fast: E(n/150) = 0.80 and E(n/15) = 0.97 of n = 150,528",
                here=f"{' and '.join(spreads)} of {count:,}, the same parts, at {layer['layer']}",
                verdict=_verdict(near, applies=name in irevnets),
                rule=f"both are within {NEAR:g} of the paper's",
            )
        )
    return findings


def find_depth(result: DepthProbeResult, irevnets: Container[str]) -> list[Finding]:
    """What becomes of accuracy with depth (section 5.1, Fig. 6); see `find_spectrum` for `irevnets`."""
    findings = []
    for number, name in enumerate(result.networks.tolist()):
        rows = np.flatnonzero(result.network == number)
        rows = rows[np.argsort(result.depth[rows], kind="stable")]
        findings += [Finding(network=name, **each) for each in _find_depth(result, number, rows, irevnets)]
    return findings


def _find_depth(result: DepthProbeResult, number: int, rows: ndarray, irevnets: Container[str]) -> list[dict[str, Any]]:
    applies = str(result.networks[number]) in irevnets
    svm, nearest, depth = result.svm_accuracy[rows], result.nn_accuracy[rows], result.depth[rows]
    findings: list[dict[str, Any]] = []
    if len(rows) > 2:
        ranks = [_spearman(depth, accuracy) for accuracy in (svm, nearest)]
        findings.append(
            {
                "paper": "linear SVM and 1-NN improve progressively with depth",
                "here": f"accuracy rises from {svm[0]:.1%} to {svm[-1]:.1%} over {len(rows)} layers: Spearman "
                f"{ranks[0]:.2f} (linear SVM), {ranks[1]:.2f} (1-NN)",
                "verdict": _verdict(min(ranks) >= RISES),
                "rule": f"Spearman's coefficient with depth is at least {RISES:g} for both",
            }
        )
    findings.append(
        {
            "paper": "the linear SVM is slightly better than 1-NN",
            "here": f"it is better at {int((svm > nearest).sum())} of {len(rows)} layers, at the last one by "
            f"{100 * (svm[-1] - nearest[-1]):.1f} points",
            "verdict": _verdict(bool(2 * (svm > nearest).sum() > len(rows) and svm[-1] > nearest[-1])),
            "rule": "better at more than half of the layers, the last one included",
        }
    )
    if len(rows) > 6 and depth[-1] - depth[-7] == 6:
        jumps = 100 * (svm[-1] - svm[-4]), 100 * (svm[-4] - svm[-7])
        findings.append(
            {
                "paper": "there is a more intense jump on the 3 last layers of the i-RevNet",
                "here": f"the last three blocks add {jumps[0]:.1f} points to the linear SVM, the three before them "
                f"{jumps[1]:.1f}",
                "verdict": _verdict(bool(jumps[0] > jumps[1]), applies=applies),
                "rule": "the last three blocks add more than the three before them",
            }
        )
    own, high = float(result.network_accuracy[number]), float(result.svm_interval[rows[-1], 1])
    if np.isfinite(own):
        findings.append(
            {
                "paper": "on the i-RevNet's last features the linear SVM does slightly better than its own 77%",
                "here": f"it has {svm[-1]:.1%} (up to {high:.1%}), the network {own:.1%}",
                "verdict": _verdict(high >= own, applies=applies),
                "rule": "the SVM's 95% interval reaches the network's accuracy, or lies above it",
            }
        )
    return findings


def _spearman(x: ndarray, y: ndarray) -> float:
    if len(np.unique(y)) == 1:
        return 0.0  # not defined, and it does not rise
    result: Any = spearmanr(x, y)
    return float(result.statistic)


def find_components(result: PCASweepResult, irevnets: Container[str], num_classes: int) -> list[Finding]:
    """How few principal components the classes need (section 5.2, Fig. 7); see `find_spectrum` for `irevnets`."""
    findings = []
    for number, name in enumerate(result.networks.tolist()):
        count = int(result.dims[result.network == number][-1])
        knee, nearest = result.knee(number, "svm"), result.knee(number, "nn")
        findings.append(
            Finding(
                network=name,
                paper="accuracy falls only below about 200 of the i-RevNet's 3,072 components: a fifteenth, and 2 a "
                "class",
                here=f"the linear SVM is within one point of all {count:,} components from d = {knee:,} on, 1-NN from "
                f"{nearest:,}: 1 in {count / knee:.1f}, and {knee / num_classes:.1f} a class",
                verdict=_verdict(knee <= PAPER_COMPONENTS * count, applies=name in irevnets),
                rule="at most a fifteenth of the components",
            )
        )
    return findings


def caveats(described: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the data of networks, as provenance describes them, differ from the paper's."""
    notes = []
    for each in described:
        data, classes = each["data"], len(each["classes"])
        size = each["transform"]["image_size"]
        if data != "imagenet" or classes not in (0, 1000):
            notes.append(f"{classes} classes of {data} at {size[0]} x {size[1]}")
    if not notes:
        return []
    return [
        "The paper's numbers are of i-RevNet (b) on ImageNet, 1,000 classes at 224 x 224 after 600,000 steps; these "
        f"are of {', '.join(dict.fromkeys(notes))}. They need not agree."
    ]
