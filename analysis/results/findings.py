"""What the paper found beside what a result says, and whether the two agree.

Where the paper states no number, agreement needs a threshold; every finding says it, as its `rule`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["agrees", "differs", "open"]

WITHIN = 2.0
"""Points of accuracy between an i-RevNet and another network (section 3.2: 1.5 to 2.0)."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One statement of the paper, and what became of it here.

    Attributes:
        network: name of the network that the finding is about.
        paper: finding of the paper.
        here: finding of the result.
        verdict: whether the two agree; `"open"` where the result cannot show it.
        rule: condition under which they agree.
        source: the paper, where it is not that of i-RevNets.
    """

    network: str
    paper: str
    here: str
    verdict: Verdict
    rule: str
    source: str = "the paper"


@dataclass(frozen=True, kw_only=True)
class FindingContext:
    """What findings depend on beside the result.

    Attributes:
        network: name of the network, of several the first.
        invertible: names of the networks that are i-RevNets, of which alone the paper says some things.
        num_classes: number of classes studied.
    """

    network: str
    invertible: frozenset[str] = frozenset()
    num_classes: int = 1


def verdict(agrees: bool, *, applies: bool = True) -> Verdict:
    """The verdict on a statement that the result can show, if the statement applies to the network."""
    if not applies:
        return "open"
    return "agrees" if agrees else "differs"


def find_accuracy(invertible: Mapping[str, float], others: Mapping[str, float]) -> list[Finding]:
    """How the top-1 accuracy of each invertible network, by name, compares with the best of the others (Table 1)."""
    findings = []
    for name, accuracy in invertible.items():
        here, agrees = f"top-1 error {1 - accuracy:.1%}; there is no other network here to compare it with", False
        if others:
            best = max(others, key=lambda other: others[other])
            points = 100 * (others[best] - accuracy)
            here = f"top-1 error {1 - accuracy:.1%}, that of {best} {1 - others[best]:.1%}: {points:.1f} points"
            agrees = points <= WITHIN
        findings.append(
            Finding(
                network=name,
                paper="the bijective i-RevNet has a top-1 error of 26.7%, a ResNet of its size 24.7%",
                here=here,
                verdict=verdict(agrees, applies=bool(others)),
                rule=f"at most {WITHIN:g} points above the best network that is not an i-RevNet",
            )
        )
    return findings


def caveats(described: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the data of networks, as provenance describes them, differ from the paper's."""
    notes = []
    for each in described:
        data, classes = each["data"], len(each["classes"])
        size = each.get("transform", {}).get("image_size")  # there is none of features without a network
        if data != "imagenet" or classes not in (0, 1000):
            notes.append(f"{classes} classes of {data}{f' at {size[0]} x {size[1]}' if size else ''}")
    if not notes:
        return []
    return [
        "The paper's numbers are of i-RevNet (b) on ImageNet, 1,000 classes at 224 x 224 after 600,000 steps; these "
        f"are of {', '.join(dict.fromkeys(notes))}. They need not agree."
    ]
