"""What the measuring nodes share: their sampling inputs, and pictures of any number of models through one cache."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import comfy.model_management
import comfy.samplers
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy.weight_adapter import WeightAdapterBase
from comfy_api.latest import io
from torch import Tensor

from ..unlearning_core.metrics.cache import PictureCache, digest, tensors
from ..unlearning_core.metrics.drawing import Draw, Plan, check_measurable
from ..unlearning_core.prompts import check_measured, lines
from .drawing import Drawing

# What of a ModelPatcher changes its pictures, besides the weights.
TRAITS = (
    "patches",
    "object_patches",
    "model_options",
    "weight_wrapper_patches",
    "hook_patches",
    "wrappers",
    "callbacks",
    "injections",
    "additional_models",
)


def measured_inputs() -> list[io.Input]:
    """The two models that are compared, and what they share."""
    return [
        io.Model.Input("base_model", tooltip="The model before unlearning."),
        io.Model.Input("unlearned_model", tooltip="The model after unlearning."),
        io.Clip.Input("clip", tooltip="The text encoder of both."),
        io.Vae.Input("vae", tooltip="The VAE of both."),
    ]


def prompt_inputs(forget: str = "May be empty.") -> list[io.Input]:
    """The prompts that every measuring node draws; `forget` ends the tooltip of the second box."""
    return [
        io.String.Input(
            "retain_prompts",
            multiline=True,
            default="",
            tooltip="Prompts whose pictures should stay as they were, one a line. Prompts that were not "
            "trained on say most. A prompt that comes twice counts once.",
        ),
        io.String.Input(
            "forget_prompts",
            multiline=True,
            default="",
            tooltip=f"Prompts whose pictures should change, one a line. {forget}",
        ),
    ]


def seed_inputs() -> list[io.Input]:
    """First seed, and the counts of seeds."""
    return [
        io.Int.Input(
            "seed",
            default=1000,
            min=0,
            max=2**64 - 1,
            control_after_generate=io.ControlAfterGenerate.fixed,
            tooltip="The first seed of each prompt. Range 0 to 2^64 - 1.",
        ),
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


def plan_of(retain_prompts: str, forget_prompts: str, seed: int, seeds: int, forget_seeds: int) -> Plan:
    """What a node draws. Raises ValueError as `Plan` does."""
    return Plan.of(lines(retain_prompts), lines(forget_prompts), seed, seeds, forget_seeds)


def check_prompts(retain_prompts: str | None, forget_prompts: str | None) -> None:
    """Raises ValueError as `plan_of` does; None is a link, and checked when it runs."""
    if retain_prompts is not None:
        check_measured(lines(retain_prompts), lines(forget_prompts or ""))


def sampling_inputs() -> list[io.Input]:
    """How pictures are drawn, as in KSampler."""
    samplers = comfy.samplers.KSampler
    return [
        io.Combo.Input("sampler_name", options=samplers.SAMPLERS, default="euler", tooltip="As in KSampler."),
        io.Combo.Input("scheduler", options=samplers.SCHEDULERS, default="normal", tooltip="As in KSampler."),
        io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Sampling steps. Range 1 to 1000."),
        io.Float.Input("cfg", default=7.0, min=0.0, max=100.0, step=0.1, tooltip="Guidance scale. Range 0 to 100."),
        io.Int.Input("width", default=512, min=16, max=16384, step=8, tooltip="Pixels. Range 16 to 16384."),
        io.Int.Input("height", default=512, min=16, max=16384, step=8, tooltip="Pixels. Range 16 to 16384."),
    ]


def fresh_input() -> io.Input:
    return io.Boolean.Input(
        "fresh_pictures",
        default=False,
        optional=True,
        advanced=True,
        tooltip="Empty the picture cache first and draw everything again. Otherwise pictures that were drawn since "
        "ComfyUI started, with the same weights and settings, are taken from there.",
    )


class Studio:
    """Draws with any number of models under the same settings; a picture that was drawn before comes from the cache."""

    def __init__(
        self,
        clip: CLIP,
        vae: VAE,
        sampler_name: str,
        scheduler: str,
        steps: int,
        cfg: float,
        width: int,
        height: int,
        pictures: int,
        fresh: bool = False,
    ) -> None:
        """`pictures`: how many will be asked for, for the progress bar."""
        self._cache = PictureCache(Path(folder_paths.get_temp_directory()) / "unlearning_pictures")
        if fresh:
            self._cache.clear()
        bar = comfy.utils.ProgressBar(pictures * steps)

        def on_step(count: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update(count)

        self._drawing = Drawing(clip, vae, sampler_name, scheduler, steps, cfg, width, height, on_step)
        self._digests: dict[int, str] = {}  # by the id of a network
        self._identities: dict[int, str] = {}  # by the id of a MODEL
        self._cond_digest = functools.cache(lambda prompt: digest(tensors(self._drawing.cond(prompt))))

    def bare(self, model: ModelPatcher) -> Draw:
        """Draws everything again."""
        return lambda shots: self._drawing.draw(model, shots)

    def cached(self, model: ModelPatcher) -> Draw:
        """Draws what is not in the cache."""
        key = {
            **self._sampling(model),
            "weights": self._identity(model),
            "vae": self._vae_digest(),
            "negative": self._cond_digest(""),
            "device": str(model.load_device),
            "torch": torch.__version__,
        }
        return self._cache.drawing(lambda prompt: {**key, "cond": self._cond_digest(prompt)}, self.bare(model))

    def settings(self, base_model: ModelPatcher) -> dict[str, Any]:
        """How pictures are drawn and with which weights, for a report."""
        return {
            **self._sampling(base_model),
            "base": self._identity(base_model)[:16],
            "VAE": self._vae_digest()[:16],
            "text encoder": self._cond_digest("")[:16],
        }

    def identity(self, unlearned_model: ModelPatcher) -> dict[str, str]:
        """Which model was measured, for a report."""
        return {"unlearned": self._identity(unlearned_model)[:16]}

    def check(self, model: ModelPatcher, smallest: int) -> None:
        """Raises ValueError for a picture size that `model` cannot draw, or below the `smallest` side in pixels."""
        ratio = model.get_model_object("latent_format").spacial_downscale_ratio
        check_measurable(self._drawing.width, self._drawing.height, ratio, smallest)

    def _sampling(self, model: ModelPatcher) -> dict[str, Any]:
        drawing = self._drawing
        return {
            "model": type(model.model.model_config).__name__,
            "sampler": drawing.sampler,
            "scheduler": drawing.scheduler,
            "steps": drawing.steps,
            "cfg": drawing.cfg,
            "size": f"{drawing.width}x{drawing.height}",
            "precision": str(model.model.get_dtype_inference()).removeprefix("torch."),
        }

    def _identity(self, model: ModelPatcher) -> str:
        """The digest of the weights, and of everything on the MODEL that changes its pictures."""
        if id(model) not in self._identities:
            content = json.dumps([self._weights(model), traits(model)], sort_keys=True)
            self._identities[id(model)] = hashlib.sha256(content.encode()).hexdigest()
        return self._identities[id(model)]

    def _weights(self, model: ModelPatcher) -> str:
        """The weights without the patches on them: clones of one model share them, and their digest."""
        if id(model.model) not in self._digests:
            originals = {key: entry[0][0] for key, entry in model.get_key_patches().items()}
            sampling = model.get_model_object("model_sampling")
            self._digests[id(model.model)] = digest(originals, {"sigmas": sampling.sigmas})
        return self._digests[id(model.model)]

    def _vae_digest(self) -> str:
        network = self._drawing.vae.first_stage_model
        if id(network) not in self._digests:
            self._digests[id(network)] = digest(network.state_dict())
        return self._digests[id(network)]


def traits(model: ModelPatcher) -> dict[str, Any]:
    """Everything on a MODEL besides its weights that changes pictures."""
    return {name: described_value(getattr(model, name)) for name in TRAITS}


def described_value(value: Any) -> Any:
    """JSON that is equal for equal values. What has no content to compare, such as a function, is never equal."""
    if isinstance(value, Tensor):
        return digest({"": value})
    if isinstance(value, WeightAdapterBase):
        return [type(value).__name__, described_value(value.weights)]
    if isinstance(value, dict):
        return {str(key): described_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [described_value(entry) for entry in value]
    if isinstance(value, str | int | float | None):
        return value
    return uuid4().hex


def device() -> torch.device:
    """Where metrics compute."""
    return comfy.model_management.get_torch_device()
