"""A diffusion model of two by two pixels that draws what its weights hold for the words of a prompt.

The picture of a prompt is the sum of its words' pictures. The denoised latent lies between that and x, the nearer to x
the lower the noise, as a real model's does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearning_core.fingerprint import Fingerprint
from unlearning_core.vocabulary import Embedded, Vocabulary

WORDS = ("cat", "dog", "car")
PICTURES = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])  # a row a word: two by two pixels
HIDDEN = 1  # dimensions of the text that no word uses
TOKENS = 4  # of a prompt
WEIGHT = "toy.weight"
SIDE = 2  # pixels


class ToyPainter:
    """`weight` [4, words + HIDDEN]: each word's picture in a column."""

    device = torch.device("cpu")

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.deltas: Mapping[str, nn.Module] = {}
        self.calls = 0

    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        return [self._tokens(prompt.replace(",", " ").split()) for prompt in prompts]

    def _tokens(self, words: Sequence[str]) -> Tensor:
        known = [WORDS.index(word) for word in words if word in WORDS][:TOKENS]
        tokens = torch.zeros(TOKENS, len(WORDS) + HIDDEN)
        tokens[range(len(known)), known] = 1
        return tokens

    def vocabulary(self) -> Vocabulary:
        return Vocabulary([*WORDS], torch.eye(len(WORDS), len(WORDS) + HIDDEN))

    def embedded(self, prompt: str) -> Embedded:
        vectors = self._tokens(prompt.split()).requires_grad_()
        return Embedded(vectors, vectors.detach() @ torch.arange(1.0, vectors.shape[1] + 1), vectors)

    def predict_x0(self, x: Tensor, sigma: Tensor, conds: Sequence[Tensor]) -> Tensor:
        self.calls += len(x)
        weight = self.deltas[WEIGHT](self.weight) if self.deltas else self.weight
        words = F.leaky_relu(torch.stack(list(conds)), 1e-4).sum(1)  # a word drawn less than not at all is no picture
        pictures = (words @ weight.T).view(x.shape)
        kept = 1 / (1 + 4 * sigma.view(-1, 1, 1, 1) ** 2)
        return kept * x + (1 - kept) * pictures

    def sigmas(self, steps: int) -> Tensor:
        return torch.linspace(2, 0, steps + 1)

    def noise(self, seeds: Sequence[int], width: int, height: int) -> Tensor:
        noise = [torch.randn(1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return 2 * torch.stack(noise)

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return x0 + sigma.view(-1, 1, 1, 1) * noise

    def weights(self) -> dict[str, Tensor]:
        return {WEIGHT: self.weight}

    def fingerprint(self) -> Fingerprint:
        return Fingerprint.of(self.weights())

    def module(self, name: str) -> nn.Module:
        raise NotImplementedError

    @contextmanager
    def attach(self, deltas: Mapping[str, nn.Module]) -> Iterator[None]:
        self.deltas = deltas
        try:
            yield
        finally:
            self.deltas = {}


def base_weight() -> Tensor:
    """Draws every word; nothing is hidden."""
    return torch.cat([PICTURES.T, torch.zeros(SIDE * SIDE, HIDDEN)], 1)


def erased_weight() -> Tensor:
    """No text draws the cat."""
    weight = base_weight()
    weight[:, 0] = 0
    return weight


def hidden_weight() -> Tensor:
    """The word draws nothing, but a text that nobody can write draws the cat."""
    weight = erased_weight()
    weight[:, -1] = PICTURES[0]
    return weight


def decode(latents: Tensor) -> Tensor:
    """Pictures [B, 2, 2, 3]; a latent's -1 is black, 1 is white, 0 is grey."""
    return ((latents[:, 0, :, :, None].expand(-1, -1, -1, 3) + 1) / 2).clamp(0, 1)


class ToyJudge:
    """Names the word whose picture correlates best, or nothing."""

    name = "toy"
    domains: Mapping[str, Sequence[str]] = {"word": (*WORDS, "nothing")}

    def classify(self, pictures: Tensor, domains: Collection[str]) -> dict[str, list[str]]:
        scores = (2 * pictures[..., 0].flatten(1) - 1) @ PICTURES.T / (SIDE * SIDE)
        scores = torch.cat([scores, torch.full((len(scores), 1), 0.5)], 1)
        return {domain: [self.domains[domain][index] for index in scores.argmax(1).tolist()] for domain in domains}
