import dataclasses

import numpy as np
from PIL import Image

from figures import plot, table
from figures.studies.interpolation import save_animation


def test_both_paths_are_drawn_and_changes_of_class_marked(interpolation):
    figure = plot(interpolation)
    assert [part.get_suptitle() for part in figure.subfigs] == ["cat to dog", "dog to cow"]
    axes = figure.axes
    assert len(axes) == 12
    assert [axes[0].get_ylabel(), axes[3].get_ylabel()] == ["features", "pixels"]
    assert axes[1].get_xlabel() == "dog 75%\n$t$ = 0.5"
    colours = [each.xaxis.label.get_color() for each in axes[:6]]
    assert [colour != "black" for colour in colours] == [False, True, False, False, False, True]
    np.testing.assert_allclose(axes[4].images[0].get_array(), shown(interpolation.images[1, 0, 1]))


def shown(image: np.ndarray) -> np.ndarray:
    return np.clip(image.transpose(1, 2, 0), 0, 1)


def test_a_grid_is_drawn_as_one(interpolation):
    figure = plot(dataclasses.replace(interpolation, rows_of_grid=np.array(True)))
    titles = [half.get_suptitle() for half in figure.subfigs]
    assert titles == ["straight lines of features", "straight lines of pixels"]
    assert len(figure.axes) == 12
    np.testing.assert_allclose(figure.axes[5].images[0].get_array(), shown(interpolation.images[0, 1, 2]))


def test_the_animation_goes_forth_and_back(interpolation, tmp_path):
    path = save_animation(interpolation, tmp_path)
    with Image.open(path) as animation:
        assert animation.n_frames == 4
        assert animation.size == (2 * 6 * 22, 2 * 4 * 22)  # each pixel 22 wide, at least 128 an image
    grey = dataclasses.replace(interpolation, images=interpolation.images[:, :, :, :1])
    with Image.open(save_animation(grey, tmp_path)) as animation:
        assert animation.n_frames == 4


def test_the_table_has_only_columns_with_content(interpolation):
    made = table(interpolation)
    middle = ["off the range", "from the middle", "in features"]
    assert made.headings == ["line", "path", "length", "outside [0, 1]", *middle, "top class"]
    cells = ["3.000", "50.0%", "2.0e-01", "0.100", "0.400", "cat, dog from t = 0.5"]
    assert made.rows[0] == ["cat to dog", "features", *cells]
    assert made.rows[2][-3:-1] == ["unknown", "unknown"]
    assert "the mean of the pixels is: 1 of 1 lines; in features, in units of the dist" in made.notes[1]
    assert made.notes[1].endswith(", 0 of 1")
    unknown = dataclasses.replace(interpolation, bijective=np.array(True), middle_distance=np.full((2, 2), np.nan))
    made = table(unknown)
    assert made.headings[2:] == ["length", "outside [0, 1]", "top class"]
    assert made.rows[3] == ["dog to cow", "pixels", "3.000", "50.0%", "dog, cow from t = 0.5"]
    assert len(made.notes) == 1
