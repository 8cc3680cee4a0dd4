"""Patches on a MODEL, applied and taken off as the stock LoRA loader does."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import uuid4

import comfy.lora
from comfy.model_patcher import ModelPatcher

from ...unlearning_core.patch import UnlearningPatch, module_of

ATTACHMENT = "unlearning"  # on a MODEL: the patches that apply_patch has put there


class Applied(NamedTuple):
    """A patch on a MODEL."""

    adapters: dict[Any, Any]  # as ComfyUI holds them, by state-dict key
    strength: float


def apply_patch(model: ModelPatcher, patch: UnlearningPatch, strength: float) -> ModelPatcher:
    """A clone of `model` with the patch, applied as the stock LoRA loader does.

    A patch that is on the model already changes its strength there, so strengths 1 and -1 leave exactly nothing of it.
    Raises ValueError when the model lacks a weight that the patch changes.
    """
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    missing = [key for key in patch.tensors if module_of(key) not in names]
    if missing:
        raise ValueError(
            f"patch for {', '.join(patch.record.forget)}: this model has no weight for {len(missing)} of the patch's "
            f"{len(patch.tensors)} tensors, such as {missing[0]}; load the base model that the patch was made for"
        )
    patched = model.clone()
    applied: dict[str, Applied] = dict(patched.get_attachment(ATTACHMENT) or {})
    before = applied.pop(patch.digest, Applied({}, 0.0))
    _remove(patched, before.adapters)
    total = before.strength + strength
    if total:
        adapters = before.adapters or comfy.lora.load_lora(patch.tensors, names)
        patched.add_patches(adapters, total)
        applied[patch.digest] = Applied(adapters, total)
    patched.set_attachments(ATTACHMENT, applied)
    return patched


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
