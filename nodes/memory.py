"""Room on the device before training starts."""

from __future__ import annotations

import comfy.model_management

from ..unlearning_core.memory import Need, needed
from ..unlearning_core.methods import GradientMethod, Method
from ..unlearning_core.train import Settings
from ..unlearning_core.unlearn import new_deltas
from .model import ComfyModel


def make_room(host: ComfyModel, method: Method, settings: Settings) -> Need | None:
    """Takes other models off the device, and turns on gradient checkpointing when training needs it to fit.

    None for methods in closed form. Raises ValueError when training does not fit even so.
    """
    if not isinstance(method, GradientMethod):
        return None
    halves = 2 if method.help_weight > 0 or method.uses_retain else 1
    deltas = new_deltas(host, settings)
    for host.checkpointing in (False, True):
        need = needed(host, deltas, settings, halves * settings.batch_size)
        free = _free(host, need)
        if need.training + need.activations <= free:
            return need
    need.check(free, settings)
    return need


def _free(host: ComfyModel, need: Need) -> int:
    management = comfy.model_management
    keep = [loaded for loaded in management.current_loaded_models if loaded.model is host.patcher]
    management.free_memory(need.training + need.activations, host.device, keep_loaded=keep)
    free: int = management.get_free_memory(host.device)
    return free
