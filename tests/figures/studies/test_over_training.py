import dataclasses

import numpy as np
import pytest

from analysis.results import DepthProbeOverTraining, GeometryOverTraining, SpectrumOverTraining
from analysis.results.headlines import Headline
from figures import plot, table
from figures.studies.over_training import chart


def made(kind, networks=("irevnet-small",), depths=(1, 2, 3, 4, 6, 12), steps=(0, 10, 20), **ends):
    rows = [
        (
            number,
            step,
            Headline(
                network=0,
                layer=f"block-{depth}",
                depth=depth,
                relative_depth=depth / depths[-1],
                measure=code,
                value=depth / (step + 20),
                **ends,
            ),
        )
        for number, _ in enumerate(networks)
        for step in steps
        for depth in depths
        for code in kind.MEASURES
    ]
    return kind.of(networks, rows)


@pytest.mark.parametrize("kind", [GeometryOverTraining, DepthProbeOverTraining, SpectrumOverTraining])
def test_a_panel_a_measure_has_a_curve_a_layer(kind):
    drawn = chart(made(kind, low=0.01, high=0.9))
    assert len(drawn.panels) == len(kind.MEASURES)
    for panel in drawn.panels:
        assert [curve.name for curve in panel.curves] == ["block-1", "block-3", "block-4", "block-12"]
        assert [curve.x.tolist() for curve in panel.curves] == [[0, 10, 20]] * 4
        assert len({curve.look.colour for curve in panel.curves}) == 4
    assert [key.name for key in drawn.keys] == ["block-1", "block-3", "block-4", "block-12"]
    plot(made(kind)).draw_without_rendering()  # without intervals


def test_several_networks_are_drawn_at_their_last_layers():
    drawn = chart(made(DepthProbeOverTraining, ("a$b", "resnet"), low=0.1, high=0.2))
    accuracy = drawn.panels[0]
    assert [curve.name for curve in accuracy.curves] == [r"a\$b", "resnet"]
    np.testing.assert_allclose(accuracy.curves[0].y, [60, 40, 30])
    np.testing.assert_allclose(accuracy.curves[0].high, [20, 20, 20])
    assert accuracy.y_label == "accuracy of\nthe linear SVM (%)"


def test_what_is_not_known_is_not_drawn():
    result = made(SpectrumOverTraining)
    unknown = dataclasses.replace(result, value=np.where(result.measure == "smallest", np.nan, result.value))
    assert len(chart(unknown).panels) == 3
    assert table(unknown).headings == ("step", "largest", "condition", "E(n/150)")
    nothing = dataclasses.replace(result, value=np.full_like(result.value, np.nan))
    plot(nothing).draw_without_rendering()
    assert table(nothing).rows == [("0",), ("10",), ("20",)]


def test_table_has_a_row_a_step():
    result = made(DepthProbeOverTraining, ("a", "b"), steps=(0, 1000), low=0.1, high=0.2)
    found = table(result)
    assert found.headings == ("network", "step", "linear SVM", "1-NN", "within/between")
    assert [row[:2] for row in found.rows] == [("a", "0"), ("a", "1,000"), ("b", "0"), ("b", "1,000")]
    assert found.rows[0][2:] == ("60.0% (10.0% to 20.0%)", "60.0% (10.0% to 20.0%)", "0.6 (0.1 to 0.2)")
    assert found.notes == ["at block-12; in brackets 95% intervals of accuracies over the test images"]
