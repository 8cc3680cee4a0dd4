"""A diffusion model small enough to follow by hand: its noise prediction is e(x, prompt) = (weight . token) * x.

All latents have one number and stand at sigma 1, so the denoising target is x - x0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from unlearning_core.bank import Bank
from unlearning_core.deltas import Delta
from unlearning_core.fingerprint import Fingerprint
from unlearning_core.latents import PREDICTIONS, BankItem, LatentSet, Places
from unlearning_core.methods.base import Training
from unlearning_core.model import noise_prediction
from unlearning_core.progress import OnProgress, Reporter
from unlearning_core.vocabulary import NO_WORDS, Embedded, Vocabulary

WEIGHT = "toy.weight"


class ToyModel:
    """`tokens` holds a vector for each prompt, or several, which count as their mean."""

    device = torch.device("cpu")

    def __init__(self, weight: Sequence[float], tokens: Mapping[str, Sequence[float]]) -> None:
        self.weight = torch.tensor(weight)
        self.tokens = {prompt: torch.tensor(token) for prompt, token in tokens.items()}
        self.deltas: Mapping[str, nn.Module] = {}

    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        return [self.tokens[prompt] for prompt in prompts]

    def vocabulary(self) -> Vocabulary:
        return NO_WORDS

    def embedded(self, prompt: str) -> Embedded:
        raise NotImplementedError

    def predict_x0(self, x: Tensor, sigma: Tensor, conds: Sequence[Tensor]) -> Tensor:
        weight = self.deltas[WEIGHT](self.weight) if self.deltas else self.weight
        strength = torch.stack([cond.view(-1, len(weight)).mean(0) for cond in conds]) @ weight
        return x - (sigma * strength).view(-1, 1, 1, 1) * x

    def weights(self) -> dict[str, Tensor]:
        return {WEIGHT: self.weight}

    def fingerprint(self) -> Fingerprint:
        return Fingerprint.of(self.weights())

    @contextmanager
    def attach(self, deltas: Mapping[str, nn.Module]) -> Iterator[None]:
        self.deltas = deltas
        yield
        self.deltas = {}

    def sigmas(self, steps: int) -> Tensor:
        raise NotImplementedError

    def noise(self, seeds: Sequence[int], width: int, height: int) -> Tensor:
        raise NotImplementedError

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        raise NotImplementedError

    def module(self, name: str) -> nn.Module:
        raise NotImplementedError


def latents(*values: float) -> Tensor:
    """[N, 1, 1, 1]."""
    return torch.tensor(values).view(-1, 1, 1, 1)


@dataclass(frozen=True)
class InTurn(LatentSet):
    """Latents that come one after the other, in place of random ones."""

    turn: Iterator[int] = field(default_factory=count)

    def places(self, count: int, generator: torch.Generator) -> Places:
        items = torch.tensor([next(self.turn) % len(self.items) for _ in range(count)])
        return Places(items, torch.zeros_like(items), torch.ones(count, 2))


def in_turn(model: ToyModel, x: Tensor, noise: Tensor, pairs: Sequence[tuple[str, str]]) -> InTurn:
    """Latents x [N, 1, 1, 1] of (prompt, overwrite prompt) pairs, with what the model as it is now predicts there."""
    conds, overwrites = (model.encode(prompts) for prompts in zip(*pairs, strict=True))
    sigma = torch.ones(1)
    with torch.no_grad():
        prompts = (conds, model.encode([""] * len(pairs)), overwrites)
        base = {
            name: noise_prediction(model, x, sigma, texts).unsqueeze(1)
            for name, texts in zip(PREDICTIONS, prompts, strict=True)
        }
    items = [BankItem(prompt, overwrite, prompt, seed=0) for prompt, overwrite in pairs]
    return InTurn(items, x.unsqueeze(1), x - noise, sigma, conds, overwrites, base)


def training_of(model: ToyModel, bank: Bank, delta: Delta, on_progress: OnProgress, **changes: Any) -> Training:
    """Of a bank of two latents a half: one step at a rate of 0.01 with both."""
    training = Training(
        model=model,
        bank=bank,
        deltas={WEIGHT: delta},
        base=model.fingerprint(),
        steps=1,
        learning_rate=0.01,
        batch_size=2,
        micro_batch=0,
        retain_ratio=1,
        generator=torch.Generator().manual_seed(0),
        report=Reporter(on_progress, 1),
    )
    return replace(training, **changes)
