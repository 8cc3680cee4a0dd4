"""A patch in another form: full deltas, LoRA of a chosen rank, or merged into its base."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .deltas import full_tensors, highest_rank, left_out, low_rank_part, low_rank_tensors
from .files import check_writable, write_atomically
from .hosts.base import DiffusersModel
from .hosts.pictures import OnPictures, draw
from .metrics.lpips import Lpips
from .patch import UnlearningPatch
from .progress import OnProgress, Reporter
from .sampling import Sampling


def to_full(patch: UnlearningPatch) -> UnlearningPatch:
    """The same changes as full deltas."""
    tensors = [full_tensors(name, change) for name, change in patch.changes().items()]
    return _with(patch, tensors, rank=0)


def to_low_rank(patch: UnlearningPatch, rank: int, on_progress: OnProgress = lambda progress: None) -> UnlearningPatch:
    """The nearest changes of rank `rank` at most, by singular value decomposition (Eckart and Young 1936).

    `on_progress` is told after each layer. Left out is what `low_rank_part` leaves out. Raises ValueError when rank is
    below 1, or nothing would be left.
    """
    if rank < 1:
        raise ValueError(f"rank: {rank}; must be 1 or more")
    changes = patch.changes()
    matrices = low_rank_part(changes)
    if not matrices:
        raise ValueError(f"rank: nothing of the patch is left; {left_out(changes)}; export it with --full")
    pairs = min(rank, highest_rank(matrices))
    report, tensors = Reporter(on_progress, len(matrices)), []
    for name, change in matrices.items():
        tensors.append(low_rank_tensors(name, *factors(change, pairs)))
        report()
    return _with(patch, tensors, rank)


def factors(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """up [out, rank, ...] and down [rank, in, ...] of a change [out, in, ...]; zero beyond its smaller side."""
    u, s, v = torch.linalg.svd(change.flatten(1).double(), full_matrices=False)
    up, down = change.new_zeros(len(change), rank), change.new_zeros(rank, change[0].numel())
    kept = min(rank, len(s))
    root = s[:kept].sqrt()
    up[:, :kept], down[:kept] = u[:, :kept] * root, root[:, None] * v[:kept]
    return up.view(*up.shape, *[1] * (change.ndim - 2)), down.view(rank, *change.shape[1:])


def lost_layers(patch: UnlearningPatch) -> str:
    """What `to_low_rank` leaves out at any rank, why, and its share of the change's norm; empty when nothing."""
    changes = patch.changes()
    reason = left_out(changes)
    if not reason:
        return ""
    kept = replace(patch, tensors=_joined(full_tensors(*item) for item in low_rank_part(changes).items()))
    return f"{reason}: {weight_error(patch, kept):.3g} of the change's norm"


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
    on_pictures: OnPictures = lambda pictures: None,
) -> float:
    """Mean LPIPS (AlexNet) of the pictures of (prompt, seed) pairs under one patch and under the other."""
    with model.patched(patch):
        pictures = draw(model, prompt_seeds, sampling, on_pictures)
    with model.patched(other):
        others = draw(model, prompt_seeds, sampling, on_pictures)
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
    return UnlearningPatch(_joined(tensors), record)


def _joined(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: tensor for part in parts for key, tensor in part.items()}
