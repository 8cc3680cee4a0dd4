"""Save Unlearning Patch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from .host.checks import Inputs, checked
from .host.folders import check_prefix, next_target, output_file
from .host.live import show
from .sockets import UnlearningPatch

if TYPE_CHECKING:
    from ..unlearning_core.patch import UnlearningPatch as Patch

FOLDER, SUFFIX = "loras", ".safetensors"  # of ComfyUI's output folder; of a patch file


class SaveUnlearningPatch(io.ComfyNode):
    """A PATCH in, a file under output/loras out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SaveUnlearningPatch",
            display_name="Save Unlearning Patch",
            category="unlearning",
            description=(
                "Saves the patch as safetensors under output/loras, where Load Patched Model and the stock LoRA "
                "loaders list it, and beside it its recipe, which Unlearn From Recipe repeats."
            ),
            search_aliases=["save lora", "unlearning patch", "save erasure", "export lora"],
            inputs=[
                UnlearningPatch.Input("patch", tooltip="The patch from Unlearn Concept."),
                io.String.Input(
                    "filename_prefix",
                    default="unlearned",
                    tooltip="File name under output/loras; folders are allowed. A counter is added.",
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    @checked("filename_prefix")
    def validate_inputs(cls, inputs: Inputs) -> None:
        if "filename_prefix" in inputs:
            check_prefix(inputs["filename_prefix"], FOLDER, SUFFIX)

    @classmethod
    def execute(cls, patch: Patch, filename_prefix: str) -> io.NodeOutput:
        target = next_target(filename_prefix, FOLDER, SUFFIX)
        file_name = f"{target.name}{SUFFIX}"
        patch.save(target.folder / file_name)
        saved = f"output/{target.subfolder}/{file_name}, {save_recipe_of(patch, target.folder / file_name)}"
        show(f"{saved}\nLoad Patched Model and Load LoRA list it now.", cls.hidden.unique_id)
        return io.NodeOutput(ui={"patch": [output_file(file_name, target)]})


def save_recipe_of(patch: Patch, path: Path) -> str:
    """Writes it beside the patch's file; says whether there is one, which a patch of another version may not have."""
    from ..unlearning_core.recipe import recipe_path, recorded, save_recipe

    try:
        recipe = recorded(patch.record)
    except ValueError as error:
        return f"without a recipe: {error}"
    save_recipe(recipe_path(path), recipe)
    return "and its recipe"
