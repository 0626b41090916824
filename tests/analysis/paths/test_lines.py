from collections.abc import Callable

import numpy as np
import pytest
import torch

from analysis.paths.lines import Lines, along, between, follow, grid
from irevnet.data.transforms import InputTransform

TRANSFORM = InputTransform(channels=3, image_size=(8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.fixture
def inputs() -> torch.Tensor:
    return TRANSFORM.normalise(torch.rand(4, 3, 8, 8, dtype=torch.float64))


def pairs(model, inputs) -> Callable[[int], Lines]:
    return lambda depth: between(model, inputs[:2], inputs[2:], depth)


def follow_lines(model, lines_at, *, depth=4, t=(1.0, 0.75, 0.5, 0.0), lines=2, **options):
    """In batches of three, fewer than the steps."""
    options |= {"depth": depth, "t": t, "names": [f"line {n}" for n in range(lines)], "classes": tuple("abcde")}
    return follow(model, TRANSFORM, lines_at, batch_size=3, **options)


@pytest.fixture
def result(bijective, inputs):
    return follow_lines(bijective, pairs(bijective, inputs))


def test_features_along_a_path_are_convex_combinations(bijective, inputs):
    result = follow_lines(bijective, pairs(bijective, inputs), depth=2)
    first, second = bijective.features(inputs[:2], 2), bijective.features(inputs[2:], 2)
    for line in range(2):
        images = TRANSFORM.normalise(torch.from_numpy(result.images[0, line]).double())
        phi = bijective.features(images, 2)
        for step, t in enumerate((1.0, 0.75, 0.5, 0.0)):
            expected = t * first[line] + (1 - t) * second[line]
            torch.testing.assert_close(phi[step], expected, rtol=1e-4, atol=1e-4)  # images are saved in float32
    assert not np.allclose(result.images[0, :, 1], result.images[1, :, 1], atol=1e-2)


def test_the_line_of_pixels_is_a_blend(injective, inputs):
    result = follow_lines(injective, pairs(injective, inputs), t=(1.5, 0.25))
    pixels = TRANSFORM.to_pixels(inputs).numpy()
    for step, t in enumerate((1.5, 0.25)):
        np.testing.assert_allclose(result.images[1, :, step], t * pixels[:2] + (1 - t) * pixels[2:], atol=1e-6)


def test_outputs_for_each_image_are_recorded(bijective, inputs):
    result = follow_lines(bijective, pairs(bijective, inputs), t=(1.0, 0.5, 0.25, -2.0))
    pixels = result.images.astype(np.float64)
    images = TRANSFORM.normalise(torch.from_numpy(pixels).flatten(0, 2))
    probabilities = bijective(images).softmax(dim=1).reshape(2, 2, 4, 5).detach().numpy()
    np.testing.assert_array_equal(result.top_class, probabilities.argmax(axis=-1))
    np.testing.assert_allclose(result.probability, probabilities.max(axis=-1), atol=1e-4)
    apart = np.sqrt((np.diff(pixels, axis=2) ** 2).mean(axis=(3, 4, 5)))
    np.testing.assert_allclose(np.diff(result.travelled), apart, atol=1e-6)
    assert (result.travelled[:, :, 0] == 0).all()
    np.testing.assert_allclose(result.outside, ((pixels < -1e-4) | (pixels > 1 + 1e-4)).mean(axis=(3, 4, 5)))
    assert (result.outside[:, :, 3] > 0.1).all()
    assert (result.outside[1, :, :3] == 0).all()


def test_only_lines_off_the_injective_range_have_a_residual(bijective, injective, inputs):
    for model, off in ((bijective, False), (injective, True)):
        result = follow_lines(model, pairs(model, inputs))
        assert bool(result.bijective) is not off
        assert result.residual[:, :, [0, -1]].max() < 1e-10
        assert (result.residual[0, :, 1:-1].min() > 1e-3) is np.bool_(off)
        assert result.residual[1].max() < 1e-10
    phi = 0.5 * injective.features(inputs[:2]) + 0.5 * injective.features(inputs[2:])
    np.testing.assert_allclose(result.residual[0, :, 2], injective.range_residual(phi).detach(), rtol=1e-9)


def test_a_middle_that_is_known_is_compared_with_both_paths(bijective, inputs):
    middle = bijective.inverse((bijective.features(inputs[:2]) + bijective.features(inputs[2:])) / 2).detach()
    middle[1] = torch.nan
    result = follow_lines(bijective, pairs(bijective, inputs), middle=middle, t=(1.0, 0.0))
    blend = inputs[::2].mean(dim=0)
    expected = (TRANSFORM.to_pixels(middle[0]) - TRANSFORM.to_pixels(blend)).square().mean().sqrt().item()
    assert result.middle_distance[:, 0].tolist() == pytest.approx([0, expected], abs=1e-10)
    first, second, true, blended = bijective.features(torch.stack((inputs[0], inputs[2], middle[0], blend)))
    expected = ((blended - true).norm() / (first - second).norm()).item()
    assert result.middle_feature_distance[:, 0].tolist() == pytest.approx([0, expected], abs=1e-10)
    for distances in (result.middle_distance, result.middle_feature_distance):
        assert np.isnan(distances[:, 1]).all()


def test_a_grid_has_its_images_in_the_corners(bijective, inputs):
    options = {"t": (1.0, 0.5, 0.0), "lines": 3, "rows_of_grid": True}
    result = follow_lines(bijective, lambda depth: grid(bijective, inputs, 3, depth), **options)
    pixels = TRANSFORM.to_pixels(inputs).numpy()
    for path in (0, 1):
        corners = result.images[path][np.ix_([0, 2], [0, 2])].reshape(4, 3, 8, 8)
        np.testing.assert_allclose(corners, pixels, atol=1e-6)
    np.testing.assert_allclose(result.images[1, 1, 1], pixels.mean(axis=0), atol=1e-6)
    centre = bijective.features(TRANSFORM.normalise(torch.from_numpy(result.images[0, 1, 1:2]).double()))
    torch.testing.assert_close(centre[0], bijective.features(inputs).mean(dim=0), rtol=1e-4, atol=1e-4)


def test_lines_along_a_direction_start_at_each_image(bijective, inputs):
    step = torch.randn(48, 2, 2, dtype=torch.float64)
    lines = along(bijective, inputs, step, 4)
    torch.testing.assert_close(lines.at(2, [-3.0])[0], bijective.features(inputs[2:3])[0] - 3 * step)
    assert lines.depth == 4


def test_images_can_be_evenly_apart(bijective, inputs):
    """On a network that bends paths more than a fresh one does, from places that are even in t."""
    for block in bijective.blocks:
        block.bottleneck[-1].weight.data *= 8
    t = np.linspace(4, -4, 9).tolist()
    plain, even = (follow_lines(bijective, pairs(bijective, inputs), t=t, even=choice) for choice in (False, True))
    apart, evenly = np.diff(plain.travelled[0]), np.diff(even.travelled[0])
    assert (apart.max(axis=1) > 1.1 * apart.min(axis=1)).all()
    assert (evenly.max(axis=1) <= 1.05 * evenly.min(axis=1)).all()
    np.testing.assert_array_equal(even.t[:, :, [0, -1]], np.broadcast_to([4.0, -4.0], (2, 2, 2)))
    assert (np.diff(even.t) < 0).all()
    np.testing.assert_allclose(even.t[1], np.broadcast_to(t, (2, 9)), atol=1e-9)  # a line of pixels is even as it is


def test_a_path_between_an_image_and_itself_is_one_point(bijective, inputs):
    result = follow_lines(bijective, pairs(bijective, inputs[[0, 1, 0, 1]]), even=True)
    assert result.travelled.max() < 1e-10


def test_table_and_summary_say_where_the_class_changes(result):
    result.top_class[0, 1] = [0, 0, 2, 0]
    table = result.table()
    assert len(table) == 16
    row = table[(table["line"] == "line 1") & (table["path"] == "features")]
    assert row["answer"].tolist() == ["a", "a", "c", "a"]
    assert row["t"].tolist() == [1.0, 0.75, 0.5, 0.0]
    line = result.summary()["lines"][1]
    assert (line["name"], line["paths"]["features"]["changes_at_t"]) == ("line 1", [0.5, 0.0])
    assert line["paths"]["features"]["length"] == pytest.approx(result.travelled[0, 1, -1])
    assert line["paths"]["pixels"]["middle_distance"] is None


def test_images_that_are_not_finite_are_refused(bijective, inputs):
    bijective.head.classifier.bias.data[2] = torch.nan
    with pytest.raises(ValueError, match="images along path 1 from depth 4 are not finite; the network's weights are"):
        follow_lines(bijective, pairs(bijective, inputs))
