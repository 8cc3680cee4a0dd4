"""Retention Metric: what the forgetting cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.samplers
import comfy.utils
import folder_paths
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io, ui

from ..unlearning_core.patch import UnlearningPatch as Patch
from ..unlearning_core.prompts import check_measured, lines
from .types import UnlearningJudge, UnlearningPatch

BACKBONE = "alex"


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
                io.Int.Input(
                    "seed",
                    default=1000,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="The first seed of each prompt. Range 0 to 2^64 - 1.",
                ),
                io.Int.Input(
                    "seeds",
                    default=2,
                    min=1,
                    max=1000,
                    tooltip="Pictures for each retain prompt, with seeds from `seed` upwards. Range 1 to 1000.",
                ),
                io.Int.Input(
                    "forget_seeds",
                    default=4,
                    min=1,
                    max=1000,
                    tooltip="Pictures for each forget prompt, with seeds from `seed` upwards. Range 1 to 1000.",
                ),
                io.Combo.Input(
                    "sampler_name", options=comfy.samplers.KSampler.SAMPLERS, default="euler", tooltip="As in KSampler."
                ),
                io.Combo.Input(
                    "scheduler", options=comfy.samplers.KSampler.SCHEDULERS, default="normal", tooltip="As in KSampler."
                ),
                io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Sampling steps. Range 1 to 1000."),
                io.Float.Input(
                    "cfg", default=7.0, min=0.0, max=100.0, step=0.1, tooltip="Guidance scale. Range 0 to 100."
                ),
                io.Int.Input("width", default=512, min=16, max=16384, step=8, tooltip="Pixels. Range 16 to 16384."),
                io.Int.Input("height", default=512, min=16, max=16384, step=8, tooltip="Pixels. Range 16 to 16384."),
                UnlearningJudge.Input(
                    "judge",
                    optional=True,
                    tooltip="Counts the forget pictures that no longer show the concept: UA, unlearning accuracy.",
                ),
                UnlearningPatch.Input(
                    "patch", optional=True, tooltip="The patch under test; comes out with the figures in its header."
                ),
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
    def validate_inputs(cls, retain_prompts: str | None = None, forget_prompts: str | None = None) -> bool | str:
        from ..unlearning_core.metrics.backbones import check_available

        try:
            if retain_prompts is not None:  # else linked: checked when it runs
                check_measured(lines(retain_prompts), lines(forget_prompts or ""))
            check_available(BACKBONE, lpips_folders())
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
        sampler_name: str,
        scheduler: str,
        steps: int,
        cfg: float,
        width: int,
        height: int,
        judge: Any = None,
        patch: Patch | None = None,
    ) -> io.NodeOutput:
        from ..unlearning_core.metrics.lpips import Lpips
        from ..unlearning_core.metrics.retention import count_shots, measure
        from .drawing import Drawing

        retain, forget = lines(retain_prompts), lines(forget_prompts)
        check_measured(retain, forget)
        bar = comfy.utils.ProgressBar(count_shots(retain, forget, seeds, forget_seeds) * steps)

        def on_step(pictures: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update(pictures)

        drawing = Drawing(clip, vae, sampler_name, scheduler, steps, cfg, width, height, on_step)
        lpips = Lpips(BACKBONE, lpips_folders(), device=comfy.model_management.get_torch_device())
        settings = {
            "model": type(base_model.model.model_config).__name__,
            "sampler": sampler_name,
            "scheduler": scheduler,
            "steps": steps,
            "cfg": cfg,
            "size": f"{width}x{height}",
            "precision": str(base_model.model.get_dtype_inference()).removeprefix("torch."),
        }
        result, sheet = measure(
            lambda shots: drawing.draw(base_model, shots),
            lambda shots: drawing.draw(unlearned_model, shots),
            lpips,
            retain,
            forget,
            range(seed, seed + seeds),
            range(seed, seed + forget_seeds),
            settings,
            judge,
        )
        summary, table = result.summary(), result.markdown()
        measured = patch.with_integrity(summary) if patch else None
        shown = {**ui.PreviewImage(sheet, cls=cls).as_dict(), "text": (table,), "retention": [summary]}
        distance = float("nan") if result.forget_distance is None else result.forget_distance
        return io.NodeOutput(
            result.integrity, distance, table, json.dumps(summary, indent=2), sheet, measured, ui=shown
        )


def lpips_folders() -> list[Path]:
    """ComfyUI's models/lpips folders."""
    return [Path(folder) for folder in folder_paths.get_folder_paths("lpips")]
