import dataclasses

import numpy as np
import pytest

from figures import plot, table


@pytest.mark.parametrize("channels", [1, 3])
def test_images_reconstructions_and_differences_are_drawn(inversion, channels):
    pictures = {name: getattr(inversion, name)[:, :channels] for name in ("originals", "reconstructions")}
    figure = plot(dataclasses.replace(inversion, **pictures))
    drawn = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(drawn) == 15
    np.testing.assert_allclose(drawn[2].squeeze(), pictures["originals"][2].transpose(1, 2, 0).squeeze())
    np.testing.assert_allclose(drawn[10], np.full((4, 6), 1e-6), rtol=1e-6)
    tiny = "$2\\times10^{-7}$"
    titles = ["the worst test images", "the worst of uniform noise"]
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts == [*titles, "$4\\times10^{-7}$", tiny, "undefined", tiny, tiny]
    assert [axes.texts[0].get_text() for axes in (figure.axes[0], figure.axes[3])] == titles


def test_errors_and_amplification_are_drawn_against_depth(inversion):
    errors, amplification = plot(inversion).axes[-2:]
    float32, float16, exact = errors.lines
    np.testing.assert_allclose(float32.get_data(), [[1, 12], [1e-7, 3e-7]])
    np.testing.assert_allclose(float16.get_data(), [[1, 12], [1e-3, np.nan]])  # it has overflowed
    assert exact.get_label() == "exact: 0 at every depth"
    largest, random, _ = amplification.lines
    np.testing.assert_allclose(largest.get_data(), [[1, 12], [30, 60]])
    np.testing.assert_allclose(random.get_data(), [[1, 12], [3, 6]])


def test_a_perfect_reconstruction_is_drawn(inversion):
    figure = plot(dataclasses.replace(inversion, reconstructions=inversion.originals))
    assert any("white: 0" in axes.get_ylabel() for axes in figure.axes)


def test_the_table_describes_the_last_depth(inversion):
    made = table(inversion)
    assert made.rows[0] == ("test images", "8", "1.38e-07", "1.00e-07", "3.86e-07", "4.00e-07")
    assert made.notes[:2] == [
        "in float32, from block 12",
        "mean over 4 test images, from block 12: float32 3.00e-07, float16 not finite, exact 0.00e+00",
    ]
    assert "comes back 6 times as large, relatively, in a random direction, and up to 60 times" in made.notes[2]
