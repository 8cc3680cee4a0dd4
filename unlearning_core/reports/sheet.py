"""The picture sheet: base, unlearned and LPIPS heat map side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..metrics.lpips import Lpips
from ..metrics.plan import BASE, UNLEARNED, Draw, drawn
from ..metrics.retention import Retention, distances_of
from .lettering import FAINT, FORGET, INK, LINE, PAPER, RETAIN, drawn_size, length, shortened, to_image, wrapped, write
from .tables import retention_sentences

HEAT_RANGE = 0.8  # LPIPS at the top of the colour map, the same on every sheet, so that sheets can be compared
INFERNO = (  # nine even stops of matplotlib's perceptually uniform colour map (Smith and van der Walt, CC0)
    (0, 0, 4),
    (31, 12, 72),
    (85, 15, 109),
    (136, 34, 106),
    (186, 54, 85),
    (227, 89, 51),
    (249, 140, 10),
    (249, 201, 50),
    (252, 255, 164),
)

SHEET_ROWS = 6  # of each kind
SIDE_BY_SIDE = 4  # rows; more are drawn in two columns
MARGIN, GUTTER, GAP = 28, 36, 6
TITLE, HEADING, LABELS, CAPTION = 56, 62, 24, 46  # heights
SENTENCE, SENTENCE_LINE = 18, 28  # heights of its letters, and of a line of them
LEGEND = (132, 12)


@dataclass(frozen=True)
class SheetRow:
    """One prompt and seed. Pictures are [H, W, 3] in 0..1, `heat_map` is [H, W] as `Lpips.heat_map` gives it."""

    prompt: str
    seed: int
    base: Tensor
    unlearned: Tensor
    heat_map: Tensor
    distance: float
    forget: bool


def picture_sheet(rows: Sequence[SheetRow], sentences: Sequence[str] = ()) -> Tensor:
    """All rows on one picture [1, H, W, 3] in 0..1, forget prompts first, below sentences that begin a line each.

    Raises ValueError when there is no row.
    """
    if not rows:
        raise ValueError("a picture sheet needs at least one prompt and seed, got none")
    return _Sheet(rows, sentences).draw()


def colour_heat(heat_map: Tensor) -> Tensor:
    """LPIPS values [H, W] -> colours [H, W, 3] in 0..1, from black at 0 to pale yellow at HEAT_RANGE and above."""
    stops = torch.tensor(INFERNO, dtype=torch.float32) / 255
    place = (heat_map.float().cpu() / HEAT_RANGE).clamp(0, 1) * (len(stops) - 1)
    lower = place.long().clamp(max=len(stops) - 2)
    return torch.lerp(stops[lower], stops[lower + 1], (place - lower)[..., None])


def retention_sheet(base: Draw, unlearned: Draw, lpips: Lpips, retention: Retention) -> Tensor:
    """Some retain pictures, from the least to the furthest moved, and some forget pictures: [1, H, W, 3] in 0..1."""
    kept, lost = distances_of(retention.retain), distances_of(retention.forget)
    some = [kept[index] for index in evenly_by_rank([distance for _, distance in kept], SHEET_ROWS)]
    forgotten = [lost[index] for index in range_over(len(lost), SHEET_ROWS)]
    prompt_seeds = [picture for picture, _ in some + forgotten]
    before, after = drawn(base, prompt_seeds, BASE), drawn(unlearned, prompt_seeds, UNLEARNED)
    kinds = [False] * len(some) + [True] * len(forgotten)
    rows = zip(some + forgotten, before, after, lpips.heat_map(before, after), kinds, strict=True)
    return picture_sheet(
        [SheetRow(prompt, seed, a, b, heat, value, forget) for ((prompt, seed), value), a, b, heat, forget in rows],
        retention_sentences(retention),
    )


def evenly_by_rank(values: Sequence[float], count: int) -> list[int]:
    """`count` indices from the least to the greatest value, evenly by rank."""
    order = sorted(range(len(values)), key=values.__getitem__)
    return [order[index] for index in range_over(len(order), count)]


def range_over(length: int, count: int) -> list[int]:
    """At most `count` evenly spaced indices of 0..length - 1."""
    if length <= count:
        return list(range(length))
    return [round(index * (length - 1) / (count - 1)) for index in range(count)]


class _Sheet:
    """The layout, worked out once from the rows, and the pen that draws it."""

    def __init__(self, rows: Sequence[SheetRow], sentences: Sequence[str]) -> None:
        self.sections = [section for kind in (True, False) if (section := [row for row in rows if row.forget is kind])]
        sizes = [drawn_size(row.base) for row in rows]
        self.cell = (max(width for width, _ in sizes), max(height for _, height in sizes))
        self.columns = 2 if len(rows) > SIDE_BY_SIDE else 1
        self.block = 3 * self.cell[0] + 2 * GAP
        self.width = 2 * MARGIN + self.columns * self.block + (self.columns - 1) * GUTTER
        pen, room = ImageDraw.Draw(Image.new("RGB", (1, 1))), self.width - 2 * MARGIN
        self.lines = [line for sentence in sentences for line in wrapped(pen, sentence, SENTENCE, room)]
        self.top = TITLE + len(self.lines) * SENTENCE_LINE
        heights = [HEADING + LABELS + self._lines(section) * self._line_height for section in self.sections]
        self.image = Image.new("RGB", (self.width, self.top + sum(heights) + MARGIN), PAPER)
        self.pen = ImageDraw.Draw(self.image)

    def draw(self) -> Tensor:
        self._title()
        for index, line in enumerate(self.lines):
            write(self.pen, (MARGIN, TITLE + index * SENTENCE_LINE + SENTENCE_LINE // 2), line, SENTENCE, INK)
        top = self.top
        for section in self.sections:
            top = self._section(section, top)
        return torch.from_numpy(np.asarray(self.image).copy())[None].float() / 255

    @property
    def _line_height(self) -> int:
        return self.cell[1] + CAPTION

    def _lines(self, section: Sequence[SheetRow]) -> int:
        return math.ceil(len(section) / self.columns)

    def _title(self) -> None:
        middle = TITLE // 2 + 6
        write(self.pen, (MARGIN, middle), "Same prompt, same seed", 22, INK)
        width, height = LEGEND
        right = self.width - MARGIN
        top_value = f"{HEAT_RANGE:g}"
        write(self.pen, (right, middle), top_value, 14, FAINT, anchor="rm")
        left = right - round(length(self.pen, top_value, 14)) - 7 - width
        ramp = colour_heat(torch.linspace(0, HEAT_RANGE, width).expand(height, width))
        self.image.paste(to_image(ramp), (left, middle - height // 2))
        write(self.pen, (left - 7, middle), "LPIPS 0", 14, FAINT, anchor="rm")

    def _section(self, rows: Sequence[SheetRow], top: int) -> int:
        """Draws a section and returns where the next one starts."""
        forget = rows[0].forget
        name, colour = ("Forget", FORGET) if forget else ("Retain", RETAIN)
        aim = "meant to change" if forget else "meant to stay: LPIPS 0 is untouched"
        self.pen.line((MARGIN, top + 8, self.width - MARGIN, top + 8), fill=LINE)
        middle = top + HEADING // 2 + 8
        write(self.pen, (MARGIN, middle), name, 26, colour)
        write(self.pen, (MARGIN + length(self.pen, name, 26) + 14, middle + 3), aim, 16, FAINT)
        for index, row in enumerate(rows):
            line, column = divmod(index, self.columns)
            left = MARGIN + column * (self.block + GUTTER)
            if line == 0:
                self._labels(left, top + HEADING)
            self._row(row, left, top + HEADING + LABELS + line * self._line_height, colour)
        return top + HEADING + LABELS + self._lines(rows) * self._line_height

    def _labels(self, left: int, top: int) -> None:
        for index, label in enumerate(("base", "unlearned", "LPIPS, where they differ")):
            write(self.pen, (left + index * (self.cell[0] + GAP), top + LABELS // 2 - 3), label, 14, FAINT)

    def _row(self, row: SheetRow, left: int, top: int, colour: tuple[int, int, int]) -> None:
        size = drawn_size(row.base)
        for index, picture in enumerate((row.base, row.unlearned, colour_heat(row.heat_map))):
            image = to_image(picture).resize(size, Image.Resampling.LANCZOS)
            self.image.paste(image, (left + index * (self.cell[0] + GAP), top))
        middle = top + self.cell[1] + 15
        distance = f"LPIPS {row.distance:.3f}"
        write(self.pen, (left + self.block, middle), distance, 16, colour, anchor="rm")
        seed = f"  seed {row.seed}"
        room = self.block - length(self.pen, distance, 16) - length(self.pen, seed, 14) - 16
        prompt = shortened(self.pen, " ".join(row.prompt.split()) or "(empty prompt)", 16, room)
        write(self.pen, (left, middle), prompt, 16, INK)
        write(self.pen, (left + length(self.pen, prompt, 16), middle), seed, 14, FAINT)
