"""A workflow's thumbnail: its name, and pictures before and after, or without them its nodes from top to bottom.

The template browser shows it at a third of its size, so the name is large and the nodes say little.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL import Image, ImageChops, ImageFont
from PIL.ImageDraw import Draw, ImageDraw
from workflow_graph import Graph, Node, Value

SIZE, MARGIN, TOP, GAP, PAD = 760, 36, 128, 26, 18  # pixels
NAME, TITLE, LINE, LEAST = 64, 30, 25, 14  # sizes of letters
PITCH = 33  # from line to line
Colour = tuple[int, int, int]
PAPER, BOX, EDGE, INK, FAINT = (250, 249, 246), (255, 255, 255), (208, 204, 195), (38, 36, 33), (122, 117, 109)
FORGET, RETAIN = (178, 64, 44), (38, 110, 92)
LINKS = {
    "MODEL": (151, 117, 205),
    "CLIP": (226, 176, 0),
    "VAE": (230, 90, 90),
    "UNLEARNING_PATCH": (70, 150, 110),
    "UNLEARNING_JUDGE": (90, 140, 190),
    "CONDITIONING": (230, 150, 60),
    "LATENT": (220, 110, 190),
}
LINES: dict[str, dict[str, Colour]] = {  # what is said of a node, by its type; {name}: that widget's first line
    "CheckpointLoaderSimple": {"{ckpt_name}": FAINT},
    "UNETLoader": {"{unet_name}": FAINT},
    "CLIPLoader": {"{clip_name}": FAINT},
    "DualCLIPLoader": {"{clip_name1}, {clip_name2}": FAINT},
    "VAELoader": {"{vae_name}": FAINT},
    "ModelSamplingAuraFlow": {"shift {shift}": FAINT},
    "UnlearnConcept": {
        "{forget_prompts}  becomes  {overwrite_prompt}": FORGET,
        "{method}, {steps} steps, rank {rank}, {width} x {height}": FAINT,
    },
    "RetentionMetric": {
        "{retain_prompts}  stays": RETAIN,
        "{sampler_name}, {scheduler}, {steps} steps, cfg {cfg}, {width} x {height}": FAINT,
    },
    "SaveUnlearningPatch": {"{filename_prefix}": FAINT},
    "LoadTinyT2I": {"comes with the pack, no download": FAINT},
    "LoadPatchedModel": {"{patch_file}, strength {strength}": FORGET},
    "KSampler": {"{sampler_name}, {scheduler}, {steps} steps, cfg {cfg}": FAINT},
    "CompareMethods": {"{retain_prompts}  stays": RETAIN, "{names} ...": FAINT},
    "CLIPJudge": {"{clip_model} model": FAINT},
    "DiffusionClassifierJudge": {},
    "ForgettingMetric": {"UA, IRA, CRA": RETAIN},
    "CLIPScoreFrechet": {"CLIPScore, CMMD": RETAIN},
}
LOADERS = (
    "CheckpointLoaderSimple",
    "UNETLoader",
    "CLIPLoader",
    "DualCLIPLoader",
    "VAELoader",
    "ModelSamplingAuraFlow",
    "LoadTinyT2I",
)
SHOWN, CELLS, HEAD = 152, 160, 96  # of a strip: a picture, one to the next, what is left of them
CELL = 8  # pixels of a square's side
ALIKE = 4  # of 255: another JPEG library changes a square by 1, another digit by 8 or more


@dataclass(frozen=True)
class _Box:
    """A node, or all loaders, as drawn. `links`: the types of what leads into it."""

    title: str
    lines: list[tuple[str, Colour]]
    links: list[str]

    @property
    def height(self) -> int:
        return 2 * PAD + TITLE + len(self.lines) * PITCH


def thumbnail(name: str, graph: Graph) -> bytes:
    """A JPEG file, SIZE x SIZE, of the nodes of the workflow called `name`, without those that are not in LINES."""
    image = _headed(name)
    top = TOP
    for box in _boxes(graph):
        _draw_box(Draw(image), box, top)
        top += box.height + GAP
    return _jpeg(image)


def comparison(name: str, columns: Mapping[str, Sequence[Image.Image]]) -> bytes:
    """A JPEG file, SIZE x SIZE, for the workflow called `name`: each model's pictures in a column under its name."""
    image, rows = _headed(name), len(next(iter(columns.values())))
    wide = (SIZE - 2 * MARGIN - GAP * (len(columns) - 1)) // len(columns)
    side = min(wide, (SIZE - TOP - LINE - MARGIN - GAP * (rows - 1)) // rows)
    left = (SIZE - len(columns) * (side + GAP) + GAP) // 2
    for index, (heading, pictures) in enumerate(columns.items()):
        place = left + index * (side + GAP)
        Draw(image).text((place + side // 2, TOP), heading, fill=INK, font=_font(TITLE), anchor="mm")
        for row, picture in enumerate(pictures):
            image.paste(picture.resize((side, side)), (place, TOP + LINE + row * (side + GAP)))
    return _jpeg(image)


def strip(prompts: Sequence[str], rows: Mapping[str, Sequence[Image.Image]]) -> bytes:
    """A JPEG file: each model's pictures in a row behind its name, under their prompts."""
    image = Image.new("RGB", (HEAD + len(prompts) * CELLS, HEAD // 2 + len(rows) * CELLS), PAPER)
    pen = Draw(image)
    for column, prompt in enumerate(prompts):
        middle = (HEAD + column * CELLS + SHOWN // 2, HEAD // 4)
        pen.text(middle, prompt.replace(" in ", "\nin "), fill=FAINT, font=_font(LEAST), anchor="mm", align="center")
    for row, (name, pictures) in enumerate(rows.items()):
        top = HEAD // 2 + row * CELLS
        pen.text((HEAD // 2, top + SHOWN // 2), name, fill=INK, font=_font(LINE), anchor="mm")
        for column, picture in enumerate(pictures):
            image.paste(picture.resize((SHOWN, SHOWN)), (HEAD + column * CELLS, top))
    return _jpeg(image)


def _headed(name: str) -> Image.Image:
    """An empty page with its name."""
    image = Image.new("RGB", (SIZE, SIZE), PAPER)
    _write(Draw(image), (MARGIN, 68), name, NAME, INK)
    return image


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, optimize=True)
    return file.getvalue()


def _boxes(graph: Graph) -> list[_Box]:
    told = [node for node in graph.nodes if node.type in LINES]
    start = next(index for index, node in enumerate(told) if node.type not in LOADERS)
    loaders, others = told[:start], told[start:]
    title = ", ".join(node.title for node in loaders if not node.sockets)
    loading = _Box(title, [line for node in loaders for line in _lines(node)], [])
    return [loading, *(_Box(node.title, _lines(node), _links(node)) for node in others)]


def _lines(node: Node) -> list[tuple[str, Colour]]:
    values = {widget.name: _shown(widget.value) for widget in node.widgets}
    return [(line.format_map(values).removesuffix("  becomes  "), colour) for line, colour in LINES[node.type].items()]


def _shown(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).partition("\n")[0]


def _links(node: Node) -> list[str]:
    return [socket.type for socket in node.sockets if socket.source is not None]


def _draw_box(pen: ImageDraw, box: _Box, top: int) -> None:
    right = SIZE - MARGIN
    pen.rounded_rectangle((MARGIN, top, right, top + box.height), 10, fill=BOX, outline=EDGE, width=2)
    _write(pen, (MARGIN + PAD, top + PAD + TITLE // 2), box.title, TITLE, INK)
    for index, (text, colour) in enumerate(box.lines):
        _write(pen, (MARGIN + PAD, top + PAD + TITLE + index * PITCH + 20), text, LINE, colour)
    for index, kind in enumerate(reversed(box.links)):
        middle = right - 30 - index * 26
        pen.line((middle, top - GAP + 2, middle, top), fill=LINKS[kind], width=5)
        pen.ellipse((middle - 7, top - 7, middle + 7, top + 7), fill=LINKS[kind])


def _write(pen: ImageDraw, place: tuple[int, int], text: str, size: int, colour: Colour) -> None:
    """Text whose left end has its middle at `place`, in letters of `size`, or smaller where the room asks for it."""
    # In Pillow's own font the space is so narrow that words run together, and there is no é.
    spaced = text.replace(" ", "  ").replace("é", "e")
    room = SIZE - 2 * place[0]
    while size > LEAST and pen.textlength(spaced, font=_font(size)) > room:
        size -= 1
    pen.text(place, spaced, fill=colour, font=_font(size), anchor="lm")


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def alike(first: bytes, second: bytes) -> bool:
    """Whether two files hold pictures of one size that nobody could tell apart."""
    one, other = (Image.open(io.BytesIO(file)).convert("RGB") for file in (first, second))
    return one.size == other.size and _distance(one, other) < ALIKE


def _distance(one: Image.Image, other: Image.Image) -> int:
    """How far two pictures are apart in the square where they are furthest, in its mean colour: 0 to 255."""
    squares = (one.width // CELL, one.height // CELL)
    small = [image.resize(squares, Image.Resampling.BOX) for image in (one, other)]
    return max(ImageChops.difference(*small).tobytes())
