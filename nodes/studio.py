"""What the measuring nodes share: their sampling inputs, and pictures of any number of models through one cache."""

from __future__ import annotations

from dataclasses import dataclass
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
from ..unlearning_core.metrics.drawing import Draw, Shot, check_size, chunks, shots_of
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


def seed_inputs(seeds: int, forget_seeds: int) -> list[io.Input]:
    """First seed, and the counts of seeds with these defaults."""
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
            default=seeds,
            min=1,
            max=1000,
            tooltip="Pictures for each retain prompt, with seeds from `seed` upwards. Range 1 to 1000.",
        ),
        io.Int.Input(
            "forget_seeds",
            default=forget_seeds,
            min=1,
            max=1000,
            tooltip="Pictures for each forget prompt, with seeds from `seed` upwards. Range 1 to 1000.",
        ),
    ]


@dataclass(frozen=True)
class Plan:
    """What a measuring node draws."""

    retain: tuple[str, ...]
    forget: tuple[str, ...]
    seeds: range
    forget_seeds: range

    @classmethod
    def of(cls, retain_prompts: str, forget_prompts: str, seed: int, seeds: int, forget_seeds: int) -> Plan:
        """From a node's inputs. Raises ValueError when there is nothing to measure, or a prompt is in both boxes."""
        retain, forget = lines(retain_prompts), lines(forget_prompts)
        check_measured(retain, forget)
        return cls(retain, forget, range(seed, seed + seeds), range(seed, seed + forget_seeds))

    @property
    def shots(self) -> list[Shot]:
        """Of one model."""
        return shots_of(self.retain, self.seeds) + shots_of(self.forget, self.forget_seeds)


def check_prompts(retain_prompts: str | None, forget_prompts: str | None) -> None:
    """Raises ValueError as `Plan.of` does; None is a link, and checked when it runs."""
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
        self._digests: dict[int, str] = {}

    def bare(self, model: ModelPatcher) -> Draw:
        """Draws everything again."""
        return lambda shots: self._drawing.draw(model, shots)

    def cached(self, model: ModelPatcher) -> Draw:
        """Draws what is not in the cache."""
        key = {**self.settings(model), "weights": self._weights(model), "vae": self._vae_digest(), **traits(model)}

        def key_of(prompt: str) -> dict[str, Any]:
            conds = [tensors(self._drawing.cond(text)) for text in (prompt, "")]
            return {**key, "cond": digest(*conds)}

        return self._cache.drawing(key_of, self.bare(model))

    def filled(self, model: ModelPatcher, plan: Plan) -> Draw:
        """`cached` with all of the plan's pictures in the cache, so that two models need not take turns later."""
        draw = self.cached(model)
        for chunk in chunks(plan.shots):
            draw(chunk)
        return draw

    def settings(self, model: ModelPatcher) -> dict[str, Any]:
        """How the pictures of `model` are drawn, for a report."""
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

    def check(self, model: ModelPatcher, smallest: int) -> None:
        """Raises ValueError for a picture size that `model` cannot draw, or below the `smallest` side in pixels."""
        ratio = model.get_model_object("latent_format").spacial_downscale_ratio
        check_size(self._drawing.width, self._drawing.height, ratio, smallest)

    def _weights(self, model: ModelPatcher) -> str:
        """The weights without the patches on them: clones of one model share them, and their digest."""
        if id(model.model) not in self._digests:
            originals = {key: entry[0][0] for key, entry in model.get_key_patches().items()}
            sampling = model.get_model_object("model_sampling")
            self._digests[id(model.model)] = digest(originals, {"sigmas": sampling.sigmas})
        return self._digests[id(model.model)]

    def _vae_digest(self) -> str:
        vae = self._drawing.vae.first_stage_model
        return self._digests.setdefault(id(vae), digest(vae.state_dict()))


def traits(model: ModelPatcher) -> dict[str, Any]:
    """Everything on a MODEL besides its weights that changes pictures, and where it computes."""
    described = {name: described_value(getattr(model, name)) for name in TRAITS}
    return {**described, "device": str(model.load_device), "torch": torch.__version__}


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
