"""Protected changes: along directions of the text that the prompts to keep hardly use, so that these stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .deltas import UNPROTECTED, Directions
from .encodings import readable
from .model import DiffusionModel
from .prompts import Prompts, held_prompts
from .selections import selections_of
from .settings import Settings
from .texts import TextReader
from .wordings import other_endings


@torch.no_grad()
def protected_directions(model: DiffusionModel, settings: Settings, prompts: Prompts) -> Mapping[str, Directions]:
    """The directions in which those of the chosen weights may change that read the text and nothing else, by name.

    A direction is free when the held prompts' tokens have a singular value along it of less than `protect` times their
    largest one. `held_wordings` of each prompt, those that the text encoder reads whole, count as held. None without
    `protect`. Raises ValueError when no chosen weight reads the text alone, or no direction is free.
    """
    if not settings.protect:
        return UNPROTECTED
    selections = selections_of(model, settings.size)
    reading = sorted(set(selections.of(settings.weights)) & set(selections.matching("text_projections")))
    if not reading:
        raise ValueError(
            "protect: none of the chosen weights reads the text and nothing else; choose text_projections, "
            "cross_attention_kv or all as weights, or set protect to 0"
        )
    reader = TextReader(model, reading, settings.size, one_text=selections.proven)
    alike = [text for text in other_endings(prompts, settings.held_wordings) if readable(model, [text])]
    held, forget = (_gram(reader, texts) for texts in ([*held_prompts(prompts), *alike], prompts.forget))
    found: dict[str, Directions] = {}
    for group, kept, lost in zip(reader.groups, held, forget, strict=True):
        found |= dict.fromkeys(group, _directions(kept, lost, settings.protect, model.device))
    return found


def summary(protected: Mapping[str, Directions]) -> list[str]:
    """What each kind of tokens leaves free, a line each, for the user."""
    kinds = {id(directions): directions for directions in protected.values()}
    return [
        f"protect: {len(kind.free)} of {kind.free.shape[1]} directions of the text may change, those that the retain "
        f"prompts hardly use; {kind.share:.1%} of the forget prompts lies along them"
        for kind in kinds.values()
    ]


def _gram(reader: TextReader, prompts: Sequence[str]) -> list[Tensor]:
    """The sum of c c^T over all tokens c of the prompts, [D, D] in float64, for each group of layers."""
    grams: list[Tensor] = []
    for prompt in prompts:
        products = [tokens.T @ tokens for tokens in reader.read(prompt)]
        grams = [gram + product for gram, product in zip(grams, products, strict=True)] if grams else products
    return grams


def _directions(held: Tensor, forget: Tensor, tolerance: float, device: torch.device) -> Directions:
    """Those of the held prompts' matrix with small singular values, which are roots of its square's eigenvalues."""
    squares, vectors = torch.linalg.eigh(held)
    free = vectors[:, squares < tolerance**2 * squares[-1]]
    if not free.shape[1]:
        raise ValueError(
            f"protect: the retain prompts leave no direction of the text below {tolerance}; raise protect, hold fewer "
            "prompts, or set protect to 0"
        )
    share = float((free.T @ forget @ free).trace() / forget.trace())
    return Directions(free.T.to(device, torch.float32).contiguous(), share)
