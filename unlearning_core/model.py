"""The model interface: everything that an objective or the bank may ask of a diffusion model.

k-diffusion's convention, which ComfyUI shares: `x` is the noisy latent at noise level `sigma`, a model returns the
denoised latent `x0`, and the noise prediction is `(x - x0) / sigma`. For eps-prediction and v-prediction that is the
noise, for flow matching it is the velocity, so a loss is written once for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .fingerprint import Fingerprint
    from .vocabulary import Embedded, Vocabulary

Cond = Any  # one encoded prompt, in the host's own form


class DiffusionModel(Protocol):
    """A text-to-image model whose frozen weights can be read, and perturbed for as long as deltas are attached."""

    @property
    def device(self) -> torch.device:
        """Where latents and deltas live."""
        ...

    def encode(self, prompts: Sequence[str]) -> list[Cond]:
        """One conditioning for each prompt."""
        ...

    def vocabulary(self) -> Vocabulary:
        """The words that the first text encoder has tokens for; none where it has no table of them."""
        ...

    def embedded(self, prompt: str) -> Embedded:
        """A prompt's conditioning, differentiable by the vectors of its tokens in the encoder of `vocabulary`.

        Raises as `vocabulary.embedded` does. Not for a model whose vocabulary has no words.
        """
        ...

    def predict_x0(self, x: Tensor, sigma: Tensor, conds: Sequence[Cond]) -> Tensor:
        """The denoised latents of x [B, C, H, W] at sigma [B], each under its own conditioning.

        Differentiable by weights, x and the tensors of conds.
        """
        ...

    def sigmas(self, steps: int) -> Tensor:
        """The model's noise levels for `steps` sampling steps: [steps + 1], falling, the last one 0."""
        ...

    def noise(self, seeds: Sequence[int], width: int, height: int) -> Tensor:
        """Pure-noise latents [len(seeds), C, H, W] at the highest sigma; size in pixels, checked by `check_size`."""
        ...

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Clean latents x0 [B, C, H, W] at noise level sigma [B], with unit noise of their shape."""
        ...

    def weights(self) -> Mapping[str, Tensor]:
        """Every frozen weight under its patch name, `<module>.weight` or `<module>.bias`, with the patches on it."""
        ...

    def fingerprint(self) -> Fingerprint:
        """Which base this is, for the patch."""
        ...

    def module(self, name: str) -> nn.Module:
        """The module that owns the weight `name`."""
        ...

    def attach(self, deltas: Mapping[str, nn.Module]) -> AbstractContextManager[None]:
        """Within the context, the weight `name` is `deltas[name](weight)`; after it, everything is as before."""
        ...


def check_size(width: int, height: int, multiple: int) -> None:
    """Raises ValueError for sides in pixels that are no multiples of what the model draws."""
    for name, side in (("width", width), ("height", height)):
        if side % multiple:
            raise ValueError(f"{name}: {side} pixels; this model draws sides that are multiples of {multiple}")


def noise_prediction(model: DiffusionModel, x: Tensor, sigma: Tensor, conds: Sequence[Cond]) -> Tensor:
    """`(x - x0) / sigma` for x [B, C, H, W], sigma [B]."""
    return (x - model.predict_x0(x, sigma, conds)) / sigma.view(-1, *[1] * (x.ndim - 1))


# Patch names with every "." as "_". The text stream of a transformer's block plays the part of cross-attention; what
# diffusers calls attn2 there attends to the picture.
_CROSS_ATTENTION = r"^_lora_unet_.*_attn2_|_attn_add_|_attn_to_add_|_txt_attn_"
_CROSS_ATTENTION_KV = r"^_lora_unet_.*_attn2_to_[kv]_|_attn_add_[kv]_proj_|_txt_attn_qkv_"
_ATTENTION = rf"{_CROSS_ATTENTION}|^(?!.*_modulation_).*(?:_attn\d?_|_img_attn_)"

# Layers that read the text and nothing else: U-Nets' keys and values, and transformers' projections of tokens and
# pooled text.
_TEXT_PROJECTIONS = (
    r"^_lora_unet_.*_attn2_to_[kv]_weight$|_context_embedder_weight$|_text_embedder_linear_1_weight$|_txt_in_weight$"
)

SELECTIONS: dict[str, str] = {
    "cross_attention_kv": _CROSS_ATTENTION_KV,
    "cross_attention": _CROSS_ATTENTION,
    "attention": _ATTENTION,
    "text_projections": _TEXT_PROJECTIONS,
    "not_cross_attention": rf"^(?!.*(?:{_CROSS_ATTENTION}))",
    "all": "",
}


def matching(names: Sequence[str], selection: str) -> list[str]:
    """The sorted names that tell that they belong to `selection`, one of SELECTIONS."""
    pattern = re.compile(SELECTIONS[selection])
    return sorted(name for name in names if pattern.search("_" + name.replace(".", "_")))


def check_prediction(x0: Tensor) -> None:
    """Raises ValueError when what the base predicts is no number."""
    if not x0.isfinite().all():
        raise ValueError(
            "model: the base predicts NaN or infinity; load another file or precision, or take off the LoRA or merge "
            "that breaks it"
        )
