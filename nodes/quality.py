"""CLIPScore / Fréchet: what readers ask for beside integrity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folder_paths
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from .clip import clip_input, clip_loader
from .metric import lpips_folders, prompt_inputs
from .report import prefix_input, save_report
from .studio import Plan, Studio, check_prompts, device, fresh_input, sampling_inputs, seed_inputs


def fid_input() -> io.Input:
    return io.Boolean.Input(
        "fid",
        default=False,
        tooltip="Measure FID too. Needs Inception weights in models/inception or torch hub's cache; the message that "
        "asks for them names the file.",
    )


def check_fid(fid: bool) -> None:
    """Raises FileNotFoundError when FID is asked for and its weights are not here."""
    if fid:
        from ..unlearning_core.metrics.inception import check_inception

        check_inception(inception_folders())


def inception_folders() -> list[Path]:
    """ComfyUI's models/inception folders."""
    return [Path(folder) for folder in folder_paths.get_folder_paths("inception")]


class CLIPScoreFrechet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLIPScoreFrechet",
            display_name="CLIPScore / Fréchet",
            category="unlearning",
            description=(
                "CLIPScore of both models' pictures and their prompts, and how far the unlearned pictures are from "
                "the base's as a set: Fréchet distance on AlexNet features, CMMD, and FID where its weights are."
            ),
            search_aliases=["FID", "CMMD", "CLIPScore", "Frechet", "image quality", "unlearning"],
            inputs=[
                io.Model.Input("base_model", tooltip="The model before unlearning."),
                io.Model.Input("unlearned_model", tooltip="The model after unlearning."),
                io.Clip.Input("clip", tooltip="The text encoder of both."),
                io.Vae.Input("vae", tooltip="The VAE of both."),
                *prompt_inputs(),
                clip_input(),
                fid_input(),
                *seed_inputs(seeds=2, forget_seeds=4),
                *sampling_inputs(),
                prefix_input("quality"),
                fresh_input(),
            ],
            outputs=[
                io.Float.Output(display_name="CLIP_SCORE", tooltip="Mean CLIPScore of the retain pictures, 0 to 100."),
                io.Float.Output(display_name="FRECHET", tooltip="Fréchet distance on AlexNet features; not FID."),
                io.String.Output(display_name="TABLE", tooltip="The figures as Markdown."),
                io.String.Output(display_name="JSON", tooltip="The figures and settings as JSON."),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        retain_prompts: str | None = None,
        forget_prompts: str | None = None,
        clip_model: str | None = None,
        fid: bool = False,
    ) -> bool | str:
        from ..unlearning_core.metrics.backbones import check_available

        try:
            check_prompts(retain_prompts, forget_prompts)
            if clip_model is not None:
                clip_loader(clip_model)
            check_fid(fid)
            check_available("alex", lpips_folders())
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
        clip_model: str,
        fid: bool,
        seed: int,
        seeds: int,
        forget_seeds: int,
        filename_prefix: str = "unlearning/quality",
        fresh_pictures: bool = False,
        **sampling: Any,
    ) -> io.NodeOutput:
        from ..unlearning_core.metrics.inception import Fid
        from ..unlearning_core.metrics.lpips import SMALLEST_SIDE, Lpips
        from ..unlearning_core.metrics.quality import measure_quality
        from ..unlearning_core.metrics.report import quality_values

        plan = Plan.of(retain_prompts, forget_prompts, seed, seeds, forget_seeds)
        studio = Studio(clip, vae, **sampling, pictures=2 * len(plan.shots), fresh=fresh_pictures)
        studio.check(base_model, SMALLEST_SIDE["alex"])
        result = measure_quality(
            studio.filled(base_model, plan),
            studio.cached(unlearned_model),
            Lpips("alex", lpips_folders(), device()),
            plan.retain,
            plan.forget,
            plan.seeds,
            plan.forget_seeds,
            studio.settings(base_model),
            clip_loader(clip_model)(device()),
            Fid(inception_folders(), device()) if fid else None,
        )
        summary, table = result.summary(), result.markdown()
        files = save_report(filename_prefix, summary, list(quality_values(result)))
        score = result.clip_score.unlearned if result.clip_score else float("nan")
        return io.NodeOutput(
            score,
            result.frechet_alexnet,
            table,
            json.dumps(summary, indent=2),
            ui={"text": (table,), "quality": [summary], "report": files},
        )
