import numpy as np

from figures import plot, table


def test_accuracy_variance_and_knee_are_drawn(sweep, sweeps):
    above, below = plot(sweep).axes
    lines = {line.get_label(): line for line in above.lines}
    np.testing.assert_array_equal(lines["linear SVM"].get_data(), [[1, 10, 64], [50, 89.5, 90]])
    np.testing.assert_array_equal(lines["knee, $d = 10$"].get_xdata(), [10, 10])
    np.testing.assert_array_equal(below.lines[0].get_data(), [[1, 10, 64], [30, 80, 100]])
    assert below.get_xscale() == "log"
    assert len(plot(sweeps).axes[1].lines) == 2


def test_the_table_has_a_row_for_each_number_of_components(sweep, sweeps):
    swept = table(sweep)
    assert swept.rows[0][:3] == ("1", "30.0%", "50.0% (40.0% to 55.0%)")
    assert swept.notes[0] == (
        "irevnet-b, block-5: within one point of all 64 components from 10 on (linear SVM), 10 on (1-NN)"
    )
    assert swept.notes[2].split(") at ")[1] == "d = 10: a wider grid may do better there"
    assert [row[0] for row in table(sweeps).rows] == ["irevnet-b"] * 3 + ["resnet-50"] * 3
