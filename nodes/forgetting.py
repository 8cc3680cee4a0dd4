"""Forgetting Metric: whether the concept is gone, and what else went with it, as a judge sees it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..unlearning_core.prompts import lines
from .host.checks import Inputs, checked
from .inputs import fresh_input, measured_inputs, patch_input, prefix_input, prompt_inputs, sampling_inputs, seed_inputs
from .measuring import MeasuringNode, Result, check_measured_inputs, compared
from .sockets import UnlearningJudge

if TYPE_CHECKING:
    from ..unlearning_core.metrics.plan import Plan
    from ..unlearning_core.metrics.studio import Studio


class ForgettingMetric(MeasuringNode):
    """Two MODELs and a JUDGE in; UA, IRA and CRA, table and JSON out."""

    key = "forgetting"

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ForgettingMetric",
            display_name="Forgetting Metric",
            category="unlearning",
            description=(
                "Counts with a judge what both models draw. UA: forget pictures without the concept. IRA: retain "
                "pictures that still show their own concept. CRA: retain pictures whose other labels, such as the "
                "style, are still right. The base's figures are shown with them: they reveal the judge's own mistakes."
            ),
            search_aliases=["UA", "IRA", "CRA", "unlearning accuracy", "UnlearnCanvas", "judge"],
            inputs=[
                *measured_inputs(),
                UnlearningJudge.Input("judge", tooltip="From Load Tiny T2I or one of the judge nodes."),
                *prompt_inputs("All must name one label that the judge knows."),
                *seed_inputs(),
                *sampling_inputs(),
                prefix_input("forgetting"),
                fresh_input(),
                patch_input(),
            ],
            outputs=[
                io.Float.Output(display_name="UA", tooltip="Unlearning accuracy, 0 to 1. Higher is better."),
                io.Float.Output(display_name="IRA", tooltip="In-domain retain accuracy, 0 to 1; NaN without labels."),
                io.Float.Output(
                    display_name="CRA", tooltip="Cross-domain retain accuracy, 0 to 1; NaN without labels."
                ),
                io.String.Output(display_name="TABLE", tooltip="The figures as Markdown."),
                io.String.Output(display_name="JSON", tooltip="The figures and settings as JSON."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    @checked("retain_prompts", "forget_prompts", "filename_prefix", sockets=["patch"])
    def validate_inputs(cls, inputs: Inputs) -> None:
        if "patch" not in inputs and not lines(inputs.get("forget_prompts", "linked")):
            raise ValueError(
                "forget prompts: empty; write at least one prompt whose concept should be gone, one per line"
            )
        check_measured_inputs(inputs)

    @classmethod
    def measure(cls, studio: Studio[ModelPatcher], plan: Plan, inputs: Inputs) -> Result:
        from ..unlearning_core.metrics.forgetting import measure_forgetting
        from ..unlearning_core.reports.files import forgetting_report
        from ..unlearning_core.reports.tables import forgetting_page

        base, unlearned, settings = compared(studio, inputs)
        forgetting = measure_forgetting(base, unlearned, inputs["judge"], plan, settings)
        shares = forgetting.unlearned
        return Result(
            forgetting_report(forgetting),
            forgetting_page(forgetting),
            first=tuple(math.nan if share is None else share for share in (shares.ua, shares.ira, shares.cra)),
        )
