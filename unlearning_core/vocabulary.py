"""The words that a text encoder has a token for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

END, STARTS, PIECE = "</w>", ("\u2581", "\u0120"), "##"  # how CLIP, SentencePiece and GPT-2, and BERT mark tokens


class Vocabulary(NamedTuple):
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
        word = word.lower()
        if word not in self.words:
            return []
        own = self.words.index(word)
        vectors = F.normalize(self.embeddings.float(), dim=1)
        ranked = (vectors @ vectors[own]).argsort(descending=True).tolist()
        return [self.words[row] for row in ranked if row != own][:count]


NO_WORDS = Vocabulary([], torch.zeros(0, 1))


def _reader(tokens: Iterable[str]) -> Callable[[str], str]:
    """What gives the word that a token is, and nothing for a piece of one, in the way of all these tokens."""
    if any(token.endswith(END) for token in tokens):
        return lambda token: token.removesuffix(END) if token.endswith(END) else ""
    start = next((start for start in STARTS if any(token.startswith(start) for token in tokens)), None)
    if start:
        return lambda token: token.removeprefix(start) if token.startswith(start) else ""
    return lambda token: "" if token.startswith(PIECE) else token
