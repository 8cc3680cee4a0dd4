"""A patch in another form: full deltas, LoRA of a chosen rank, or merged into its base."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import torch
from torch import Tensor

from .deltas import full_tensors, low_rank_tensors
from .hosts.diffusers import DiffusersModel
from .metrics.lpips import Lpips
from .patch import UnlearningPatch
from .sampling import Sampling, draw


def to_full(patch: UnlearningPatch) -> UnlearningPatch:
    """The same changes as full deltas."""
    tensors = [full_tensors(name, change) for name, change in patch.changes().items()]
    return _with(patch, tensors, rank=0)


def to_low_rank(patch: UnlearningPatch, rank: int) -> UnlearningPatch:
    """The nearest changes of rank `rank` at most, by singular value decomposition (Eckart and Young 1936).

    Biases and norms have no low rank and stay full. Raises ValueError when rank is below 1.
    """
    if rank < 1:
        raise ValueError(f"rank: {rank}; must be 1 or more")
    tensors = []
    for name, change in patch.changes().items():
        if change.ndim < 2:
            tensors.append(full_tensors(name, change))
        else:
            tensors.append(low_rank_tensors(name, *factors(change, rank)))
    return _with(patch, tensors, rank=rank)


def factors(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """up [out, r, ...] and down [r, in, ...] of a change [out, in, ...], r the rank or the change's smaller side."""
    u, s, v = torch.linalg.svd(change.flatten(1).double(), full_matrices=False)
    rank = min(rank, len(s))
    root = s[:rank].sqrt()
    up, down = u[:, :rank] * root, root[:, None] * v[:rank]
    up = up.view(*up.shape, *[1] * (change.ndim - 2))
    return up.float().contiguous(), down.view(rank, *change.shape[1:]).float().contiguous()


def weight_error(patch: UnlearningPatch, other: UnlearningPatch) -> float:
    """||changes - other changes|| / ||changes||, Frobenius norms over all weights."""
    changes, others = patch.changes(), other.changes()
    lost = sum((change.double() - others[name].double()).square().sum() for name, change in changes.items())
    return float((lost / sum(change.double().square().sum() for change in changes.values())) ** 0.5)


def picture_error(
    model: DiffusersModel,
    patch: UnlearningPatch,
    other: UnlearningPatch,
    shots: list[tuple[str, int]],
    sampling: Sampling,
) -> float:
    """Mean LPIPS (AlexNet) of the pictures of (prompt, seed) pairs under one patch and under the other."""
    with model.patched(patch):
        pictures = draw(model, shots, sampling)
    with model.patched(other):
        others = draw(model, shots, sampling)
    return float(Lpips("alex").distance(pictures, others).mean())


def merge(model: DiffusersModel, patch: UnlearningPatch, strength: float, folder: Path) -> None:
    """Writes the pipeline with the patch in its weights as a diffusers folder, in one move.

    Raises ValueError when there is something at `folder` already, or the patch was made for another base.
    """
    check_new(folder)
    patch.check_base(model.weights(), model.changes())
    partial = folder.with_name(f".{folder.name}.{uuid4().hex}.partial")
    try:
        with model.patched(patch, strength):
            model.pipeline.save_pretrained(partial)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_new(folder: Path) -> None:
    """Raises ValueError when there is something at `folder` already."""
    if folder.exists():
        raise ValueError(f"{folder}: is there already; name a new folder")


def _with(patch: UnlearningPatch, tensors: list[dict[str, Tensor]], rank: int) -> UnlearningPatch:
    settings = {**patch.record.settings, "rank": rank, "alpha": 0.0}
    record = replace(patch.record, settings=settings, integrity=None)
    return UnlearningPatch({key: tensor for part in tensors for key, tensor in part.items()}, record)
