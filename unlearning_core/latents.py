"""Latents to train on, with what the frozen base predicts there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .model import Cond, DiffusionModel

PREDICTIONS = ("e_cond", "e_uncond", "e_overwrite")  # of the base: under an item's, the empty and its overwrite prompt


@dataclass(frozen=True)
class BankItem:
    """One sampling run of the base, or one picture.

    `prompt` is what the trained model will see at the item's latents, `overwrite` what it is to draw instead (a retain
    prompt is its own), `guide` the one of the two that the run follows.
    """

    prompt: str
    overwrite: str
    guide: str
    seed: int


class Compared:
    """Latents with predictions of the frozen base, by the names of PREDICTIONS: those that were asked for."""

    base: Mapping[str, Tensor]

    @property
    def e_cond(self) -> Tensor:
        """The base's prediction under the item's prompt. Raises KeyError where a method's `reads` lacks it."""
        return self.base["e_cond"]

    @property
    def e_uncond(self) -> Tensor:
        """As `e_cond`, under the empty prompt."""
        return self.base["e_uncond"]

    @property
    def e_overwrite(self) -> Tensor:
        """As `e_cond`, under the item's overwrite prompt."""
        return self.base["e_overwrite"]


@dataclass(frozen=True)
class Batch(Compared):
    """Latents [B, C, *spatial] at sigma [B] on the way to pictures x0, and the frozen base's noise predictions there.

    x, x0 and the predictions have one shape and are on the model's device.
    """

    x: Tensor
    x0: Tensor
    sigma: Tensor
    conds: list[Cond]
    overwrites: list[Cond]
    base: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.conds)

    @property
    def noise(self) -> Tensor:
        """The noise prediction that leads to x0, of x's shape: the target of the denoising loss."""
        return (self.x - self.x0) / self.sigma.view(-1, *[1] * (self.x.ndim - 1))


class Places(NamedTuple):
    """Where a batch is taken from: items and steps [count], and for other wordings two numbers in [0, 1) [count, 2]."""

    items: Tensor
    steps: Tensor
    wordings: Tensor


def parts(rows: slice, most: int) -> list[slice]:
    """The rows in order, at most so many in each part; 0 is all in one."""
    starts = range(rows.start, rows.stop, most or rows.stop - rows.start)
    return [slice(start, min(start + starts.step, rows.stop)) for start in starts]


@dataclass(frozen=True)
class LatentSet(Compared):
    """N items: latents and noise predictions [N, steps, C, *spatial] at sigma [steps], pictures x0 [N, C, *spatial].

    sigma is on the model's device, where `sample` moves its latents; the others are large and stay on the CPU, in
    memory that a GPU reads while it works.
    """

    items: list[BankItem]
    x: Tensor
    x0: Tensor
    sigma: Tensor
    conds: list[Cond]
    overwrites: list[Cond]
    base: Mapping[str, Tensor]
    others: Sequence[Sequence[Cond]] = ()  # for each item, other wordings of its prompt; empty without any

    def worded(self, model: DiffusionModel, wordings: Mapping[str, Sequence[str]]) -> LatentSet:
        """The same, where half of what `sample` gives is under one of the other wordings of its prompt."""
        encoded = {prompt: model.encode(texts) for prompt, texts in wordings.items() if texts}
        return replace(self, others=[encoded.get(item.prompt, []) for item in self.items])

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """`count` latents at random places."""
        return self.at(self.places(count, generator), slice(0, count))

    def places(self, count: int, generator: torch.Generator) -> Places:
        """Random items and steps, which are drawn from the CPU's `generator`."""
        items = torch.randint(len(self.conds), (count,), generator=generator)
        steps = torch.randint(len(self.sigma), (count,), generator=generator)
        wordings = torch.rand(count, 2, generator=generator) if any(self.others) else torch.ones(count, 2)
        return Places(items, steps, wordings)

    def at(self, drawn: Places, rows: slice) -> Batch:
        """Those `rows` of a batch, on the model's device."""
        items, steps = drawn.items[rows].tolist(), drawn.steps[rows].tolist()
        places = list(zip(items, steps, strict=True))
        x, x0 = self._moved([self.x[place] for place in places]), self._moved([self.x0[item] for item in items])
        base = {name: self._moved([stack[place] for place in places]) for name, stack in self.base.items()}
        overwrites = [self.overwrites[item] for item in items]
        conds = [self.conds[item] for item in items]
        if any(self.others):
            conds = self._reworded(items, conds, drawn.wordings[rows])
        return Batch(x, x0, torch.stack([self.sigma[step] for step in steps]), conds, overwrites, base)

    def _reworded(self, items: Sequence[int], conds: Sequence[Cond], drawn: Tensor) -> list[Cond]:
        """Half of the rows under another wording; `drawn` [rows, 2] says which rows, and which wording."""
        reworded = []
        for item, cond, (half, which) in zip(items, conds, drawn.tolist(), strict=True):
            others = self.others[item]
            reworded.append(others[int(which * len(others))] if others and half < 0.5 else cond)
        return reworded

    def _moved(self, latents: list[Tensor]) -> Tensor:
        """One batch on the model's device; nothing waits for the copy."""
        return torch.stack([latent.to(self.sigma.device, non_blocking=True) for latent in latents])
