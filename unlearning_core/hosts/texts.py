"""Prompts that a pipeline reads otherwise than ComfyUI, or only in part."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..prompts import quoted

ESCAPE = re.compile(r"\\[()]")
EMBEDDING = re.compile(r"(?:^|(?<=\s))embedding:\S*")


class Window(NamedTuple):
    """A tokenizer of diffusers, and how many tokens of a prompt the network reads, with those that begin and end it."""

    tokenizer: Any
    size: int


def check_plain(prompts: Iterable[str]) -> None:
    """Raises ValueError for a prompt that ComfyUI does not take literally, as diffusers does: see `construct`."""
    for prompt in prompts:
        found = construct(prompt)
        if found is not None:
            raise ValueError(
                f"prompt {quoted(prompt)}: {quoted(found)} is ComfyUI's syntax, and would be plain text here; write "
                "the prompt without it, or do this in ComfyUI"
            )


def check_windows(prompts: Iterable[str], windows: Iterable[Window]) -> None:
    """Raises ValueError for a prompt of more tokens than a window holds, whose end diffusers would drop."""
    windows = list(windows)
    for prompt in prompts:
        for tokenizer, size in windows:
            count = len(tokenizer(prompt, truncation=False, verbose=False)["input_ids"])
            if count > size:
                raise ValueError(
                    f"prompt {quoted(prompt)}: {count} tokens, and the text encoder reads {size} at most; shorten the "
                    "prompt, or do this in ComfyUI"
                )


def construct(prompt: str) -> str | None:
    """The first part that ComfyUI's `tokenize_with_weights` takes for a weight, an escape or an embedding, or None.

    Square brackets and closing parentheses alone are plain text to it.
    """
    escape, embedding = ESCAPE.search(prompt), EMBEDDING.search(prompt)
    found = [(match.start(), match.group()) for match in (escape, embedding) if match]
    opening = _opening_parenthesis(prompt)
    if opening is not None:
        found.append((opening, prompt[opening : prompt.find(")", opening) + 1 or None]))
    return min(found)[1] if found else None


def _opening_parenthesis(prompt: str) -> int | None:
    """The place of the first `(` that `parse_parentheses` splits the text at; one after an odd `)` only balances it."""
    level = 0
    for place, character in enumerate(prompt):
        if character == "(":
            if level == 0:
                return place
            level += 1
        elif character == ")":
            level -= 1
    return None
