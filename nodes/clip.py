"""Which open_clip model a node uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy_api.latest import io

if TYPE_CHECKING:
    from ..unlearning_core.metrics.clip import Clip

SHIPPED = "shipped"


def clip_input() -> io.Input:
    return io.String.Input(
        "clip_model",
        default=SHIPPED,
        tooltip="An open_clip model. 'shipped' knows the emoji world of Load Tiny T2I only. For other pictures write "
        "open_clip's name and weights, such as 'ViT-B-32 laion2b_s34b_b79k' (downloaded at first use) or 'ViT-B-32 "
        "file.safetensors' with the file in models/open_clip, or the name of an open_clip folder there.",
    )


def clip_loader(text: str) -> Callable[[Any], Clip]:
    """What loads the model onto a device. Raises ValueError for text that names none."""
    from ..unlearning_core.metrics.clip import clip_named

    return clip_named(text, [Path(folder) for folder in folder_paths.get_folder_paths("open_clip")])
