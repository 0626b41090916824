"""Finished parts of a study with arrays, which lie beside them."""

import numpy as np
import pytest

from analysis.cache import Cache

PART = {"number": 1, "array": np.arange(6, dtype=np.float32).reshape(2, 3)}


def get(folder, computed: list, **settings):
    return Cache(folder).get("part", lambda: computed.append(1) or PART, dict[str, int], arrays=["array"], **settings)


def test_arrays_of_a_part_are_kept(tmp_path):
    computed = []
    for _ in range(2):
        found = get(tmp_path, computed, seed=0)
        assert found["number"] == 1
        assert found["array"].dtype == np.float32
        np.testing.assert_array_equal(found["array"], PART["array"])
    assert computed == [1]
    get(tmp_path, computed, seed=1)
    assert computed == [1, 1]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-40])])
def test_a_part_without_its_arrays_is_computed_again(tmp_path, damage):
    computed = []
    get(tmp_path, computed)
    damage(tmp_path / "part.npz")
    np.testing.assert_array_equal(get(tmp_path, computed)["array"], PART["array"])
    assert computed == [1, 1]
