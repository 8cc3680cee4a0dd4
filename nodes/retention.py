"""Retention Metric: what the forgetting cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..unlearning_core.metrics.backbones import BACKBONES
from .host.checks import Inputs, checked
from .host.networks import check_lpips, load_lpips
from .inputs import (
    backbone_input,
    fresh_input,
    measured_inputs,
    patch_input,
    prefix_input,
    prompt_inputs,
    sampling_inputs,
    seed_inputs,
)
from .measuring import PICTURED, MeasuringNode, Result, check_measured_inputs, compared, judged
from .sockets import UnlearningJudge, UnlearningPatch

if TYPE_CHECKING:
    from ..unlearning_core.metrics.plan import Plan
    from ..unlearning_core.metrics.studio import Studio


class RetentionMetric(MeasuringNode):
    """Two MODELs in; I, forget distance, table, JSON, sheet and the PATCH with its figures out."""

    key = "retention"

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RetentionMetric",
            display_name="Retention Metric",
            category="unlearning",
            description=(
                "Draws the same prompts and seeds with the base and the unlearned model and measures how far apart the "
                "pictures are, as LPIPS. The mean over the retain prompts is the integrity loss I: 0 is the same "
                "picture, lower is better. For comparison, on the shipped model another seed of the same prompt gives "
                "0.167, another prompt 0.568."
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
                patch_input("The patch under test, for its prompts; comes out with the figures in its header."),
                backbone_input(),
                prefix_input("retention"),
                fresh_input(),
            ],
            outputs=[
                io.Float.Output(
                    display_name="INTEGRITY",
                    tooltip="The integrity loss I: mean LPIPS over the retain prompts. Lower is better.",
                ),
                io.Float.Output(
                    display_name="FORGET_DISTANCE", tooltip="Mean LPIPS over the forget prompts; NaN without any."
                ),
                io.String.Output(display_name="TABLE", tooltip="The figures as Markdown."),
                io.String.Output(display_name="JSON", tooltip="The figures and settings as JSON."),
                io.Image.Output(display_name="SHEET", tooltip="Base, unlearned and LPIPS heat map, side by side."),
                UnlearningPatch.Output(display_name="PATCH", tooltip="The patch with the figures in its header."),
            ],
            hidden=PICTURED,
            is_output_node=True,
        )

    @classmethod
    @checked("retain_prompts", "forget_prompts", "backbone", "filename_prefix", sockets=["patch"])
    def validate_inputs(cls, inputs: Inputs) -> None:
        check_measured_inputs(inputs)
        check_lpips(inputs.get("backbone", "alex"))

    @classmethod
    def measure(cls, studio: Studio[ModelPatcher], plan: Plan, inputs: Inputs) -> Result:
        from ..unlearning_core.metrics.retention import Comparison, measure
        from ..unlearning_core.reports.files import retention_report
        from ..unlearning_core.reports.sheet import retention_sheet
        from ..unlearning_core.reports.tables import retention_page

        patch = inputs.get("patch")
        judge, lacks = judged(plan, inputs)
        comparison = Comparison(load_lpips(inputs.get("backbone", "alex")), plan, judge)
        base, unlearned, settings = compared(studio, inputs)
        if patch:
            settings["patch"] = patch.digest
        retention = measure(base, unlearned, comparison, settings, studio.bare(inputs["base_model"]))
        sheet = retention_sheet(base, unlearned, comparison.lpips, retention)
        distance = math.nan if retention.forget_distance is None else retention.forget_distance
        report = retention_report(retention)
        return Result(
            report,
            retention_page(retention),
            first=(retention.integrity, distance),
            last=(sheet, patch and patch.with_integrity(report.summary)),
            pictures={"sheet": sheet},
            lacks=lacks,
        )

    @classmethod
    def count_pictures(cls, plan: Plan, inputs: Inputs) -> int:
        from ..unlearning_core.metrics.retention import count_pictures

        return count_pictures(plan)

    @classmethod
    def smallest_side(cls, inputs: Inputs) -> int:
        return BACKBONES[inputs.get("backbone", "alex")].smallest_side
