"""Inputs and outputs that several nodes share."""

from __future__ import annotations

from dataclasses import Field
from typing import Any

import comfy.samplers
from comfy_api.latest import io

from ..unlearning_core.metrics.backbones import BACKBONES
from .host.checks import Least
from .sockets import UnlearningJudge, UnlearningPatch

SHIPPED = "shipped"  # metrics.clip has it too; importing that would slow ComfyUI's start
MODELS = 100  # the most that Autogrow takes
FROM_PATCH = "When empty and a patch is connected: the prompts that it forgets."
HELD_OUT = "When empty and a patch is connected: a list of everyday things, without what it forgets or was trained on."
LABELS = "a photo of a {}: cat, dog, horse, car, house\na painting by {}: Vincent van Gogh, Claude Monet"


def measured_inputs() -> list[io.Input]:
    """The two models that are compared, and what they share."""
    return [
        io.Model.Input("base_model", tooltip="The model before unlearning."),
        io.Model.Input("unlearned_model", tooltip="The model after unlearning."),
        io.Clip.Input("clip", tooltip="The text encoder of both."),
        io.Vae.Input("vae", tooltip="The VAE of both."),
    ]


def unlearned_inputs() -> list[io.Input]:
    """Any number of unlearned models, and their names."""
    model = io.Model.Input("model", tooltip="An unlearned model. Connecting one makes room for another.")
    return [
        io.Autogrow.Input(
            "models",
            template=io.Autogrow.TemplatePrefix(model, prefix="model", min=1, max=MODELS),
            tooltip=f"The unlearned models, 1 to {MODELS}.",
        ),
        io.String.Input(
            "names",
            multiline=True,
            default="",
            tooltip="The models' names in the order of their sockets, one per line.",
        ),
    ]


def prompt_inputs(forget: str = "May be empty.") -> list[io.Input]:
    """The prompts that every measuring node draws; `forget` ends the tooltip of the first box."""
    return [
        io.String.Input(
            "forget_prompts",
            multiline=True,
            default="",
            placeholder="When empty: what a connected patch forgets",
            tooltip=f"Prompts whose pictures should change, one per line. {forget} {FROM_PATCH}",
        ),
        io.String.Input(
            "retain_prompts",
            multiline=True,
            default="",
            placeholder="When empty and a patch is connected: everyday things that training did not see",
            tooltip="Prompts whose pictures should stay as they were, one per line; preferably prompts that "
            "were not trained on. A prompt that comes twice counts once; one that is a forget prompt too is left out. "
            f"{HELD_OUT}",
        ),
    ]


def patch_input(tooltip: str = "The patch under test, for its prompts.") -> io.Input:
    """Where empty prompt boxes are filled from."""
    return UnlearningPatch.Input("patch", optional=True, tooltip=tooltip)


def unlearning_outputs() -> list[io.Output]:
    """What a node that makes a model forget gives."""
    return [
        io.Model.Output(display_name="MODEL", tooltip="The model with the patch at strength 1."),
        UnlearningPatch.Output(display_name="PATCH", tooltip="The trained change, to save."),
    ]


def seed_input() -> io.Input:
    """First seed."""
    return io.Int.Input(
        "seed",
        default=1000,
        min=0,
        max=2**64 - 1,
        control_after_generate=io.ControlAfterGenerate.fixed,
        tooltip="The first seed of each prompt. Range 0 to 2^64 - 1.",
    )


def seed_inputs() -> list[io.Input]:
    """First seed, and the counts of seeds."""
    return [
        seed_input(),
        io.Int.Input(
            "seeds",
            default=2,
            min=1,
            max=1000,
            tooltip="Pictures for each retain prompt, with seeds from `seed` upwards. Range 1 to 1000.",
        ),
        io.Int.Input(
            "forget_seeds",
            default=4,
            min=1,
            max=1000,
            tooltip="Pictures for each forget prompt, with seeds from `seed` upwards. Range 1 to 1000.",
        ),
    ]


