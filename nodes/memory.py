"""Room on the device before training starts."""

from __future__ import annotations

from dataclasses import replace

import comfy.model_management

from ..unlearning_core.memory import Need, needed
from ..unlearning_core.methods import GradientMethod, Method
from ..unlearning_core.train import Settings
from ..unlearning_core.unlearn import new_deltas
from .model import ComfyModel
from .training import blocks


def make_room(host: ComfyModel, method: Method, settings: Settings) -> Need | None:
    """Takes other models off the device, and turns on gradient checkpointing when training needs it to fit.

    None for methods in closed form. Raises ValueError when training does not fit even so.
    """
    if not isinstance(method, GradientMethod):
        return None
    halves = 2 if method.help_weight > 0 or method.uses_retain else 1
    deltas = new_deltas(host, settings)
    latents = halves * settings.batch_size
    plain = needed(host, deltas, settings, latents)
    if plain.extra <= _free(host, plain):
        return plain
    host.checkpointing = True
    saving = needed(host, deltas, settings, latents)
    again = plain.activations // len(blocks(host.patcher.model.diffusion_model))  # of one block at a time
    saving = replace(saving, activations=saving.activations + again)
    saving.check(_free(host, saving), settings)
    return saving


def _free(host: ComfyModel, need: Need) -> int:
    management = comfy.model_management
    keep = [loaded for loaded in management.current_loaded_models if loaded.model is host.patcher]
    management.free_memory(need.extra, host.device, keep_loaded=keep)
    free: int = management.get_free_memory(host.device)
    return free
