"""How much memory training needs, measured on small latents before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .deltas import Delta
from .model import DiffusionModel, noise_prediction
from .train import Settings

SIDE = 128  # pixels
OPTIMIZER = 4  # copies of each trained number: itself, its gradient and Adam's two moments
GB = 1e9


@dataclass(frozen=True)
class Need:
    """Bytes on the device."""

    weights: int  # of the model's copy, which is there already
    training: int  # of deltas, gradients and optimizer
    activations: int  # that one step keeps for backward

    @property
    def extra(self) -> int:
        """Beside the model's copy."""
        return self.training + self.activations

    @property
    def total(self) -> int:
        return self.weights + self.extra

    def check(self, free: int, settings: Settings) -> None:
        """Raises ValueError with what to choose when more is needed than `free` bytes beside the model's copy."""
        if self.extra <= free:
            return
        advice = ["rank 8"] if settings.rank == 0 else []
        if settings.weights != "cross_attention_kv":
            advice.append("cross_attention_kv")
        if self.activations > self.training or not advice:
            advice = ["a smaller batch_size", "a smaller width and height", *advice]
        raise ValueError(
            f"memory: Unlearn needs about {self.total / GB:.1f} GB, {(free + self.weights) / GB:.1f} GB are free: "
            f"choose {' or '.join(advice)}"
        )


def needed(model: DiffusionModel, deltas: Mapping[str, Delta], settings: Settings, latents: int) -> Need:
    """What a step on `latents` latents of the settings' size needs, from three small forward passes."""
    parameters = [parameter for delta in deltas.values() for parameter in delta.parameters()]
    with model.attach(deltas):
        one, two, larger = (
            kept_bytes(model, *sample) for sample in ((SIDE, SIDE, 1), (SIDE, SIDE, 2), (2 * SIDE, SIDE, 1))
        )
    pixel = (larger - one) / SIDE**2
    text = two - one - pixel * SIDE**2  # of each latent, whatever its size
    once = one - (two - one)  # changed weights
    activations = once + latents * (text + pixel * settings.width * settings.height)
    return Need(
        weights=sum(weight.nbytes for weight in model.weights().values()),
        training=OPTIMIZER * sum(parameter.nbytes for parameter in parameters),
        activations=int(activations),
    )


def kept_bytes(model: DiffusionModel, width: int, height: int, latents: int) -> int:
    """What a forward pass at this size keeps for backward, beside the model's weights."""
    own = {weight.untyped_storage().data_ptr() for weight in model.weights().values()}
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    x = model.noise([0] * latents, width, height)
    sigma = model.sigmas(1)[:1].expand(latents)
    with torch.autograd.graph.saved_tensors_hooks(keep, _as_it_is):
        e = noise_prediction(model, x, sigma, model.encode([""] * latents))
    del e
    return sum(sizes.values())


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
