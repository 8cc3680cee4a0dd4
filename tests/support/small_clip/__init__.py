"""A loader for FLUX's two text encoders with a T5 of another size than the stock loaders build."""

from __future__ import annotations

import json

import comfy.sd
import folder_paths
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


class SmallClipExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LoadSmallFluxCLIP]


async def comfy_entrypoint() -> ComfyExtension:
    return SmallClipExtension()
