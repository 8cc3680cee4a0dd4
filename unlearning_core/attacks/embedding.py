"""Words that no tokenizer has."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..freetext import FreeText
from ..model import Cond
from ..options import option
from .base import Attack, Attacked, Task
from .fitting import denoising_loss, fitted, noised_pictures

KINDS = {"all tokens": False, "one token": True}


@dataclass(frozen=True)
class Embedding(Attack):
    """Fits the token vectors that the network reads to noised pictures of the concept, and draws with them."""

    label = "Free embedding"
    summary = "fits the vectors of all tokens, or of one, to the base's pictures of the concept, and draws with them"
    source = (
        'Pham et al., "Circumventing Concept Erasure Methods For Text-to-Image Generative Models" (arXiv 2308.01508), '
        'after Gal et al., "An Image is Worth One Word" (arXiv 2208.01618); here the vectors are those that the '
        "text encoder gives, so that every family has them"
    )
    reading = (
        "weights that can still draw the concept do so once a text asks for it; the reversed concept says what free "
        "vectors teach a model that cannot"
    )

    trains = True

    starts: int = option(2, 1, 100, "texts to start from: the forget prompts, the empty prompt, the others", step=1)
    steps: int = option(200, 1, 100_000, "training steps of each start", step=1)
    rate: float = option(0.03, 1e-6, 10.0, "Adam's learning rate, in units of the vectors' root mean square")
    batch_size: int = option(4, 1, 256, "noised pictures a step", step=1)

    def settings(self, task: Task) -> list[str]:
        """Kinds and starts."""
        return [f"{kind}, start {start + 1}" for kind in KINDS for start in range(self.starts)]

    def run(self, attacked: Attacked) -> None:
        """Shows what each fitted text draws with the task's seeds."""
        settings = iter(self.settings(attacked.task))
        for single in KINDS.values():
            for start in range(self.starts):
                cond = self._fitted(attacked, start, single)
                latents = attacked.drawn([cond] * attacked.task.pictures, attacked.task.sampling)
                attacked.show(next(settings), latents, self.steps)

    def _fitted(self, attacked: Attacked, start: int, single: bool) -> Cond:
        task, generator = attacked.task, attacked.generator(start)
        texts = [*task.forget, "", *task.others]
        [cond] = attacked.model.encode([texts[start % len(texts)]])
        free = FreeText(cond, generator if single else None)
        pictures = noised_pictures(attacked, attacked.scene.concept)

        def loss() -> Tensor:
            return denoising_loss(
                attacked, pictures.sample(self.batch_size, generator), [free.cond()] * self.batch_size
            )

        with attacked.model.attach({}):
            for _ in fitted(free.offsets, loss, self.rate, [self.steps]):
                pass
        with torch.no_grad():
            return free.cond()
