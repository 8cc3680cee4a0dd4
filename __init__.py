"""Unlearning for ComfyUI: make a text-to-image model forget a concept and measure what that cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes import UnlearningExtension

WEB_DIRECTORY = "./nodes/web"


async def comfy_entrypoint() -> UnlearningExtension:
    from .nodes import UnlearningExtension  # here, so that pytest can import this file where there is no ComfyUI

    return UnlearningExtension()
