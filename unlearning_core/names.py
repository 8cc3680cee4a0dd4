"""Patch names: what LoRA files call the weights of diffusers' networks."""

from __future__ import annotations

TRANSFORMER = "transformer."  # of DiTs; diffusers reads names with this prefix in peft's style only, without alpha


def unet_name(name: str) -> str:
    """kohya's name of a U-Net's parameter: `down_blocks.0.….to_k.weight` -> `lora_unet_down_blocks_0_…_to_k.weight`.

    ComfyUI, A1111, Forge and diffusers read it.
    """
    module, _, kind = name.rpartition(".")
    return f"lora_unet_{module.replace('.', '_')}.{kind}"


def transformer_name(name: str) -> str:
    """The name of a transformer's parameter in diffusers' LoRA files.

    ComfyUI and diffusers read it for SD3 and FLUX, Forge for FLUX; A1111 knows neither family by these names.
    """
    return f"{TRANSFORMER}{name}"
