"""Retention Metric: what the forgetting cost."""

from __future__ import annotations

import json
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io, ui

from ..unlearning_core.patch import UnlearningPatch as Patch
from .folders import model_folders
from .report import check_prefix, prefix_input, save_report
from .studio import (
    Studio,
    check_prompts,
    device,
    fresh_input,
    measured_inputs,
    plan_of,
    prompt_inputs,
    sampling_inputs,
    seed_inputs,
)
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
                *measured_inputs(),
                *prompt_inputs(),
                *seed_inputs(),
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
        cls,
        retain_prompts: str | None = None,
        forget_prompts: str | None = None,
        backbone: str = "alex",
        filename_prefix: str | None = None,
    ) -> bool | str:
        from ..unlearning_core.metrics.backbones import check_available

        try:
            check_prompts(retain_prompts, forget_prompts)
            check_prefix(filename_prefix)
            check_available(backbone, model_folders("lpips"))
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

        check_prefix(filename_prefix)
        plan = plan_of(retain_prompts, forget_prompts, seed, seeds, forget_seeds)
        studio = Studio(clip, vae, **sampling, pictures=count_shots(plan), fresh=fresh_pictures)
        studio.check(base_model, SMALLEST_SIDE[backbone])
        lpips = Lpips(backbone, model_folders("lpips"), device())
        settings = {**studio.settings(base_model), **studio.identity(unlearned_model)}
        result, sheet = measure(
            studio.cached(base_model),
            studio.cached(unlearned_model),
            lpips,
            plan,
            {**settings, "patch": patch.digest} if patch else settings,
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


def backbone_input() -> io.Input:
    return io.Combo.Input(
        "backbone",
        options=["alex", "vgg", "squeeze"],
        default="alex",
        optional=True,
        tooltip="The network that LPIPS stands on. Compare figures of the same backbone only.",
    )
