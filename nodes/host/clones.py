"""Clones of a MODEL share one network, on which the last one that was drawn with leaves what it carries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import comfy.model_management
import comfy.utils
from comfy.model_patcher import ModelPatcher

from .calls import forget_calls


@contextmanager
def undisturbed(model: ModelPatcher) -> Iterator[None]:
    """Within the context, the network that clones of `model` share has its own modules, values and functions.

    Weights stay as they are: those of the checkpoint are in the backup.
    """
    with ExitStack() as taken_off:
        for clone in _loaded():
            if clone.is_clone(model):
                taken_off.enter_context(_taken_off(clone))
        forget_calls(model.model.diffusion_model)
        yield


def _loaded() -> list[ModelPatcher]:
    models = (loaded.model for loaded in comfy.model_management.current_loaded_models)
    return [model for model in models if model is not None]


@contextmanager
def _taken_off(clone: ModelPatcher) -> Iterator[None]:
    """Within the context, hooks, injections and object patches of a loaded clone are off the network."""
    clone.unpatch_hooks()
    injected = clone.is_injected
    clone.eject_model()
    patches = {
        place: comfy.utils.set_attr(clone.model, place, own) for place, own in clone.object_patches_backup.items()
    }
    try:
        yield
    finally:
        if any(model is clone for model in _loaded()):  # else another clone has the network now
            for place, patch in patches.items():
                comfy.utils.set_attr(clone.model, place, patch)
            if injected:
                clone.inject_model()
