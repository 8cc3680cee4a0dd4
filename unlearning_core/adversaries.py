"""Adversaries: free texts that learn to draw what is forgotten, while the network learns to answer them otherwise.

As Receler (Huang et al. 2023, arXiv 2311.17717) and AdvUnlearn (Zhang et al. 2024, arXiv 2405.15234) train against
attacks; here these are texts in the space that the network reads, many at a time, and each step is theirs too: one
forward pass serves both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .freetext import FreeText
from .latents import Batch, LatentSet, Places
from .model import DiffusionModel
from .processes import current

RATE = 0.1  # Adam's, in units of the vectors' root mean square
SPREAD = 0.1  # standard deviation of the first offsets, in the same units


class Chosen(NamedTuple):
    """A batch of noised pictures of what is forgotten, each with the adversary that it is shown under."""

    places: Places
    adversaries: list[int]


@dataclass(frozen=True)
class Challenge:
    """Some rows of such a batch."""

    batch: Batch
    adversaries: list[int]


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

    def chosen(self, count: int, generator: torch.Generator) -> Chosen:
        """`count` pictures, each under another adversary while there are so many."""
        places = self._pictures.places(count, generator)
        order = torch.randperm(len(self._texts), generator=generator).tolist()
        return Chosen(places, [adversary for adversary, _ in zip(cycle(order), range(count), strict=False)])

    def challenge(self, chosen: Chosen, rows: slice) -> Challenge:
        """Those `rows` of the batch."""
        batch, adversaries = self._pictures.at(chosen.places, rows), chosen.adversaries[rows]
        conds = [self._texts[adversary].cond() for adversary in adversaries]
        return Challenge(replace(batch, conds=conds), adversaries)

    def study(self, challenge: Challenge, e: Tensor) -> None:
        """Adds the gradients of the rows' denoising losses; e [B, C, *spatial] is the prediction."""
        loss = F.mse_loss(e, challenge.batch.noise) * len(e)  # an adversary's part does not depend on the others
        loss.backward(inputs=self._offsets(challenge.adversaries), retain_graph=True)

    def learn(self, chosen: Chosen) -> None:
        """A step of those that were asked, once all rows have been studied."""
        asked = self._offsets(chosen.adversaries)
        for offset in asked:
            if offset.grad is None:  # where all its rows are another process's
                offset.grad = torch.zeros_like(offset)
        current().total_gradients(asked)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _offsets(self, adversaries: Sequence[int]) -> list[Tensor]:
        """What can be trained of these, each once."""
        return [offset for adversary in dict.fromkeys(adversaries) for offset in self._texts[adversary].offsets]
