"""What the 1,000 outputs of networks that were trained on ImageNet (ILSVRC 2012) stand for."""

import functools
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files

from torchvision.models import ResNet18_Weights


@functools.cache
def synsets() -> tuple[str, ...]:
    """The WordNet numbers of the classes, in the order of the outputs, which is that of their names' letters."""
    return tuple((files("irevnet.data") / "imagenet_synsets.txt").read_text(encoding="ascii").split())


_OF_TWO = ("crane", "maillot")
"""A bird or a machine; two kinds of bathing suit."""


@functools.cache
def class_names() -> tuple[str, ...]:
    """The names of the classes in words, in the order of the outputs; for words that stand for two classes, which some
    lists tell apart and others do not, their WordNet numbers."""
    names = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    count = Counter(names)
    return tuple(
        synset if count[name] > 1 or name in _OF_TWO else name for name, synset in zip(names, synsets(), strict=True)
    )


def output_names(classes: Sequence[str]) -> tuple[str, ...] | None:
    """Names of the outputs among which these classes are: WordNet numbers or words; `None` if a class is in neither."""
    return next((names() for names in (synsets, class_names) if {*classes} <= {*names()}), None)
