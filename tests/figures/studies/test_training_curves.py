import numpy as np

from figures import plot, table


def test_losses_and_accuracies_of_each_run_are_drawn(training_curves):
    losses, accuracies = plot(training_curves).axes
    assert [line.get_label() for line in losses.lines] == ["irevnet-b", "resnet-50"]
    assert len({(line.get_color(), line.get_linestyle()) for line in losses.lines}) == 2
    np.testing.assert_array_equal(losses.lines[0].get_data(), [[3, 4, 5], [2, 1, 0.5]])
    np.testing.assert_array_equal(losses.lines[1].get_data(), [[3, 4], [2, 1.5]])
    np.testing.assert_array_equal(accuracies.lines[0].get_data(), [[4], [25]])
    assert (losses.get_yscale(), losses.get_ylabel()) == ("log", "training loss (nats), mean of 3")


def test_the_table_has_a_row_for_each_run(training_curves):
    assert table(training_curves).rows == [
        ("irevnet-b", "5", "2.0000", "1.0000", "1.0000", "0.5000", "25.00%"),
        ("resnet-50", "4", "2.0000", "2.0000", "1.5000", "1.5000", ""),
    ]
