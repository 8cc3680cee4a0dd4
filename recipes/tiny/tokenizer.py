"""A word-level tokenizer in CLIP's own format, so that diffusers and ComfyUI read it with their stock CLIPTokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import CLIPTokenizer

MAX_LENGTH = 16  # tokens, with start and end
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?-_()'\""
START, END = "<|startoftext|>", "<|endoftext|>"


def make_tokenizer(words: list[str]) -> CLIPTokenizer:
    """A byte-pair tokenizer whose merges spell each of `words` (lower-case letters) and nothing else.

    A word outside the list falls apart into characters.
    """
    with TemporaryDirectory() as folder:
        vocab, merges = _vocabulary_and_merges(words)
        (Path(folder) / "vocab.json").write_text(json.dumps(vocab))
        (Path(folder) / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""]))
        (Path(folder) / "tokenizer_config.json").write_text(
            json.dumps(
                {
                    "tokenizer_class": "CLIPTokenizer",
                    "model_max_length": MAX_LENGTH,
                    "bos_token": START,
                    "eos_token": END,
                    "unk_token": END,
                    "pad_token": END,
                    "do_lower_case": True,
                }
            )
        )
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    for word in words:
        if tokenizer.tokenize(word) != [f"{word}</w>"]:
            raise ValueError(f"the merges of another word cut {word!r} into {tokenizer.tokenize(word)}")
    return tokenizer


def _vocabulary_and_merges(words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Each word is grown from its end, letter by letter, so no merge can start inside another word's middle."""
    tokens = [*CHARACTERS, *(f"{character}</w>" for character in CHARACTERS)]
    merges: list[tuple[str, str]] = []
    for word in words:
        tail = f"{word[-1]}</w>"
        for letter in reversed(word[:-1]):
            if (letter, tail) not in merges:
                merges.append((letter, tail))
                tokens.append(letter + tail)
            tail = letter + tail
    return {token: index for index, token in enumerate([*dict.fromkeys(tokens), START, END])}, merges
