"""Save Unlearning Patch and Load Patched Model."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import comfy.lora
import folder_paths
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from server import PromptServer

from ..unlearning_core.patch import Record, module_of
from ..unlearning_core.patch import UnlearningPatch as Patch
from .precision import rounding_warning
from .types import UnlearningPatch
from .weights import base_weights, patch_changes

ATTACHMENT = "unlearning"  # on a MODEL: the patches that apply_patch has put there


class Applied(NamedTuple):
    """A patch on a MODEL."""

    adapters: dict[Any, Any]  # as ComfyUI holds them, by state-dict key
    strength: float


class SaveUnlearningPatch(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SaveUnlearningPatch",
            display_name="Save Unlearning Patch",
            category="unlearning",
            description=(
                "Saves the patch as safetensors under output/loras, where Load Patched Model and the stock LoRA "
                "loaders list it after a refresh (R)."
            ),
            search_aliases=["save lora", "unlearning patch", "save erasure"],
            inputs=[
                UnlearningPatch.Input("patch", tooltip="The patch from Unlearn Concept."),
                io.String.Input(
                    "filename_prefix",
                    default="unlearned",
                    tooltip="File name under output/loras; folders are allowed. A counter is added.",
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        try:
            if filename_prefix is not None:  # linked: checked when it runs
                check_prefix(filename_prefix)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, patch: Patch, filename_prefix: str) -> io.NodeOutput:
        check_prefix(filename_prefix)
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            f"loras/{filename_prefix}", folder_paths.get_output_directory()
        )
        filename = f"{name}_{counter:05}_.safetensors"
        patch.save(Path(folder) / filename)
        return io.NodeOutput(ui={"patch": [{"filename": filename, "subfolder": subfolder, "type": "output"}]})


class LoadPatchedModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadPatchedModel",
            display_name="Load Patched Model",
            category="unlearning/loaders",
            description="Applies a saved unlearning patch to the base model that it was trained on.",
            search_aliases=["load lora", "unlearning patch", "apply patch"],
            inputs=[
                io.Model.Input("model", tooltip="The base model."),
                io.Combo.Input(
                    "patch_file",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="A patch from Save Unlearning Patch, in output/loras or models/loras.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How much of the patch to apply, -10 to 10: 0 is the base, 1 what was trained. Loaders in "
                    "a row stack; the same patch twice adds its strengths, so -1 takes off what 1 put on.",
                ),
                io.Boolean.Input(
                    "check_base",
                    default=True,
                    tooltip="Stop when the patch was trained on another base model than this one.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The patched model."),
                UnlearningPatch.Output(display_name="PATCH", tooltip="The patch as loaded."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, patch_file: str, **inputs: Any) -> Any:
        status = os.stat(folder_paths.get_full_path_or_raise("loras", patch_file))
        return [status.st_mtime_ns, status.st_size, *inputs.values()]

    @classmethod
    def validate_inputs(cls, patch_file: str) -> bool | str:
        path = folder_paths.get_full_path("loras", patch_file)
        if path is None:
            return f"patch file {patch_file}: not found in the loras folders; refresh the list (R) and choose again"
        try:
            Record.read(Path(path))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, model: ModelPatcher, patch_file: str, strength: float, check_base: bool) -> io.NodeOutput:
        patch = Patch.load(Path(folder_paths.get_full_path_or_raise("loras", patch_file)))
        if check_base:
            patch.check_base(base_weights(model), patch_changes(model))
        patched = apply_patch(model, patch, strength)
        show(rounding_warning(model, patch, strength) or patch.record.title, cls.hidden.unique_id)
        return io.NodeOutput(patched, patch)


def check_prefix(prefix: str) -> None:
    """Raises ValueError when the file would not be named, or not be below output/loras."""
    parts = [part for part in re.split(r"[/\\]", prefix.strip()) if part not in ("", ".")]
    if not parts:
        raise ValueError("filename_prefix: empty; write a file name, such as unlearned")
    if ".." in parts:
        raise ValueError(f"filename_prefix: {prefix!r} leaves output/loras; write a name or folders without '..'")


def show(text: str, node_id: str | None) -> None:
    """Shows text under the node."""
    PromptServer.instance.send_progress_text(text, node_id)


def apply_patch(model: ModelPatcher, patch: Patch, strength: float) -> ModelPatcher:
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
