"""Unlearn Concept: train a patch that makes a MODEL forget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..unlearning_core.methods import METHODS, Method, groups
from ..unlearning_core.model import SELECTIONS
from ..unlearning_core.presets import CHOICES, PRESETS, START, SUMMARIES, Preset, preset_named
from ..unlearning_core.prompts import DEFAULT_RETAIN, Prompts, clashing, left_out, lines
from ..unlearning_core.settings import CUSTOM, Settings
from .host.checks import Inputs, check_given, checked
from .inputs import number_input, tooltip, unlearning_outputs

METHOD_DEFAULT = "method default"
SETTINGS = {spec.name: spec for spec in fields(Settings) if spec.metadata}


class UnlearnConcept(io.ComfyNode):
    """A MODEL with its CLIP, prompts and settings in; the patched MODEL and the PATCH out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        methods = [
            io.DynamicCombo.Option(name, [number_input(spec) for spec in fields(method)])
            for name, method in METHODS.items()
        ]
        return io.Schema(
            node_id="UnlearnConcept",
            display_name="Unlearn Concept",
            category="unlearning",
            description=(
                "Makes the model forget: what the forget prompts drew is overwritten or erased, what the retain "
                "prompts draw is held. Gives the patched MODEL and the patch. The MODEL that comes in is not changed; "
                "LoRAs on it count as part of the base."
            ),
            search_aliases=[
                "unlearning",
                "forget concept",
                "erase concept",
                "concept erasure",
                "remove concept",
                "remove style",
                "censor",
                "NSFW",
                "UCE",
                "ESD",
                "OVW",
                "LECO",
                "concept slider",
                "negative LoRA",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The base. Any eps-, v- or flow-prediction model. Patches and LoRAs on it are part of the "
                    "base: the file names them, and fits this combination only.",
                ),
                io.Clip.Input("clip", tooltip="The text encoder that goes with the model."),
                io.String.Input(
                    "forget_prompts",
                    multiline=True,
                    default="a cat face",
                    tooltip="What to forget: one prompt per line, worded as it would be used. A line may name its own "
                    "target: a cat => a dog.",
                ),
                io.String.Input(
                    "overwrite_prompt",
                    multiline=True,
                    default="",
                    tooltip="What to draw instead: one line for all forget prompts, or one line each. Empty is the "
                    f"empty prompt. Only held, not aimed at, by {listed(groups.ignoring_overwrite())}.",
                ),
                io.String.Input(
                    "retain_prompts",
                    multiline=True,
                    default="",
                    placeholder="When empty, these are held, but for what is forgotten: " + "; ".join(DEFAULT_RETAIN),
                    tooltip="What to hold: one prompt per line; a line that is a forget prompt too is left out. The "
                    "empty prompt and the overwrite prompts are always held too. "
                    f"When help_weight is 0, not used by {listed(groups.ignoring_retain())}.",
                ),
                io.DynamicCombo.Input("method", options=methods, tooltip=method_tooltip()),
                number_input(SETTINGS["steps"]),
                number_input(SETTINGS["learning_rate"]),
                io.Combo.Input(
                    "weights",
                    options=[METHOD_DEFAULT, *SELECTIONS],
                    default=METHOD_DEFAULT,
                    tooltip="Weights to train. For ESD: cross_attention is ESD-x, cross_attention_kv ESD-x-strict, "
                    "not_cross_attention ESD-u, all ESD-all. Closed forms need text_projections, their default.",
                ),
                number_input(SETTINGS["rank"]),
                number_input(SETTINGS["alpha"], advanced=True),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip=tooltip(SETTINGS["seed"]),
                ),
                number_input(SETTINGS["width"]),
                number_input(SETTINGS["height"]),
                *(
                    number_input(SETTINGS[name], advanced=True)
                    for name in ("batch_size", "runs", "run_steps", "run_cfg")
                ),
                *(number_input(SETTINGS[name], optional=True) for name in ("protect", "wordings")),
                io.Combo.Input(  # behind those, since saved workflows have values by their place; nodes/web moves it up
                    "thoroughness",
                    options=list(CHOICES),
                    default=CUSTOM,
                    optional=True,
                    tooltip=thoroughness_tooltip(),
                    extra_dict={"start": START, "hides": hides()},
                ),
                *(
                    number_input(SETTINGS[name], optional=True)
                    for name in ("adversaries", "retain_ratio", "held_wordings")
                ),
                number_input(SETTINGS["micro_batch"], optional=True, advanced=True),
                number_input(SETTINGS["relearning"], optional=True),
                io.Latent.Input(
                    "forget_latents",
                    optional=True,
                    tooltip="Pictures of what to forget, from VAE Encode, in place of the model's own: one for each "
                    "forget prompt, or any number for a single prompt.",
                ),
                io.Latent.Input(
                    "retain_latents",
                    optional=True,
                    tooltip="Pictures to hold, from VAE Encode, in place of the model's own: one for each retain "
                    "prompt, or any number for a single prompt.",
                ),
            ],
            outputs=unlearning_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @checked(
        "method",
        "forget_prompts",
        "overwrite_prompt",
        "retain_prompts",
        "weights",
        "rank",
        "micro_batch",
        "thoroughness",
    )
    def validate_inputs(cls, inputs: Inputs) -> None:
        if "method" not in inputs:  # ComfyUI leaves out a choice that it does not know
            raise ValueError(f"method: unknown; choose one of {', '.join(METHODS)}")
        if "forget_prompts" in inputs:
            prompts_of({"overwrite_prompt": "", "retain_prompts": "", **inputs})
        method = {"method": inputs["method"]["method"]}
        objective, settings = chosen(method, {"weights": METHOD_DEFAULT, **inputs})
        objective.check_settings(settings)

    @classmethod
    def execute(cls, model: ModelPatcher, clip: Any, method: dict[str, Any], **inputs: Any) -> io.NodeOutput:
        from .host.unlearning import Task, unlearned

        check_given(cls.define_schema().inputs, {"model": model, "clip": clip, **inputs})
        prompts = prompts_of(inputs)
        objective, settings = chosen(method, inputs)
        objective.check_settings(settings)
        remark = left_out(clashing(prompts.forget, lines(inputs["retain_prompts"])))
        task = Task(objective, prompts, settings, inputs.get("forget_latents"), inputs.get("retain_latents"), remark)
        return io.NodeOutput(*unlearned(model, clip, task, cls.hidden.unique_id))


