"""The picture sheet: base, unlearned and LPIPS heat map side by side, for every prompt and seed."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

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

SMALLEST, LARGEST = 192, 384  # pixels of a drawn picture's longer side
SIDE_BY_SIDE = 4  # rows; more are drawn in two columns
MARGIN, GUTTER, GAP = 28, 36, 6
TITLE, HEADING, LABELS, CAPTION = 56, 62, 24, 46  # heights
LEGEND = (132, 12)

PAPER, INK, FAINT, LINE = (250, 249, 246), (38, 36, 33), (122, 117, 109), (224, 221, 214)
FORGET, RETAIN = (178, 64, 44), (38, 110, 92)


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


def picture_sheet(rows: Sequence[SheetRow]) -> Tensor:
    """All rows on one picture [1, H, W, 3] in 0..1, forget prompts first. Raises ValueError when there is no row."""
    if not rows:
        raise ValueError("a picture sheet needs at least one prompt and seed, got none")
    return _Sheet(rows).draw()


def colour_heat(heat_map: Tensor) -> Tensor:
    """LPIPS values [H, W] -> colours [H, W, 3] in 0..1, from black at 0 to pale yellow at HEAT_RANGE and above."""
    stops = torch.tensor(INFERNO, dtype=torch.float32) / 255
    place = (heat_map.float().cpu() / HEAT_RANGE).clamp(0, 1) * (len(stops) - 1)
    lower = place.long().clamp(max=len(stops) - 2)
    return torch.lerp(stops[lower], stops[lower + 1], (place - lower)[..., None])


class _Sheet:
    """The layout, worked out once from the rows, and the hand that draws it."""

    def __init__(self, rows: Sequence[SheetRow]) -> None:
        self.sections = [section for kind in (True, False) if (section := [row for row in rows if row.forget is kind])]
        sizes = [drawn_size(row.base) for row in rows]
        self.cell = (max(width for width, _ in sizes), max(height for _, height in sizes))
        self.columns = 2 if len(rows) > SIDE_BY_SIDE else 1
        self.block = 3 * self.cell[0] + 2 * GAP
        self.width = 2 * MARGIN + self.columns * self.block + (self.columns - 1) * GUTTER
        heights = [HEADING + LABELS + self._lines(section) * self._line_height for section in self.sections]
        self.image = Image.new("RGB", (self.width, TITLE + sum(heights) + MARGIN), PAPER)
        self.pen = ImageDraw.Draw(self.image)

    def draw(self) -> Tensor:
        self._title()
        top = TITLE
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
        self._text((MARGIN, middle), "Same prompt, same seed", 22, INK)
        width, height = LEGEND
        right = self.width - MARGIN
        top_value = f"{HEAT_RANGE:g}"
        self._text((right, middle), top_value, 14, FAINT, anchor="rm")
        left = right - round(self._length(top_value, 14)) - 7 - width
        ramp = colour_heat(torch.linspace(0, HEAT_RANGE, width).expand(height, width))
        self.image.paste(to_image(ramp), (left, middle - height // 2))
        self._text((left - 7, middle), "LPIPS 0", 14, FAINT, anchor="rm")

    def _section(self, rows: Sequence[SheetRow], top: int) -> int:
        """Draws a section and tells where the next one starts."""
        forget = rows[0].forget
        name, colour = ("Forget", FORGET) if forget else ("Retain", RETAIN)
        aim = "meant to change" if forget else "meant to stay: LPIPS 0 is untouched"
        self.pen.line((MARGIN, top + 8, self.width - MARGIN, top + 8), fill=LINE)
        middle = top + HEADING // 2 + 8
        self._text((MARGIN, middle), name, 26, colour)
        self._text((MARGIN + self._length(name, 26) + 14, middle + 3), aim, 16, FAINT)
        for index, row in enumerate(rows):
            line, column = divmod(index, self.columns)
            left = MARGIN + column * (self.block + GUTTER)
            if line == 0:
                self._labels(left, top + HEADING)
            self._row(row, left, top + HEADING + LABELS + line * self._line_height, colour)
        return top + HEADING + LABELS + self._lines(rows) * self._line_height

    def _labels(self, left: int, top: int) -> None:
        for index, label in enumerate(("base", "unlearned", "LPIPS, where they differ")):
            self._text((left + index * (self.cell[0] + GAP), top + LABELS // 2 - 3), label, 14, FAINT)

    def _row(self, row: SheetRow, left: int, top: int, colour: tuple[int, int, int]) -> None:
        size = drawn_size(row.base)
        for index, picture in enumerate((row.base, row.unlearned, colour_heat(row.heat_map))):
            image = to_image(picture).resize(size, Image.Resampling.LANCZOS)
            self.image.paste(image, (left + index * (self.cell[0] + GAP), top))
        middle = top + self.cell[1] + 15
        distance = f"LPIPS {row.distance:.3f}"
        self._text((left + self.block, middle), distance, 16, colour, anchor="rm")
        seed = f"  seed {row.seed}"
        room = self.block - self._length(distance, 16) - self._length(seed, 14) - 16
        prompt = self._shortened(" ".join(row.prompt.split()) or "(empty prompt)", 16, room)
        self._text((left, middle), prompt, 16, INK)
        self._text((left + self._length(prompt, 16), middle), seed, 14, FAINT)

    def _text(
        self, place: tuple[float, float], text: str, size: int, colour: tuple[int, int, int], anchor: str = "lm"
    ) -> None:
        self.pen.text(place, spaced(text), fill=colour, font=font(size), anchor=anchor)

    def _length(self, text: str, size: int) -> float:
        return self.pen.textlength(spaced(text), font=font(size))

    def _shortened(self, text: str, size: int, room: float) -> str:
        if self._length(text, size) <= room:
            return text
        fits = bisect_right(range(1, len(text)), room, key=lambda end: self._length(f"{text[:end]}...", size))
        return f"{text[:fits].rstrip()}..."


@cache
def font(size: int) -> Any:
    return ImageFont.load_default(size)


def spaced(text: str) -> str:
    """Pillow's own font has a space so narrow that words run together."""
    return text.replace(" ", "  ")


def drawn_size(picture: Tensor) -> tuple[int, int]:
    """Width and height that a picture [H, W, 3] is drawn at."""
    height, width = picture.shape[:2]
    scale = min(max(max(height, width), SMALLEST), LARGEST) / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def to_image(picture: Tensor) -> Image.Image:
    return Image.fromarray((picture.float().cpu().clamp(0, 1) * 255).round().byte().numpy())
