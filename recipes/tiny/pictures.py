"""Training pictures: emoji by three artists' hands, pasted at random size and place on plain pastel grounds."""

from __future__ import annotations

import colorsys
import io
import json
import math
import random
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unlearning_core.tiny.world import CONCEPTS, SIZE, STYLES

DRAWINGS = Path(__file__).parents[2] / "tests" / "data" / "judge" / "pictures.webp"
Icons = dict[str, Any]  # a parsed icons.json

RENDER_SIZE = 160  # pixels; pictures are scaled down from here, so edges stay clean


def fetch_icons(folder: Path) -> dict[str, Icons]:
    """Style -> parsed `icons.json`, fetched by npm into `folder` once."""
    folder.mkdir(parents=True, exist_ok=True)
    return {style: _icon_set(folder, package) for style, package in STYLES.items()}


def _icon_set(folder: Path, package: str) -> Icons:
    name, version = package.lstrip("@").replace("/", "-").rsplit("@", 1)
    archive = folder / f"{name}-{version}.tgz"
    if not archive.exists():
        subprocess.run(["npm", "pack", package], cwd=folder, check=True, capture_output=True)
    with tarfile.open(archive) as tar:
        member = tar.extractfile("package/icons.json")
        assert member is not None
        return json.load(member)


def render(icons: Icons, name: str) -> Image.Image:
    """One icon as an RGBA picture of RENDER_SIZE pixels."""
    import resvg_py

    icon = icons["icons"][icons.get("aliases", {}).get(name, {}).get("parent", name)]
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=RENDER_SIZE, height=RENDER_SIZE)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def compose(icon: Image.Image, rng: random.Random) -> Image.Image:
    """The icon at a random size, place and tilt on a plain pastel ground, as an RGB picture of SIZE pixels."""
    icon = icon.rotate(rng.uniform(-6, 6), resample=Image.Resampling.BICUBIC)
    side = round(SIZE * rng.uniform(0.78, 0.92))
    icon = icon.resize((side, side), Image.Resampling.LANCZOS)
    margin = SIZE - side
    place = (round(margin * rng.uniform(0.2, 0.8)), round(margin * rng.uniform(0.2, 0.8)))
    ground = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.03, 0.15), rng.uniform(0.94, 1.0))
    picture = Image.new("RGB", (SIZE, SIZE), tuple(round(255 * c) for c in ground))
    picture.paste(icon, place, icon)
    return picture


def training_pictures(icons: dict[str, Icons], count: int, seed: int = 0) -> NDArray[np.uint8]:
    """`count` pictures of each (concept, style): uint8 [concepts, styles, count, SIZE, SIZE, 3]."""
    rng = random.Random(seed)
    pictures = np.empty((len(CONCEPTS), len(STYLES), count, SIZE, SIZE, 3), np.uint8)
    for row, name in enumerate(CONCEPTS.values()):
        for column, style in enumerate(STYLES):
            icon = render(icons[style], name)
            for index in range(count):
                pictures[row, column, index] = np.asarray(compose(icon, rng))
    return pictures


def drawings() -> NDArray[np.uint8]:
    """One picture of each (concept, style) that no network here has seen: [B, SIZE, SIZE, 3], in the world's order."""
    whole = np.asarray(Image.open(DRAWINGS).convert("RGB"))
    rows, columns = whole.shape[0] // SIZE, whole.shape[1] // SIZE
    return whole.reshape(rows, SIZE, columns, SIZE, 3).swapaxes(1, 2).reshape(-1, SIZE, SIZE, 3)


def sheet(pictures: NDArray[np.uint8], columns: int) -> Image.Image:
    """Pictures [N, H, W, 3] uint8 as one grid."""
    count, height, width, _ = pictures.shape
    rows = math.ceil(count / columns)
    grid = np.full((rows * columns, height, width, 3), 255, np.uint8)
    grid[:count] = pictures
    return Image.fromarray(
        grid.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    )