def sampling_inputs() -> list[io.Input]:
    """How pictures are drawn, as in KSampler."""
    samplers = comfy.samplers.KSampler
    return [
        io.Combo.Input("sampler_name", options=samplers.SAMPLERS, default="euler", tooltip="As in KSampler."),
        io.Combo.Input("scheduler", options=samplers.SCHEDULERS, default="normal", tooltip="As in KSampler."),
        *euler_inputs(),
    ]


def euler_inputs() -> list[io.Input]:
    """How pictures are drawn where sampler and scheduler are given."""
    return [
        io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Sampling steps. Range 1 to 1000."),
        io.Float.Input(
            "cfg", default=7.0, min=Least(0), max=100.0, step=0.1, tooltip="Guidance scale. Range 0 to 100."
        ),
        io.Int.Input("width", default=512, min=16, max=16384, step=8, tooltip="Pixels. Range 16 to 16384."),
        io.Int.Input("height", default=512, min=16, max=16384, step=8, tooltip="Pixels. Range 16 to 16384."),
    ]


def fresh_input() -> io.Input:
    """Whether to empty the picture cache."""
    return io.Boolean.Input(
        "fresh_pictures",
        default=False,
        optional=True,
        advanced=True,
        tooltip="Empty the picture cache first and draw everything again. Otherwise pictures that were drawn since "
        "ComfyUI started, with the same weights and settings, are taken from there.",
    )


def prefix_input(default: str) -> io.Input:
    """Where figures are saved."""
    return io.String.Input(
        "filename_prefix",
        default=f"unlearning/{default}",
        optional=True,
        advanced=True,
        tooltip="Every figure and setting is saved under this name in ComfyUI's output folder, as JSON and CSV, "
        "and beside them the pictures that the node shows. Folders are allowed; a counter is added.",
    )


def backbone_input() -> io.Input:
    """The network of LPIPS."""
    return io.Combo.Input(
        "backbone",
        options=list(BACKBONES),
        default="alex",
        optional=True,
        tooltip="The network that LPIPS uses. Compare figures of the same backbone only.",
    )


def clip_input() -> io.Input:
    """Which open_clip model."""
    return io.String.Input(
        "clip_model",
        default=SHIPPED,
        tooltip="An open_clip model. 'shipped' knows the emoji world of Load Tiny T2I only. For other pictures write "
        "open_clip's name and weights, such as 'ViT-B-32 laion2b_s34b_b79k' (downloaded at first use) or 'ViT-B-32 "
        "file.safetensors' with the file in models/open_clip, or the name of an open_clip folder there.",
    )


def fid_input() -> io.Input:
    """Whether to measure FID."""
    return io.Boolean.Input(
        "fid",
        default=False,
        tooltip="Measure FID too. Needs Inception weights in models/inception or torch hub's cache; the message that "
        "asks for them names the file.",
    )


def labels_input() -> io.Input:
    """What a judge chooses from."""
    return io.String.Input(
        "labels",
        multiline=True,
        default=LABELS,
        tooltip="What the judge chooses from. One domain per line: a caption with {} in the label's place, a colon, "
        "and two labels or more, separated by commas. The forget prompts must share one label; prompts name labels as "
        "whole words.",
    )


def judge_output() -> io.Output:
    """A judge for the measuring nodes."""
    return UnlearningJudge.Output(
        display_name="JUDGE", tooltip="For Retention Metric, Forgetting Metric and Compare Methods."
    )


def number_input(spec: Field[Any], advanced: bool | None = None, optional: bool = False) -> Any:
    """The widget of a numeric option: its range, default and tooltip come from the library."""
    kind: Any = io.Int if isinstance(spec.default, int) else io.Float
    low, high, step = (spec.metadata[key] for key in ("low", "high", "step"))
    low, extra = (low, {}) if kind is io.Int else (Least(low), {"round": False})
    return kind.Input(
        spec.name,
        optional=optional,
        default=spec.default,
        min=low,
        max=high,
        step=step,
        tooltip=tooltip(spec),
        advanced=advanced,
        **extra,
    )


def tooltip(spec: Field[Any]) -> str:
    """The option's help with its range."""
    low, high, text = (spec.metadata[key] for key in ("low", "high", "help"))
    return f"{text[0].upper()}{text[1:]}. Range {low} to {high}."
