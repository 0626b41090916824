"""One vector an image, whatever a network puts out."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from analysis.features.outputs import set_output


class Net(nn.Module):
    """Puts out what a function makes of four maps, (n, 4, h / 2, w / 2)."""

    def __init__(self, put_out):
        super().__init__()
        self.stem, self.put_out = nn.Conv2d(3, 4, 2, 2), put_out

    def forward(self, x):
        return self.put_out(self.stem(x))


def logits(maps: torch.Tensor) -> torch.Tensor:
    return maps.mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("put_out", "are_logits"),
    [
        (logits, True),
        (lambda maps: SimpleNamespace(loss=None, logits=logits(maps), hidden_states=(maps,)), True),
        (lambda maps: {"aux": logits(maps) + 1, "logits": logits(maps)}, True),
        (lambda maps: (logits(maps), logits(maps) + 1), True),
        (lambda maps: maps, False),
        (lambda maps: {"features": maps}, False),
        (lambda maps: SimpleNamespace(last_hidden_state=maps.flatten(2).mT, pooler_output=logits(maps) + 1), False),
        (lambda maps: maps.movedim(1, -1), False),
        (lambda maps: maps.flatten(2).permute(2, 0, 1), False),
    ],
    ids=["logits", "object", "dict", "tuple", "maps", "dict of maps", "hidden state", "channels last", "tokens first"],
)
def test_output_is_one_vector_an_image(put_out, are_logits):
    model, images = Net(put_out).double(), torch.rand(5, 3, 8, 12, dtype=torch.float64)
    expected = logits(model.stem(images))
    assert set_output(model, "net", images[0]) == (4, are_logits)
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize(
    ("put_out", "message"),
    [
        (
            lambda maps: maps[:, 9],
            r"net does not take images of 3 x 8 x 8 \(IndexError: .*choose their size by `im",
        ),
        (lambda maps: "cat", "net puts out a str; expected a tensor, or several by name"),
        (lambda maps: [], "net puts out a list; expected a tensor"),
    ],
)
def test_output_that_is_no_tensor_is_refused(put_out, message):
    with pytest.raises(ValueError, match=message):
        set_output(Net(put_out), "net", torch.zeros(3, 8, 8))
