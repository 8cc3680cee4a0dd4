"""Prompts as the model reads them: what encodes alike is one prompt to it, however it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    encoded = {prompt: tensors([cond]) for prompt, cond in zip(asked, model.encode(asked), strict=True)}
    for prompt, parts in encoded.items():
        if not all(part.isfinite().all() for part in parts.values()):
            raise ValueError(f"prompts: {quoted(prompt)} encodes to NaN or infinity; correct the weights in it")
    for forget, overwrite in prompts.pairs:
        others = {"its overwrite prompt": [overwrite], "the empty prompt": [""], "a retain prompt": prompts.retain}
        for kind, texts in others.items():
            twin = next((text for text in texts if same_encoding(encoded[forget], encoded[text])), None)
            if twin is not None:
                raise ValueError(
                    f"forget prompts: {quoted(forget)} encodes as {kind} {quoted(twin)} does, so no patch can "
                    "tell them apart; reword one of them, and see that the text encoder knows its words and has its "
                    "embeddings"
                )
        for other, target in prompts.pairs:
            if same_encoding(encoded[forget], encoded[target]):
                raise ValueError(
                    f"forget prompts: {quoted(forget)} encodes as {quoted(target)} does, which {quoted(other)} is to "
                    "become; choose another prompt for that"
                )
            twins = same_encoding(encoded[forget], encoded[other])
            if twins and not same_encoding(encoded[overwrite], encoded[target]):
                raise ValueError(
                    f"forget prompts: {quoted(forget)} and {quoted(other)} encode alike, and are to become "
                    f"{quoted(overwrite)} and {quoted(target)}; keep one of them"
                )


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
