"""Room on the device before training starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import comfy.model_management

from ...unlearning_core.bank import items_at_once
from ...unlearning_core.deltas import UNPROTECTED, Directions
from ...unlearning_core.memory import Need, needed
from ...unlearning_core.methods import GradientMethod, Method
from ...unlearning_core.probes import small_size
from ...unlearning_core.settings import Settings
from ...unlearning_core.unlearn import new_deltas
from .model import SAME, ComfyModel, empty_latent, no_checkpointing
from .training import blocks


def make_room(
    host: ComfyModel,
    method: Method,
    settings: Settings,
    prompts: Sequence[str],
    protected: Mapping[str, Directions] = UNPROTECTED,
) -> Need | None:
    """Takes other models off the device, and turns on gradient checkpointing when training needs it to fit.

    The prompts are encoded first, so that the text encoder is among those that leave. None for methods in closed form.
    Raises ValueError when training does not fit even so, checkpointing gives other gradients, or the model cannot draw
    the size.
    """
    if not isinstance(method, GradientMethod):
        return None
    drawing = _drawing_bytes(host, settings)
    host.encode(prompts)
    _free(host, drawing)
    deltas = new_deltas(host, settings, protected)
    small = small_size(host, *settings.size)
    plainly = host.check_backward(deltas, *small)
    plain = needed(host, method, deltas, settings)
    if plain.extra <= _free(host, max(plain.extra, drawing)):
        return plain
    host.backward.checkpointing = True
    again = host.check_backward(deltas, *small)
    if (again - plainly).norm() > SAME * plainly.norm():
        raise no_checkpointing("it gives other gradients")
    saving = needed(host, method, deltas, settings)
    one_block = plain.activations // len(blocks(host.patcher.model.diffusion_model))  # computed again at a time
    saving = replace(saving, activations=saving.activations + one_block)
    saving.check(_free(host, max(saving.extra, drawing)), settings)
    return saving


def _drawing_bytes(host: ComfyModel, settings: Settings) -> int:
    """ComfyUI's estimate of what the base needs to draw what is trained on; it is on the high side."""
    latent = empty_latent(host.patcher, settings.width, settings.height)
    return int(host.patcher.memory_required([items_at_once(settings.width, settings.height), *latent.shape[1:]]))


def _free(host: ComfyModel, wanted: int) -> int:
    """Free bytes on the device, after other models made room for so many where they could."""
    management = comfy.model_management
    keep = [loaded for loaded in management.current_loaded_models if loaded.model is host.patcher]
    management.free_memory(wanted, host.device, keep_loaded=keep)
    free: int = management.get_free_memory(host.device)
    return free
