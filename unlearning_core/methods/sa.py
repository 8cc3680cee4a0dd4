"""SA, Selective Amnesia: learn surrogate pictures under the forget prompt, replay the rest, stay near in the weights.

The surrogate pictures are those of the overwrite prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..options import option
from ..probes import denoising_gradients
from .base import GradientMethod, Objective, Step, Training

if TYPE_CHECKING:
    from ..deltas import Delta


@dataclass(frozen=True)
class Sa(GradientMethod):
    """The SA objective."""

    label: ClassVar[str] = "SA (Selective Amnesia)"
    summary: ClassVar[str] = "learn the overwrite prompt's pictures, and stay near the base in the weights"
    equation: ClassVar[str] = (
        "||e(x_o, c_f) - noise||^2 + ||e(x_r, c_r) - noise||^2 + penalty * sum F * (theta - theta_0)^2\n"
        "F: diagonal of the Fisher information, the mean square of the gradient of ||e(x_r, c_r) - noise||^2"
    )
    source: ClassVar[str] = (
        'Heng, Soh, "Selective Amnesia: A Continual Learning Approach to Forgetting in Deep Generative Models" '
        "(arXiv 2305.10120)"
    )
    weights: ClassVar[str] = "cross_attention"
    guides: ClassVar[tuple[int, ...]] = (1,)
    noised: ClassVar[bool] = True
    uses_retain: ClassVar[bool] = True
    preparing: ClassVar[int] = 12  # gradients, what takes them, and the sum of their squares
    prepared: ClassVar[int] = 8  # the Fisher information, and the change that it weighs

    penalty: float = option(50.0, 0.0, 1e24, "weight of the Fisher penalty on moving away from the base", step=1.0)
    fisher_samples: int = option(64, 1, 100_000, "retain latents that the Fisher information is estimated on", step=1)

    @property
    def preparation(self) -> int:
        return self.fisher_samples

    def begin(self, training: Training) -> Objective:
        return _Amnesia(self, training.deltas, _cached_fisher(training, self.fisher_samples))


class _Amnesia:
    """The objective with its Fisher information."""

    def __init__(self, method: Sa, deltas: Mapping[str, Delta], fisher: Mapping[str, Tensor]) -> None:
        self.method, self.deltas, self.fisher = method, deltas, fisher
        self.moved = torch.zeros(())

    def loss(self, step: Step) -> Tensor:
        assert step.retain is not None and step.e_retain is not None
        surrogate = F.mse_loss(step.e_forget, step.forget.noise)
        replay = F.mse_loss(step.e_retain, step.retain.noise)
        moved = torch.stack([(self.fisher[name] * delta.change() ** 2).sum() for name, delta in self.deltas.items()])
        self.moved = moved.sum().detach()
        return surrogate + replay + self.method.penalty * moved.sum()

    def figures(self) -> dict[str, float]:
        return {"Fisher distance": self.moved.item()}


fisher_cache: dict[str, dict[str, Tensor]] = {}  # the newest, on the CPU, and only one: it is as large as the weights


def _cached_fisher(training: Training, samples: int) -> dict[str, Tensor]:
    """The Fisher information of this base on these retain latents, estimated once."""
    key = _key(training, samples)
    if key not in fisher_cache:
        estimate = fisher_information(training, samples)
        fisher_cache.clear()
        fisher_cache[key] = {name: fisher.cpu() for name, fisher in estimate.items()}
        return estimate
    return {name: fisher.to(training.model.device) for name, fisher in fisher_cache[key].items()}


def fisher_information(training: Training, samples: int) -> dict[str, Tensor]:
    """The mean square of the denoising loss's gradient over single retain latents, by weight."""
    assert training.bank.retain is not None
    total = {name: torch.zeros_like(delta.change()) for name, delta in training.deltas.items()}
    generator = torch.Generator().manual_seed(samples)  # not the run's, so that the estimate can serve the next run
    batches = (training.bank.retain.sample(1, generator) for _ in range(samples))
    for gradients in denoising_gradients(training.model, list(total), batches):
        for name, gradient in gradients.items():
            total[name] += gradient.to(total[name]) ** 2 / samples
        training.report()
    return total


def _key(training: Training, samples: int) -> str:
    retain = training.bank.retain
    assert retain is not None
    key = sha256(repr([training.base, sorted(training.deltas), retain.items, samples, training.model.device]).encode())
    for latents in (retain.x, retain.x0, retain.sigma.cpu(), retain.e_cond):  # e_cond knows the text encoder
        key.update(latents.numpy().tobytes())
    return key.hexdigest()
