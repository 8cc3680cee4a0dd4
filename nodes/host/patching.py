"""Patches on a MODEL, applied and taken off as the stock LoRA loader does."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import uuid4

import comfy.lora
from comfy.model_patcher import ModelPatcher

from ...unlearning_core.patch import UnlearningPatch
from .weights import weight_shapes

ATTACHMENT = "unlearning"  # on a MODEL: the patches that apply_patch has put there


class Applied(NamedTuple):
    """A patch on a MODEL."""

    adapters: dict[Any, Any]  # as ComfyUI holds them, by state-dict key
    strength: float


def apply_patch(model: ModelPatcher, patch: UnlearningPatch, strength: float) -> ModelPatcher:
    """A clone of `model` with the patch, applied as the stock LoRA loader does.

    A patch that is on the model already changes its strength there, so strengths 1 and -1 leave exactly nothing of it;
    unless a merge was put on top of it since.
    Raises ValueError when the model lacks a weight that the patch changes, or has it in another shape: ComfyUI would
    leave that weight as it is.
    """
    patch.check_fit(weight_shapes(model))
    patched = model.clone()
    if strength == 0:
        return patched
    digest, applied = patch.digest, dict(patched.get_attachment(ATTACHMENT) or {})
    before: Applied = applied.pop(digest, Applied({}, 0.0))
    if not _adds_up(patched, before.adapters):
        before = Applied({}, 0.0)
    _remove(patched, before.adapters)
    total = before.strength + strength
    if total:
        names = comfy.lora.model_lora_keys_unet(model.model, {})
        adapters = before.adapters or comfy.lora.load_lora(patch.tensors, names)
        patched.add_patches(adapters, total)
        applied[digest] = Applied(adapters, total)
    patched.set_attachments(ATTACHMENT, applied)
    return patched


def _adds_up(patched: ModelPatcher, adapters: dict[Any, Any]) -> bool:
    """Whether nothing that was put on the same weights after them scales them, as merges do."""
    own = {id(adapter) for adapter in adapters.values()}
    for entries in patched.patches.values():
        ours = [id(entry[1]) in own for entry in entries]
        if any(ours) and any(entry[2] != 1.0 for entry in entries[ours.index(True) :]):  # the model's strength
            return False
    return True


def _remove(patched: ModelPatcher, adapters: dict[Any, Any]) -> None:
    """Takes earlier added patches off again."""
    own = {id(adapter) for adapter in adapters.values()}
    for key, entries in list(patched.patches.items()):
        kept = [entry for entry in entries if id(entry[1]) not in own]
        if kept:
            patched.patches[key] = kept
        else:
            del patched.patches[key]
    patched.patches_uuid = uuid4()
