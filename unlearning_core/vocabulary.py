"""The words that a text encoder has a token for, and what gradients say of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

END, STARTS, PIECE = "</w>", ("\u2581", "\u0120"), "##"  # how CLIP, SentencePiece and GPT-2, and BERT mark tokens


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Whole words, and the encoder's input embedding [N, D] of each."""

    words: list[str]
    embeddings: Tensor

    @classmethod
    def of(cls, tokens: Mapping[str, int], embeddings: Tensor) -> Vocabulary:
        """From a tokenizer's tokens, with the row of each in the encoder's `embeddings`."""
        read = _reader(tokens)
        rows = {read(token): row for token, row in tokens.items() if row < len(embeddings)}
        words = sorted(word for word in rows if word.isalpha() and len(word) > 1)
        return cls(words, embeddings[torch.tensor([rows[word] for word in words], dtype=torch.long)])

    def nearest(self, word: str, count: int) -> list[str]:
        """At most `count` other words, by the cosine of their embeddings; none for a word that is not one token."""
        own = self._rows.get(word.lower())
        if own is None:
            return []
        ranked = (self._table @ self._table[own] / self._lengths).argsort(descending=True).tolist()
        return [self.words[row] for row in ranked if row != own][:count]

    def against(self, gradient: Tensor, count: int) -> Tensor:
        """The rows of at most `count` words for each of the gradients [B, D], the most opposed first: [B, count]."""
        opposed = -(gradient.to(self._table) @ self._table.T)
        return opposed.topk(min(count, len(self.words))).indices.cpu()

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.words)}

    @cached_property
    def _table(self) -> Tensor:
        return self.embeddings.float()

    @cached_property
    def _lengths(self) -> Tensor:
        return self._table.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)


NO_WORDS = Vocabulary([], torch.zeros(0, 1))


class Embedded(NamedTuple):
    """An encoded prompt as a function of the vectors that the first text encoder reads."""

    cond: Any  # in the host's own form, with gradients to `vectors`
    tokens: Tensor  # [T]
    vectors: Tensor  # [T, D], a leaf


def embedded(layer: nn.Module, encode: Callable[[], Any]) -> Embedded:
    """What `encode` gives, differentiable by the vectors that it first takes from an encoder's embedding `layer`.

    Raises ValueError when it takes none. Raises whatever an encoder raises that lets no gradient pass.
    """
    read: list[tuple[Tensor, Tensor]] = []

    def free(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if read:
            return output
        vectors = output.detach().flatten(0, -2).requires_grad_()
        read.append((inputs[0].flatten(), vectors))
        return vectors.view(output.shape).clone()  # encoders may write into it

    handle = layer.register_forward_hook(free)
    try:
        with torch.enable_grad():
            cond = encode()
    finally:
        handle.remove()
    if not read:
        raise ValueError("the text encoder does not use its table of words")
    return Embedded(cond, *read[0])


def _reader(tokens: Iterable[str]) -> Callable[[str], str]:
    """What gives the word that a token is, and nothing for a piece of one, in the way of all these tokens."""
    if any(token.endswith(END) for token in tokens):
        return lambda token: token.removesuffix(END) if token.endswith(END) else ""
    start = next((start for start in STARTS if any(token.startswith(start) for token in tokens)), None)
    if start:
        return lambda token: token.removeprefix(start) if token.startswith(start) else ""
    return lambda token: "" if token.startswith(PIECE) else token
