"""Pictures as PNG files, with texts in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..files import write_atomically
from .lettering import to_image


def save_picture(picture: Tensor, path: Path, texts: Mapping[str, Any] | None = None) -> None:
    """Writes [1, H, W, 3] in 0..1, and the texts into it, as JSON by their names."""
    info = PngInfo()
    for name, value in (texts or {}).items():
        info.add_text(name, json.dumps(value))
    with write_atomically(path) as partial:
        to_image(picture[0]).save(partial, "PNG", pnginfo=info)
