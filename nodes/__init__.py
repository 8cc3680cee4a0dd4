"""What ComfyUI sees: thin nodes over `unlearning_core`, and the only room that imports ComfyUI."""

from __future__ import annotations

import os

import folder_paths
from comfy_api.latest import ComfyExtension, io

from .compare import CompareMethods
from .forgetting import ForgettingMetric
from .judges import CLIPJudge, DiffusionClassifierJudge
from .metric import RetentionMetric
from .patches import LoadPatchedModel, SaveUnlearningPatch
from .quality import CLIPScoreFrechet
from .tiny import LoadTinyT2I
from .unlearn import UnlearnConcept

for name in ("lpips", "open_clip", "inception"):
    folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name))


class UnlearningExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadTinyT2I,
            UnlearnConcept,
            SaveUnlearningPatch,
            LoadPatchedModel,
            RetentionMetric,
            ForgettingMetric,
            CLIPScoreFrechet,
            CompareMethods,
            CLIPJudge,
            DiffusionClassifierJudge,
        ]
