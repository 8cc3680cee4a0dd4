"""Unlearn Concept: train a patch that makes a MODEL forget."""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io

from ..unlearning_core.methods import METHODS, Method
from ..unlearning_core.model import SELECTIONS
from ..unlearning_core.prompts import DEFAULT_RETAIN, Prompts
from ..unlearning_core.train import Progress, Settings
from ..unlearning_core.unlearn import Pictures, all_prompts, check_settings, unlearn
from .memory import make_room
from .model import ComfyModel
from .patches import apply_patch, show
from .precision import rounding_warning
from .private import private_copy
from .types import UnlearningPatch

METHOD_DEFAULT = "method default"
SETTINGS = {spec.name: spec for spec in fields(Settings) if spec.metadata}


class UnlearnConcept(io.ComfyNode):
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
                "prompts draw is held. Gives the patched MODEL and the patch. The MODEL that comes in stays as it is; "
                "LoRAs on it count as part of the base."
            ),
            search_aliases=["unlearning", "erase concept", "forget", "concept erasure", "ESD", "OVW", "remove concept"],
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
                    tooltip="What to forget: one prompt a line, worded as it would be used. A line may name its own "
                    "target: a cat => a dog.",
                ),
                io.String.Input(
                    "overwrite_prompt",
                    multiline=True,
                    default="",
                    tooltip="What to draw instead: one line for all forget prompts, or one line each. Empty is the "
                    "empty prompt. ESD and Saddle do not push towards it.",
                ),
                io.String.Input(
                    "retain_prompts",
                    multiline=True,
                    default="",
                    placeholder="Held when this is empty:\n" + "\n".join(DEFAULT_RETAIN),
                    tooltip="What to hold: one prompt a line. The empty prompt and the overwrite prompts are always "
                    "held too. OVW, Saddle and ESD do not use it when help_weight is 0.",
                ),
                io.DynamicCombo.Input(
                    "method",
                    options=methods,
                    tooltip="The unlearning method, with its options. uce and nullspace solve in closed form: steps, "
                    "learning_rate, size and latents are not used.",
                ),
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
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model with the patch at strength 1."),
                UnlearningPatch.Output(display_name="PATCH", tooltip="The trained change, to save."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        method: dict[str, Any] | None = None,
        forget_prompts: str | None = None,
        overwrite_prompt: str | None = None,
        retain_prompts: str | None = None,
        weights: str | None = None,
        rank: int | None = None,
    ) -> bool | str:
        if method is None:  # ComfyUI leaves out a choice that it does not know
            return f"method: unknown; choose one of {', '.join(METHODS)}"
        try:
            # What is None is linked: checked when it runs.
            if forget_prompts is not None:
                Prompts.parse(forget_prompts, overwrite_prompt or "", retain_prompts or "")
            kind = METHODS[method["method"]]
            check_settings(kind(), settings_of(kind, weights or METHOD_DEFAULT, rank=rank or 0))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        forget_prompts: str,
        overwrite_prompt: str,
        retain_prompts: str,
        method: dict[str, Any],
        weights: str,
        forget_latents: dict[str, Any] | None = None,
        retain_latents: dict[str, Any] | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        prompts = Prompts.parse(forget_prompts, overwrite_prompt, retain_prompts)
        kind = METHODS[method["method"]]
        objective = kind(**{key: value for key, value in method.items() if key != "method"})
        chosen = settings_of(kind, weights, **settings)
        check_settings(objective, chosen)
        bar = comfy.utils.ProgressBar(1)

        def on_progress(progress: Progress) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(progress.done, progress.total)
            if progress.loss is not None:
                figures = {"loss": progress.loss, **progress.figures}
                text = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
                show(text, cls.hidden.unique_id)

        with torch.inference_mode(False), torch.enable_grad(), private_copy(model) as private:
            host = ComfyModel(private, clip)
            make_room(host, objective, chosen, all_prompts(prompts))
            pictures = Pictures(*(samples(host, latents) for latents in (forget_latents, retain_latents)))
            patch = unlearn(host, objective, prompts, chosen, on_progress, pictures)
        warning = rounding_warning(model, patch, 1.0)
        if warning:
            show(warning, cls.hidden.unique_id)
        return io.NodeOutput(apply_patch(model, patch, 1.0), patch)


def settings_of(kind: type[Method], weights: str, **settings: Any) -> Settings:
    """The widgets' values. Raises ValueError for one out of its range."""
    return Settings(weights=kind.weights if weights == METHOD_DEFAULT else weights, **settings)


def samples(model: ComfyModel, latents: dict[str, Any] | None) -> torch.Tensor | None:
    """A LATENT as a tensor that training may use, in the model's own scale."""
    return None if latents is None else model.latents(latents["samples"].clone())


def number_input(spec: Field[Any], advanced: bool | None = None) -> Any:
    """The widget of a numeric option: its range, default and tooltip come from the library."""
    kind: Any = io.Int if isinstance(spec.default, int) else io.Float
    low, high, step = (spec.metadata[key] for key in ("low", "high", "step"))
    extra = {} if kind is io.Int else {"round": False}
    return kind.Input(
        spec.name, default=spec.default, min=low, max=high, step=step, tooltip=tooltip(spec), advanced=advanced, **extra
    )


def tooltip(spec: Field[Any]) -> str:
    """The option's help with its range."""
    low, high, text = (spec.metadata[key] for key in ("low", "high", "help"))
    return f"{text[0].upper()}{text[1:]}. Range {low} to {high}."
