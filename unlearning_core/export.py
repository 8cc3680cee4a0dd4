"""A patch in another form: full deltas, LoRA of a chosen rank, or merged into its base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .deltas import full_tensors, low_rank_tensors
from .files import check_writable, write_atomically
from .hosts.base import DiffusersModel
from .hosts.pictures import draw
from .metrics.lpips import Lpips
from .patch import UnlearningPatch
from .sampling import Sampling


def to_full(patch: UnlearningPatch) -> UnlearningPatch:
    """The same changes as full deltas."""
    tensors = [full_tensors(name, change) for name, change in patch.changes().items()]
    return _with(patch, tensors, rank=0)


def to_low_rank(patch: UnlearningPatch, rank: int) -> UnlearningPatch:
    """The nearest changes of rank `rank` at most, by singular value decomposition (Eckart and Young 1936).

    Changes of biases and norms are left out: they have no low rank, and diffusers refuses LoRA files that hold them.
    Raises ValueError when rank is below 1, or the patch changes nothing else.
    """
    if rank < 1:
        raise ValueError(f"rank: {rank}; must be 1 or more")
    matrices = {name: change for name, change in patch.changes().items() if change.ndim >= 2}
    if not matrices:
        raise ValueError("rank: the patch changes vectors only, which have no low rank; export it with --full")
    return _with(patch, [low_rank_tensors(name, *factors(change, rank)) for name, change in matrices.items()], rank)


def factors(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """up [out, r, ...] and down [r, in, ...] of a change [out, in, ...], r the rank or the change's smaller side."""
    u, s, v = torch.linalg.svd(change.flatten(1).double(), full_matrices=False)
    rank = min(rank, len(s))
    root = s[:rank].sqrt()
    up, down = u[:, :rank] * root, root[:, None] * v[:rank]
    up = up.view(*up.shape, *[1] * (change.ndim - 2))
    return up.float().contiguous(), down.view(rank, *change.shape[1:]).float().contiguous()


def weight_error(patch: UnlearningPatch, other: UnlearningPatch) -> float:
    """||changes - other changes|| / ||changes||, Frobenius norms over all weights; what `other` lacks is zero there."""
    others = other.changes()
    lost = whole = 0.0
    for name, change in patch.changes().items():
        kept = others.get(name, torch.zeros_like(change))
        lost += float((change.double() - kept.double()).square().sum())
        whole += float(change.double().square().sum())
    return (lost / whole) ** 0.5


def picture_error(
    model: DiffusersModel,
    patch: UnlearningPatch,
    other: UnlearningPatch,
    prompt_seeds: list[tuple[str, int]],
    sampling: Sampling,
) -> float:
    """Mean LPIPS (AlexNet) of the pictures of (prompt, seed) pairs under one patch and under the other."""
    with model.patched(patch):
        pictures = draw(model, prompt_seeds, sampling)
    with model.patched(other):
        others = draw(model, prompt_seeds, sampling)
    return float(Lpips("alex").distance(pictures, others).mean())


def merge(model: DiffusersModel, patch: UnlearningPatch, strength: float, folder: Path) -> None:
    """Writes the pipeline with the patch in its weights as a diffusers folder, in one move.

    Raises ValueError as `check_new`, or when the patch was made for another base.
    """
    check_new(folder)
    patch.check_base(model.fingerprint())
    with write_atomically(folder) as partial, model.patched(patch, strength):
        model.pipeline.save_pretrained(partial)


def check_new(folder: Path) -> None:
    """Raises ValueError when there is something at `folder` already, or it cannot be made."""
    check_writable(folder)
    if folder.exists():
        raise ValueError(f"{folder}: is there already; name a new folder")


def _with(patch: UnlearningPatch, tensors: list[dict[str, Tensor]], rank: int) -> UnlearningPatch:
    settings = {**patch.record.settings, "rank": rank, "alpha": 0.0}
    record = replace(patch.record, settings=settings, integrity=None)
    return UnlearningPatch({key: tensor for part in tensors for key, tensor in part.items()}, record)
