"""Several unlearned models of one base in pictures: the trade-off plot, and a sheet of prompts times models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..metrics.evaluation import Evaluation
from ..metrics.figure import Figure, figure_named
from ..metrics.plan import BASE, Draw, PromptSeed, drawn
from .lettering import FAINT, FORGET, INK, PAPER, RETAIN, drawn_size, shortened, to_image, write
from .sheet import CAPTION, GAP, GUTTER, LABELS, MARGIN, range_over

PLOT_INCHES, PLOT_DPI = (6.4, 4.8), 130
GRID_PROMPTS = 6  # of each kind
WIDE = 0.9  # of a sheet's height, its width at least
UPWARDS = ("ua", "forget distance", "frechet alexnet")  # the first of these figures that all models have


def tradeoff_plot(evaluations: Sequence[Evaluation]) -> Tensor:
    """Integrity loss against what was forgotten, one point per model: a picture [1, H, W, 3] in 0..1.

    Upwards is UA where a judge looked, else the forget distance, else the Fréchet distance. The bar is the
    95 % interval of the integrity loss.
    """
    import matplotlib.figure
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(matplotlib.figure.Figure(PLOT_INCHES, PLOT_DPI, layout="constrained"))
    axes = canvas.figure.add_subplot()
    integrity, forgotten = figure_named("integrity"), _upwards(evaluations)
    for evaluation in evaluations:
        retention, height = evaluation.retention, forgotten.of(evaluation.measured)
        low, high = retention.interval or (retention.integrity, retention.integrity)
        bar = [[max(0.0, retention.integrity - low)], [high - retention.integrity]]
        [line, *_] = axes.errorbar([retention.integrity], [height], xerr=bar, fmt="o", markersize=9, capsize=4)
        axes.annotate(
            evaluation.name,
            (retention.integrity, height),
            xytext=(0, 10),
            textcoords="offset points",
            ha="center",
            fontsize=13,
            color=line.get_color(),
        )
    axes.set_xlabel(integrity.label, fontsize=13)
    axes.set_ylabel(forgotten.axis, fontsize=13)
    axes.tick_params(labelsize=12)
    axes.margins(0.18)
    if forgotten.key == "ua":
        axes.set_ylim(-0.05, 1.15)  # room for a name above 1
    axes.set_xlim(left=-0.1 * axes.get_xlim()[1])  # room for a name beside the axis
    axes.grid(alpha=0.3)
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy())[None].float() / 255


def comparison_sheet(base: Draw, unlearned: Mapping[str, Draw], evaluations: Sequence[Evaluation]) -> Tensor:
    """Prompts down, base and models across, LPIPS under each picture: [1, H, W, 3] in 0..1.

    Some of the prompts, forget prompts first, each with its first seed; in blocks side by side, so that a sheet of few
    models is as wide as high.
    """
    kept = [_Line(row.prompt, row.seeds[0], False) for row in evaluations[0].retention.retain]
    lost = [_Line(row.prompt, row.seeds[0], True) for row in evaluations[0].retention.forget]
    lines = [rows[index] for rows in (lost, kept) for index in range_over(len(rows), GRID_PROMPTS)]
    prompt_seeds: list[PromptSeed] = [(line.prompt, line.seed) for line in lines]
    columns = {BASE: drawn(base, prompt_seeds, BASE)}
    columns |= {entry.name: drawn(unlearned[entry.name], prompt_seeds, entry.name) for entry in evaluations}
    captions = {entry.name: _first_distances(entry) for entry in evaluations}
    return _Grid(lines, columns, captions).draw()


@dataclass(frozen=True)
class _Line:
    prompt: str
    seed: int
    forget: bool


class _Grid:
    """The sheet's layout, and the pen that draws it."""

    def __init__(
        self, lines: Sequence[_Line], columns: Mapping[str, Tensor], captions: Mapping[str, Mapping[str, float]]
    ) -> None:
        """`columns`: a model's pictures, one for each line; `captions`: its LPIPS by prompt."""
        self.lines, self.columns, self.captions = lines, columns, captions
        self.cell = drawn_size(next(iter(columns.values()))[0])
        self.line_height = self.cell[1] + CAPTION
        self.block = len(columns) * (self.cell[0] + GAP) - GAP + GUTTER
        blocks = next(
            count for count in range(1, len(lines) + 1) if self._size(count)[0] >= WIDE * self._size(count)[1]
        )
        self.rows = -(-len(lines) // blocks)
        self.image = Image.new("RGB", self._size(blocks), PAPER)
        self.pen = ImageDraw.Draw(self.image)

    def _size(self, blocks: int) -> tuple[int, int]:
        """Width and height of so many blocks, which have a line each at least."""
        rows = -(-len(self.lines) // blocks)
        return 2 * MARGIN + blocks * self.block - GUTTER, 2 * MARGIN + LABELS + rows * self.line_height

    def draw(self) -> Tensor:
        for column, (name, pictures) in enumerate(self.columns.items()):
            for place, (line, picture) in enumerate(zip(self.lines, pictures, strict=True)):
                block, row = divmod(place, self.rows)
                left = MARGIN + block * self.block + column * (self.cell[0] + GAP)
                if row == 0:
                    write(self.pen, (left, MARGIN), shortened(self.pen, name, 16, self.cell[0]), 16, INK)
                top = MARGIN + LABELS + row * self.line_height
                self.image.paste(to_image(picture).resize(self.cell, Image.Resampling.LANCZOS), (left, top))
                self._caption(line, name, left, top + self.cell[1] + 15)
        return torch.from_numpy(np.asarray(self.image).copy())[None].float() / 255

    def _caption(self, line: _Line, name: str, left: int, middle: int) -> None:
        if name in self.captions:
            text, size, colour = f"LPIPS {self.captions[name][line.prompt]:.3f}", 16, FORGET if line.forget else RETAIN
        else:
            text, size, colour = line.prompt, 14, FAINT
        write(self.pen, (left, middle), shortened(self.pen, text, size, self.cell[0]), size, colour)


def _upwards(evaluations: Sequence[Evaluation]) -> Figure:
    """The figure of the upward axis."""
    candidates = map(figure_named, UPWARDS)
    return next(
        figure for figure in candidates if all(figure.of(evaluation.measured) is not None for evaluation in evaluations)
    )


def _first_distances(evaluation: Evaluation) -> dict[str, float]:
    """LPIPS of each prompt's first seed."""
    return {row.prompt: row.lpips[0] for row in (*evaluation.retention.retain, *evaluation.retention.forget)}
