"""A network drawn from its config: the chain of its stages, one of its blocks and a squeeze (Figs. 1 and 2)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle
from matplotlib.path import Path

from figures.style import BLUE, GREEN, GREY, INK, ORANGE, PAGE, literal, new_figure, style
from irevnet.models.config import ARCHITECTURES, Config, IRevNetConfig, ResNetConfig, RevNetConfig, stages_of
from irevnet.utils.untrusted import build

Point = tuple[float, float]


def plot_network(architecture: str, config: Mapping[str, Any]) -> Figure:
    """Draws a network from the plain values in a run's config, or in the provenance of a result.

    Of a network from another library, whose stages are not known, it draws the name and the number of classes.

    Args:
        architecture: class of the network, such as `IRevNet`.
        config: fields of its config; lists stand for tuples.

    Raises:
        TypeError, ValueError: the toolkit has that architecture, and no such config of it.
    """
    with style():
        if architecture not in ARCHITECTURES or "blocks" not in config:  # torchvision has a ResNet of its own
            return _draw_name(literal(config.get("name", architecture)), config.get("num_classes"))
        return _draw(build(ARCHITECTURES[architecture], config))


class _Sheet:
    """An empty figure whose coordinates are inches."""

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        self.figure = new_figure(width, height)
        self.figure.set_layout_engine("none")  # everything has its place
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
        self.axes.set_axis_off()

    def text(self, x: float, y: float, words: str, size: float = 7, **options: Any) -> None:
        if words:
            self.axes.text(x, y, words, size=size, **{"ha": "center", "va": "center", "color": INK, **options})

    def wire(self, *points: Point, arrow: bool = False) -> None:
        head = "-|>,head_length=3,head_width=1.2" if arrow else "-"
        line = FancyArrowPatch(path=Path(points), arrowstyle=head, mutation_scale=1, color=INK, linewidth=0.8)
        self.axes.add_patch(line)

    def box(self, x: float, y: float, width: float, height: float, words: str, colour: str = INK, **text: Any) -> None:
        """Around x, y; tinted if it is of any colour but ink."""
        fill = to_rgba(colour, 0.18) if colour != INK else "none"
        corner = x - width / 2, y - height / 2
        self.axes.add_patch(Rectangle(corner, width, height, facecolor=fill, edgecolor=colour, linewidth=0.8))
        self.text(x, y, words, **text)

    def stream(self, left: float, right: float, y: float, x: float = 0, operator: str = "") -> None:
        """A wire, with an operator around x if there is one."""
        if not operator:
            return self.wire((left, y), (right, y))
        self.wire((left, y), (x - 0.2, y), arrow=True)
        self.box(x, y, 0.4, 0.24, operator, BLUE, size=9)
        self.wire((x + 0.2, y), (right, y))

    def detour(self, start: Point, x: float, y: float, width: float, words: str, end: Point, sign: str = "+") -> None:
        """A wire off a stream at `start`, through F in a box around x, y, to where it is added to a stream: `end`."""
        radius = math.copysign(0.045, end[1] - y)
        self.axes.add_patch(Circle(start, 0.02, facecolor=INK, edgecolor="none"))
        self.wire(start, (start[0], y), (x - width / 2, y), arrow=True)
        self.box(x, y, width, 0.22 if words else 0.34, words, ORANGE, size=9 if "_" in words else 7)
        self.wire((x + width / 2, y), (end[0], y), (end[0], end[1] - radius), arrow=True)
        self.axes.add_patch(Circle(end, abs(radius), facecolor="none", edgecolor=INK, linewidth=0.8))
        if sign == "+":  # whose other stroke is the stream itself
            self.wire((end[0], end[1] - radius), (end[0], end[1] + radius))


def _draw_name(name: str, num_classes: int | None) -> Figure:
    sheet = _Sheet(0.6 * PAGE, 0.6)
    sheet.wire((0.1, 0.3), (0.4, 0.3), arrow=True)
    sheet.box(1.7, 0.3, 2.6, 0.4, name, size=8)
    sheet.wire((3.0, 0.3), (3.3, 0.3), arrow=True)
    sheet.text(3.35, 0.3, f"{num_classes:,} classes" if num_classes else "classes", ha="left")
    return sheet.figure


def _draw(config: Config) -> Figure:
    height = 3.9 if isinstance(config, IRevNetConfig) else 2.6
    sheet = _Sheet(max(PAGE, 3.05 + 0.96 * len(config.blocks)), height)
    _draw_chain(sheet, config)
    size = _product(("channels", "height", "width"))
    inner = "inner width: channels between them."
    match config:
        case IRevNetConfig():
            _draw_block(sheet, config.kernel_sizes)
            dropout = f", dropout {config.dropout:g} after the second" if config.dropout else ""
            notes = [
                f"Sizes are {size}, between split and merge those of one stream. "
                r"$\mathcal{S}$ is the identity in all blocks but those named.",
                rf"$\mathcal{{F}}$: convolutions, BN and ReLU before each but the network's first{dropout}; {inner}",
                r"Where $\mathcal{S}$ squeezes, the first convolution of $\mathcal{F}$ has its stride.",
            ]
        case RevNetConfig():
            equations = r"$y = P x + F \tilde{x}$,   $\tilde{y} = \tilde{P} \tilde{x} + G y$"
            sheet.text(0.1, 0.6, equations, 9, ha="left")
            notes = [
                f"Sizes are {size}, between stem and merge those of one stream.",
                f"$F$, $G$: convolutions of {_kernels(1, 3, 1)}, BN and ReLU before each but the network's first; "
                f"{inner}",
                rf"$P$, $\tilde{{P}}$: convolutions of {_kernels(1)} in blocks that change the size, else the identity,"
                r" and the block is inverted by $\tilde{x} = \tilde{y} - G y$, $x = y - F \tilde{x}$.",
            ]
        case ResNetConfig():
            sheet.text(0.1, 0.6, r"$x_{j+1} = \mathrm{ReLU}(P x_j + F x_j)$", 9, ha="left")
            kernels = _kernels(1, 3, 1) if config.block == "bottleneck" else _kernels(3, 3)
            notes = [
                f"Sizes are {size}.",
                f"$F$: convolutions of {kernels}, BN after each and ReLU between them; {inner}",
                f"$P$: a convolution of {_kernels(1)} and BN in blocks that change the size, else the identity.",
            ]
    for row, words in enumerate(notes):
        sheet.text(0.1, 0.38 - 0.14 * row, words, 6.5, ha="left")
    return sheet.figure


def _draw_chain(sheet: _Sheet, config: Config) -> None:
    """From the image to the classes."""
    y, height, end = sheet.height - 0.98, 0.92, sheet.width
    invertible = isinstance(config, IRevNetConfig)
    colour = BLUE if invertible else GREY
    streams = (y + 0.14,) if isinstance(config, ResNetConfig) else (y + 0.28, y - 0.28)
    column = (end - (3.05 if len(streams) == 2 else 2.4)) / len(config.blocks)
    width = min(column - 0.11, 1.1)

    def label(x: float, *rows: str) -> None:
        for row, words in enumerate(rows):
            sheet.text(x, y - 0.58 - 0.13 * row, words, weight="normal" if row else "bold")

    for shift in (-0.05, 0, 0.05) if config.input_shape[0] > 1 else (0,):
        sheet.box(0.42 + shift, y + shift, 0.42, 0.42, "")
    label(0.42, "image", _product(config.input_shape))
    sheet.wire((0.7, y), (1.08, y), arrow=True)
    words, *rows = _entry(config)
    sheet.box(1.25, y, 0.34, height, words, colour, rotation=90)
    sheet.text(1.25, y + 0.58, r"$\tilde{S}$" if invertible else "", size=9)
    label(1.25, "split" if invertible else "stem", _product(config.stem_shape), *rows)
    right = 1.42
    stages = stages_of(config)
    for k, stage in enumerate(stages):
        middle = 1.68 + column * (k + 0.5)
        left = middle - width / 2
        for stream in streams:
            sheet.wire((right, stream), (left, stream), arrow=True)
        right = left + width
        sheet.box(middle, y, width, height, "")
        if stage.stride > 1:
            words = f"squeeze by {stage.stride}" if invertible else f"stride {stage.stride}"
            sheet.box(left + 0.095, y, 0.19, height, words, colour, rotation=90)
            sheet.text(left + 0.095, y + 0.58, rf"$\mathcal{{S}}_{{{stage.first}}}$" if invertible else "", size=9)
            left += 0.19
        match config:
            case IRevNetConfig():
                _wire_block(sheet, left, right, y, 0.28, 0.17, r"$\mathcal{F}$")
            case RevNetConfig():
                _wire_revnet_block(sheet, left, right, y)
            case ResNetConfig():
                sheet.stream(left, right, streams[0])
                x = (left + right) / 2
                sheet.detour((x - 0.2, streams[0]), x, y - 0.14, 0.2, "$F$", (x + 0.2, streams[0]))
        blocks = f"{stage.blocks} block{'s' * (stage.blocks > 1)}"
        label(middle, blocks, _product(stage.shape), f"inner width {stage.inner}")
    channels, *size = stages[-1].shape
    phi, out = (channels * len(streams), *size), streams[0]
    if len(streams) == 2:
        for stream in streams:
            sheet.wire((right, stream), (end - 1.1, stream), arrow=True)
        sheet.box(end - 1.0, y, 0.2, height, "merge", rotation=90)
        label(end - 1.0, "merge", _product(phi))
        right, out = end - 0.9, y
    sheet.wire((right, out), (end - 0.62, out), arrow=True)
    head = ["mean", "linear"] if isinstance(config, ResNetConfig) else ["BN", "ReLU", "mean", "linear"]
    sheet.box(end - 0.39, y, 0.46, height, "\n".join(head), linespacing=1.5)
    label(end - 0.39, "classes", f"{config.num_classes:,}")
    kind = "not invertible by construction"
    if isinstance(config, IRevNetConfig):
        kind = "bijective" if config.bijective else "injective"
    sheet.wire((1.08, y + 0.72), (1.08, y + 0.77), (right, y + 0.77), (right, y + 0.72))
    numbers = f"{math.prod(config.input_shape):,} numbers in, {math.prod(phi):,} out"
    sheet.text((1.08 + right) / 2, y + 0.87, f"{kind}: {numbers}", size=8)


def _entry(config: Config) -> list[str]:
    """What is done to the image before the first stage, and what is to be said of it below its size."""
    if not isinstance(config, IRevNetConfig):
        whole = isinstance(config, ResNetConfig) and config.stem == "cifar"
        return [_kernels(3) if whole else f"{_kernels(7)} by 2\npool by 2"]
    squeezed = config.input_shape[0] * config.initial_squeeze**2
    words = [f"squeeze by {config.initial_squeeze}"] if config.initial_squeeze > 1 else []
    if config.bijective:
        return ["\n".join(words)]
    return ["\n".join([*words, "pad zeros"]), f"{squeezed} + {2 * config.initial_stream_channels - squeezed} zeros"]


def _wire_block(
    sheet: _Sheet, left: float, right: float, y: float, half: float, width: float, f: str, squeeze: str = ""
) -> None:
    """(x, x~) to (S x~, S x + F x~), F in a box of that width."""
    cross = right - 0.2
    x = cross - 0.17 - width / 2
    for start, end in ((y + half, y - half), (y - half, y + half)):
        sheet.stream(left, cross, start, x, squeeze)
        sheet.wire((cross, start), (right, end))
    sheet.detour((x - width / 2 - 0.08, y - half), x, y, width, f, (cross - 0.09, y + half))


def _wire_revnet_block(sheet: _Sheet, left: float, right: float, y: float) -> None:
    """(x, x~) to y = P x + F x~ and y~ = P~ x~ + G y."""
    x = (left + right) / 2 - 0.15
    for start, end, name in ((y - 0.28, y + 0.28, "$F$"), (y + 0.28, y - 0.28, "$G$")):
        sheet.stream(left, right, start)
        sheet.detour((x - 0.12, start), x, y, 0.12, name, (x + 0.11, end))
        x += 0.3


def _draw_block(sheet: _Sheet, kernels: Sequence[int]) -> None:
    """One block of an i-RevNet, its inverse and a squeeze."""
    y, half = 1.28, 0.38
    top, bottom = y + half, y - half
    for x, words in ((0.1, "one block"), (2.96, "its inverse"), (5.58, "a squeeze by 2")):
        sheet.text(x, 1.9, words, ha="left", weight="bold")
    x0, tilde0, x1, tilde1 = "x_j", r"\tilde{x}_j", "x_{j+1}", r"\tilde{x}_{j+1}"
    f, s, s_inverse = r"\mathcal{F}_{j+1}", r"\mathcal{S}_{j+1}", r"\mathcal{S}_{j+1}^{-1}"
    for x, side, names in (
        (0.3, "right", (x0, tilde0)),
        (2.5, "left", (x1, tilde1)),
        (3.2, "right", (x1, tilde1)),
        (5.26, "left", (x0, tilde0)),
    ):
        for stream, name in zip((top, bottom), names):
            sheet.text(x, stream, f"${name}$", 9, ha=side)
    _wire_block(sheet, 0.34, 2.46, y, half, 1.5, "", f"${s}$")
    sheet.text(0.79, y, f"${f}$", 9)
    for i, kernel in enumerate(kernels):
        sheet.box(1.16 + 0.36 * i, y, 0.28, 0.2, _kernels(kernel).replace(" ", ""), ORANGE)
        if i > 0:
            sheet.wire((0.94 + 0.36 * i, y), (1.02 + 0.36 * i, y))
    sheet.text(1.4, 0.64, f"${x1} = {s} {tilde0}$,   ${tilde1} = {s} {x0} + {f} {tilde0}$", 9)

    for start, end in ((top, bottom), (bottom, top)):
        sheet.wire((3.24, start), (3.44, end))
    sheet.stream(3.44, 5.22, bottom, 3.76, f"${s_inverse}$")
    sheet.stream(3.44, 5.22, top, 4.9, f"${s_inverse}$")
    sheet.detour((4.06, bottom), 4.32, y, 0.36, f"${f}$", (4.58, top), "-")
    sheet.text(4.23, 0.64, f"${tilde0} = {s_inverse} {x1}$,   ${x0} = {s_inverse} ({tilde1} - {f} {tilde0})$", 9)

    for i in range(16):  # pixels of four kinds, by their place in a patch, become four channels
        row, column = divmod(i, 4)
        kind = 2 * (row % 2) + column % 2
        pixel = (5.6 + 0.13 * column, y + 0.13 - 0.13 * row)
        channel = (6.32 + 0.08 * kind + 0.13 * (column // 2), y + 0.12 - 0.08 * kind - 0.13 * (row // 2))
        for corner in (pixel, channel):
            colour = (BLUE, ORANGE, GREEN, GREY)[kind]
            sheet.axes.add_patch(Rectangle(corner, 0.13, 0.13, fc=colour, ec=INK, linewidth=0.5, zorder=2 - kind / 9))
    sheet.wire((6.15, y), (6.29, y), arrow=True)
    sheet.text(6.21, bottom - 0.02, f"{_product('chw')} to {_product(('4c', 'h/2', 'w/2'))}", 6.5)


def _product(factors: Sequence[int | str]) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(map(str, factors))


def _kernels(*sizes: int) -> str:
    return ", ".join(_product((size, size)) for size in sizes)
