import dataclasses

import numpy as np

from figures import plot, table


def test_both_probes_and_the_distances_are_drawn(probe):
    above, below = plot(probe).axes
    lines = {line.get_label(): line for line in above.lines}
    np.testing.assert_allclose(lines["linear SVM"].get_data(), [[1, 2, 5], [50, 75, 90]])
    np.testing.assert_allclose(lines["1-NN"].get_ydata(), [40, 65, 80])
    np.testing.assert_allclose(lines["the network itself"].get_ydata(), [77, 77])
    np.testing.assert_array_equal(below.lines[0].get_data(), [[1, 2, 5], [0.9, 0.8, 0.5]])
    assert [text.get_text() for text in above.texts] == ["4", "16 dims"]
    assert below.get_xlabel() == "depth $j$ (block)"
    bands = [each.get_paths()[0].vertices[:, 1] for each in above.collections]
    np.testing.assert_allclose([[band.min(), band.max()] for band in bands], [[40, 95], [30, 90]])  # the intervals


def test_networks_that_differ_in_blocks_share_relative_depth(probe, probes):
    figure = plot(probes)
    above, below = figure.axes
    np.testing.assert_allclose(above.lines[0].get_xdata(), [0.2, 0.4, 1])
    assert below.get_xlabel() == "depth (block over number of blocks)"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["irevnet-b", "resnet-50", "linear SVM", "1-NN", "the network itself"]
    assert len({line.get_color() for line in above.lines}) == 2
    np.testing.assert_array_equal(plot(probes, relative=False).axes[0].lines[0].get_xdata(), [1, 2, 5])
    np.testing.assert_allclose(plot(probe, relative=True).axes[0].lines[0].get_xdata(), [0.2, 0.4, 1])


def test_a_network_of_other_classes_has_no_line(probe, probes):
    axes = plot(dataclasses.replace(probe, network_accuracy=np.array([np.nan]))).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["linear SVM", "1-NN"]
    many = plot(dataclasses.replace(probes, network_accuracy=np.array([np.nan, np.nan])))
    assert "the network itself" not in {text.get_text() for text in many.legends[0].get_texts()}


def test_the_table_has_a_row_for_each_block(probe, probes):
    made = table(probe)
    accuracies = ("75.0% (65.0% to 80.0%)", "65.0% (55.0% to 75.0%)", "1")
    assert made.rows[1] == ("2", "16", *accuracies, "0.800")
    assert made.headings[:2] == ("depth", "dims")
    assert made.notes == [
        "irevnet-b itself: 77.0% (70.0% to 80.0%); among the classes studied alone 85.0% (80.0% to 90.0%)",
        "C was chosen at the edge of its grid (0.01 to 1) at block-2: a wider grid may do better there",
    ]
    both = table(probes)
    assert both.rows[4] == ("resnet-50", "2", "16", *accuracies, "0.800")
    assert both.notes[0] == "irevnet-b itself: 77.0% (70.0% to 80.0%)"
    assert both.notes[1] == "resnet-50 itself: unknown, as no outputs of it are known to be these classes"
    assert "at irevnet-b block-2, resnet-50 block-2:" in both.notes[2]
    named = table(dataclasses.replace(probe, layer=np.array(["layer1.0", "layer2.0", "fc"])))
    assert named.rows[2][:2] == ("fc", "5")
