"""Unlearning on a MODEL: a private copy of it is trained, and the patch that comes of it goes on a clone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP

from ...unlearning_core.bank import NO_LATENTS, UserLatents, bank_sources, check_sizes
from ...unlearning_core.deltas import UNPROTECTED
from ...unlearning_core.kept import KeepingModel, KeptPredictions
from ...unlearning_core.methods import GradientMethod, Method
from ...unlearning_core.model import DiffusionModel
from ...unlearning_core.patch import Record, UnlearningPatch
from ...unlearning_core.prompts import Prompts, all_prompts
from ...unlearning_core.protection import protected_directions
from ...unlearning_core.selections import selections_of, summary
from ...unlearning_core.settings import Settings
from ...unlearning_core.unlearn import selected, unlearn
from .identity import prediction_identity
from .live import show
from .memory import make_room
from .model import ComfyModel, empty_latent
from .patching import apply_patch
from .private import private_copy
from .progress import interruptible
from .rounding import rounding_warning
from .shared import shared_model
from .watching import watched

kept = KeptPredictions()  # of the bases that were trained on last


class Task(NamedTuple):
    """What a MODEL is to forget, and how."""

    method: Method
    prompts: Prompts
    settings: Settings
    forget_latents: dict[str, Any] | None = None  # LATENTs
    retain_latents: dict[str, Any] | None = None
    remark: str = ""  # on the inputs


def unlearned(model: ModelPatcher, clip: CLIP, task: Task, node_id: str | None) -> tuple[ModelPatcher, UnlearningPatch]:
    """The MODEL with the patch at strength 1, and the patch; progress, remark and warnings are shown under the node.

    `model` stays as it is. Raises ValueError for what this MODEL cannot train on.
    """
    method, prompts, settings = task.method, task.prompts, task.settings
    latents = NO_LATENTS
    if isinstance(method, GradientMethod):
        latents = _latents(model, task)
        sources = bank_sources(method.needs, prompts, settings.bank, latents)
        check_sizes(sources, empty_latent(model, *settings.size))
    notes = [*filter(None, [task.remark])]
    show("\n".join(["preparing the model", *notes]), node_id)
    with interruptible(node_id), torch.inference_mode(False), torch.enable_grad(), opened(model, clip, method) as host:
        trains = isinstance(method, GradientMethod)
        protected = protected_directions(host, settings, prompts) if trains else UNPROTECTED
        make_room(host, method, settings, all_prompts(prompts), protected)
        chosen = selected(method, selections_of(host, settings.size), settings.weights)
        show(summary(settings.weights, chosen), node_id)
        with watched(host, method, prompts, settings, node_id, notes) as progress:
            patch = unlearn(_keeping(model, host, method), method, prompts, settings, progress, latents)
    notes += filter(None, [stopped_remark(patch.record), rounding_warning(model, patch, 1.0)])
    show("\n".join([f"done: {patch.record.title}", *notes]), node_id)
    return apply_patch(model, patch, 1.0), patch


def stopped_remark(record: Record) -> str:
    """A line for training that was ended early; empty without."""
    if record.stopped is None:
        return ""
    return f"stopped after step {record.stopped} of {record.settings['steps']}: the patch is that of these steps"


@contextmanager
def opened(model: ModelPatcher, clip: CLIP, method: Method) -> Iterator[ComfyModel]:
    """What is trained, or looked into."""
    if isinstance(method, GradientMethod):
        with private_copy(model) as private:
            yield ComfyModel(private, clip)
    else:
        with shared_model(model, clip) as shared:
            yield shared


def _keeping(model: ModelPatcher, host: ComfyModel, method: Method) -> DiffusionModel:
    """The host, which keeps the base's predictions for the next run where they take long."""
    if not isinstance(method, GradientMethod):
        return host
    return KeepingModel(host, prediction_identity(model, host.patcher), kept)


def _latents(model: ModelPatcher, task: Task) -> UserLatents:
    """The two LATENTs in the model's own scale, as tensors that training may use.

    Raises ValueError for a picture size or latents that the model cannot take.
    """
    like = empty_latent(model, *task.settings.size)
    with torch.inference_mode(False):
        given = UserLatents(_samples(task.forget_latents, "forget"), _samples(task.retain_latents, "retain"))
        given.check(like)
        scale = model.get_model_object("latent_format").process_in
        return UserLatents(*(None if half is None else scale(half) for half in (given.forget, given.retain)))


def _samples(latents: dict[str, Any] | None, half: str) -> torch.Tensor | None:
    """A LATENT's own copy in fp32. Raises ValueError for one that holds something else than pictures."""
    if latents is None:
        return None
    given = latents["samples"]
    if given.is_nested or not given.is_floating_point():
        raise ValueError(f"{half} latents: they are {given.dtype}, not pictures' latents; use VAE Encode")
    return given.clone().float()
