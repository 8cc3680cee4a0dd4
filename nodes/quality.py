"""CLIPScore / Fréchet: what readers ask for beside integrity."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from .clip import check_clip, clip_input, load_open_clip
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

if TYPE_CHECKING:
    from ..unlearning_core.metrics.quality import Networks


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

        check_inception(model_folders("inception"))


def load_networks(clip_model: str, fid: bool) -> Networks:
    """What sees the pictures. Raises FileNotFoundError for missing weights, ValueError for damaged ones."""
    from ..unlearning_core.metrics.inception import Fid
    from ..unlearning_core.metrics.lpips import Lpips
    from ..unlearning_core.metrics.quality import Networks

    alexnet = Lpips("alex", model_folders("lpips"), device())
    return Networks(alexnet, load_open_clip(clip_model), Fid(model_folders("inception"), device()) if fid else None)


class CLIPScoreFrechet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLIPScoreFrechet",
            display_name="CLIPScore / Fréchet",
            category="unlearning",
            description=(
                "CLIPScore of both models' pictures and their prompts, and how far the unlearned pictures are from "
                "the base's as a set: Fréchet distance on AlexNet features, CMMD, and FID when it is switched on."
            ),
            search_aliases=["FID", "CMMD", "CLIPScore", "Frechet", "image quality", "unlearning"],
            inputs=[
                *measured_inputs(),
                *prompt_inputs(),
                clip_input(),
                fid_input(),
                *seed_inputs(),
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
        filename_prefix: str | None = None,
    ) -> bool | str:
        from ..unlearning_core.metrics.backbones import check_available

        try:
            check_prompts(retain_prompts, forget_prompts)
            check_prefix(filename_prefix)
            check_clip(clip_model)
            check_fid(fid)
            check_available("alex", model_folders("lpips"))
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
        from ..unlearning_core.metrics.lpips import SMALLEST_SIDE
        from ..unlearning_core.metrics.quality import measure_quality
        from ..unlearning_core.metrics.report import quality_values

        check_prefix(filename_prefix)
        plan = plan_of(retain_prompts, forget_prompts, seed, seeds, forget_seeds)
        studio = Studio(clip, vae, **sampling, pictures=2 * len(plan.shots), fresh=fresh_pictures)
        studio.check(base_model, SMALLEST_SIDE["alex"])
        networks = load_networks(clip_model, fid)
        result = measure_quality(
            studio.cached(base_model),
            studio.cached(unlearned_model),
            networks,
            plan,
            {**studio.settings(base_model), **studio.identity(unlearned_model)},
        )
        summary, table = result.summary(), result.markdown()
        files = save_report(filename_prefix, summary, list(quality_values(result)))
        return io.NodeOutput(
            result.clip_score.unlearned,
            result.frechet_alexnet,
            table,
            json.dumps(summary, indent=2),
            ui={"text": (table,), "quality": [summary], "report": files},
        )
