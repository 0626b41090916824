"""The sets of features that probes are shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from analysis.cache import Cache


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkFeatures:
    """The averaged features of a network on the training and the test images of a study.

    Attributes:
        name: name of the network.
        layers: names of the layers.
        depths: number of each layer among the network's blocks.
        relative_depths: that number over the number of blocks.
        train: features of the training images by layer, `(train, channels)`; read a part at a time.
        test: the same of the test images.
        train_labels: classes of the training images, `(train,)`.
        test_labels: classes of the test images, `(test,)`.
        test_logits: the network's outputs for the test images, `(test, outputs)`.
        columns: columns of the logits that belong to the classes 0, 1, ... of the labels, `(classes,)`; `None` where
            the network does not know these classes.
        cache: finished parts of the study of these features.
        classifier: weights, `(outputs, width)`, and biases, `(outputs,)`, of the network's last linear layer with as
            many outputs as there are logits, whatever its inputs are; `None` where there is none.
    """

    name: str
    layers: Sequence[str]
    depths: Sequence[int]
    relative_depths: Sequence[float]
    train: Mapping[str, Float[ndarray, "train _"]]
    test: Mapping[str, Float[ndarray, "test _"]]
    train_labels: Int[ndarray, " train"]
    test_labels: Int[ndarray, " test"]
    test_logits: Float[ndarray, "test outputs"]
    columns: Int[ndarray, " classes"] | None
    cache: Cache
    classifier: tuple[Float[ndarray, "outputs width"], Float[ndarray, " outputs"]] | None = None

    def accuracy(self) -> float:
        """Share of test images whose class has the largest of all logits; NaN where the classes are not known."""
        if self.columns is None:
            return float("nan")
        return float(np.mean(self.test_logits.argmax(axis=1) == self.columns[self.test_labels]))

    def restricted_accuracy(self) -> float:
        """Share of test images whose class has the largest logit of the classes studied."""
        if self.columns is None:
            return float("nan")
        return float(np.mean(self.test_logits[:, self.columns].argmax(axis=1) == self.test_labels))
