"""Load Patched Model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from .host.checks import Inputs, Least, check_given, checked
from .host.folders import chosen_file, file_state
from .host.live import show
from .sockets import UnlearningPatch


class LoadPatchedModel(io.ComfyNode):
    """A MODEL and a patch file in; the patched MODEL and the PATCH out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadPatchedModel",
            display_name="Load Patched Model",
            category="unlearning/loaders",
            description="Applies a saved unlearning patch to the base model that it was trained on.",
            search_aliases=["load lora", "unlearning patch", "apply patch", "erase", "censor", "concept slider"],
            inputs=[
                io.Model.Input("model", tooltip="The base model."),
                io.Combo.Input(
                    "patch_file",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="A patch from Save Unlearning Patch, in output/loras or models/loras.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=Least(-10),
                    max=10.0,
                    step=0.05,
                    tooltip="How much of the patch to apply, -10 to 10: 0 is the base, 1 what was trained. Loaders in "
                    "a row add up, and so do the strengths of the same patch: -1 removes what 1 added.",
                ),
                io.Boolean.Input(
                    "check_base",
                    default=True,
                    tooltip="Stop when the patch was trained on another base model than this one.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The patched model."),
                UnlearningPatch.Output(display_name="PATCH", tooltip="The patch as loaded."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, patch_file: str, **inputs: Any) -> Any:
        return [*file_state("loras", patch_file), *inputs.values()]

    @classmethod
    @checked("patch_file")
    def validate_inputs(cls, inputs: Inputs) -> None:
        if "patch_file" not in inputs:
            return
        from ..unlearning_core.patch import Record

        Record.read(chosen_file("loras", inputs["patch_file"], "patch file", "in the loras folders"))

    @classmethod
    def execute(cls, model: ModelPatcher, patch_file: str, strength: float, check_base: bool) -> io.NodeOutput:
        from ..unlearning_core.patch import UnlearningPatch as Patch
        from .host.patching import apply_patch
        from .host.rounding import rounding_warning
        from .host.traits import fingerprint

        check_given(cls.define_schema().inputs, {"model": model, "strength": strength})
        patch = Patch.load(Path(folder_paths.get_full_path_or_raise("loras", patch_file)))
        if check_base:
            patch.check_base(fingerprint(model))
        patched = apply_patch(model, patch, strength)
        show(rounding_warning(model, patch, strength) or patch.record.title, cls.hidden.unique_id)
        return io.NodeOutput(patched, patch)
