"""How much memory training needs, measured before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from .deltas import Delta, make_deltas
from .freetext import FreeText
from .methods import GradientMethod
from .model import DiffusionModel, noise_prediction
from .recomputed import is_recomputed
from .settings import Settings

OPTIMIZER = 4  # copies of each trained number: itself, its gradient and Adam's two moments
GB = 1e9


@dataclass(frozen=True)
class Need:
    """Bytes on the device."""

    weights: int  # of the model's copy, which is there already
    training: int  # of deltas, attacks that learn, gradients, optimizer and what the method holds
    activations: int  # that one step keeps for backward

    @property
    def extra(self) -> int:
        """Beside the model's copy."""
        return self.training + self.activations

    @property
    def total(self) -> int:
        """With the model's copy."""
        return self.weights + self.extra

    def check(self, free: int, settings: Settings) -> None:
        """Raises ValueError with what to choose when more is needed than `free` bytes beside the model's copy."""
        if self.extra <= free:
            return
        advice = ["rank 8"] if settings.rank == 0 else []
        if settings.weights not in ("cross_attention_kv", "text_projections"):
            advice.append("cross_attention_kv")
        if self.activations > self.training or not advice:
            smaller = ["a smaller micro_batch or batch_size"] if settings.at_once > 1 else []
            advice = [*smaller, "a smaller width and height", *advice]
        raise ValueError(
            f"memory: Unlearn needs about {self.total / GB:.1f} GB, {(free + self.weights) / GB:.1f} GB are free: "
            f"choose {' or '.join(advice)}"
        )


def needed(model: DiffusionModel, method: GradientMethod, deltas: Mapping[str, Delta], settings: Settings) -> Need:
    """What training needs at its peak, from a few forward passes that keep nothing."""
    kinds = 1 + method.needs_retain * settings.retain_ratio + (settings.adversaries > 0)
    parameters = _trained_bytes(deltas)
    weights = model.weights()
    numbers = sum(weights[name].numel() for name in deltas)
    attacks = settings.adversaries and settings.adversaries * _text_bytes(model)
    activations = _activations(model, deltas, settings.size, kinds * settings.at_once)
    if settings.relearning:
        attacks += _trained_bytes(make_deltas(weights, settings.rank, 0, torch.device("meta")))
        moved = {**{name: _Moved(model.device) for name in weights}, **deltas}
        activations = max(activations, _activations(model, moved, settings.size, settings.at_once))
    return Need(
        weights=sum(weight.nbytes for weight in weights.values()),
        training=max(
            OPTIMIZER * (parameters + attacks) + method.prepared * numbers, parameters + method.preparing * numbers
        ),
        activations=activations,
    )


def _activations(model: DiffusionModel, deltas: Mapping[str, nn.Module], size: tuple[int, int], latents: int) -> int:
    """What so many latents' forward pass keeps with the deltas attached."""
    with model.attach(deltas):
        one, two = (kept_bytes(model, *size, count) for count in (1, 2))
    return one + (latents - 1) * (two - one)


def kept_bytes(model: DiffusionModel, width: int, height: int, latents: int) -> int:
    """What a forward pass at this size keeps for backward, beside the model's weights."""
    own = {StorageWeakRef(weight.untyped_storage()) for weight in model.weights().values()}
    sizes: dict[StorageWeakRef, int] = {}

    def note(tensor: Tensor) -> None:
        # Only the size is kept, so that this pass needs little itself. A weak reference's identity is not used again.
        storage = StorageWeakRef(tensor.untyped_storage())
        if storage not in own and not is_recomputed(tensor):
            sizes[storage] = tensor.untyped_storage().nbytes()

    x = model.noise([0] * latents, width, height)
    sigma = model.sigmas(1)[:1].expand(latents)
    conds = model.encode([""] * latents)
    with torch.autograd.graph.saved_tensors_hooks(note, _never_asked_for):
        noise_prediction(model, x, sigma, conds)
    return sum(sizes.values())


def _trained_bytes(deltas: Mapping[str, Delta]) -> int:
    return sum(parameter.nbytes for delta in deltas.values() for parameter in delta.parameters())


class _Moved(nn.Module):
    """Changes a weight by one number: what is kept is as large as with a change of all its numbers."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.zeros((), device=device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.by.to(weight)


def _text_bytes(model: DiffusionModel) -> int:
    """Of one adversary's vectors."""
    return sum(offset.nbytes for offset in FreeText(model.encode([""])[0], None).offsets)


def _never_asked_for(noted: None) -> Tensor:
    raise AssertionError("no backward follows")
