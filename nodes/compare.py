"""Compare Methods: several unlearned models of one base side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..unlearning_core.attacks import parse_attacks
from ..unlearning_core.attacks.base import Task
from ..unlearning_core.metrics.backbones import BACKBONES
from ..unlearning_core.prompts import lines
from ..unlearning_core.sampling import Sampling
from .host.checks import Inputs, checked
from .host.networks import check_lpips, check_networks, load_lpips, load_networks
from .host.progress import training_progress
from .inputs import (
    backbone_input,
    clip_input,
    fid_input,
    fresh_input,
    patch_input,
    prefix_input,
    prompt_inputs,
    sampling_inputs,
    seed_inputs,
    unlearned_inputs,
)
from .measuring import PICTURED, Judged, MeasuringNode, Result, check_measured_inputs, judged, model_names
from .sockets import UnlearningJudge

if TYPE_CHECKING:
    from ..unlearning_core.attacks.examine import Examination
    from ..unlearning_core.metrics.plan import Plan
    from ..unlearning_core.metrics.studio import Studio


class CompareMethods(MeasuringNode):
    """A base and several unlearned MODELs in; sheet, plot, leaderboard and JSON out."""

    key = "comparison"

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompareMethods",
            display_name="Compare Methods",
            category="unlearning",
            description=(
                "Measures several unlearned models against one base with the same prompts and seeds: a leaderboard, "
                "a plot of forgetting against integrity loss, and a sheet of prompts times models with LPIPS under "
                "each picture."
            ),
            search_aliases=["leaderboard", "benchmark", "compare models", "LPIPS", "trade-off", "unlearning"],
            inputs=[
                io.Model.Input("base_model", tooltip="The model before unlearning."),
                io.Clip.Input("clip", tooltip="The text encoder of all."),
                io.Vae.Input("vae", tooltip="The VAE of all."),
                *unlearned_inputs(),
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
                io.String.Input(
                    "attacks",
                    multiline=True,
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Attacks on every model, as in Does It Stay Forgotten, one per line: adds how much of the "
                    "concept comes back under the strongest of them. Needs a judge and forget prompts. Empty: none.",
                ),
                patch_input("A patch that all of them are measured by, for its prompts."),
            ],
            outputs=[
                io.Image.Output(display_name="SHEET", tooltip="Prompts down, models across, LPIPS under each picture."),
                io.Image.Output(display_name="PLOT", tooltip="Forgetting against integrity loss, one point per model."),
                io.String.Output(display_name="TABLE", tooltip="The leaderboard as Markdown."),
                io.String.Output(display_name="JSON", tooltip="All figures and settings as JSON."),
            ],
            hidden=PICTURED,
            is_output_node=True,
        )

    @classmethod
    @checked(
        "models",
        "retain_prompts",
        "forget_prompts",
        "names",
        "backbone",
        "clip_model",
        "fid",
        "filename_prefix",
        "attacks",
        sockets=["patch"],
    )
    def validate_inputs(cls, inputs: Inputs) -> None:
        check_measured_inputs(inputs)
        if "names" in inputs:
            model_names(lines(inputs["names"]), len(inputs["models"]))
        check_networks(inputs)
        if inputs.get("backbone", "alex") != "alex":
            check_lpips(inputs["backbone"])
        if lines(inputs.get("attacks", "")):
            parse_attacks(lines(inputs["attacks"]))

    @classmethod
    def measure(cls, studio: Studio[ModelPatcher], plan: Plan, inputs: Inputs) -> Result:
        from ..unlearning_core.metrics.evaluation import Candidate, evaluate
        from ..unlearning_core.metrics.retention import Comparison
        from ..unlearning_core.reports.files import comparison_report
        from ..unlearning_core.reports.plots import comparison_sheet, tradeoff_plot
        from ..unlearning_core.reports.tables import comparison_page

        attacks = lines(inputs.get("attacks", ""))
        if attacks and inputs.get("judge") is None:
            raise ValueError("judge: attacks need one to say what came back; connect a judge, or leave attacks empty")
        base_model, models = inputs["base_model"], inputs["models"].values()
        named = dict(zip(model_names(lines(inputs["names"]), len(models)), models, strict=True))
        judge, lacks = judged(plan, inputs) if not attacks else Judged(inputs["judge"])
        networks, backbone = load_networks(inputs["clip_model"], inputs["fid"]), inputs.get("backbone", "alex")
        lpips = networks.alexnet if backbone == "alex" else load_lpips(backbone)
        base, draws = studio.cached(base_model), {name: studio.cached(model) for name, model in named.items()}
        evaluations = evaluate(
            base,
            {name: Candidate(draws[name], studio.identity(model)) for name, model in named.items()},
            Comparison(lpips, plan, judge),
            networks,
            studio.settings(base_model),
            studio.bare(base_model),
        )
        plot, sheet = tradeoff_plot(evaluations), comparison_sheet(base, draws, evaluations)
        examination = cls.examine(named, plan, inputs) if attacks else None
        return Result(
            comparison_report(evaluations, examination),
            comparison_page(evaluations, examination),
            first=(sheet, plot),
            pictures={"sheet": sheet, "plot": plot},
            lacks=lacks,
        )

    @classmethod
    def examine(cls, named: dict[str, ModelPatcher], plan: Plan, inputs: Inputs) -> Examination:
        """The attacks on the models, with the plan's prompts. Raises ValueError as `Task` and `examined`."""
        from .host.attacking import Stage, examined

        sampling = Sampling(inputs["steps"], inputs["cfg"], inputs["width"], inputs["height"])
        task = Task(tuple(plan.forget), tuple(plan.retain), sampling, inputs["seed"], inputs["forget_seeds"])
        stage = Stage(inputs["clip"], inputs["vae"], inputs["judge"])
        attacks, progress = parse_attacks(lines(inputs["attacks"])), training_progress(cls.hidden.unique_id, [])
        return examined(inputs["base_model"], named, stage, attacks, task, progress)

    @classmethod
    def count_pictures(cls, plan: Plan, inputs: Inputs) -> int:
        from ..unlearning_core.metrics.retention import count_pictures

        return count_pictures(plan, len(inputs["models"]))

    @classmethod
    def smallest_side(cls, inputs: Inputs) -> int:
        return max(BACKBONES[name].smallest_side for name in ("alex", inputs.get("backbone", "alex")))
