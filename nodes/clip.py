"""Which open_clip model a node uses."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import comfy.model_management
from comfy_api.latest import io

from .folders import model_folders

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


def check_clip(text: str | None) -> None:
    """Raises ValueError for text that names no model, FileNotFoundError for missing files; None is a link."""
    from ..unlearning_core.metrics.clip import clip_named

    if text is not None:
        clip_named(text, model_folders("open_clip"))


def load_open_clip(text: str) -> Clip:
    """The model, for which other models leave the device when it needs room. Raises as `check_clip` and `Clip` do."""
    from ..unlearning_core.metrics.clip import clip_named

    device = comfy.model_management.get_torch_device()
    make_room = partial(comfy.model_management.free_memory, device=device)
    return clip_named(text, model_folders("open_clip"))(device, make_room)
