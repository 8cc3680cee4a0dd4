"""Patch names: what LoRA files call the weights of diffusers' networks."""

from __future__ import annotations

import re

TRANSFORMER = "transformer."  # of DiTs; diffusers reads names with this prefix in peft's style only, without alpha
UNET = "lora_unet_"

# kohya's names have "_" for ".", and diffusers' loaders since 0.34 find the layers within blocks alone again: conv_in,
# conv_out and time_embedding are lost in some of them, add_embedding in all.
_WITHIN_BLOCKS = re.compile(
    r"(down_blocks_\d+|mid_block|up_blocks_\d+)_("
    r"resnets_\d+_(conv\d|conv_shortcut|time_emb_proj)|"
    r"(down|up)samplers_\d+_conv|"
    r"attentions_\d+_(proj_in|proj_out|transformer_blocks_\d+_(attn\d_to_(q|k|v|out_0)|ff_net_\d+(_proj)?))"
    r")\.weight"
)


def unet_name(name: str) -> str:
    """kohya's name of a U-Net's parameter: `down_blocks.0.….to_k.weight` -> `lora_unet_down_blocks_0_…_to_k.weight`.

    ComfyUI, A1111, Forge and diffusers read it.
    """
    module, _, kind = name.rpartition(".")
    return f"{UNET}{module.replace('.', '_')}.{kind}"


def transformer_name(name: str) -> str:
    """The name of a transformer's parameter in diffusers' LoRA files.

    ComfyUI and diffusers read it for SD3 and FLUX, Forge for FLUX; A1111 knows neither family by these names.
    """
    return f"{TRANSFORMER}{name}"


def loras_reach(name: str) -> bool:
    """Whether every LoRA loader that reads a matrix's kind of names finds its layer by this patch name."""
    return not name.startswith(UNET) or bool(_WITHIN_BLOCKS.fullmatch(name.removeprefix(UNET)))
