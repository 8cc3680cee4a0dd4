"""CLIPScore / Fréchet: figures that are often asked for besides the integrity loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..unlearning_core.metrics.backbones import BACKBONES
from .host.checks import Inputs, checked
from .host.networks import check_networks, load_networks
from .inputs import (
    clip_input,
    fid_input,
    fresh_input,
    measured_inputs,
    patch_input,
    prefix_input,
    prompt_inputs,
    sampling_inputs,
    seed_inputs,
)
from .measuring import MeasuringNode, Result, check_measured_inputs, compared

if TYPE_CHECKING:
    from ..unlearning_core.metrics.plan import Plan
    from ..unlearning_core.metrics.studio import Studio


class CLIPScoreFrechet(MeasuringNode):
    """Two MODELs in; CLIPScore, Fréchet distance, table and JSON out."""

    key = "quality"

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
                patch_input(),
            ],
            outputs=[
                io.Float.Output(display_name="CLIP_SCORE", tooltip="Mean CLIPScore of the retain pictures, 0 to 100."),
                io.Float.Output(display_name="FRECHET", tooltip="Fréchet distance on AlexNet features; not FID."),
                io.String.Output(display_name="TABLE", tooltip="The figures as Markdown."),
                io.String.Output(display_name="JSON", tooltip="The figures and settings as JSON."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    @checked("retain_prompts", "forget_prompts", "clip_model", "fid", "filename_prefix", sockets=["patch"])
    def validate_inputs(cls, inputs: Inputs) -> None:
        check_measured_inputs(inputs)
        check_networks(inputs)

    @classmethod
    def measure(cls, studio: Studio[ModelPatcher], plan: Plan, inputs: Inputs) -> Result:
        from ..unlearning_core.metrics.quality import measure_quality
        from ..unlearning_core.reports.files import quality_report
        from ..unlearning_core.reports.tables import quality_page

        networks = load_networks(inputs["clip_model"], inputs["fid"])
        base, unlearned, settings = compared(studio, inputs)
        quality = measure_quality(base, unlearned, networks, plan, settings)
        return Result(
            quality_report(quality),
            quality_page(quality),
            first=(quality.clip_score.unlearned, quality.frechet_alexnet),
        )

    @classmethod
    def smallest_side(cls, inputs: Inputs) -> int:
        return BACKBONES["alex"].smallest_side
