import numpy as np
import pytest

from irevnet.data.splits import DrawnSplit, draw_split, read_split, same_data, save_split

NAMES = [f"{label}/{n}.png" for label, count in (("a", 40), ("b", 15), ("c", 2), ("d", 1)) for n in range(count)]
LABELS = [name[0] for name in NAMES]


def draw(fraction: float, names: list[str] = NAMES) -> set[str]:
    return {*draw_split("photos", names, [name[0] for name in names], fraction).test}


def test_each_class_is_split_by_the_fraction():
    split = draw_split("photos", NAMES, LABELS, 0.2)
    count = {label: sum(name[0] == label for name in split.test) for label in "abcd"}
    assert count == {"a": 8, "b": 3, "c": 1, "d": 0}
    assert [name for name in NAMES if name in {*split.train}] == list(split.train)
    assert sorted((*split.train, *split.test)) == sorted(NAMES)
    assert {name[0] for name in draw_split("photos", NAMES, LABELS, 0.99).train} == {*"abcd"}


def test_draw_depends_on_names_alone():
    shuffled = np.random.default_rng(0).permutation(NAMES).tolist()
    assert draw(0.2) == draw(0.2, shuffled)
    assert draw(0.2) < draw(0.5)
    more = draw(0.2, [*NAMES, *(f"a/new-{n}.png" for n in range(10))])
    assert len(draw(0.2) - more) <= 2  # of 11 test images of the class two are new, if these are drawn like the others


def test_draw_is_uniform():
    """Over classes of other names, to within four standard deviations."""
    first = sum(f"{n}/0" in draw_split("x", [f"{n}/{k}" for k in range(5)], [""] * 5, 0.2).test for n in range(1000))
    assert abs(first - 200) < 4 * np.sqrt(1000 * 0.2 * 0.8)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_other_fractions_are_refused(fraction):
    with pytest.raises(ValueError, match=r"`val_fraction` is .*; expected a share between 0 and 1, such as 0\.2"):
        draw(fraction)


def test_split_is_kept_in_a_folder(tmp_path):
    split = DrawnSplit(data="photos", val_fraction=0.2, train=("a/ü\udcff.png",), test=("b",))
    save_split(tmp_path, split)
    assert read_split(tmp_path) == split
    (tmp_path / "split.json").write_text('{"data": "photos"}')
    with pytest.raises(ValueError, match=r"split\.json is damaged: "):
        read_split(tmp_path)
    save_split(tmp_path, None)
    assert read_split(tmp_path) is None


def test_paths_of_one_folder_are_the_same_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert same_data("photos/", str(tmp_path / "photos"))
    assert same_data("gone", "gone")
    assert not same_data("photos", "digits")
    assert not same_data("gone/", "gone")
