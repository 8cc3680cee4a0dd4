"""Prompts as the model reads them: what encodes alike is one prompt to it, however it is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .digests import tensors
from .model import DiffusionModel
from .prompts import Prompts, all_prompts, quoted

TOLERANCE = 1e-5  # of the largest value: rows of one batch may take different kernels


def check_encodings(model: DiffusionModel, prompts: Prompts) -> None:
    """Raises ValueError when a patch could not tell a forget prompt from what is to stay, or a prompt has no encoding.

    That is a forget prompt that encodes as its overwrite prompt, as the empty prompt or as a retain prompt, such as one
    whose words the text encoder does not know, and a prompt that encodes to NaN or infinity.
    """
    asked = all_prompts(prompts)
    encoded = {prompt: _Encoding.of(tensors([cond])) for prompt, cond in zip(asked, model.encode(asked), strict=True)}
    for prompt, encoding in encoded.items():
        if not math.isfinite(encoding.size):
            raise ValueError(f"prompts: {quoted(prompt)} encodes to NaN or infinity; correct the weights in it")
    for forget, overwrite in prompts.pairs:
        others = {"its overwrite prompt": [overwrite], "the empty prompt": [""], "a retain prompt": prompts.retain}
        for kind, texts in others.items():
            twin = next((text for text in texts if encoded[forget].is_as(encoded[text])), None)
            if twin is not None:
                raise ValueError(
                    f"forget prompts: {quoted(forget)} encodes as {kind} {quoted(twin)} does, so no patch can "
                    "tell them apart; reword one of them, and see that the text encoder knows its words and has its "
                    "embeddings"
                )
        for other, target in prompts.pairs:
            if encoded[forget].is_as(encoded[target]):
                raise ValueError(
                    f"forget prompts: {quoted(forget)} encodes as {quoted(target)} does, which {quoted(other)} is to "
                    "become; choose another prompt for that"
                )
            twins = encoded[forget].is_as(encoded[other])
            if twins and not encoded[overwrite].is_as(encoded[target]):
                raise ValueError(
                    f"forget prompts: {quoted(forget)} and {quoted(other)} encode alike, and are to become "
                    f"{quoted(overwrite)} and {quoted(target)}; keep one of them"
                )


class _Encoding(NamedTuple):
    """The tensors of an encoded prompt, under their places; of thousands, few pairs are compared in full."""

    parts: Mapping[str, Tensor]
    size: float  # the sum of all values without their signs
    slack: float  # how far apart the sizes of two that are the same can be

    @classmethod
    def of(cls, parts: Mapping[str, Tensor]) -> _Encoding:
        values = [part.double().abs() for part in parts.values() if part.numel()]
        size, largest = (float(sum(map(of, values))) for of in (torch.sum, lambda part: part.max() * part.numel()))
        return cls(parts, size, 2 * TOLERANCE * largest)  # twice, as rounding is in it too

    def is_as(self, other: _Encoding) -> bool:
        """As `same_encoding`."""
        return abs(self.size - other.size) <= self.slack and same_encoding(self.parts, other.parts)


def readable(model: DiffusionModel, prompts: Sequence[str]) -> bool:
    """Whether the text encoder reads all of these prompts; a host may refuse what is longer than its window."""
    try:
        model.encode(prompts)
    except ValueError:
        return False
    return True


def same_encoding(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    """Whether the tensors of two encoded prompts, under their places, are the same but for rounding."""
    return ours.keys() == theirs.keys() and all(_close(ours[place], theirs[place]) for place in ours)


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    if not one.numel():
        return True
    first, second = one.double(), other.double()  # masks may be of true and false
    return bool((first - second).abs().max() <= TOLERANCE * first.abs().max())
