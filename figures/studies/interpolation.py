"""Images along straight lines of features, and of pixels: Fig. 5 of the paper."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from analysis.results import PATHS, InterpolationResult
from figures.report.blocks import Block, Download, Frame, Line, PathViewer, Strip, image_uri
from figures.study_figure import StudyFigure
from figures.style import ORANGE, PAGE, literal, new_figure, show_image, style
from figures.text_table import TextTable, percent
from irevnet.utils.files import atomic_write

FRAME_SECONDS, FRAME_PIXELS = 0.25, 128
"""The time for which the animation shows a step, and the smallest width of its images."""


def drawing(result: InterpolationResult) -> Figure:
    """A strip for each line: the images along it with the network's top class and its probability, and below them the
    same for the line of pixels. A class that differs from that of the step before is set in colour."""
    if result.rows_of_grid:
        return _plot_grid(result)
    lines, steps = result.top_class.shape[1:]
    with style():
        cell = (PAGE - 0.7) / steps
        figure = new_figure(PAGE, lines * (2 * (cell + 0.26) + 0.25))
        for line, strip in enumerate(figure.subfigures(lines, 1, squeeze=False)[:, 0]):
            strip.suptitle(literal(result.names[line]), x=0.01, ha="left", fontsize=8)
            grid = strip.subplots(2, steps, squeeze=False)
            for number, path in enumerate(PATHS):
                changes = result.changes(number, line)
                for step, axes in enumerate(grid[number]):
                    show_image(axes, result.images[number, line, step])
                    answer, t = literal(result.answer(number, line, step, letters=10)), result.t[number, line, step]
                    colour = ORANGE if step in changes else "black"
                    axes.set_xlabel(f"{answer}\n$t$ = {t:.3g}", fontsize=5, labelpad=1, color=colour)
                grid[number, 0].set_ylabel(path)
    return figure


def _plot_grid(result: InterpolationResult) -> Figure:
    rows, columns = result.top_class.shape[1:]
    with style():
        figure = new_figure(PAGE, PAGE / 2 * rows / columns + 0.3)
        for number, half in enumerate(figure.subfigures(1, 2, squeeze=False)[0]):
            half.suptitle(f"straight lines of {PATHS[number]}")
            for axes, image in zip(
                half.subplots(rows, columns).flat, result.images[number].reshape(-1, *result.images.shape[3:])
            ):
                show_image(axes, image)
    return figure


def save_animation(result: InterpolationResult, folder: Path) -> Path:
    """Writes an animated GIF of each line forth and back: a row a line, features on the left, pixels on the right."""
    steps = result.top_class.shape[2]
    scale = max(1, -(-FRAME_PIXELS // result.images.shape[-1]))
    images = (255 * np.clip(result.images, 0, 1)).round().astype(np.uint8)
    frames = []
    for step in [*range(steps), *range(steps - 2, 0, -1)]:
        tiles = images[:, :, step].repeat(scale, axis=-1).repeat(scale, axis=-2)  # paths, lines, c, h, w
        rows = np.concatenate(list(np.concatenate(list(tiles), axis=-1)), axis=-2)  # c, lines h, paths w
        frames.append(Image.fromarray(rows.transpose(1, 2, 0).squeeze()))
    path = folder / f"{result.STUDY}.gif"
    with atomic_write(path) as temporary:
        frames[0].save(temporary, save_all=True, append_images=frames[1:], duration=round(1000 * FRAME_SECONDS), loop=0)
    return path


def table(result: InterpolationResult) -> TextTable:
    """Two rows a line: through features, and through pixels."""
    headings = ["line", "path", "length", "outside [0, 1]"]
    off_range, known = not result.bijective, np.isfinite(result.middle_distance).any()
    headings += ["off the range"] if off_range else []
    headings += ["from the middle", "in features"] if known else []
    headings.append("top class")
    rows = []
    for line, name in enumerate(result.names):
        for number, path in enumerate(PATHS):
            cells = [str(name), path, f"{result.travelled[number, line, -1]:.3f}"]
            cells.append(percent(result.outside[number, line].max()))
            cells += [f"{result.residual[number, line].max():.1e}"] if off_range else []
            middle = result.middle_distance[number, line], result.middle_feature_distance[number, line]
            cells += [f"{value:.3f}" if np.isfinite(value) else "unknown" for value in middle] if known else []
            rows.append([*cells, _classes(result, number, line)])
    notes = ["length: root mean square differences of pixel values from image to image, summed up"]
    if known:
        lines = np.isfinite(result.middle_distance[0]).sum()
        nearer = (result.middle_distance[0] < result.middle_distance[1]).sum()
        nearer_features = (result.middle_feature_distance[0] < result.middle_feature_distance[1]).sum()
        notes.append(
            f"nearer to the true middle than the mean of the pixels is: {nearer} of {lines} lines; in features, in "
            f"units of the distance of both ends, {nearer_features} of {lines}"
        )
    return TextTable(headings, rows, notes)


def _classes(result: InterpolationResult, number: int, line: int) -> str:
    """The network's top classes, and where they change."""
    text = str(result.classes[result.top_class[number, line, 0]])
    for step in result.changes(number, line):
        text += f", {result.classes[result.top_class[number, line, step]]} from t = {result.t[number, line, step]:.3g}"
    return text


def page_blocks(result: InterpolationResult, downloads: Sequence[Download]) -> list[Block]:
    """The lines, with a slider along each."""

    def frame(path: int, line: int, step: int) -> Frame:
        title = f"t = {result.t[path, line, step]:.3g}: {result.answer(path, line, step)}".removesuffix(": ")
        return Frame(uri=image_uri(result.images[path, line, step]), title=title)

    steps = range(result.top_class.shape[2])
    lines = [
        Line(
            name=str(name),
            strips=[
                Strip(name=path, frames=[frame(number, line, step) for step in steps])
                for number, path in enumerate(PATHS)
            ],
        )
        for line, name in enumerate(result.names)
    ]
    return [PathViewer(lines=lines, downloads=downloads)]


FIGURE = StudyFigure(
    table=table,
    drawing=drawing,
    page_blocks=page_blocks,
    save_more=lambda result, folder: [save_animation(result, folder)],
)
