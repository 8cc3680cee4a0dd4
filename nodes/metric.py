"""Retention Metric: what the forgetting cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folder_paths
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io, ui

from ..unlearning_core.patch import UnlearningPatch as Patch
from .report import prefix_input, save_report
from .studio import Plan, Studio, check_prompts, device, fresh_input, sampling_inputs, seed_inputs
from .types import UnlearningJudge, UnlearningPatch


class RetentionMetric(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RetentionMetric",
            display_name="Retention Metric",
            category="unlearning",
            description=(
                "Draws the same prompts and seeds with the base and the unlearned model and measures how far the "
                "pictures moved, as LPIPS. I is the mean over the retain prompts: 0 is untouched, below 0.05 hard to "
                "see, above 0.2 another picture."
            ),
            search_aliases=["LPIPS", "model integrity", "compare models", "unlearning", "collateral damage"],
            inputs=[
                io.Model.Input("base_model", tooltip="The model before unlearning."),
                io.Model.Input("unlearned_model", tooltip="The model after unlearning."),
                io.Clip.Input("clip", tooltip="The text encoder of both."),
                io.Vae.Input("vae", tooltip="The VAE of both."),
                *prompt_inputs(),
                *seed_inputs(seeds=2, forget_seeds=4),
                *sampling_inputs(),
                UnlearningJudge.Input(
                    "judge",
                    optional=True,
                    tooltip="Counts the forget pictures that no longer show the concept: UA, unlearning accuracy.",
                ),
                UnlearningPatch.Input(
                    "patch", optional=True, tooltip="The patch under test; comes out with the figures in its header."
                ),
                backbone_input(),
                prefix_input("retention"),
                fresh_input(),
            ],
            outputs=[
                io.Float.Output(display_name="INTEGRITY", tooltip="I, the mean LPIPS over the retain prompts."),
                io.Float.Output(
                    display_name="FORGET_DISTANCE", tooltip="Mean LPIPS over the forget prompts; NaN without any."
                ),
                io.String.Output(display_name="TABLE", tooltip="The figures as Markdown."),
                io.String.Output(display_name="JSON", tooltip="The figures and settings as JSON."),
                io.Image.Output(display_name="SHEET", tooltip="Base, unlearned and LPIPS heat map, side by side."),
                UnlearningPatch.Output(display_name="PATCH", tooltip="The patch with the figures in its header."),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls, retain_prompts: str | None = None, forget_prompts: str | None = None, backbone: str = "alex"
    ) -> bool | str:
        from ..unlearning_core.metrics.backbones import check_available

        try:
            check_prompts(retain_prompts, forget_prompts)
            check_available(backbone, lpips_folders())
        except (ValueError, OSError) as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        base_model: ModelPatcher,
        unlearned_model: ModelPatcher,
        clip: Any,
        vae: Any,
        retain_prompts: str,
        forget_prompts: str,
        seed: int,
        seeds: int,
        forget_seeds: int,
        judge: Any = None,
        patch: Patch | None = None,
        backbone: str = "alex",
        filename_prefix: str = "unlearning/retention",
        fresh_pictures: bool = False,
        **sampling: Any,
    ) -> io.NodeOutput:
        from ..unlearning_core.metrics.lpips import SMALLEST_SIDE, Lpips
        from ..unlearning_core.metrics.report import retention_values
        from ..unlearning_core.metrics.retention import count_shots, measure

        plan = Plan.of(retain_prompts, forget_prompts, seed, seeds, forget_seeds)
        pictures = count_shots(plan.retain, plan.forget, seeds, forget_seeds)
        studio = Studio(clip, vae, **sampling, pictures=pictures, fresh=fresh_pictures)
        studio.check(base_model, SMALLEST_SIDE[backbone])
        result, sheet = measure(
            studio.filled(base_model, plan),
            studio.cached(unlearned_model),
            Lpips(backbone, lpips_folders(), device()),
            plan.retain,
            plan.forget,
            plan.seeds,
            plan.forget_seeds,
            studio.settings(base_model),
            judge,
            studio.bare(base_model),
        )
        summary, table = result.summary(), result.markdown()
        measured = patch.with_integrity(summary) if patch else None
        files = save_report(filename_prefix, summary, list(retention_values(result)))
        shown = {
            **ui.PreviewImage(sheet, cls=cls).as_dict(),
            "text": (table,),
            "retention": [summary],
            "report": files,
        }
        distance = float("nan") if result.forget_distance is None else result.forget_distance
        return io.NodeOutput(
            result.integrity, distance, table, json.dumps(summary, indent=2), sheet, measured, ui=shown
        )


def lpips_folders() -> list[Path]:
    """ComfyUI's models/lpips folders."""
    return [Path(folder) for folder in folder_paths.get_folder_paths("lpips")]


def prompt_inputs() -> list[io.Input]:
    """The prompts that every measuring node draws."""
    return [
        io.String.Input(
            "retain_prompts",
            multiline=True,
            default="",
            tooltip="Prompts whose pictures should stay as they were, one a line. Prompts that were not "
            "trained on say most.",
        ),
        io.String.Input(
            "forget_prompts",
            multiline=True,
            default="",
            tooltip="Prompts whose pictures should change, one a line. May be empty.",
        ),
    ]


def backbone_input() -> io.Input:
    return io.Combo.Input(
        "backbone",
        options=["alex", "vgg", "squeeze"],
        default="alex",
        optional=True,
        tooltip="The network that LPIPS stands on. Compare figures of the same backbone only.",
    )
