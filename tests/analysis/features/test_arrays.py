"""Arrays of one's own become features with labels, or are refused by what is wrong with them."""

import numpy as np
import pytest

from analysis.features.arrays import labelled_features, read_arrays


def split(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """Two layers of two splits; slashes are written as two underscores."""
    arrays = {
        "train__late": np.arange(12.0).reshape(6, 2),
        "train__early": np.arange(6, dtype=np.int16).reshape(6, 1),
        "train__labels": np.array([7, 3, 7, 3, 3, 7]),
        "test__early": np.ones((2, 1), dtype=np.float16),
        "test__late": np.ones((2, 2)),
        "test__labels": np.array([3, 7]),
        **changes,
    }
    return {name.replace("__", "/"): array for name, array in arrays.items() if array is not None}


def test_layers_keep_their_order_and_labels_become_numbers():
    found = labelled_features(split())
    assert (found.classes, found.held_out) == (("3", "7"), False)
    assert found.train_labels.tolist() == [1, 0, 1, 0, 0, 1]
    assert found.test_labels.tolist() == [0, 1]
    assert list(found.train) == list(found.test) == ["late", "early"]
    for layer, expected in {"late": np.arange(12).reshape(6, 2), "early": np.arange(6)[:, None]}.items():
        assert found.train[layer].dtype == found.test[layer].dtype == np.float32
        np.testing.assert_array_equal(found.train[layer], expected)


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ([2, 0], ["cat", "cow", "dog"], ["dog", "cat"]),
        (["dog", "cat"], ["cat", "cow", "dog"], ["dog", "cat"]),
        (["dog", "cat"], None, ["dog", "cat"]),
        ([10, 9], None, ["10", "9"]),  # in the order of the numbers, not of their names
    ],
)
def test_classes_are_named_by_labels_or_beside_them(labels, classes, expected):
    named = {} if classes is None else {"classes": np.array(classes)}
    each = np.array(labels)
    found = labelled_features(split(train__labels=np.repeat(each, 3), test__labels=each, **named))
    assert [found.classes[label] for label in found.test_labels] == expected
    assert list(found.classes) == (classes or sorted(expected, key=lambda name: (len(name), name)))


def test_a_fifth_of_each_class_is_held_out_by_the_seed():
    labels = np.repeat([0, 1, 2], [5, 20, 50])
    arrays = {"x": np.arange(75.0)[:, None], "labels": labels, "images": np.array(["a"] * 75)}
    found, same, other = (labelled_features(arrays, seed=seed) for seed in (1, 1, 2))
    assert found.held_out
    assert np.bincount(found.test_labels).tolist() == [1, 4, 10]
    rows = [each["x"][:, 0].astype(int).tolist() for each in (found.train, found.test)]
    assert sorted(rows[0] + rows[1]) == list(range(75))
    for part, numbers in zip(rows, (found.train_labels, found.test_labels)):
        assert part == sorted(part)
        assert labels[part].tolist() == numbers.tolist()
    assert rows[1] == same.test["x"][:, 0].tolist() != other.test["x"][:, 0].tolist()
    alone = labelled_features({f"train/{name}": array for name, array in arrays.items()}, seed=1)
    assert alone.test["x"][:, 0].tolist() == rows[1]


FINITE = np.ones((6, 2))
NOT_FINITE = np.ones((6, 2))
NOT_FINITE[4, 1] = np.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train__labels": None},
            "there is no array train/labels; expected the class of each image, there or by `labels",
        ),
        ({"test__labels": None}, "there is no array test/labels; expected the class of each image"),
        (
            {"train__labels": np.ones(6)},
            r"train/labels is float64 of the shape \(6,\); expected a whole number or a name",
        ),
        ({"train__labels": np.ones((6, 1), dtype=int)}, r"train/labels is int64 of the shape \(6, 1\)"),
        ({"test__labels": np.array([3, 4])}, "test/labels has the label 4, which belongs to no class; expected one of"),
        (
            {"classes": np.array(["a", "b"])},
            "train/labels has the label 7, which belongs to no class; .* of the 2 of c",
        ),
        ({"classes": np.array([1, 2])}, r"classes is int64 of the shape \(2,\); expected names that differ, one for"),
        ({"classes": np.array(["a", "a"])}, r"classes is <U1 of the shape \(2,\); expected names that differ"),
        (
            {"train__labels": np.array(["a ", "b"] * 3)},
            "a class is called 'a '; expected a line of text, without spaces",
        ),
        ({"train__late": np.ones((5, 2))}, "train/late has 5 rows, and there are 6 labels; expected one for each"),
        ({"train__late": np.ones((6, 2, 2))}, r"late is float64 of the shape \(6, 2, 2\); expected numbers, a row for"),
        (
            {"train__late": np.ones((6, 2), dtype=complex)},
            r"late is complex128 of the shape \(6, 2\); expected numbers",
        ),
        ({"train__late": np.ones((6, 0))}, r"train/late is float64 of the shape \(6, 0\); expected numbers"),
        ({"train__late": NOT_FINITE}, "train/late is not finite in float32, at first in row 4"),
        ({"train__late": 1e300 * FINITE}, "train/late is not finite in float32, at first in row 0"),
        ({"test__late": None}, "there are features late of one split alone; expected the same layers of both"),
        ({"test__late": np.ones((2, 3))}, "train/late has 2 features an image, test/late 3; expected as many in both"),
        ({"late": FINITE}, "an array is called 'late'; expected train/LAYER and test/LAYER, or LAYER for all"),
        ({"val__late": FINITE}, "an array is called 'val/late'; expected train/LAYER"),
        ({"train__a__b": FINITE}, "an array is called 'train/a/b'; expected train/LAYER .* no / and no dot at the beg"),
        ({"train__..": FINITE}, r"an array is called 'train/\.\.'; expected"),
        ({f"train__{'a' * 201}": FINITE}, "names have at most 200 bytes"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        labelled_features(split(**changes))


def test_without_a_test_split_there_have_to_be_enough_images():
    with pytest.raises(
        ValueError, match="class '1' has 4 images, and one of 5 is to be held out for testing; expected"
    ):
        labelled_features({"x": np.ones((9, 1)), "labels": np.repeat([0, 1], [5, 4])})
    with pytest.raises(
        ValueError, match="no features beside the labels; expected an array train/features, or features"
    ):
        labelled_features({"labels": np.repeat([0, 1], 5)})


def test_files_are_read_without_running_what_is_in_them(tmp_path):
    np.savez(tmp_path / "x.npz", **split(train__images=np.array([None] * 6)))
    assert list(read_arrays(tmp_path / "x.npz")) == list(split())
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    assert read_arrays(tmp_path / "x.npy")["features"].shape == (2, 3)
    np.savez(tmp_path / "objects.npz", late=np.array([{}, {}]))
    np.savez_compressed(tmp_path / "small.npz", **split())
    assert list(read_arrays(tmp_path / "small.npz")) == list(split())
    np.savez_compressed(tmp_path / "zeros.npz", late=np.zeros(100_000))
    (tmp_path / "x.pt").touch()
    for name, message in {
        "objects.npz": r"objects\.npz cannot be read: an array holds Python objects, which allow_pickle=False refuses",
        "zeros.npz": r"zeros\.npz cannot be read: its arrays take 800,000 bytes, more than 64 times as many",
        "x.pt": r"x\.pt is neither \.npz nor \.npy, in which features are read",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_arrays(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.npz; give one of features, \.npz or \.npy"):
        read_arrays(tmp_path / "none.npz")
