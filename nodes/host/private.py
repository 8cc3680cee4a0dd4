"""A private, trainable copy of the diffusion model that a MODEL holds."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher

from ...unlearning_core.probes import FAILURES, one_line
from .clones import undisturbed
from .storage import forget_quantization, ordinary_parameters
from .traits import check_base
from .weights import original


@contextmanager
def private_copy(model: ModelPatcher) -> Iterator[ModelPatcher]:
    """Yields a loaded copy with the patches of `model` baked in and ordinary tensors for weights.

    Weights that the executor loaded are inference tensors, which have no backward, and the shared model may leave the
    device at any time. Call under `torch.inference_mode(False)`. Raises ValueError when the model cannot be copied, or
    as `check_base` does.
    """
    with undisturbed(model):
        check_base(model)
        private = _reload(model) if model.is_dynamic() else _deepcopy(model)
    if private.model.get_dtype_inference() == torch.float16:  # in which gradients underflow
        private.set_model_compute_dtype(training_dtype(private.load_device))
    private.model.requires_grad_(False)
    try:
        with torch.no_grad():  # ComfyUI leaves out a patch that it cannot compute, as one that would be differentiated
            comfy.model_management.load_models_gpu([private], force_full_load=True)
        private.model.requires_grad_(False)
        if comfy.model_management.is_device_cuda(private.load_device):
            _speed_up(private)
        yield private
    finally:
        _unload(private)


def training_dtype(device: torch.device) -> torch.dtype:
    """What a network of fp16 is computed in: bf16 on GPUs that are fast at it, else fp32."""
    management = comfy.model_management
    fast = management.is_device_cuda(device) and management.should_use_bf16(device)
    return torch.bfloat16 if fast else torch.float32


def _speed_up(private: ModelPatcher) -> None:
    """Weights in the type that they are computed in, so that no call casts them, and in the order of fast kernels."""
    bf16 = private.model.manual_cast_dtype == torch.bfloat16
    for weight in private.model.diffusion_model.parameters():
        if bf16 and weight.dtype == torch.float16:
            weight.data = weight.data.bfloat16()
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def _unload(private: ModelPatcher) -> None:
    """Takes this one model off its device."""
    others = [loaded for loaded in comfy.model_management.current_loaded_models if loaded.model is not private]
    comfy.model_management.free_memory(1e30, private.load_device, keep_loaded=others)


def _reload(model: ModelPatcher) -> ModelPatcher:
    """Dynamic VRAM maps weights lazily, so the file is read again."""
    if model.cached_patcher_init is None:
        raise ValueError(
            "model: its loader cannot load it a second time, which training needs under dynamic VRAM; "
            "use a stock loader, or start ComfyUI with --disable-dynamic-vram"
        )
    options = {"force_deepcopy": True} if "force_deepcopy" in inspect.signature(model.clone).parameters else {}
    private: ModelPatcher = model.clone(disable_dynamic=True, **options)
    ordinary = ordinary_parameters(private.model)
    for module in private.model.modules():
        for name, parameter in module._parameters.items():
            module._parameters[name] = ordinary.get(id(parameter), parameter)
    forget_quantization(private.model)
    return private


def _deepcopy(model: ModelPatcher) -> ModelPatcher:
    # model_config answers any attribute with None, which breaks copy's probes; it is shared instead.
    shared = model.model
    memo: dict[int, Any] = {id(shared.model_config): shared.model_config, **ordinary_parameters(shared)}
    if shared.current_patcher is not None:
        memo[id(shared.current_patcher)] = None
    try:
        own = copy.deepcopy(shared, memo)
    except torch.OutOfMemoryError:
        raise
    except (copy.Error, pickle.PicklingError, *FAILURES) as error:
        raise ValueError(
            f"model: its network cannot be copied, as training needs ({one_line(error)}); choose the method UCE, which "
            "copies nothing, or another model"
        ) from error
    forget_quantization(own)
    # Another clone's patches may be applied to the shared weights now: take the originals with us and undo them.
    backup = {key: entry._replace(weight=original(model, key).clone()) for key, entry in model.backup.items()}
    buffers = {key: buffer.clone() for key, buffer in model.backup_buffers.items()}
    private = model.clone(model_override=(own, (backup, buffers, {}, set())))
    private.unpatch_model(private.offload_device)
    return private
