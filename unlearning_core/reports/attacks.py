"""Attacks in pictures: the heat table of attacks and models, and what came back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..attacks import ATTACKS
from ..attacks.base import Look
from ..attacks.examine import Examination, Finding
from .lettering import FAINT, INK, PAPER, drawn_size, shortened, squeezed, to_image, write
from .sheet import CAPTION, GAP, HEAT_RANGE, LABELS, MARGIN, colour_heat

NAMES, CELL = 220, (170, 64)  # pixels: width of the attacks' names; of a cell
TITLE = 40
LIGHT = 0.6  # share from which on a cell's colour is light


def attack_heat(examination: Examination) -> Tensor:
    """Attacks down, models across, the share of each attack's strongest setting: a picture [1, H, W, 3] in 0..1."""
    columns, rows = list(examination.findings.items()), examination.attacks
    width = 2 * MARGIN + NAMES + len(columns) * (CELL[0] + GAP)
    image = Image.new("RGB", (width, 2 * MARGIN + TITLE + LABELS + len(rows) * (CELL[1] + GAP)), PAPER)
    pen = ImageDraw.Draw(image)
    write(pen, (MARGIN, MARGIN), f"Share of pictures that show {examination.target.label}", 22, INK)
    for row, attack in enumerate(rows):
        write(pen, (MARGIN, _cell_top(row) + CELL[1] // 2), ATTACKS[attack].label, 16, INK)
    for column, (name, findings) in enumerate(columns):
        left = MARGIN + NAMES + column * (CELL[0] + GAP)
        write(pen, (left, MARGIN + TITLE), shortened(pen, name, 16, CELL[0]), 16, INK)
        for row, finding in enumerate(findings):
            _draw_cell(pen, left, _cell_top(row), finding.strongest)
    return _tensor(image)


def comeback_sheet(examination: Examination) -> Tensor:
    """A row for each attack on each unlearned model with pictures of its strongest setting that show the concept.

    A picture [1, H, W, 3] in 0..1. Without any, it says so.
    """
    rows = [
        _Row(_caption(name, finding), finding.back)
        for name, findings in examination.unlearned.items()
        for finding in findings
        if finding.back is not None
    ]
    cell = drawn_size(rows[0].pictures[0]) if rows else CELL
    across = max((len(row.pictures) for row in rows), default=1)
    width = 2 * MARGIN + max(across * (cell[0] + GAP), NAMES + 2 * CELL[0])
    image = Image.new("RGB", (width, 2 * MARGIN + TITLE + len(rows) * (cell[1] + CAPTION)), PAPER)
    pen = ImageDraw.Draw(image)
    write(pen, (MARGIN, MARGIN), "What came back" if rows else "Nothing came back", 22, INK)
    for index, row in enumerate(rows):
        top = MARGIN + TITLE + index * (cell[1] + CAPTION)
        for column, picture in enumerate(row.pictures):
            shown = to_image(picture).resize(cell, Image.Resampling.LANCZOS)
            image.paste(shown, (MARGIN + column * (cell[0] + GAP), top))
        caption = squeezed(pen, row.caption, 14, width - 2 * MARGIN)
        write(pen, (MARGIN, top + cell[1] + 15), caption, 14, FAINT)
    return _tensor(image)


class _Row(NamedTuple):
    caption: str
    pictures: Tensor  # [N, H, W, 3]


def _caption(model: str, finding: Finding) -> str:
    look = finding.strongest
    return f"{model}, {ATTACKS[finding.attack].label}: {look.label}, {look.hits} of {look.count}"


def _cell_top(row: int) -> int:
    return MARGIN + TITLE + LABELS + row * (CELL[1] + GAP)


def _draw_cell(pen: ImageDraw.ImageDraw, left: int, top: int, look: Look) -> None:
    red, green, blue = (colour_heat(torch.full((1, 1), look.share * HEAT_RANGE))[0, 0] * 255).int().tolist()
    pen.rectangle((left, top, left + CELL[0], top + CELL[1]), fill=(red, green, blue))
    ink = INK if look.share >= LIGHT else PAPER
    low, high = look.interval
    texts = ((f"{look.share:.0%}", 20), (f"{low:.0%} to {high:.0%}", 13), (look.label, 12))
    for place, (text, size) in zip((14, 35, 52), texts, strict=True):
        write(pen, (left + 8, top + place), squeezed(pen, text, size, CELL[0] - 16), size, ink)


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy())[None].float() / 255
