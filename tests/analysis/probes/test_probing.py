import numpy as np
import pytest

from analysis.probes.probing import ProbeOptions, training_sets


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cost_grid": []}, r"`cost_grid` is \[\]; expected one or several positive numbers"),
        ({"cost_grid": [1.0, 0.0]}, r"`cost_grid` is \[1\.0, 0\.0\]; expected"),
        ({"cost_grid": [float("nan")]}, r"`cost_grid` is \[nan\]; expected"),
        ({"neighbours": [0, 5]}, r"`neighbours` is \[0, 5\]; expected one or several numbers from 1 on"),
        ({"shots": 0}, "`shots` is 0; expected a number of images from 1 on"),
        ({"shots": 1, "draws": 1}, "`draws` is 1; expected at least 2, whose spread gives the interval"),
        ({"draws": 3}, "`draws` is 3, and there are no sets to draw; give `shots`, or leave it out"),
    ],
)
def test_options_without_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ProbeOptions(**options)


def test_1nn_in_euclidean_distance_is_no_further_probe():
    assert ProbeOptions(neighbours=[20, 1]).further == ["20nn"]
    assert ProbeOptions(neighbours=[1, 20], metric="cosine", logistic=True).further == [
        "logistic",
        "1nn_cosine",
        "20nn_cosine",
    ]


def test_draws_have_as_many_images_of_each_class():
    labels = np.random.default_rng(0).integers(0, 4, 200)
    sets = training_sets(labels, ProbeOptions(shots=7, draws=3), seed=0)
    for each in sets:
        assert np.bincount(labels[each.rows]).tolist() == [7] * 4
        assert len(set(each.rows.tolist())) == 28
    assert len({each.rows.tobytes() for each in sets}) == 3
    more = training_sets(labels, ProbeOptions(shots=7, draws=5), seed=0)
    np.testing.assert_array_equal([each.rows for each in sets], [each.rows for each in more[:3]])
    other = training_sets(labels, ProbeOptions(shots=7, draws=3), seed=1)
    assert not any(np.array_equal(one.rows, two.rows) for one, two in zip(sets, other))


def test_all_images_are_one_set():
    (whole,) = training_sets(np.array([0, 1, 1]), ProbeOptions(), seed=0)
    assert (whole.rows, whole.name, whole.settings) == (None, "", {})


def test_sets_that_cannot_be_drawn_are_refused():
    labels = np.array([0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match="a class has 2 training images; `shots` asks for 3 of each; lower it"):
        training_sets(labels, ProbeOptions(shots=3), seed=0)
    with pytest.raises(ValueError, match="`neighbours` asks for 6 nearest neighbours, but probes are fitted to 5 tr"):
        training_sets(labels, ProbeOptions(neighbours=[6]), seed=0)
