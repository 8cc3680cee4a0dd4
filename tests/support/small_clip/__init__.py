"""Text encoders of other sizes than the stock loaders build: FLUX's with a small T5, and one that computes nothing."""

from __future__ import annotations

import json
import zlib
from typing import Any

import comfy.sd
import folder_paths
import torch
from comfy_api.latest import ComfyExtension, io


class LoadSmallFluxCLIP(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadSmallFluxCLIP",
            category="tests",
            inputs=[io.String.Input("clip_l"), io.String.Input("t5"), io.String.Input("t5_config")],
            outputs=[io.Clip.Output(display_name="CLIP")],
        )

    @classmethod
    def execute(cls, clip_l: str, t5: str, t5_config: str) -> io.NodeOutput:
        paths = [folder_paths.get_full_path_or_raise("text_encoders", name) for name in (clip_l, t5)]
        options = {"t5xxl_model_config": json.loads(t5_config)}
        return io.NodeOutput(comfy.sd.load_clip(paths, clip_type=comfy.sd.CLIPType.FLUX, model_options=options))


class StandIn:
    """In the place of a CLIP: random tokens [1, 77, dim] and pooled text [1, pooled] that belong to a prompt."""

    def __init__(self, dim: int, pooled: int) -> None:
        self.dim, self.pooled = dim, pooled

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, text: str) -> list[Any]:
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        tokens, pooled = (torch.randn(1, *size, generator=generator) for size in ((77, self.dim), (self.pooled,)))
        return [[tokens, {"pooled_output": pooled}]]


class StandInCLIP(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StandInCLIP",
            category="tests",
            inputs=[io.Int.Input("dim"), io.Int.Input("pooled")],
            outputs=[io.Clip.Output(display_name="CLIP")],
        )

    @classmethod
    def execute(cls, dim: int, pooled: int) -> io.NodeOutput:
        return io.NodeOutput(StandIn(dim, pooled))


class SmallClipExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LoadSmallFluxCLIP, StandInCLIP]


async def comfy_entrypoint() -> ComfyExtension:
    return SmallClipExtension()
