"""Unlearn From Recipe: the run that a recipe file describes, on a MODEL."""

from __future__ import annotations

from typing import Any

import folder_paths
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..unlearning_core.prompts import clashing, left_out
from ..unlearning_core.recipe import Recipe, Run
from .host.checks import Inputs, check_given, checked
from .host.folders import RECIPES, chosen_file, file_state
from .inputs import unlearning_outputs


class UnlearnFromRecipe(io.ComfyNode):
    """A MODEL with its CLIP and a recipe file in; the patched MODEL and the PATCH out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnFromRecipe",
            display_name="Unlearn From Recipe",
            category="unlearning",
            description=(
                "Repeats a run of Unlearn Concept or of `unlearn train` on this model, from the recipe that is beside "
                "each saved patch. What the file says of model, device, precision and its own output is for the "
                "command alone."
            ),
            search_aliases=["recipe", "toml", "repeat", "preset file", "unlearning", "forget concept"],
            inputs=[
                io.Model.Input("model", tooltip="The base, as in Unlearn Concept."),
                io.Clip.Input("clip", tooltip="The text encoder that goes with the model."),
                io.Combo.Input(
                    "recipe_file",
                    options=folder_paths.get_filename_list(RECIPES),
                    tooltip="A .toml file beside a patch, in output/loras or models/loras. Put one that you were given "
                    "there, and press R.",
                ),
            ],
            outputs=unlearning_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, recipe_file: str, **inputs: Any) -> Any:
        return file_state(RECIPES, recipe_file)

    @classmethod
    @checked("recipe_file")
    def validate_inputs(cls, inputs: Inputs) -> None:
        if "recipe_file" in inputs:
            read_run(inputs["recipe_file"])

    @classmethod
    def execute(cls, model: ModelPatcher, clip: Any, recipe_file: str) -> io.NodeOutput:
        from .host.unlearning import Task, unlearned

        check_given(cls.define_schema().inputs, {"model": model, "clip": clip})
        recipe, run = read_run(recipe_file)
        remark = left_out(clashing(run.prompts.forget, tuple(recipe.retain or ())))
        return io.NodeOutput(*unlearned(model, clip, Task(*run, remark=remark), cls.hidden.unique_id))


def read_run(file: str) -> tuple[Recipe, Run]:
    """A recipe's file, and the run that it asks for. Raises ValueError, which names the file, for one that cannot be
    read or used.
    """
    recipe = Recipe.load(chosen_file(RECIPES, file, "recipe file", "beside the patches"))
    try:
        run = recipe.run
        run.method.check_settings(run.settings)
    except ValueError as error:
        raise ValueError(f"recipe file {file}: {error}") from error
    return recipe, run
