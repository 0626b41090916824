import dataclasses

import numpy as np
import pytest

from analysis.results.geometry import MEASURES, GeometryResult, no_tunnels
from figures import plot, save_figures, table
from figures.studies.geometry import page_blocks, similarity


@pytest.fixture
def measured() -> GeometryResult:
    """Three layers of a network, whose measures are the numbers 1, 2 and 3."""
    value = np.tile(np.arange(1.0, 4)[:, None], len(MEASURES))
    pairs = np.array([(row, column) for row in range(3) for column in range(row, 3)])
    return GeometryResult(
        networks=np.array(["irevnet"]),
        network=np.zeros(3, dtype=int),
        layer=np.array(["block-1", "block-2", "block-3"]),
        depth=np.array([1, 2, 3]),
        relative_depth=np.array([1, 2, 3]) / 3,
        dims=np.array([4, 4, 40]),
        measures=np.array(list(MEASURES)),
        value=value,
        interval=np.stack((value - 0.5, value + 0.5), axis=-1),
        two_nn_error=np.full(3, 0.1),
        copies=np.array([0, 7, 0]),
        part_images=np.tile([400, 200], (3, 1)),
        part_dimension=np.stack((value[:, 0], value[:, 0] - 0.2), axis=1),
        part_interval=np.stack((value[:, :2] - 0.5, value[:, :2] + 0.5), axis=-1),
        fit_ranks=np.array([[0, 0], [0, 0], [3, 20]]),
        fit_scale=np.array([np.nan, np.nan, 2.0]),
        fit_r2=np.array([np.nan, np.nan, 0.9]),
        eigenvalue=np.concatenate((np.ones(4), np.ones(4), 1.0 / np.arange(1, 41))),
        eigenvalue_row=np.repeat([0, 1, 2], [4, 4, 40]),
        first=pairs[:, 0],
        second=pairs[:, 1],
        cka=np.where(pairs[:, 0] == pairs[:, 1], 1.0, 0.4),
        cka_interval=np.tile([0.3, 0.5], (6, 1)),
        num_images=np.array(400),
        num_train=np.array(500),
        num_test=np.array(100),
        **no_tunnels(rows=3, networks=1),
    )


@pytest.fixture
def compared(measured) -> GeometryResult:
    other = dataclasses.replace(measured, relative_depth=np.array([1, 2, 3]) / 6)
    return GeometryResult.join([measured, other], ["irevnet", "resnet"])


def test_probes_on_other_data_are_drawn_with_the_tunnel(measured):
    probed = dataclasses.replace(
        measured,
        probe_data=np.array(["flowers", "birds"]),
        probe_accuracy=np.array([[0.1, 0.2], [0.8, 0.5], [0.81, 0.3]]),
        probe_interval=np.tile([[[0.0, 1.0]]], (3, 2, 1)),
        tunnel_start=np.array([[2.0, 2.0, 3.0]]),
        other_peak=np.array([[[2.0, 2.0, 2.0]]]),
        other_change=np.array([[[-0.2, -0.25, -0.15]]]),
    )
    axes = next(each for each in plot(probed).axes if each.get_ylabel() == "linear SVM (%)")
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in axes.lines}
    np.testing.assert_allclose(lines["birds"], [20, 50, 30])
    assert any(np.array_equal(line.get_xdata(), [2, 2]) for line in axes.lines)
    shown = table(probed)
    assert list(shown.headings[-2:]) == ["SVM, flowers", "SVM, birds"]
    assert "irevnet: the tunnel starts at depth 2 (2 to 3)" in shown.notes
    assert "irevnet: in it the linear SVM's accuracy on birds changes by -20.0 points (-25.0 to -15.0)" in shown.notes
    both = dataclasses.replace(probed, relative_depth=np.array([1, 2, 3]) / 6)
    axes = plot(GeometryResult.join([probed, both], ["a", "b"])).axes
    assert "linear SVM (%):\nflowers (solid),\nbirds (dashed)" in [each.get_ylabel() for each in axes]


def test_measures_are_drawn_over_depth(measured, compared):
    drawn = {axes.get_ylabel(): axes for axes in plot(measured).axes}
    assert len(drawn) == 9  # the intrinsic dimension twice
    np.testing.assert_array_equal(drawn["NC1"].lines[0].get_data(), [[1, 2, 3], [1, 2, 3]])
    np.testing.assert_array_equal(drawn["NC4 (%)"].lines[0].get_ydata(), [100, 200, 300])
    law = next(line for line in drawn["eigenvalue / largest"].lines if line.get_label() == "power law")
    np.testing.assert_allclose(law.get_data(), [[3, 20], [2 / 27, 2 / 8000]])
    both = {axes.get_ylabel(): axes for axes in plot(compared).axes}
    lines = {line.get_label(): line for line in both["NC3:\nSVM (solid),\nown classifier (dashed)"].lines}
    assert list(lines) == ["irevnet, SVM", "irevnet, own classifier", "resnet, SVM", "resnet, own classifier"]
    np.testing.assert_allclose(lines["resnet, SVM"].get_xdata(), [1 / 6, 1 / 3, 1 / 2])


def test_what_is_unknown_is_not_drawn(measured):
    at = list(MEASURES).index("nc4")
    value = measured.value.copy()
    value[:, at] = np.nan
    drawn = [axes.get_ylabel() for axes in plot(dataclasses.replace(measured, value=value)).axes]
    assert "NC4 (%)" not in drawn
    assert "NC1" in drawn


def test_similarity_is_drawn_with_that_of_neighbours(measured, compared):
    heat, _, neighbours = similarity(measured).axes
    np.testing.assert_array_equal(heat.images[0].get_array(), measured.similarity())
    np.testing.assert_array_equal(neighbours.lines[0].get_data(), [[2, 3], [0.4, 0.4]])
    heat, _, neighbours = similarity(compared).axes
    assert heat.images[0].get_array().mask[0].tolist() == [False] * 3 + [True] * 3
    assert len(neighbours.lines) == 2
    assert [label.get_text() for label in heat.get_xticklabels()] == ["1", "2", "3"] * 2


def test_the_table_has_a_row_a_layer_and_says_what_is_not_known(measured, compared):
    shown = table(measured)
    assert shown.rows[1][:3] == ["2", "4", "2 (1.5 to 2.5)"]
    assert shown.notes == [
        "of 500 training images, TwoNN of 400 of them; NC4 of 100 test images; in brackets 95% intervals over the "
        "images",
        "up to 7 images have the features of others, and no neighbours in TwoNN",
    ]
    value, interval = measured.value.copy(), np.full_like(measured.interval, np.nan)
    value[0, list(MEASURES).index("nc1")] = np.nan
    shown = table(dataclasses.replace(measured, value=value, interval=interval))
    assert shown.rows[0][shown.headings.index("NC1")] == "unknown"
    assert any(note.startswith("no interval: ") for note in shown.notes)
    assert "NC1 is unknown, as every class has one training image" in shown.notes
    assert table(compared).notes[-1] == "layers of networks that were not studied together are not compared"


@pytest.mark.usefixtures("blank_figures")
def test_similarity_is_a_figure_of_its_own(measured, tmp_path):
    names = [path.name for path in save_figures(measured, tmp_path)]
    assert names == [f"geometry{part}.{kind}" for part in ("", "-similarity") for kind in ("png", "pdf")]
    (block,) = page_blocks(measured, [])
    assert block.caption.startswith("Debiased linear CKA of any two layers on the test images")
