"""Colours, letters and picture sizes that the sheets share."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import cache
from typing import Any

from PIL import Image, ImageFont
from PIL.ImageDraw import ImageDraw
from torch import Tensor

SMALLEST, LARGEST = 192, 384  # pixels of a drawn picture's longer side
PAPER, INK, FAINT, LINE = (250, 249, 246), (38, 36, 33), (122, 117, 109), (224, 221, 214)
FORGET, RETAIN = (178, 64, 44), (38, 110, 92)


def write(
    pen: ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    colour: tuple[int, int, int],
    anchor: str = "lm",
) -> None:
    """Text of `size` pixels, its middle line at `place` (Pillow's anchors)."""
    pen.text(place, _spaced(text), fill=colour, font=_font(size), anchor=anchor)


def length(pen: ImageDraw, text: str, size: int) -> float:
    """The text's width in pixels."""
    return pen.textlength(_spaced(text), font=_font(size))


def shortened(pen: ImageDraw, text: str, size: int, room: float) -> str:
    """The text, cut so that it takes no more than `room` pixels."""
    return _fitting(pen, text, lambda kept: f"{text[:kept].rstrip()}...", size, room)


def wrapped(pen: ImageDraw, text: str, size: int, room: float) -> list[str]:
    """The text in lines of no more than `room` pixels, but for a word that is longer."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        fits = lines and length(pen, longer, size) <= room
        lines[-1:] = [longer] if fits or not lines else [lines[-1], word]
    return lines


def squeezed(pen: ImageDraw, text: str, size: int, room: float) -> str:
    """The text, without its middle so that it takes no more than `room` pixels."""
    return _fitting(pen, text, lambda kept: f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}", size, room)


def _fitting(pen: ImageDraw, text: str, cut: Callable[[int], str], size: int, room: float) -> str:
    """The text, or with as many letters kept by `cut` as there is room for."""
    if length(pen, text, size) <= room:
        return text
    return cut(bisect_right(range(1, len(text)), room, key=lambda kept: length(pen, cut(kept), size)))


def drawn_size(picture: Tensor) -> tuple[int, int]:
    """Width and height that a picture [H, W, 3] is drawn at."""
    height, width = picture.shape[:2]
    scale = min(max(max(height, width), SMALLEST), LARGEST) / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def to_image(picture: Tensor) -> Image.Image:
    """[H, W, 3] in 0..1 as Pillow's picture."""
    return Image.fromarray((picture.float().cpu().clamp(0, 1) * 255).round().byte().numpy())


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _spaced(text: str) -> str:
    """Pillow's own font has a space so narrow that words run together."""
    return text.replace(" ", "  ")
