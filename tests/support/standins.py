"""In the place of tokenizers and text encoders: one embedding a word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn
from transformers import BatchEncoding
from transformers.modeling_outputs import BaseModelOutput

WORDS = 1000
LAYERS = 40  # of hidden states


class Tokenizer:
    """Words by their hashes; 0 is the padding, 1 begins each text."""

    padding_side = "right"
    eos_token = "."
    pad_token_id = 0
    added_tokens_encoder: Mapping[str, int] = MappingProxyType({})

    model_max_length = 512

    def __init__(self, masks: bool = True) -> None:
        """Without masks, padding counts as text."""
        self.masks = masks

    def __call__(
        self, text: str | list[str], padding: Any = False, max_length: int = 512, truncation: bool = False, **_: Any
    ) -> BatchEncoding:
        """Token ids and mask: lists for one text, tensors [B, T] for several."""
        texts = [text] if isinstance(text, str) else text
        rows = [[1, *(crc32(word.encode()) % WORDS + 2 for word in self.tokenize(each))] for each in texts]
        rows = [row[:max_length] if truncation else row for row in rows]
        if not padding:
            return BatchEncoding({"input_ids": rows[0]})
        length = max_length if padding == "max_length" else max(map(len, rows))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        return BatchEncoding({"input_ids": ids, "attention_mask": ((ids > 0) | (not self.masks)).long()})

    def apply_chat_template(self, messages: list[Any], tokenize: bool, **options: Any) -> Any:
        """The contents alone, as text or tokens."""
        if not tokenize:
            return " ".join(message["content"] for message in messages)
        texts = [" ".join(part["text"] for message in chat for part in message["content"]) for chat in messages]
        return self(texts, **{**options, "padding": "max_length"})

    def tokenize(self, text: str) -> list[str]:
        """The words."""
        return re.findall(r"\w+|\S", text)

    def encode(self, text: str) -> list[int]:
        """Token ids."""
        ids: list[int] = self(text)["input_ids"]
        return ids

    def batch_decode(self, ids: Tensor) -> list[str]:
        """Not the words: hashes do not tell."""
        return ["" for _ in ids]


class Encoder(nn.Module):
    """An embedding of `width`, in layers that differ by a factor; pooled, the mean over words."""

    def __init__(self, width: int, pooled: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS + 2, width)
        self.pooled = pooled

    @property
    def dtype(self) -> torch.dtype:
        """Of the embedding."""
        return self.embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Of the embedding."""
        return self.embedding.weight.device

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Any:
        """As transformers' encoders; pooled ones give the pooled text first."""
        tokens = self.embedding(input_ids)
        if self.pooled:
            return (tokens.mean(dim=1),)
        layers = tuple(tokens * (1 + layer / LAYERS) for layer in range(LAYERS))
        return BaseModelOutput(last_hidden_state=tokens, hidden_states=layers)
