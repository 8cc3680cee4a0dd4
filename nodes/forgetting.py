"""Forgetting Metric: whether the concept is gone, and what else went with it, as a judge sees it."""

from __future__ import annotations

import json
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..unlearning_core.prompts import lines
from .report import check_prefix, prefix_input, save_report
from .studio import (
    Studio,
    check_prompts,
    fresh_input,
    measured_inputs,
    plan_of,
    prompt_inputs,
    sampling_inputs,
    seed_inputs,
)
from .types import UnlearningJudge


class ForgettingMetric(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ForgettingMetric",
            display_name="Forgetting Metric",
            category="unlearning",
            description=(
                "Counts with a judge what both models draw. UA: forget pictures without the concept. IRA: retain "
                "pictures that still show their own concept. CRA: retain pictures whose other labels, such as the "
                "style, are still right. The base's figures stand beside them, and show the judge's own mistakes."
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
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        retain_prompts: str | None = None,
        forget_prompts: str | None = None,
        filename_prefix: str | None = None,
    ) -> bool | str:
        if forget_prompts is not None and not lines(forget_prompts):
            return "forget prompts: empty; write at least one prompt whose concept should be gone, one a line"
        try:
            check_prompts(retain_prompts, forget_prompts)
            check_prefix(filename_prefix)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        base_model: ModelPatcher,
        unlearned_model: ModelPatcher,
        clip: Any,
        vae: Any,
        judge: Any,
        retain_prompts: str,
        forget_prompts: str,
        seed: int,
        seeds: int,
        forget_seeds: int,
        filename_prefix: str = "unlearning/forgetting",
        fresh_pictures: bool = False,
        **sampling: Any,
    ) -> io.NodeOutput:
        from ..unlearning_core.metrics.forgetting import measure_forgetting
        from ..unlearning_core.metrics.report import forgetting_values

        check_prefix(filename_prefix)
        plan = plan_of(retain_prompts, forget_prompts, seed, seeds, forget_seeds)
        studio = Studio(clip, vae, **sampling, pictures=2 * len(plan.shots), fresh=fresh_pictures)
        studio.check(base_model, smallest=1)
        result = measure_forgetting(
            studio.cached(base_model),
            studio.cached(unlearned_model),
            judge,
            plan,
            {**studio.settings(base_model), **studio.identity(unlearned_model)},
        )
        summary, table = result.summary(), result.markdown()
        files = save_report(filename_prefix, summary, list(forgetting_values(result)))
        shares = result.unlearned
        figures = (float("nan") if share is None else share for share in (shares.ua, shares.ira, shares.cra))
        return io.NodeOutput(
            *figures,
            table,
            json.dumps(summary, indent=2),
            ui={"text": (table,), "forgetting": [summary], "report": files},
        )
