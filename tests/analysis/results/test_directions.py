"""Directions in a result: what is said of them, and how they are saved, joined and checked."""

import dataclasses

import numpy as np
import pytest

from analysis.results import SpectrumResult
from analysis.results.directions import Directions


def test_what_moves_change(spectra_with_directions):
    directions = spectra_with_directions.directions(0)
    # A unit vector is one of 150 numbers, moved by 3 in the input and by 3 * 0.2 in pixel values.
    np.testing.assert_allclose(directions.pixel_changes, 0.6 / np.sqrt(150))
    np.testing.assert_allclose(directions.first_order, 0.5 * directions.vector_values[..., None] * np.ones(2))
    there, back = (directions.moved(0, 0, sign) for sign in (1, -1))
    assert there.ravel()[:2].tolist() == pytest.approx([1.1, 0.5])
    assert back.ravel()[:2].tolist() == pytest.approx([-0.1, 0.5])
    numbers = spectra_with_directions.summary()["layers"][0]
    assert numbers["each"][1]["directions"]["least"][0] == {
        "singular_value": 5.0,
        "residuals": [1e-6, 1e-6],
        "feature_changes": [6.0, 6.0],
        "first_order": [2.5, 2.5],
        "pixel_changes": pytest.approx([0.6 / np.sqrt(150)] * 2),
    }
    assert numbers["directions"]["most"]["first_order"]["median"] == 5
    assert numbers["directions"]["least"]["worst_residual"] == 1e-6


def test_the_table_has_the_numbers_at_the_ranks_of_the_values(spectra_with_directions):
    table = spectra_with_directions.table()
    one = table[(table.depth == 5) & (table.image == "dog")]
    assert one["rank"][one.vector_residual.notna()].tolist() == [1, 2, 149, 150]
    np.testing.assert_allclose(one.first_order.dropna(), one.singular_value[one.first_order.notna()] / 2)


def test_directions_are_saved_and_joined(spectra_with_directions, spectrum_result, tmp_path):
    spectra_with_directions.save(tmp_path, {})
    again = SpectrumResult.load(tmp_path)
    assert again.right_vectors.dtype == np.float32
    joined = SpectrumResult.join([spectrum_result, again], ["a", "b", "c"])
    joined.check()
    assert [joined.directions(row) is None for row in range(12)] == [True] * 4 + [False] * 8
    for field in dataclasses.fields(Directions):
        found, expected = (getattr(each, field.name) for each in (joined.directions(11), again.directions(7)))
        np.testing.assert_array_equal(found, expected)


def test_directions_of_other_sizes_are_joined(spectra_with_directions):
    """Such as of networks that are shown images of other sizes, of which one has no inverse."""
    one = spectra_with_directions.directions(0)
    small = Directions(
        **{
            **vars(one),
            "right_vectors": np.tile(np.eye(12, dtype=np.float32)[:1].reshape(1, 1, 3, 2, 2), (2, 1, 1, 1, 1)),
            "left_vectors": np.tile(np.eye(7, dtype=np.float32)[:1], (2, 1, 1)),
            "pixels": np.zeros((3, 2, 2), np.float32),
            "vector_values": np.array([[2.0], [np.nan]]),
            **{name: getattr(one, name)[:, :1] for name in ("vector_residuals", "steps", "feature_changes")},
        }
    )
    result = SpectrumResult.of(
        [spectra_with_directions.spectrum(0)] * 2,
        networks=["a", "b"],
        images=["cat"],
        network=[0, 1],
        layer=["block-1"] * 2,
        depth=[1, 1],
        image=[0, 0],
        directions=[one, small],
    )
    found = result.directions(1)
    assert found.known_ends == ("most",)
    for field in dataclasses.fields(Directions):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(small, field.name))


def test_results_saved_before_there_were_directions_load(spectrum_result, tmp_path):
    spectrum_result.save(tmp_path, {})
    with np.load(tmp_path / "spectrum.npz") as arrays:
        old = {
            name: arrays[name]
            for name in arrays
            if name not in {field.name for field in dataclasses.fields(Directions)}
        }
    np.savez(tmp_path / "spectrum.npz", **old)
    again = SpectrumResult.load(tmp_path)
    assert again.summary() == spectrum_result.summary()
    assert again.directions(0) is None
    assert "vector_residual" not in again.table()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("right_vectors", lambda array: 2 * array),
        ("left_vectors", lambda array: array[..., :149]),
        ("pixels", lambda array: array[:, :, :, :9]),
        ("pixel_scale", lambda array: np.inf * array),
        ("steps", lambda array: -array),
        ("vector_values", lambda array: -array),
    ],
)
def test_directions_that_are_none_are_refused(spectra_with_directions, tmp_path, name, change):
    spectra_with_directions.save(tmp_path, {})
    fields = {field.name: getattr(spectra_with_directions, field.name) for field in dataclasses.fields(SpectrumResult)}
    np.savez(tmp_path / "spectrum.npz", **{**fields, name: change(fields[name])})
    with pytest.raises(ValueError, match=r"is damaged.*(has no singular vectors of a map|expected)"):
        SpectrumResult.load(tmp_path)
