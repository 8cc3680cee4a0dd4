"""Compare Methods: several unlearned models of one base side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io, ui

from ..unlearning_core.prompts import lines
from .clip import check_clip, clip_input
from .folders import model_folders
from .metric import backbone_input
from .quality import check_fid, fid_input, load_networks
from .report import check_prefix, prefix_input, save_report
from .studio import Studio, check_prompts, device, fresh_input, plan_of, prompt_inputs, sampling_inputs, seed_inputs
from .types import UnlearningJudge

MODELS = 100  # the most that Autogrow takes


class CompareMethods(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        model = io.Model.Input("model", tooltip="An unlearned model. Connecting one makes room for another.")
        return io.Schema(
            node_id="CompareMethods",
            display_name="Compare Methods",
            category="unlearning",
            description=(
                "Measures several unlearned models against one base with the same prompts and seeds: a leaderboard, "
                "a plot of forgetting against integrity, and a sheet of prompts times models with LPIPS under each "
                "picture."
            ),
            search_aliases=["leaderboard", "benchmark", "compare models", "LPIPS", "trade-off", "unlearning"],
            inputs=[
                io.Model.Input("base_model", tooltip="The model before unlearning."),
                io.Clip.Input("clip", tooltip="The text encoder of all."),
                io.Vae.Input("vae", tooltip="The VAE of all."),
                io.Autogrow.Input(
                    "models",
                    template=io.Autogrow.TemplatePrefix(model, prefix="model", min=1, max=MODELS),
                    tooltip=f"The unlearned models, 1 to {MODELS}.",
                ),
                io.String.Input(
                    "names",
                    multiline=True,
                    default="",
                    tooltip="The models' names in the order of their sockets, one a line.",
                ),
                *prompt_inputs(),
                UnlearningJudge.Input(
                    "judge", optional=True, tooltip="From Load Tiny T2I or a judge node: adds UA, IRA and CRA."
                ),
                backbone_input(),
                clip_input(),
                fid_input(),
                *seed_inputs(),
                *sampling_inputs(),
                prefix_input("comparison"),
                fresh_input(),
            ],
            outputs=[
                io.Image.Output(display_name="SHEET", tooltip="Prompts down, models across, LPIPS under each picture."),
                io.Image.Output(display_name="PLOT", tooltip="Forgetting against integrity, a point a model."),
                io.String.Output(display_name="TABLE", tooltip="The leaderboard as Markdown."),
                io.String.Output(display_name="JSON", tooltip="All figures and settings as JSON."),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        models: Mapping[str, Any],
        retain_prompts: str | None = None,
        forget_prompts: str | None = None,
        names: str | None = None,
        backbone: str = "alex",
        clip_model: str | None = None,
        fid: bool = False,
        filename_prefix: str | None = None,
    ) -> bool | str:
        from ..unlearning_core.metrics.backbones import check_available

        try:
            check_prompts(retain_prompts, forget_prompts)
            if names is not None:
                model_names(lines(names), len(models))
            check_prefix(filename_prefix)
            check_clip(clip_model)
            check_fid(fid)
            for needed in {backbone, "alex"}:
                check_available(needed, model_folders("lpips"))
        except (ValueError, OSError) as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        base_model: ModelPatcher,
        clip: Any,
        vae: Any,
        models: Mapping[str, ModelPatcher],
        names: str,
        retain_prompts: str,
        forget_prompts: str,
        clip_model: str,
        fid: bool,
        seed: int,
        seeds: int,
        forget_seeds: int,
        judge: Any = None,
        backbone: str = "alex",
        filename_prefix: str = "unlearning/comparison",
        fresh_pictures: bool = False,
        **sampling: Any,
    ) -> io.NodeOutput:
        from ..unlearning_core.metrics.evaluation import Candidate, evaluate, leaderboard, report
        from ..unlearning_core.metrics.figures import comparison_sheet, tradeoff_plot
        from ..unlearning_core.metrics.lpips import SMALLEST_SIDE, Lpips
        from ..unlearning_core.metrics.retention import count_shots

        check_prefix(filename_prefix)
        plan = plan_of(retain_prompts, forget_prompts, seed, seeds, forget_seeds)
        named = dict(zip(model_names(lines(names), len(models)), models.values(), strict=True))
        studio = Studio(clip, vae, **sampling, pictures=count_shots(plan, len(models)), fresh=fresh_pictures)
        studio.check(base_model, max(SMALLEST_SIDE["alex"], SMALLEST_SIDE[backbone]))
        networks = load_networks(clip_model, fid)
        lpips = networks.alexnet if backbone == "alex" else Lpips(backbone, model_folders("lpips"), device())
        base = studio.cached(base_model)
        drawings = {name: studio.cached(model) for name, model in named.items()}
        candidates = {name: Candidate(drawings[name], studio.identity(model)) for name, model in named.items()}
        settings, again = studio.settings(base_model), studio.bare(base_model)
        evaluations = evaluate(base, candidates, lpips, networks, plan, settings, judge, again)
        table = leaderboard(evaluations)
        plot, sheet = tradeoff_plot(evaluations), comparison_sheet(base, drawings, evaluations)
        summary, values = report(evaluations)
        files = save_report(filename_prefix, summary, values)
        images = [
            *ui.PreviewImage(sheet, cls=cls).as_dict()["images"],
            *ui.PreviewImage(plot, cls=cls).as_dict()["images"],
        ]
        return io.NodeOutput(
            sheet,
            plot,
            table,
            json.dumps(summary, indent=2),
            ui={"images": images, "text": (table,), "comparison": [summary], "report": files},
        )


def model_names(names: tuple[str, ...], count: int) -> list[str]:
    """A name for each model: the given ones, then `model 2` and so on.

    Raises ValueError when there are more names than models, two are the same, or one stands for the base.
    """
    from ..unlearning_core.metrics.evaluation import check_names

    if len(names) > count:
        raise ValueError(f"names: {len(names)} lines for {count} models; write one a model, or fewer")
    named = [*names, *(f"model {index + 1}" for index in range(len(names), count))]
    check_names(named)
    return named
