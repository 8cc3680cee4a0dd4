"""Does It Stay Forgotten: attacks on unlearned models."""

from __future__ import annotations

from comfy_api.latest import io

from ..unlearning_core.attacks import ATTACKS, parse_attacks
from ..unlearning_core.attacks.base import Task, check_apart
from ..unlearning_core.measured import MeasuredPrompts, measured_prompts
from ..unlearning_core.metrics.plan import distinct
from ..unlearning_core.prompts import lines
from ..unlearning_core.sampling import Sampling
from .host.checks import Inputs, checked
from .host.folders import check_prefix
from .host.progress import training_progress
from .inputs import FROM_PATCH, HELD_OUT, euler_inputs, patch_input, prefix_input, seed_input, unlearned_inputs
from .measuring import PICTURED, FigureNode, Result, model_names
from .sockets import UnlearningJudge


class DoesItStayForgotten(FigureNode):
    """A base and unlearned MODELs in; heat table, pictures that came back, table and JSON out."""

    key = "attacks"

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DoesItStayForgotten",
            display_name="Does It Stay Forgotten",
            category="unlearning",
            description=(
                "Attacks unlearned models and counts with a judge in how many pictures the concept is back: other "
                "wordings, other guidance and samplers, starts from its pictures, fitted embeddings, searched words, "
                "relearning. The base under the same attacks is the most that they can bring back; the concept "
                "upside down and in the negative, which the base never draws, is what they teach from nothing."
            ),
            search_aliases=["attack", "robustness", "adversarial", "textual inversion", "relearning", "red team"],
            inputs=[
                io.Model.Input("base_model", tooltip="The model before unlearning."),
                io.Clip.Input("clip", tooltip="The text encoder of all."),
                io.Vae.Input("vae", tooltip="The VAE of all."),
                UnlearningJudge.Input("judge", tooltip="From Load Tiny T2I or one of the judge nodes."),
                *unlearned_inputs(),
                io.String.Input(
                    "attacks",
                    multiline=True,
                    default="\n".join(ATTACKS),
                    tooltip="One per line, with options such as `relearning steps=5,20 rates=0.001 rank=8`. The help "
                    "page lists them.",
                ),
                io.String.Input(
                    "forget_prompts",
                    multiline=True,
                    default="",
                    placeholder="When empty: what a connected patch forgets",
                    tooltip="Prompts of the concept, one per line. All must name one label that the judge knows. "
                    f"{FROM_PATCH}",
                ),
                io.String.Input(
                    "other_prompts",
                    multiline=True,
                    default="",
                    tooltip="Prompts of other things, one per line: controls, and texts that embeddings start from. "
                    f"{HELD_OUT}",
                ),
                io.String.Input(
                    "wordings",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="Your own other wordings of the forget prompts, one per line, for the attack `wording`.",
                ),
                seed_input(),
                io.Int.Input(
                    "seeds",
                    default=4,
                    min=1,
                    max=1000,
                    tooltip="Pictures for each forget prompt in each setting of an attack. Range 1 to 1000.",
                ),
                io.Int.Input(
                    "examples",
                    default=8,
                    min=1,
                    max=1000,
                    tooltip="Pictures of the concept that the base draws to attack with, and as many of other things. "
                    "Range 1 to 1000.",
                ),
                *euler_inputs(),
                prefix_input("attacks"),
                patch_input(),
            ],
            outputs=[
                io.Image.Output(display_name="HEAT", tooltip="Attacks down, models across: how much is back."),
                io.Image.Output(display_name="BACK", tooltip="Pictures that show the concept again."),
                io.String.Output(display_name="TABLE", tooltip="The figures as Markdown."),
                io.String.Output(display_name="JSON", tooltip="All figures and settings as JSON."),
            ],
            is_output_node=True,
            hidden=PICTURED,
        )

    @classmethod
    @checked(
        "models",
        "names",
        "attacks",
        "forget_prompts",
        "other_prompts",
        "wordings",
        "filename_prefix",
        sockets=["patch"],
    )
    def validate_inputs(cls, inputs: Inputs) -> None:
        if "attacks" in inputs:
            parse_attacks(lines(inputs["attacks"]))
        if "names" in inputs:
            model_names(lines(inputs["names"]), len(inputs["models"]))
        later = {"forget_prompts": "linked", "other_prompts": "linked otherwise", "wordings": ""}
        texts = {name: inputs.get(name, text) for name, text in later.items()}
        if "patch" in inputs:
            texts = {name: texts[name].strip() or text for name, text in later.items()}
        forget, others, wordings = map(lines, texts.values())
        check_apart(forget, measured_prompts(forget, others, None, wordings).retain, wordings)
        if "filename_prefix" in inputs:
            check_prefix(inputs["filename_prefix"])

    @classmethod
    def result(cls, inputs: Inputs) -> Result:
        """Every attack on every model."""
        from ..unlearning_core.reports.attacks import attack_heat, comeback_sheet
        from ..unlearning_core.reports.files import attack_report
        from ..unlearning_core.reports.tables import attack_page
        from .host.attacking import Stage, examined

        attacks, prompts = parse_attacks(lines(inputs["attacks"])), prompts_of(inputs)
        task = task_of(prompts, inputs)
        base, models = inputs["base_model"], list(inputs["models"].values())
        named = dict(zip(model_names(lines(inputs["names"]), len(models)), models, strict=True))
        stage = Stage(inputs["clip"], inputs["vae"], inputs["judge"])
        examination = examined(base, named, stage, attacks, task, training_progress(cls.hidden.unique_id, []))
        heat, back = attack_heat(examination), comeback_sheet(examination)
        report, page = attack_report(examination), attack_page(examination)
        return Result(report, page, first=(heat, back), pictures={"heat": heat, "back": back}, told=prompts.told)


def prompts_of(inputs: Inputs) -> MeasuredPrompts:
    """Those of the boxes, or of the patch where these are empty."""
    forget, others, wordings = (lines(inputs.get(name, "")) for name in ("forget_prompts", "other_prompts", "wordings"))
    patch = inputs.get("patch")
    return measured_prompts(forget, others, patch and patch.record, wordings, box="other")


def task_of(prompts: MeasuredPrompts, inputs: Inputs) -> Task:
    """What the node's inputs ask for. Raises ValueError as `Task`."""
    sampling = Sampling(inputs["steps"], inputs["cfg"], inputs["width"], inputs["height"])
    return Task(
        forget=distinct(prompts.forget),
        others=distinct(prompts.retain),
        sampling=sampling,
        seed=inputs["seed"],
        seeds=inputs["seeds"],
        examples=inputs["examples"],
        wordings=distinct(lines(inputs.get("wordings", ""))),
    )