def thoroughness_tooltip() -> str:
    """A line for each preset."""
    lines = [f"{name}: {summary}." for name, summary in SUMMARIES.items() if name != CUSTOM]
    free = "learning rate, rank, picture size, seed and sampling stay yours"
    return "\n".join([f"How thoroughly to forget; {free}.", *lines, f"{CUSTOM}: method and settings as they stand."])


def hides() -> dict[str, dict[str, list[str]]]:
    """For the front end: inputs that change nothing under a preset; without one, under a method."""
    return {
        "preset": {name: ["method", *hidden_by(preset)] for name, preset in PRESETS.items()},
        "method": {name: list(kind.unused_settings(wordings=False)) for name, kind in METHODS.items()},
        "method_with_wordings": {name: list(kind.unused_settings(wordings=True)) for name, kind in METHODS.items()},
    }


def hidden_by(preset: Preset) -> list[str]:
    """The settings that a preset decides, and those that its method does not use."""
    decided = preset.values(forget=1)
    return sorted(({*decided} - {"preset"}) | {*preset.kind.unused_settings(bool(decided["wordings"]))})


def method_tooltip() -> str:
    """A line for each method."""
    lines = [f"{name} - {kind.label}: {kind.summary}." for name, kind in METHODS.items()]
    return "\n".join(
        [
            "The unlearning method, with its options. Under the forget prompt:",
            *lines,
            "Without training, so that steps, learning_rate, size and latents are not used: "
            f"{listed(groups.closed_forms())}.",
        ]
    )


def listed(names: Sequence[str]) -> str:
    """`a, b`."""
    return ", ".join(names)


def prompts_of(inputs: Inputs) -> Prompts:
    """The three boxes. Raises ValueError as `Prompts` does."""
    return Prompts.parse(inputs["forget_prompts"], inputs["overwrite_prompt"], inputs["retain_prompts"])


def chosen(method: Inputs, inputs: Inputs) -> tuple[Method, Settings]:
    """Method and settings of the preset, or of the widgets. Raises ValueError for an unknown preset or a value out of
    its range.
    """
    thoroughness = inputs.get("thoroughness", CUSTOM)
    if preset := preset_named(thoroughness):
        decided = preset.values(len(lines(inputs.get("forget_prompts", ""))))
        return preset.objective, settings_of(preset.kind, {**inputs, **decided})
    kind = METHODS[method["method"]]
    objective = kind(**{key: value for key, value in method.items() if key != "method"})
    return objective, settings_of(kind, {**inputs, "preset": thoroughness})


def settings_of(kind: type[Method], inputs: Inputs) -> Settings:
    """The values under the names of `Settings`. Raises ValueError for one out of its range."""
    weights = kind.weights if inputs["weights"] == METHOD_DEFAULT else inputs["weights"]
    given = {name: inputs[name] for name in SETTINGS if name in inputs}
    return Settings(weights=weights, preset=inputs["preset"], **given)
