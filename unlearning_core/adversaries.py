"""Adversaries: free texts that learn to draw what is forgotten, while the network learns to answer them otherwise.

As Receler (Huang et al. 2023, arXiv 2311.17717) and AdvUnlearn (Zhang et al. 2024, arXiv 2405.15234) train against
attacks; here these are texts in the space that the network reads, many at a time, and each step is theirs too: one
forward pass serves both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import torch
import torch.nn.functional as F
from torch import Tensor

from .freetext import FreeText
from .latents import Batch, LatentSet
from .model import DiffusionModel
from .processes import current

RATE = 0.1  # Adam's, in units of the vectors' root mean square
SPREAD = 0.1  # standard deviation of the first offsets, in the same units


@dataclass(frozen=True)
class Challenge:
    """Noised pictures of what is forgotten, under adversaries' texts."""

    batch: Batch
    chosen: list[int]  # the adversaries of the whole batch
    own: list[int]  # and those of this process's rows


class Adversaries:
    """A pool of texts [T, D]. In turn they lower the denoising loss at pictures of what is forgotten."""

    def __init__(self, model: DiffusionModel, pictures: LatentSet, texts: Sequence[str], count: int, seed: int) -> None:
        """`count` of them, which start near the texts; `pictures` are noised, with the base's overwrite prediction.

        Raises ValueError for a model that reads no text of several tokens.
        """
        self._pictures = pictures
        generator = torch.Generator().manual_seed(seed)
        starts = [model.encode([text])[0] for text, _ in zip(cycle(texts), range(count), strict=False)]
        self._texts = [FreeText(start, None) for start in starts]
        offsets = [offset for text in self._texts for offset in text.offsets]
        if not offsets:
            raise ValueError("adversaries: this model reads no text of several tokens; set adversaries to 0")
        with torch.no_grad():
            for offset in offsets:
                offset.add_(SPREAD * torch.randn(offset.shape, generator=generator).to(offset))
        self._optimizer = torch.optim.Adam(offsets, lr=RATE)

    def challenge(self, count: int, generator: torch.Generator, rows: slice) -> Challenge:
        """This process's `rows` of `count` pictures, each under another adversary while there are so many."""
        batch = self._pictures.sample(count, generator, rows)
        order = torch.randperm(len(self._texts), generator=generator).tolist()
        chosen = [adversary for adversary, _ in zip(cycle(order), range(count), strict=False)]
        own = chosen[rows]
        return Challenge(replace(batch, conds=[self._texts[adversary].cond() for adversary in own]), chosen, own)

    def lessons(self, challenge: Challenge, e: Tensor) -> list[Tensor]:
        """Gradients of the denoising loss, a tensor for each of `_offsets`; e [B, C, *spatial] is the prediction."""
        loss = F.mse_loss(e, challenge.batch.noise) * len(e)  # an adversary's part does not depend on the others
        own = self._offsets(challenge.own)
        found = dict(zip(map(id, own), torch.autograd.grad(loss, own, retain_graph=True), strict=True))
        return [found.get(id(offset), torch.zeros_like(offset)) for offset in self._offsets(challenge.chosen)]

    def learn(self, challenge: Challenge, lessons: Sequence[Tensor]) -> None:
        """A step of those that were asked."""
        asked = self._offsets(challenge.chosen)
        for offset, gradient in zip(asked, lessons, strict=True):
            offset.grad = gradient
        current().total_gradients(asked)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _offsets(self, adversaries: Sequence[int]) -> list[Tensor]:
        """What can be trained of these, each once."""
        return [offset for adversary in dict.fromkeys(adversaries) for offset in self._texts[adversary].offsets]
