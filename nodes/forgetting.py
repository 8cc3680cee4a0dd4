"""Forgetting Metric: whether the concept is gone, and what else went with it, as a judge sees it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..unlearning_core.prompts import lines
from .metric import prompt_inputs
from .report import prefix_input, save_report
from .studio import Plan, Studio, check_prompts, fresh_input, sampling_inputs, seed_inputs
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
                io.Model.Input("base_model", tooltip="The model before unlearning."),
                io.Model.Input("unlearned_model", tooltip="The model after unlearning."),
                io.Clip.Input("clip", tooltip="The text encoder of both."),
                io.Vae.Input("vae", tooltip="The VAE of both."),
                UnlearningJudge.Input("judge", tooltip="From Load Tiny T2I or one of the judge nodes."),
                *prompt_inputs(),
                *seed_inputs(seeds=2, forget_seeds=4),
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
    def validate_inputs(cls, retain_prompts: str | None = None, forget_prompts: str | None = None) -> bool | str:
        if forget_prompts is not None and not lines(forget_prompts):
            return "forget prompts: empty; write at least one prompt whose concept should be gone, one a line"
        try:
            check_prompts(retain_prompts, forget_prompts)
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
        from ..unlearning_core.metrics.drawing import BASE, UNLEARNED
        from ..unlearning_core.metrics.forgetting import tallied
        from ..unlearning_core.metrics.report import accuracy_values
        from ..unlearning_core.metrics.retention import accuracy_figures, span

        plan = Plan.of(retain_prompts, forget_prompts, seed, seeds, forget_seeds)
        studio = Studio(clip, vae, **sampling, pictures=2 * len(plan.shots), fresh=fresh_pictures)
        studio.check(base_model, smallest=1)
        base = tallied(judge, plan.forget, studio.cached(base_model), plan.shots, BASE)
        unlearned = tallied(judge, plan.forget, studio.cached(unlearned_model), plan.shots, UNLEARNED)
        seeds_used = {"seeds": span(plan.seeds), "forget seeds": span(plan.forget_seeds)}
        settings = {**studio.settings(base_model), **seeds_used, "judge": judge.name}
        summary = {"unlearned": asdict(unlearned), "base": asdict(base), "settings": settings}
        rows = [f"| {name} | {value} |" for name, value in accuracy_figures(unlearned, base)]
        notes = ", ".join(f"{name} {value}" for name, value in settings.items())
        table = "\n".join(["| figure | value |", "|---|---|", *rows, "", notes])
        files = save_report(filename_prefix, summary, list(accuracy_values(unlearned, base, settings)))
        figures = (float("nan") if share is None else share for share in (unlearned.ua, unlearned.ira, unlearned.cra))
        return io.NodeOutput(
            *figures,
            table,
            json.dumps(summary, indent=2),
            ui={"text": (table,), "forgetting": [summary], "report": files},
        )
