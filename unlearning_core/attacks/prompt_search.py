"""Words that the gradient finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..encodings import readable
from ..latents import Batch
from ..model import DiffusionModel
from ..nested import tensors_in
from ..options import option
from ..probes import FAILURES, one_line
from ..vocabulary import Embedded, Vocabulary
from .base import Attack, Attacked, Task
from .fitting import denoising_loss, noised_pictures

LARGE = 2.0**12  # times the loss: its gradient does not vanish in fp16


@dataclass(frozen=True)
class PromptSearch(Attack):
    """Replaces words before the forget prompts, one at a time, while that lowers the denoising loss."""

    label = "Prompt search"
    summary = (
        "searches words to put before the forget prompts, by the gradient of the denoising loss at the base's pictures "
        "of the concept, and draws with them"
    )
    source = (
        'the setting of UnlearnDiffAtk: Zhang et al., "To Generate or Not? Safety-Driven Unlearned Diffusion Models '
        'Are Still Easy To Generate Unsafe Images ... For Now" (arXiv 2310.11868); the steps are those of Zou et al., '
        '"Universal and Transferable Adversarial Attacks on Aligned Language Models" (arXiv 2307.15043). Here all '
        "forget prompts share the words, which are whole ones of the first text encoder, so that they can be typed"
    )
    reading = (
        "anyone can type the words that the report shows; what free embeddings bring back and these do not was not put "
        "into words"
    )

    trains = True

    words: int = option(3, 1, 20, "words before the forget prompt", step=1)
    starts: int = option(2, 1, 100, "searches, each from other random words", step=1)
    steps: int = option(40, 1, 100_000, "steps of each search", step=1)
    near: int = option(64, 1, 10_000, "words that the gradient proposes for each place in a step", step=1)
    tries: int = option(16, 1, 10_000, "of these that are tried in a step", step=1)
    batch_size: int = option(4, 1, 256, "noised pictures that a try sees", step=1)

    def prepared(self, model: DiffusionModel, task: Task) -> PromptSearch:
        """Itself. Raises ValueError where there are no words, no room for them or no gradient to them."""
        known = model.vocabulary().words
        if not known:
            raise ValueError("attacks: prompt_search: the text encoder has no table of words; leave this attack out")
        if not readable(model, prefixed([max(known, key=len)] * self.words, task.forget)):
            raise ValueError(
                f"attacks: prompt_search: the model does not read {self.words} words more than the forget prompts; "
                "shorten the prompts, or choose fewer words"
            )
        try:
            self._check_gradient(model.embedded(task.forget[0]))
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            raise ValueError(
                f"attacks: prompt_search: the text encoder lets no gradient pass ({one_line(error)}); leave this "
                "attack out"
            ) from error
        return self

    @staticmethod
    def _check_gradient(prompt: Embedded) -> None:
        reached = [tensor.float().sum() for tensor in tensors_in(prompt.cond) if tensor.requires_grad]
        if not reached:
            raise ValueError("what it gives has none")
        torch.autograd.grad(torch.stack(reached).sum(), prompt.vectors)

    def settings(self, task: Task) -> list[str]:
        """The starts."""
        return [f"start {start + 1}" for start in range(self.starts)]

    def run(self, attacked: Attacked) -> None:
        """Shows what the forget prompts draw behind the words of each search."""
        vocabulary = attacked.model.vocabulary()
        for start, setting in enumerate(self.settings(attacked.task)):
            words = self._search(attacked, vocabulary, start)
            conds = attacked.model.encode(prefixed(words, attacked.prompts))
            latents = attacked.drawn(conds, attacked.task.sampling)
            attacked.show(setting, latents, self.steps, " ".join(words))

    def _search(self, attacked: Attacked, vocabulary: Vocabulary, start: int) -> list[str]:
        """The words of one search."""
        generator = attacked.generator(start)
        pictures = noised_pictures(attacked, attacked.scene.concept)
        pictures = replace(pictures, conds=[item.prompt for item in pictures.items])
        empty = attacked.model.embedded("").tokens
        rows = torch.randint(len(vocabulary.words), (self.words,), generator=generator)
        with attacked.model.attach({}):
            for _ in range(self.steps):
                batch = pictures.sample(self.batch_size, generator)
                gradient = _gradient(attacked, _words(vocabulary, rows), batch, empty)
                near = vocabulary.against(gradient, self.near)
                tries = [rows, *self._changed(rows, near, generator)]
                losses = _losses(attacked, [_words(vocabulary, each) for each in tries], batch)
                rows = tries[int(losses.argmin())]
        return _words(vocabulary, rows)

    def _changed(self, rows: Tensor, near: Tensor, generator: torch.Generator) -> list[Tensor]:
        """The words with another one in one place, of those that are near: [words, near]."""
        chosen = torch.randperm(near.numel(), generator=generator)[: self.tries].tolist()
        places = [divmod(each, near.shape[1]) for each in chosen]
        return [rows.index_fill(0, torch.tensor(place), int(near[place, rank])) for place, rank in places]


def prefixed(words: Sequence[str], prompts: Sequence[str]) -> list[str]:
    """Each prompt behind the words."""
    return [" ".join([*words, prompt]) for prompt in prompts]


def _words(vocabulary: Vocabulary, rows: Tensor) -> list[str]:
    return [vocabulary.words[row] for row in rows.tolist()]


@torch.enable_grad()
def _gradient(attacked: Attacked, words: Sequence[str], batch: Batch, empty: Tensor) -> Tensor:
    """Of the loss on a batch, by the vectors of the words before its prompts: [words, D], of length 1 in each row.

    `empty` are the tokens of the empty prompt.
    """
    prompts = list(dict.fromkeys(batch.conds))
    read = dict(zip(prompts, map(attacked.model.embedded, prefixed(words, prompts)), strict=True))
    loss = LARGE * denoising_loss(attacked, batch, [read[prompt].cond for prompt in batch.conds])
    gradients = torch.autograd.grad(loss, [each.vectors for each in read.values()])
    starts = [_start(empty, each.tokens) for each in read.values()]
    own = [rows[start : start + len(words)].float() for rows, start in zip(gradients, starts, strict=True)]
    return F.normalize(torch.stack(own).sum(0), dim=1)


def _start(empty: Tensor, tokens: Tensor) -> int:
    """Where a prompt begins, behind what stands before every prompt."""
    length = min(len(empty), len(tokens))
    same = empty[:length] == tokens[:length]
    return int(same.long().cumprod(0).sum())


@torch.no_grad()
def _losses(attacked: Attacked, tries: Sequence[Sequence[str]], batch: Batch) -> Tensor:
    """On one batch, behind each of the tries: [tries]."""
    prompts = list(dict.fromkeys(batch.conds))
    conds = attacked.model.encode([text for words in tries for text in prefixed(words, prompts)])
    read = [dict(zip(prompts, conds[start:], strict=False)) for start in range(0, len(conds), len(prompts))]
    losses = [denoising_loss(attacked, batch, [each[prompt] for prompt in batch.conds]) for each in read]
    return torch.stack(losses).float().cpu()
