"""Conditionings whose token vectors are free: words that no tokenizer has."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .model import Cond
from .nested import mapped, tensors_in


class FreeText:
    """A conditioning whose token vectors can be trained: tensors [..., T, D] of more than one token."""

    def __init__(self, cond: Cond, one_of: torch.Generator | None) -> None:
        """With `one_of`, one token that it picks is free in each tensor, else all are."""
        self._cond = cond
        self._masks = [_one_row(text, one_of) if one_of else torch.ones_like(text) for text in _texts(cond)]
        self.offsets = [torch.zeros_like(text, dtype=torch.float32, requires_grad=True) for text in _texts(cond)]

    def cond(self) -> Cond:
        """With the offsets, in units of the vectors' root mean square."""
        changes = zip(self.offsets, self._masks, strict=True)
        return mapped(self._cond, lambda tensor: _changed(tensor, changes) if _is_text(tensor) else tensor)


def _texts(cond: Cond) -> list[Tensor]:
    return [tensor for tensor in tensors_in(cond) if _is_text(tensor)]


def _is_text(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim > 1 and tensor.shape[-2] > 1


def _one_row(text: Tensor, generator: torch.Generator) -> Tensor:
    mask = torch.zeros_like(text)
    mask[..., int(torch.randint(text.shape[-2], (1,), generator=generator)), :] = 1
    return mask


def _changed(text: Tensor, changes: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
    offset, mask = next(changes)
    size = text.float().square().mean().sqrt()
    return text + (size * mask * offset).to(text)
