"""The blocks that a page is made of, each with the files that its reader can save."""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from numpy import ndarray
from PIL import Image

from analysis.saved.runs import SavedStudy
from figures.chart import Chart, Key
from figures.style import style
from figures.text_table import TextTable
from figures.vega import DASHES, page_ink, plain_text, vega_lite

_NUMBER = re.compile(r"(-?\d[\d,.]*(e[-+]\d+)?( [sM]|%)?( \([^()]*\))?)|-?|not finite")

PHOTOGRAPH = 96
"""Width from which on a page has images as JPEG; of smaller ones, as PNG, the pixels are seen."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file within the page."""

    name: str
    uri: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that can be sorted."""

    kind: ClassVar[str] = "table"

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    downloads: Sequence[Download] = ()

    @classmethod
    def of(cls, table: TextTable, caption: str, name: str) -> "Table":
        """A table that can be saved as CSV."""
        csv = pd.DataFrame(list(map(list, table.rows)), columns=pd.Index(list(table.headings))).to_csv(index=False)
        saved = Download(name=f"{name}.csv", uri=_uri(csv.encode(), "text/csv"))
        return cls(caption=caption, headings=table.headings, rows=table.rows, notes=table.notes, downloads=[saved])

    @property
    def numeric(self) -> list[int]:
        """Indices of the columns of numbers."""
        columns = enumerate(zip(*self.rows))
        return [at for at, column in columns if all(_NUMBER.fullmatch(cell) for cell in column)]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An entry of a legend."""

    name: str
    swatch: Markup


@dataclass(frozen=True, kw_only=True)
class Legend:
    """A legend, above a chart or a panel."""

    title: str
    entries: Sequence[Entry]

    @classmethod
    def of(cls, keys: Sequence[Key], title: str = "") -> "Legend":
        return cls(title=title, entries=[Entry(name=plain_text(key.name), swatch=_swatch(key)) for key in keys])


@dataclass(frozen=True, kw_only=True)
class PagePanel:
    """A panel of a chart: what it shows in words, its legend, and its specification for Vega-Lite."""

    label: str
    legend: Legend
    spec: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PageChart:
    """A chart with its values under the cursor."""

    kind: ClassVar[str] = "chart"

    caption: str
    legend: Legend
    panels: Sequence[PagePanel]
    downloads: Sequence[Download]

    @classmethod
    def of(cls, chart: Chart, caption: str, downloads: Sequence[Download]) -> "PageChart":
        """A chart with its values under the cursor, and files of the figure on paper."""
        panels = [
            PagePanel(
                label=f"{plain_text(panel.y_label)} against {plain_text(panel.x_label)}; the values are in the table",
                legend=Legend.of([] if chart.keys else panel.keys(), panel.title),
                spec=vega_lite(panel),
            )
            for panel in chart.panels
        ]
        return cls(caption=caption, legend=Legend.of(chart.keys), panels=panels, downloads=downloads)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure as it is."""

    kind: ClassVar[str] = "drawing"

    caption: str
    svg: Markup
    downloads: Sequence[Download]

    @classmethod
    def of(cls, figure: Figure, caption: str, name: str) -> "Drawing":
        """A figure as it is, in the page's own ink."""
        downloads = figure_files(figure, name)
        content = io.StringIO()
        with style(svg_hashsalt=name):
            figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
        svg = content.getvalue()
        svg = svg[svg.index("<svg") :].replace("#000000", "currentColor")
        svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(caption)}" fill="currentColor" ', 1)
        return cls(
            caption=caption,
            svg=Markup(re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)),
            downloads=downloads,
        )


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image and its reconstruction."""

    title: str
    error: str
    original: str
    reconstruction: str


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Images beside their reconstructions."""

    kind: ClassVar[str] = "gallery"

    caption: str
    pairs: Sequence[Pair]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """An image with a title."""

    uri: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Strip:
    """The images along one path of a line."""

    name: str
    frames: Sequence[Frame]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line, by one path and another."""

    name: str
    strips: Sequence[Strip]


@dataclass(frozen=True, kw_only=True)
class PathViewer:
    """Lines of images, with a slider along each."""

    kind: ClassVar[str] = "paths"

    lines: Sequence[Line]
    downloads: Sequence[Download]


Block = Table | PageChart | Drawing | Gallery | PathViewer


_FORMATS = {"png": "image/png", "pdf": "application/pdf"}


def figure_files(figure: Figure, name: str) -> list[Download]:
    """A figure as PNG and PDF."""
    files = []
    for kind, mime in _FORMATS.items():
        content = io.BytesIO()
        with style():
            figure.savefig(content, format=kind, metadata={"CreationDate": None} if kind == "pdf" else None)
        figure.set_layout_engine("none")  # it is laid out, for both alike
        files.append(Download(name=f"{name}.{kind}", uri=_uri(content.getvalue(), mime)))
    return files


def saved_figure(study: SavedStudy, name: str) -> list[Download]:
    """The figure saved beside a result, as PNG and PDF; nothing if one is missing, or older than the result."""
    stem = study.folder / study.result.STUDY
    files = []
    for suffix, mime in _FORMATS.items():
        path, mark = stem.with_suffix(f".{suffix}"), stem.with_suffix(".json")
        if not path.is_file() or path.stat().st_mtime < mark.stat().st_mtime:
            return []
        files.append(Download(name=f"{name}.{suffix}", uri=_uri(path.read_bytes(), mime)))
    return files


def image_uri(pixels: ndarray) -> str:
    """Pixel values `(c, h, w)`, clipped to black and white, as an image within the page."""
    values = (255 * np.clip(np.nan_to_num(pixels), 0, 1)).round().astype(np.uint8).transpose(1, 2, 0)
    image = Image.fromarray(values.squeeze(-1) if values.shape[-1] == 1 else values)
    content, kind = io.BytesIO(), "jpeg" if image.width >= PHOTOGRAPH else "png"
    image.save(content, format=kind, quality=90)
    return _uri(content.getvalue(), f"image/{kind}")


def _uri(content: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def _swatch(key: Key) -> Markup:
    colour, line, marker = key.look
    ink = page_ink(colour)
    parts = []
    if line != "none":
        dash = " ".join(map(str, DASHES[line])) if line != "-" else "none"
        parts.append(f'<path d="M0 6H30" stroke="{ink}" stroke-width="2.4" stroke-dasharray="{dash}" fill="none"/>')
    if marker in _MARKS:
        parts.append(f'<path d="{_MARKS[marker]}" fill="{ink}" stroke="{ink}"/>')
    return Markup(f'<svg viewBox="0 0 30 12" aria-hidden="true">{"".join(parts)}</svg>')


_MARKS = {
    "o": "M15 2a4 4 0 1 0 .01 0z",
    "s": "M11 2h8v8h-8z",
    "D": "M15 1l5 5-5 5-5-5z",
    "^": "M15 2l4.5 8h-9z",
    "v": "M15 10l4.5-8h-9z",
    "x": "M11 2l8 8M19 2l-8 8",
    "P": "M15 1v10M10 6h10",
}
