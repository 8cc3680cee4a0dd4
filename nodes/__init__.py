"""What ComfyUI sees: thin nodes over `unlearning_core`, and the only room that imports ComfyUI."""

from __future__ import annotations

import os

import folder_paths
from comfy_api.latest import ComfyExtension, io

from .metric import RetentionMetric
from .patches import LoadPatchedModel, SaveUnlearningPatch
from .tiny import LoadTinyT2I
from .unlearn import UnlearnConcept

folder_paths.add_model_folder_path("lpips", os.path.join(folder_paths.models_dir, "lpips"))


class UnlearningExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LoadTinyT2I, UnlearnConcept, SaveUnlearningPatch, LoadPatchedModel, RetentionMetric]
